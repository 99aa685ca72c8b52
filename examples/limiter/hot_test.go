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

// gate is a limiter that has to ask somebody before it answers: a turn that takes a millisecond.
type gate struct{}

var gates = engine.Class[gate]{Name: "gate", Limits: engine.Limits{Queue: 8}}

var entered, asked chan struct{} // of the test

// Ask waits until the test says so.
func (*gate) Ask(ctx *engine.Ctx, _ engine.None) (engine.None, error) {
	for _, c := range []chan struct{}{entered, asked} {
		select {
		case <-c:
		case <-ctx.Done():
		}
	}
	return nil, nil
}

// Check takes a millisecond of somebody else's time.
func (*gate) Check(ctx *engine.Ctx, _ engine.None) (engine.None, error) {
	select {
	case <-time.After(time.Millisecond):
	case <-ctx.Done():
	}
	return nil, nil
}

// TestOneObjectForEverybodyQueuesThemAll: while the one object is busy everybody waits, and beyond its bound they are
// refused. With an object per key nobody hears of the busy one.
func TestOneObjectForEverybodyQueuesThemAll(t *testing.T) {
	w := enginetest.New(t, gates)
	entered, asked = make(chan struct{}), make(chan struct{})
	everybody := gates.Get("everybody")
	answers := make(chan error)
	ask := func() {
		go func() { // ends when asked is closed
			_, err := engine.Call(w, everybody, (*gate).Ask, nil)
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
		enginetest.Call(w, gates.Get(fmt.Sprint("key-", i)), (*gate).Check, nil)
	}
	close(asked)
	for range gates.Limits.Queue + 1 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// load makes 64 callers ask n times in all, and returns how many answers a second they got and how long half of
// them waited at least.
func load(b *testing.B, n int, object func(i int) engine.Ref[*gate]) (perSecond float64, median time.Duration) {
	busy := gates
	busy.Limits.Queue = 1000
	w := enginetest.New(b, busy)
	const callers = 64
	waits := make([][]time.Duration, callers)
	began := time.Now()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := c; i < n; i += callers {
				sent := time.Now()
				if _, err := engine.Call(w, object(i), (*gate).Check, nil); err != nil {
					b.Error(err)
				}
				waits[c] = append(waits[c], time.Since(sent))
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	var all []time.Duration
	for _, of := range waits {
		all = append(all, of...)
	}
	slices.Sort(all)
	return float64(n) / took.Seconds(), all[len(all)/2]
}

// BenchmarkHotObject is the pitfall as ratios within one run: 64 callers at one object, and the same at an object per key.
//
//	go test -run '^$' -bench HotObject -benchtime 1x ./examples/limiter
func BenchmarkHotObject(b *testing.B) {
	const n = 4000
	for b.Loop() {
		one, oneWait := load(b, n, func(int) engine.Ref[*gate] { return gates.Get("everybody") })
		each, eachWait := load(b, n, func(i int) engine.Ref[*gate] { return gates.Get(fmt.Sprint("key-", i%64)) })
		b.ReportMetric(each/one, "x-throughput")
		b.ReportMetric(float64(oneWait)/float64(eachWait), "x-wait")
	}
}
