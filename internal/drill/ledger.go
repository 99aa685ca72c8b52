package drill

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
)

// CallsMax is how many calls a drill may make: the ledger keeps four bytes of each that was acknowledged.
const CallsMax = 50_000_000

// Ledger is what was asked and told. It reads no clock: times are from the drill's begin, and never decrease. It is for
// one goroutine at a time.
type Ledger struct {
	run        string
	counts     bool // the class is the counter: an answer is the version
	objects    []*account
	partitions []partition
	findings   findings
	timeline   timeline
	latency    histogram
	windows    []window
	refused    int
	unknown    int
	told       int
	calls      int
	failures   int           // of tries
	done       time.Duration // when the last disturbance was
}

// account is one object of the drill.
type account struct {
	name      string // class/name
	partition int
	calls     uint32
	told      int
	acked     []uint32        // acked[v-1]: the number of the call that was told version v; 0: none was
	high      journal.Version // the highest that was told
	strange   []strange       // acknowledged, and not in acked: another call was told that version before, or it cannot be
	refused   []uint32
	unknown   []uint32
	wait      wait
}

type strange struct {
	call    uint32
	version journal.Version
}

// wait is an object's time without answer.
type wait struct {
	pending  int
	starving bool          // callers gave up, and no answer came since
	since    time.Duration // of the wait, if there is one
	asked    bool          // since the last disturbance
	longest  time.Duration // likewise
}

type partition struct {
	objects  int
	answered time.Duration // when the latest call was sent that was answered; -1: none was
	back     time.Duration // when the first call was answered that was sent after the disturbance was done; -1: none was
}

// window is the time from a disturbance to the next; the first one is before all disturbances.
type window struct {
	from, to time.Duration
	back     time.Duration // from then until all partitions had answered calls that were sent after it; 0: they did not
	waits    []uint32      // the longest time without answer of each object, in µs; notAsked
}

const notAsked = 1<<32 - 1

// Call is a call that was sent.
type Call struct {
	object int
	number uint32 // of the object's calls, from 1
	sent   time.Duration
	floor  journal.Version // the highest version that was told before
}

// NewLedger makes a ledger of objects, class/name each, and the partitions that they are in.
func NewLedger(run string, counts bool, names []string, partitionOf func(object int) int) *Ledger {
	l := &Ledger{run: run, counts: counts}
	for i, name := range names {
		p := partitionOf(i)
		for len(l.partitions) <= p {
			l.partitions = append(l.partitions, partition{answered: -1, back: -1})
		}
		l.partitions[p].objects++
		l.objects = append(l.objects, &account{name: name, partition: p})
	}
	return l
}

// ID is the request's id of a call: an object has each at most once.
func (l *Ledger) ID(c Call) string { return l.run + "." + strconv.FormatUint(uint64(c.number), 10) }

// number is the call's number in a request's id; 0 if it is none of this drill.
func (l *Ledger) number(id string) uint32 {
	digits, ok := strings.CutPrefix(id, l.run+".")
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || strconv.FormatUint(n, 10) != digits {
		return 0
	}
	return uint32(n)
}

// Begin notes that a call of an object is about to be sent.
func (l *Ledger) Begin(object int, now time.Duration) Call {
	l.calls++
	o := l.objects[object]
	o.calls++
	w := &o.wait
	if w.pending == 0 && !w.starving {
		w.since = now
	}
	w.pending++
	w.asked = true
	return Call{object: object, number: o.calls, sent: now, floor: o.high}
}

// Acknowledged notes that a call was answered, with the object's version and what the method returned.
func (l *Ledger) Acknowledged(c Call, version journal.Version, body string, now time.Duration) {
	l.told++
	l.answered(c, now)
	o := l.objects[c.object]
	o.told++
	switch i := int(version) - 1; {
	case version == 0 || version > journal.Version(o.calls):
		o.strange = append(o.strange, strange{c.number, version})
	default:
		for len(o.acked) <= i {
			o.acked = append(o.acked, 0)
		}
		if o.acked[i] != 0 {
			o.strange = append(o.strange, strange{c.number, version})
			break
		}
		o.acked[i] = c.number
	}
	if version <= c.floor {
		l.finding(OutOfOrder, o, c.number, "it was told version %d after version %d had been told before it was sent", version, c.floor)
	} else if l.counts && body != strconv.FormatUint(uint64(version), 10) {
		l.finding(OutOfOrder, o, c.number, "it was told the count %.40s at version %d", body, version)
	}
	o.high = max(o.high, version)
}

// Refused notes that a call was answered, and certainly not executed.
func (l *Ledger) Refused(c Call, now time.Duration) {
	l.refused++
	o := l.objects[c.object]
	o.refused = append(o.refused, c.number)
	l.answered(c, now)
}

// Unknown notes that a caller gave up.
func (l *Ledger) Unknown(c Call) {
	l.unknown++
	o := l.objects[c.object]
	o.unknown = append(o.unknown, c.number)
	o.wait.pending--
	o.wait.starving = true
}

// Abandoned notes that a caller gave up on a call that certainly was not executed: nobody took it.
func (l *Ledger) Abandoned(c Call) {
	l.refused++
	o := l.objects[c.object]
	o.refused = append(o.refused, c.number)
	o.wait.pending--
	o.wait.starving = true
}

// Failed notes that a try of some call had no answer, or one that says to try again.
func (l *Ledger) Failed(now time.Duration) {
	l.failures++
	l.timeline.at(now).Failures++
}

func (l *Ledger) answered(c Call, now time.Duration) {
	o := l.objects[c.object]
	o.wait.pending--
	o.wait.end(now)
	p := &l.partitions[o.partition]
	p.answered = max(p.answered, c.sent)
	if p.back < 0 && c.sent >= l.done {
		p.back = now
	}
	l.timeline.answer(now, now-c.sent)
	l.latency.add(now - c.sent)
}

// end ends a wait with an answer; another begins if calls are under way.
func (w *wait) end(now time.Duration) {
	w.longest = max(w.longest, now-w.since)
	w.since, w.starving = now, false
}

// Cut ends a window, at a disturbance or at the end, and begins the next.
func (l *Ledger) Cut(now time.Duration) {
	from := time.Duration(0)
	if n := len(l.windows); n > 0 {
		from = l.windows[n-1].to
	}
	w := window{from: from, to: now, back: l.back(from), waits: make([]uint32, len(l.objects))}
	for i, o := range l.objects {
		w.waits[i] = o.wait.cut(now)
	}
	l.windows = append(l.windows, w)
}

// Done notes that a disturbance was done, the process gone: who answers what is sent from now on is another.
func (l *Ledger) Done(now time.Duration) {
	l.done = now
	for i := range l.partitions {
		l.partitions[i].back = -1
	}
}

func (l *Ledger) back(from time.Duration) (took time.Duration) {
	for _, p := range l.partitions {
		if p.objects > 0 && p.back < 0 {
			return 0
		}
		took = max(took, p.back-from)
	}
	return took
}

// cut is the longest time without answer of the window that ends now, and begins the next.
func (w *wait) cut(now time.Duration) uint32 {
	if w.pending > 0 || w.starving {
		w.longest = max(w.longest, now-w.since)
		w.since = now
	}
	longest := uint32(notAsked)
	if w.asked {
		longest = uint32(min(w.longest.Microseconds(), notAsked-1))
	}
	w.longest, w.asked = 0, w.pending > 0
	return longest
}

// Served tells whether each partition that has objects answered a call that was sent after a time.
func (l *Ledger) Served(after time.Duration) bool {
	for _, p := range l.partitions {
		if p.objects > 0 && p.answered < after {
			return false
		}
	}
	return true
}

func (l *Ledger) finding(k Fault, o *account, call uint32, format string, args ...any) {
	l.findings.add(Finding{Fault: k, Object: o.name, Call: l.id(call), What: fmt.Sprintf(format, args...)})
}

func (l *Ledger) id(call uint32) string {
	if call == 0 {
		return ""
	}
	return l.ID(Call{number: call})
}

// progress is how far it is.
func (l *Ledger) progress(now time.Duration) Progress {
	return Progress{At: now, Acknowledged: l.told, Refused: l.refused, Unknown: l.unknown, Waiting: l.calls - l.told - l.refused - l.unknown,
		Disturbances: len(l.windows), Failures: l.failures}
}
