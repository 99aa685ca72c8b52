package limiter

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

// gate is a limiter that asks somebody else before it answers: a turn that takes time, and a commit.
type gate struct{}

var gates = engine.Class[gate]{Name: "gate", Limits: engine.Limits{Queue: 8}}

const checks = engine.Key[int]("checks")

// Check takes that long.
func (*gate) Check(ctx *engine.Ctx, long time.Duration) (engine.None, error) {
	if long > 0 {
		select {
		case <-time.After(long):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	checks.Put(ctx, checks.Get(ctx)+1)
	return nil, nil
}

var entered, asked chan struct{} // of the one test that calls Ask

// Ask says that it has begun, and waits until the test lets it end.
func (*gate) Ask(ctx *engine.Ctx, _ engine.None) (engine.None, error) {
	for _, c := range []chan struct{}{entered, asked} {
		select {
		case <-c:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

// TestOneObjectForEverybodyQueuesThemAll: while the one object is busy everybody waits, and beyond its bound they are
// refused. With an object per key nobody hears of the busy one.
func TestOneObjectForEverybodyQueuesThemAll(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, gates)
	entered, asked = make(chan struct{}), make(chan struct{})
	answers := make(chan error, gates.Limits.Queue+2)
	ask := func() {
		go func() { // ends when asked is closed
			_, err := engine.Call(w, gates.Get("everybody"), (*gate).Ask, nil)
			answers <- err
		}()
	}
	ask()
	entered <- struct{}{} // one runs
	close(entered)
	for range gates.Limits.Queue + 1 { // eight may wait, and the ninth is refused, whichever that is
		ask()
	}
	if err := <-answers; !errors.Is(err, engine.Overloaded) {
		t.Fatal(err)
	}
	for i := range 100 { // while everybody waits, each of a hundred others is served
		enginetest.Call(w, gates.Get(fmt.Sprint("key-", i)), (*gate).Check, 0)
	}
	select {
	case err := <-answers:
		t.Fatal("somebody did not wait:", err)
	default:
	}
	close(asked)
	for range gates.Limits.Queue + 1 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

const callers = 64

// load is what each of the callers does: it asks, waits for the answer, pauses, and asks again.
type load struct {
	name        string
	long, pause time.Duration
	queue       int
}

// outcome of a load. Waits are those of answers, sorted.
type outcome struct {
	waits   []time.Duration
	refused int
	took    time.Duration
}

func (o outcome) perSecond() float64 { return float64(len(o.waits)) / o.took.Seconds() }
func (o outcome) refusedPercent() float64 {
	return 100 * float64(o.refused) / float64(o.refused+len(o.waits))
}
func (o outcome) wait(percent int) float64 { return float64(o.waits[(len(o.waits)-1)*percent/100]) }

// run asks n times in all, each caller the object of its own number.
func (l load) run(b *testing.B, n int, object func(caller int) engine.Ref[*gate]) (all outcome) {
	class := gates
	class.Limits.Queue = l.queue
	w := enginetest.New(b, class)
	of := make([]outcome, callers)
	began := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for range n / callers {
				sent := time.Now()
				switch _, err := engine.Call(w, object(c), (*gate).Check, l.long); {
				case errors.Is(err, engine.Overloaded):
					of[c].refused++
				case err != nil:
					b.Error(err)
				default:
					of[c].waits = append(of[c].waits, time.Since(sent))
				}
				if l.pause > 0 {
					<-time.After(l.pause)
				}
			}
		})
	}
	wg.Wait()
	all.took = time.Since(began)
	for _, o := range of {
		all.waits = append(all.waits, o.waits...)
		all.refused += o.refused
	}
	slices.Sort(all.waits)
	return all
}

// BenchmarkHotObject is the pitfall as ratios within one run: the same callers at one object for everybody, and at one
// object per key.
//
//	go test -run '^$' -bench HotObject -benchtime 1x ./examples/limiter
func BenchmarkHotObject(b *testing.B) {
	for _, l := range []load{
		{name: "checks of 1 ms", long: time.Millisecond, queue: callers},
		{name: "checks of 1 ms, 16 may wait", long: time.Millisecond, queue: 16, pause: 20 * time.Millisecond},
		{name: "checks of no time", queue: callers},
	} {
		b.Run(l.name, func(b *testing.B) {
			const n = 100 * callers
			for b.Loop() {
				one := l.run(b, n, func(int) engine.Ref[*gate] { return gates.Get("everybody") })
				each := l.run(b, n, func(c int) engine.Ref[*gate] { return gates.Get(fmt.Sprint("key-", c)) })
				b.ReportMetric(each.perSecond()/one.perSecond(), "x-answers/s")
				b.ReportMetric(one.wait(50)/each.wait(50), "x-median-wait")
				b.ReportMetric(one.wait(99)/each.wait(99), "x-p99-wait")
				b.ReportMetric(one.refusedPercent(), "%-refused-by-one")
				b.ReportMetric(each.refusedPercent(), "%-refused-per-key")
			}
		})
	}
}
