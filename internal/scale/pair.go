package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/snapshot"
)

// workerCommand is the argument by which the program is a worker: the server, and its name.
const workerCommand = "worker"

// runWorker is a worker until its input ends.
func runWorker(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("want a server and a name")
	}
	w, err := newWorker(args[1], args[0], pairPartitions, snapshot.NewMemory())
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	defer running.Wait()
	defer stop()
	return answerAll(in, out, func() (usage, error) {
		u := usage{CPU: processor()}
		for _, p := range w.Status().Owned {
			if p.Owned {
				u.Owned++
			}
		}
		return u, nil
	})
}

const (
	pairPartitions = 16
	pairRounds     = 7
	pairFor        = 2 * time.Second
	pairCallers    = 64
	pairObjects    = 1000
)

// Burn takes about a millisecond of processor, and changes nothing.
func (*counter) Burn(engine.View, engine.None) (byte, error) {
	var block [64 << 10]byte
	for range 16 {
		sum := sha256.Sum256(block[:])
		copy(block[:], sum[:])
	}
	return block[0], nil
}

// theOne is something of which each process has one.
var theOne sync.Mutex

// Hold counts, and has that for a millisecond.
func (c *counter) Hold(ctx *engine.Ctx, in engine.None) (int64, error) {
	theOne.Lock()
	<-time.After(time.Millisecond)
	theOne.Unlock()
	return c.Increment(ctx, in)
}

const count = engine.Key[int64]("count")

// Increment counts.
func (*counter) Increment(ctx *engine.Ctx, _ engine.None) (int64, error) {
	n := count.Get(ctx) + 1
	count.Put(ctx, n)
	return n, nil
}

// Value is the count.
func (*counter) Value(v engine.View, _ engine.None) (int64, error) { return count.Get(v), nil }

// counters stay in memory, passing ones leave it at once.
var (
	counters = engine.Class[counter]{Name: "counter", Limits: engine.Limits{Idle: 24 * time.Hour}}
	passing  = engine.Class[counter]{Name: "passing", Limits: engine.Limits{Idle: time.Second}}
)

// pair compares two workers with one: the same two processes of one core each, of which one is drained in every other round.
func pair(dir string, _ time.Duration) error {
	s, err := start(dir, 1, 0)
	if err != nil {
		return err
	}
	defer s.stop()
	js, err := session(context.Background(), s.nc.ConnectedUrl(), pairPartitions, 1)
	if err != nil {
		return err
	}
	defer js.Close()
	var workers []*child
	for _, id := range []string{"one", "two"} {
		c, err := spawn([]string{"GOMAXPROCS=1"}, workerCommand, s.nc.ConnectedUrl(), id)
		if err != nil {
			return err
		}
		defer c.stop()
		if _, err := c.answer(); err != nil {
			return err
		}
		workers = append(workers, c)
	}
	share := func(drained ...string) error {
		if err := engine.ChangePlacement(context.Background(), js.Meta(), func(pl *engine.Placement) { pl.Drained = drained }); err != nil {
			return err
		}
		return settled(workers, len(drained))
	}
	fmt.Println("| each call | one worker, calls/s | two | ratio, median | cores of: workers | servers | callers |\n| --- | --- | --- | --- | --- | --- | --- |")
	for _, load := range []struct {
		what string
		call func(engine.Env, engine.Ref[*counter]) error
	}{
		{"a read that takes the processor for long", func(e engine.Env, o engine.Ref[*counter]) error {
			_, err := engine.Read(e, o, (*counter).Burn, nil)
			return err
		}},
		{"a change that waits for what a process has one of", func(e engine.Env, o engine.Ref[*counter]) error {
			_, err := engine.Call(e, o, (*counter).Hold, nil)
			return err
		}},
		{"a change and nothing else", func(e engine.Env, o engine.Ref[*counter]) error {
			_, err := engine.Call(e, o, (*counter).Increment, nil)
			return err
		}},
	} {
		var one, two []float64
		var ratios []float64
		var took [3]float64
		for range pairRounds {
			if err := share("two"); err != nil {
				return err
			}
			a, _, err := burden(s, workers, load.call)
			if err != nil {
				return err
			}
			if err := share(); err != nil {
				return err
			}
			b, cores, err := burden(s, workers, load.call)
			if err != nil {
				return err
			}
			one, two, ratios, took = append(one, a), append(two, b), append(ratios, b/a), cores
		}
		fmt.Printf("| %s | %.0f | %.0f | %.2f (%.2f-%.2f) | %.2f | %.2f | %.2f |\n", load.what, median(one), median(two), median(ratios), slices.Min(ratios), slices.Max(ratios), took[0], took[1], took[2])
	}
	return nil
}

// settled waits until each worker has its share.
func settled(workers []*child, drained int) error {
	want := [][]int{{pairPartitions / 2, pairPartitions / 2}, {pairPartitions, 0}}[drained]
	for end := time.Now().Add(startFor); time.Now().Before(end); <-time.After(20 * time.Millisecond) {
		var owned []int
		for _, c := range workers {
			u, err := c.usage()
			if err != nil {
				return err
			}
			owned = append(owned, u.Owned)
		}
		if slices.Equal(owned, want) {
			return nil
		}
	}
	return errors.New("the partitions are not shared as was asked for")
}

// burden calls for a while, and tells how many calls a second there were and how many cores workers, servers and callers took.
func burden(s *servers, workers []*child, call func(engine.Env, engine.Ref[*counter]) error) (rate float64, cores [3]float64, err error) {
	nc, err := nats.Connect(s.nc.ConnectedUrl())
	if err != nil {
		return 0, cores, err
	}
	defer nc.Close()
	client := engine.NewClient(natsbus.NewClient(nc, ns))
	var calls atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	run := func(d time.Duration) {
		ctx, stop := context.WithTimeout(context.Background(), d)
		defer stop()
		for i := range pairCallers {
			running.Go(func() {
				for n := i; ctx.Err() == nil && failed.Load() == nil; n += pairCallers {
					if err := call(client.With(context.Background()), counters.Get(fmt.Sprint("o", n%pairObjects))); err != nil {
						failed.Store(&err)
					}
					calls.Add(1)
				}
			})
		}
		running.Wait()
	}
	spent := func() (at [3]time.Duration) {
		for i, c := range append([]*child{s.child}, workers...) {
			u, err2 := c.usage()
			err = errors.Join(err, err2)
			at[1-min(i, 1)] += u.CPU
		}
		at[2] = processor()
		return at
	}
	run(pairFor / 4) // objects wake up
	before, began, first := spent(), time.Now(), calls.Load()
	run(pairFor)
	took, n, after := time.Since(began).Seconds(), calls.Load()-first, spent()
	for i := range cores {
		cores[i] = (after[i] - before[i]).Seconds() / took
	}
	if f := failed.Load(); f != nil {
		err = *f
	}
	return float64(n) / took, cores, err
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
