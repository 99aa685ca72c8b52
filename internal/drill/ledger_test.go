package drill

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// waits is a ledger of two objects in two partitions.
func waits() *Ledger {
	return NewLedger(testRun, false, []string{"c/a", "c/b"}, func(object int) int { return object })
}

// TestTimeWithoutAnswer: what counts is a time in which somebody asked and nobody answered, from the disturbance on.
func TestTimeWithoutAnswer(t *testing.T) {
	t.Parallel()
	l := waits()
	a := l.Begin(0, 100*ms)
	l.Acknowledged(a, 1, "", 120*ms) // 20
	a = l.Begin(0, 900*ms)           // nobody asked meanwhile
	l.Acknowledged(a, 2, "", 910*ms)
	a = l.Begin(0, 990*ms)
	l.Cut(1000 * ms)
	second := l.Begin(0, 1100*ms)
	l.Acknowledged(a, 3, "", 1400*ms)      // 400 from the cut
	l.Acknowledged(second, 4, "", 1450*ms) // 50 more
	b := l.Begin(1, 1500*ms)
	l.Unknown(b) // the caller gives up, and the wait goes on
	b = l.Begin(1, 1700*ms)
	l.Acknowledged(b, 1, "", 2100*ms) // 600
	l.Begin(1, 2500*ms)
	l.Cut(3000 * ms) // 500 so far
	l.Cut(3200 * ms) // 200 of that one; the other was not asked
	want := [][]uint32{{20_000, notAsked}, {400_000, 600_000}, {notAsked, 200_000}}
	for i, w := range l.windows {
		if !slices.Equal(w.waits, want[i]) {
			t.Errorf("window %d from %v to %v has %v; want %v", i, w.from, w.to, w.waits, want[i])
		}
	}
	if len(l.windows) != 3 || l.windows[1].from != 1000*ms || l.windows[1].to != 3000*ms {
		t.Errorf("windows %+v", l.windows)
	}
}

// TestServedIsAnAnswerToALaterCall in each partition: one that was sent before may have been answered before.
func TestServedIsAnAnswerToALaterCall(t *testing.T) {
	t.Parallel()
	l := waits()
	early := l.Begin(0, 90*ms)
	other := l.Begin(1, 110*ms)
	l.Acknowledged(early, 1, "", 120*ms)
	l.Acknowledged(other, 1, "", 120*ms)
	if l.Served(100 * ms) {
		t.Error("partition 0 answered a call that was sent before")
	}
	l.Refused(l.Begin(0, 130*ms), 140*ms) // which is an answer
	if !l.Served(100 * ms) {
		t.Error("both have answered calls that were sent later")
	}
}

func TestTheTimelineHasTheLatenciesOfEachBucket(t *testing.T) {
	t.Parallel()
	var tl timeline
	for i := range 100 {
		tl.answer(50*ms, time.Duration(i+1)*ms)
	}
	tl.at(60*ms).Failures++
	tl.answer(310*ms, 7*ms)
	tl.close()
	want := []Bucket{{100, 1, 50 * ms, 99 * ms, 100 * ms}, {}, {}, {1, 0, 7 * ms, 7 * ms, 7 * ms}}
	if !slices.Equal(tl.buckets, want) {
		t.Errorf("%+v; want %+v", tl.buckets, want)
	}
}

// TestAHistogramIsNearTheTruth: never below it, and at most a thirty-second above.
func TestAHistogramIsNearTheTruth(t *testing.T) {
	t.Parallel()
	var h histogram
	var all []time.Duration
	for d := time.Microsecond; d < time.Hour; d += d/7 + time.Microsecond {
		h.add(d)
		all = append(all, d.Truncate(time.Microsecond))
	}
	for _, share := range []float64{0, 0.01, 0.3, 0.5, 0.9, 0.99, 1} {
		truth, got := percentile(all, share), h.percentile(share)
		if got < truth || got > truth+truth/32+time.Microsecond {
			t.Errorf("%v: %v; the truth is %v", share, got, truth)
		}
	}
	if got := (&histogram{}).percentile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
