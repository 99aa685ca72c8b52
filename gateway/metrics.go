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
	requests *prometheus.CounterVec
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
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "perdure_http_requests_total",
			Help: "HTTP requests by route and status; 499: the caller left before the reply."}, []string{"route", "status"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: "perdure_build_info", Help: "1, with the version of the software.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}})
	info.Set(1)
	m.registry.MustRegister(m.calls, m.ran, m.waited, m.woken, m.requests, info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
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
	return engine.Observer{
		Turn: func(class, method string, code engine.Code, waited, ran time.Duration) {
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
		},
		Wake: func(class string, took time.Duration) { m.woken.WithLabelValues(class).Observe(took.Seconds()) },
	}
}

// Watch adds what the worker is doing, asked for at each scrape. It is called once.
func (m *Metrics) Watch(status func() engine.Status) { m.registry.MustRegister(worker(status)) }

func (m *Metrics) served(route string, status int) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
}

// worker collects a worker's status: one question for all gauges.
type worker func() engine.Status

var (
	residentDesc = prometheus.NewDesc("perdure_objects_resident", "Objects in memory.", nil, nil)
	memoryDesc   = prometheus.NewDesc("perdure_memory_bytes", "Memory of the objects in memory.", nil, nil)
	ownedDesc    = prometheus.NewDesc("perdure_partitions_owned", "Partitions that this worker owns.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (worker) Describe(to chan<- *prometheus.Desc) {
	to <- residentDesc
	to <- memoryDesc
	to <- ownedDesc
}

// Collect implements [prometheus.Collector].
func (f worker) Collect(to chan<- prometheus.Metric) {
	s := f()
	owned := 0
	for _, p := range s.Owned {
		if p.Owned {
			owned++
		}
	}
	gauge := func(d *prometheus.Desc, v float64) { to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	gauge(residentDesc, float64(s.Resident))
	gauge(memoryDesc, float64(s.Memory))
	gauge(ownedDesc, float64(owned))
}
