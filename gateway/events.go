package gateway

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// events are the metrics of what a worker does to own partitions and to make changes durable. None but appends and gate has to
// do with how much it serves.
type events struct {
	gate, appends            prometheus.Histogram
	unstored                 *prometheus.CounterVec
	strays, dead             prometheus.Counter
	incarnations, unrenewed  prometheus.Counter
	renewals, begun, handing prometheus.Histogram
	ended, copyReads         *prometheus.CounterVec
}

// register makes them. What has not happened yet is there as 0, so that the first time is seen as an increase.
func (e *events) register(r *prometheus.Registry) {
	histogram := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: durations})
		r.MustRegister(h)
		return h
	}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		r.MustRegister(c)
		return c
	}
	counters := func(name, help, label string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		r.MustRegister(c)
		for _, v := range values {
			c.WithLabelValues(v)
		}
		return c
	}
	var causes []string
	for _, end := range engine.Endings {
		causes = append(causes, string(end))
	}
	e.gate = histogram("perdure_commit_duration_seconds", "From the end of a turn until its changes were durable, and its reply could leave.")
	e.appends = histogram("perdure_append_duration_seconds", "From sending a record or a snapshot until it was durable.")
	e.unstored = counters("perdure_appends_failed_total", "Appends that were refused, or whose outcome is unknown.", "outcome",
		journal.Refused.String(), journal.Unknown.String())
	e.strays = counter("perdure_strays_total", "Messages in the journal that a reader did not count.")
	e.dead = counter("perdure_dead_letters_total", "Messages to objects that were given up.")
	e.copyReads = counters("perdure_copy_reads_total", "Reads that came to a standby's copies: answered, or passed on to the owner.", "outcome",
		copyAnswered, copyPassedOn)
	e.incarnations = counter("perdure_lease_incarnations_total", "How often the worker began anew, under another lease.")
	e.renewals = histogram("perdure_lease_renewal_duration_seconds", "How long renewals of the lease took that succeeded.")
	e.unrenewed = counter("perdure_lease_renewals_failed_total", "Renewals of the lease that failed.")
	e.begun = histogram("perdure_epoch_begin_duration_seconds", "From when the worker wanted a partition until it had it; waiting for a former owner is in it.")
	e.ended = counters("perdure_epochs_ended_total", "Epochs that ended, by cause.", "cause", causes...)
	e.handing = histogram("perdure_handover_duration_seconds", "From when a partition's requests were not taken any more until it was released to another worker.")
	for name, count := range map[string]struct {
		help string
		of   func() uint64
	}{
		"perdure_requests_passed_on_total": {"Requests that came to the slot of another object.", natsbus.PassedOn},
		"perdure_requests_relayed_total":   {"Calls passed on from public subjects; none if the server maps them.", natsbus.Relayed},
		"perdure_slow_consumers_total":     {"How often requests or answers began to be dropped, because the process got no time to run.", jetstream.SlowConsumers},
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: count.help}, func() float64 { return float64(count.of()) }))
	}
}

const copyAnswered, copyPassedOn = "answered", "passed_on"

func (e *events) observer() engine.Observer {
	seconds := func(h prometheus.Histogram) func(time.Duration) {
		return func(d time.Duration) { h.Observe(d.Seconds()) }
	}
	return engine.Observer{
		Gate:     seconds(e.gate),
		Append:   seconds(e.appends),
		Unstored: func(o journal.Outcome) { e.unstored.WithLabelValues(o.String()).Inc() },
		Stray:    func(journal.Message) { e.strays.Inc() },
		Dead:     func(journal.Message) { e.dead.Inc() },
		CopyRead: func(answered bool) {
			outcome := copyPassedOn
			if answered {
				outcome = copyAnswered
			}
			e.copyReads.WithLabelValues(outcome).Inc()
		},
		Incarnation: func(journal.Incarnation) { e.incarnations.Inc() },
		Renewed:     seconds(e.renewals),
		Unrenewed:   func(error) { e.unrenewed.Inc() },
		Begun:       seconds(e.begun),
		Ended:       func(cause engine.Ending) { e.ended.WithLabelValues(string(cause)).Inc() },
		HandedOver:  seconds(e.handing),
	}
}
