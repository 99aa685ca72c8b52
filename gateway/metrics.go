package gateway

import (
	"cmp"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/perdure/perdure/engine"
)

// Metrics are what /metrics shows. Labels are classes, methods, codes, routes and statuses, never names of objects or
// anything else that callers choose. Safe for concurrent use.
type Metrics struct {
	http.Handler
	registry *prometheus.Registry

	calls    *prometheus.CounterVec
	ran      *prometheus.HistogramVec
	waited   *prometheus.HistogramVec
	woken    *prometheus.HistogramVec
	replayed *prometheus.HistogramVec
	requests *prometheus.CounterVec
	events   events
}

// durations in seconds, from what memory takes to what a caller waits at most.
var durations = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// NewMetrics makes metrics in a registry of their own, with those of the Go runtime and the process.
func NewMetrics(version string) *Metrics {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: durations}, labels)
	}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perdure_calls_total",
			Help: "Turns that ran, by the code of their error, or ok. A repeat that got a recorded reply is none."}, []string{"class", "method", "code"}),
		ran:    histogram("perdure_call_duration_seconds", "How long methods ran; until their changes are durable is not in it.", "class", "method"),
		waited: histogram("perdure_queue_wait_seconds", "How long requests waited for their object.", "class"),
		woken:  histogram("perdure_activation_duration_seconds", "How long objects took to come back into memory.", "class"),
		replayed: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "perdure_activation_records",
			Help: "How many records were replayed for it, behind a snapshot.", Buckets: []float64{0, 1, 10, 100, 1000, 10000, 100000}}, []string{"class"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perdure_http_requests_total",
			Help: "HTTP requests by route and status; 499: the caller left before the reply."}, []string{"route", "status"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "perdure_build_info", Help: "1, with the version of the software.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}})
	info.Set(1)
	m.registry.MustRegister(m.calls, m.ran, m.waited, m.woken, m.replayed, m.requests, info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.events.register(m.registry)
	m.Handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
	return m
}

// Observer is for the worker's [engine.Config].
func (m *Metrics) Observer() engine.Observer {
	type labels struct {
		class, method string
		code          engine.Code
	}
	type series struct {
		calls       prometheus.Counter
		ran, waited prometheus.Observer
	}
	var mu sync.RWMutex
	known := map[labels]series{} // or each turn would look for three
	o := m.events.observer()
	o.Turn = func(class, method string, code engine.Code, waited, ran time.Duration) {
		of := labels{class, method, code}
		mu.RLock()
		s, ok := known[of]
		mu.RUnlock()
		if !ok {
			s = series{m.calls.WithLabelValues(class, method, string(cmp.Or(code, "ok"))),
				m.ran.WithLabelValues(class, method), m.waited.WithLabelValues(class)}
			mu.Lock()
			known[of] = s
			mu.Unlock()
		}
		s.calls.Inc()
		s.ran.Observe(ran.Seconds())
		s.waited.Observe(waited.Seconds())
	}
	o.Wake = func(class string, took time.Duration, records int) {
		m.woken.WithLabelValues(class).Observe(took.Seconds())
		m.replayed.WithLabelValues(class).Observe(float64(records))
	}
	return o
}

// Watch adds what the worker is doing, asked for at each scrape. It is called once.
func (m *Metrics) Watch(status func() engine.Status) { m.registry.MustRegister(worker(status)) }

func (m *Metrics) served(route string, status int) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

// worker collects a worker's status: one question for all gauges.
type worker func() engine.Status

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	residentDesc = desc("perdure_objects_resident", "Objects in memory.")
	memoryDesc   = desc("perdure_memory_bytes", "Memory of the objects in memory.")
	queuedDesc   = desc("perdure_queued_bytes", "Memory of the requests that wait for their objects.")
	ownedDesc    = desc("perdure_partitions_owned", "Partitions that this worker owns and serves.")
	shareDesc    = desc("perdure_partitions_share", "Partitions that are this worker's to own.")
	alarmsDesc   = desc("perdure_alarms", "Partitions of this worker with an alarm: of their journal, or of the inbox.", "kind")
	leaseDesc    = desc("perdure_lease_validity_seconds", "How long the worker may rely on its lease from now.")
	diskFullDesc = desc("perdure_disk_full", "1 while commits are refused for want of disk.")
	openDesc     = desc("perdure_messages_open", "Messages to objects that are taken from the inbox and not answered.")
	heldDesc     = desc("perdure_objects_held", "Objects whose messages wait, since one failed or takes long.")
)

// Describe implements [prometheus.Collector].
func (worker) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{residentDesc, memoryDesc, queuedDesc, ownedDesc, shareDesc, alarmsDesc, leaseDesc, diskFullDesc, openDesc, heldDesc} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (f worker) Collect(to chan<- prometheus.Metric) {
	s := f()
	var owned, share, open, held, journals, inboxes int
	one := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	for _, p := range s.Owned {
		owned += one(p.Owned)
		share += one(p.Share)
		journals += one(p.Alarm != "")
		inboxes += one(p.Inbox.Alarm != "")
		open += p.Inbox.Open
		held += p.Inbox.Held
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(residentDesc, float64(s.Resident))
	gauge(memoryDesc, float64(s.Memory))
	gauge(queuedDesc, float64(s.Queued))
	gauge(ownedDesc, float64(owned))
	gauge(shareDesc, float64(share))
	gauge(alarmsDesc, float64(journals), "journal")
	gauge(alarmsDesc, float64(inboxes), "inbox")
	gauge(leaseDesc, s.Lease.Seconds())
	gauge(diskFullDesc, float64(one(s.DiskFull != "")))
	gauge(openDesc, float64(open))
	gauge(heldDesc, float64(held))
}
