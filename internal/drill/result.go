package drill

import (
	"slices"
	"time"
)

// Verdict is what came of a drill.
type Verdict string

// The verdicts. The zero value is the cautious one.
const (
	Unproven Verdict = ""       // it could not be run or checked to its end
	Passed   Verdict = "passed" // nothing was found
	Failed   Verdict = "failed"
)

// Millis is a duration in milliseconds, as JSON has it.
type Millis float64

func millis(d time.Duration) Millis { return Millis(float64(d.Microseconds()) / 1000) }

// Spread is the middle and the end of several durations.
type Spread struct {
	Of  int    `json:"of"` // how many
	P50 Millis `json:"p50_ms"`
	P99 Millis `json:"p99_ms"`
	Max Millis `json:"max_ms"`
}

// spread is that of waits in µs.
func spread(waits []uint32) Spread {
	slices.Sort(waits)
	of := func(share float64) Millis {
		return millis(time.Duration(percentile(waits, share)) * time.Microsecond)
	}
	return Spread{len(waits), of(0.5), of(0.99), of(1)}
}

// Result is what came of a drill.
type Result struct {
	Verdict Verdict   `json:"verdict"`
	Run     string    `json:"run"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"` // of the load

	Objects      int `json:"objects"`
	Partitions   int `json:"partitions"`
	Calls        int `json:"calls"`
	Acknowledged int `json:"acknowledged"`
	Refused      int `json:"refused"`
	Unknown      int `json:"unknown"`
	Applied      int `json:"unknown_applied"` // of those
	Failures     int `json:"failed_tries"`    // that were repeated, or given up

	Lost       int       `json:"lost"`
	Twice      int       `json:"applied_twice"`
	OutOfOrder int       `json:"out_of_order"`
	Unasked    int       `json:"unasked"`
	State      int       `json:"state"`
	Journal    int       `json:"journal"`
	Findings   []Finding `json:"findings,omitempty"` // at most [FindingsMax]; the numbers count all

	Latency      Spread         `json:"latency"`      // of answered calls, from the first try on
	Calm         Spread         `json:"calm"`         // the longest time without answer before the first disturbance, over objects
	Unanswered   Spread         `json:"unanswered"`   // time without answer, over all disturbances and objects
	Disturbances []*Disturbance `json:"disturbances"` // in their order

	Read   Read    `json:"read"`
	Owners []Owner `json:"owners"`

	Timeline []Bucket `json:"-"`
	windows  []window
	account  []*account
}

// Disturbance is one that took place.
type Disturbance struct {
	Act        Act    `json:"act"`
	Target     Target `json:"target"`
	At         Millis `json:"at_ms"`
	Long       Millis `json:"long_ms"`    // until it was let run again
	Back       Millis `json:"back_ms"`    // from At until all partitions had answered calls sent after it was done; 0: the load ended before
	Partitions int    `json:"partitions"` // in which an epoch began before the next disturbance
	Unanswered Spread `json:"unanswered"`
	Others     Millis `json:"others_max_ms"` // the longest of objects in other partitions

	at time.Duration
}

// Read is what was read at the end.
type Read struct {
	Looked  int `json:"looked"`  // objects that were asked
	Records int `json:"records"` // of the drill's objects, that count
	Commits int `json:"commits"`
	// All that package verify read, warnings, and severe findings that are older than the drill.
	Messages int `json:"messages"`
	Epochs   int `json:"epochs"`
	Warnings int `json:"warnings"`
	Before   int `json:"severe_before"`
}

// Owner is a worker's ownership of a partition during the load, by the server's clock.
type Owner struct {
	Partition int    `json:"partition"`
	From      Millis `json:"from_ms"`
	To        Millis `json:"to_ms"`
	Worker    string `json:"worker"`
	Epoch     uint64 `json:"epoch"`
	Software  string `json:"software"`
}

func newResult(cfg Config) *Result {
	return &Result{Run: cfg.Run, Objects: cfg.Objects, Partitions: cfg.Partitions, Disturbances: []*Disturbance{}, Owners: []Owner{}}
}

// Faulty tells how many things were found.
func (r *Result) Faulty() int {
	return r.Lost + r.Twice + r.OutOfOrder + r.Unasked + r.State + r.Journal
}

func (r *Result) disturbed(now time.Duration, s Step) {
	r.Disturbances = append(r.Disturbances, &Disturbance{Act: s.Act, Target: s.Target, At: millis(now), Long: millis(s.Long), at: now})
}

// lasted notes how long the target of the last disturbance was down.
func (r *Result) lasted(long time.Duration) {
	r.Disturbances[len(r.Disturbances)-1].Long = millis(long)
}

// load takes what the ledger has when the load has ended.
func (r *Result) load(l *Ledger, began time.Time, took time.Duration) {
	l.timeline.close()
	r.Began, r.Seconds = began, took.Seconds()
	r.Calls, r.Acknowledged, r.Refused, r.Unknown, r.Failures = l.calls, l.told, l.refused, l.unknown, l.failures
	r.Latency = Spread{l.latency.n, millis(l.latency.percentile(0.5)), millis(l.latency.percentile(0.99)), millis(l.latency.max)}
	r.Timeline, r.windows, r.account = l.timeline.buckets, l.windows, l.objects
	if len(r.windows) > 0 {
		r.Calm = spread(r.windows[0].of(nil))
	}
	r.found(&l.findings)
}

// found takes findings.
func (r *Result) found(f *findings) {
	for fault, to := range map[Fault]*int{Lost: &r.Lost, Twice: &r.Twice, OutOfOrder: &r.OutOfOrder, Unasked: &r.Unasked, State: &r.State, Journal: &r.Journal} {
		*to += f.count[fault]
	}
	r.Findings = append(r.Findings, f.told...)
	r.Findings = r.Findings[:min(len(r.Findings), FindingsMax)]
}

// checked takes what was read when the load had ended.
func (r *Result) checked(l *Ledger, read reading, looked int) {
	r.found(&read.audit.found)
	r.Applied = read.audit.Applied
	v := read.verified
	r.Read = Read{looked, read.audit.Records, read.audit.Commits, v.Messages, v.Epochs, v.Warnings, read.before}
	r.own(read.epochs)
	r.disturbances(read.epochs)
	r.Verdict = Passed
	if r.Faulty() > 0 {
		r.Verdict = Failed
	}
}

// own tells who owned what.
func (r *Result) own(partitions [][]Epoch) {
	end := millis(time.Duration(r.Seconds * float64(time.Second)))
	for p, epochs := range partitions {
		for i, e := range epochs {
			o := Owner{p, max(millis(e.At.Sub(r.Began)), 0), end, e.Record.Worker, e.Record.Epoch.Number, e.Record.Software}
			if i+1 < len(epochs) {
				o.To = min(millis(epochs[i+1].At.Sub(r.Began)), end)
			}
			if !e.Record.Release && o.To > o.From {
				r.Owners = append(r.Owners, o)
			}
		}
	}
}

// disturbances tells how long objects did not answer.
func (r *Result) disturbances(partitions [][]Epoch) {
	var all []uint32
	for i, d := range r.Disturbances {
		w := r.windows[i+1]
		d.Back = millis(w.back)
		changed := map[int]bool{}
		for p, epochs := range partitions {
			for _, e := range epochs {
				if at := e.At.Sub(r.Began); !e.Record.Release && at >= w.from && at < w.to {
					changed[p] = true
				}
			}
		}
		d.Partitions = len(changed)
		waits := w.of(func(object int) bool { return len(changed) == 0 || changed[r.account[object].partition] })
		all = append(all, waits...)
		d.Unanswered = spread(waits)
		d.Others = spread(w.of(func(object int) bool { return len(changed) > 0 && !changed[r.account[object].partition] })).Max
	}
	r.Unanswered = spread(all)
}

// of are the times without answer of those objects that were asked; nil: of all.
func (w window) of(which func(object int) bool) (waits []uint32) {
	for i, wait := range w.waits {
		if wait != notAsked && (which == nil || which(i)) {
			waits = append(waits, wait)
		}
	}
	return waits
}
