package engine

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestNothingOfAWorkerIsLeftBehindIt ends busy workers in both ways and looks for goroutines that one of them started,
// directly or not: they inherit its label.
func TestNothingOfAWorkerIsLeftBehindIt(t *testing.T) {
	places(t, func(t *testing.T, pl place) {
		for name, end := range map[string]func(*Worker){"stopped": (*Worker).Stop, "killed": (*Worker).Kill} {
			label := fmt.Sprintf("%s %s", t.Name(), name)
			var worker *Worker
			pprof.Do(t.Context(), pprof.Labels("worker", label), func(context.Context) {
				worker = pl.worker(t, "w", nil, func(c *Config) { c.MemoryBytes = 1 << 20 })
			})
			(&world{t: t}).ready(worker)
			if labelled(label) == "" {
				t.Fatal("a running worker has no goroutines: they would not be found when it has ended")
			}
			ctx, leave := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			for i := range 16 {
				callers.Go(func() {
					env := NewClient(worker).With(ctx)
					for n := 0; ctx.Err() == nil; n++ {
						_, _ = Call(env, registers.Get(fmt.Sprint(i, n%40)), (*register).Set, item{fmt.Sprint(n), strings.Repeat("v", 5000)}) // it may end in between
					}
				})
			}
			eventually(t, "objects have left memory and come back", func() bool { return worker.Status().Memory > 1<<19 })
			end(worker)
			leave()
			callers.Wait()
			left := ""
			tick := time.NewTicker(time.Millisecond)
			for range 5000 {
				if left = labelled(label); left == "" {
					break
				}
				<-tick.C
			}
			tick.Stop()
			if left != "" {
				t.Errorf("%s: left behind:\n%s", name, left)
			}
		}
	})
}

var goroutine = regexp.MustCompile(`(?s)\d+ @ .*?\n\n`)

// labelled are the stacks of the goroutines with a label.
func labelled(worker string) (stacks string) {
	var all bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&all, 1) // a buffer takes everything
	for _, g := range goroutine.FindAllString(all.String(), -1) {
		if strings.Contains(g, fmt.Sprintf("%q:%q", "worker", worker)) {
			stacks += g
		}
	}
	return stacks
}
