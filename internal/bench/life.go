package bench

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The rows about an object's life, and a process's: each has a system of its own.

// untilGone waits until no object is in memory.
func (s *process) untilGone(ctx context.Context) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := s.memory(ctx)
		if err != nil || m.Objects == 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// fill makes n objects with one increment each.
func (b *bench) fill(ctx context.Context, s *process, class, row string, n int) (*counts, *callers, error) {
	cs, err := b.callers(s)
	if err != nil {
		return nil, nil, err
	}
	c := newCounts(names(row, n))
	c.class = class
	_, err = cs.each(ctx, b.Callers, c.increments())
	return c, cs, err
}

const warmObjects = 2000

// wakeWarm is the time of a read that wakes its object from the store, as the caller sees it, beside the same read of an
// object that is awake.
func wakeWarm(b *bench, ctx context.Context, r *Row) error {
	return b.own(ctx, r.Name, func(s *process) error {
		if err := s.begin(ctx); err != nil {
			return err
		}
		c, cs, err := b.fill(ctx, s, leaving, r.Name, warmObjects)
		if err != nil {
			return err
		}
		reads := target{subjects: c.subjects(valueMethod)}
		for range 2 {
			if err := s.untilGone(ctx); err != nil {
				return err
			}
			asleep, err := cs.each(ctx, 1, reads)
			if err != nil {
				return err
			}
			awake, err := cs.each(ctx, 1, reads)
			if err != nil {
				return err
			}
			r.Calls += asleep.Calls
			r.Rounds = append(r.Rounds, Round{Measured: micros(asleep.P99), Yardstick: micros(awake.P99)})
		}
		r.Checked, err = c.check(ctx, cs, b.Callers)
		return err
	}, "--sync", relaxed)
}

// A tail is coldRecords long, and spread over those of coldObjects objects.
const coldRecords = 100

func (o *Options) coldObjects() int { return min(200, o.Objects) }

// wakeCold is the same after a crash that took the store with it: an object is rebuilt from the journal alone, its
// records spread over those of the others. The first objects are not counted: they find connections and code cold.
func wakeCold(b *bench, ctx context.Context, r *Row) error {
	return b.own(ctx, r.Name, func(s *process) error {
		if err := s.begin(ctx); err != nil {
			return err
		}
		objects := b.coldObjects()
		first := min(10, objects/2)
		c, cs, err := b.fill(ctx, s, staying, r.Name, objects)
		if err != nil {
			return err
		}
		// One increment of each object at a time, so that each is a record of its own.
		for range coldRecords - 1 {
			if _, err := cs.each(ctx, min(b.Callers, objects), c.increments()); err != nil {
				return err
			}
		}
		s.kill()
		if err := os.RemoveAll(filepath.Join(s.dir, "snapshots")); err != nil {
			return err
		}
		if err := s.begin(ctx); err != nil {
			return err
		}
		if cs, err = b.callers(s); err != nil {
			return err
		}
		subjects := c.subjects(valueMethod)
		if _, err := cs.each(ctx, 1, target{subjects: subjects[:first]}); err != nil {
			return err
		}
		reads := runner{system: s, run: func(ctx context.Context, _ time.Duration) (Load, error) {
			return cs.each(ctx, 1, target{subjects: subjects[first:]})
		}}
		var asleep Load
		err = b.during(ctx, r, "figure", "cpu", s, func() error {
			asleep, err = reads.round(ctx, 0)
			return err
		})
		if err != nil {
			return err
		}
		awake, err := reads.round(ctx, 0)
		if err != nil {
			return err
		}
		r.of([]pair{{asleep, awake}}, p99)
		r.Note = fmt.Sprintf("median %s µs", Number(math.Round(p50(asleep))))
		r.Checked, err = c.check(ctx, cs, b.Callers)
		return err
	}, "--sync", relaxed, "--partitions", "1")
}

const memoryObjects = 50_000

// restedAfter is when objects are at rest, and what the server had in its buffers is gone: it keeps that for 10 s.
const restedAfter = 13 * time.Second

// idleMemory is what an object takes while it is in memory and does nothing: the heap with many of them, less the heap
// when all have left. What the server keeps for each subject is in both.
func idleMemory(b *bench, ctx context.Context, r *Row) error {
	return b.own(ctx, r.Name, func(s *process) error {
		if err := s.begin(ctx); err != nil {
			return err
		}
		c, cs, err := b.fill(ctx, s, resting, r.Name, memoryObjects)
		if err != nil {
			return err
		}
		changed, err := s.memory(ctx)
		if err != nil {
			return err
		}
		select {
		case <-time.After(restedAfter):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		rested, err := s.memory(ctx)
		if err == nil && b.Profile != "" {
			err = s.fetchProfile(ctx, "heap", filepath.Join(b.Profile, r.Name+".figure.heap.pb.gz"))
		}
		if err != nil {
			return err
		}
		if err := s.untilGone(ctx); err != nil {
			return err
		}
		without, err := s.memory(ctx)
		if err != nil {
			return err
		}
		if r.Checked, err = c.check(ctx, cs, b.Callers); err != nil {
			return err
		}
		woken, err := s.memory(ctx)
		if err != nil {
			return err
		}
		// On a slow machine some have left before the others are there.
		if least := memoryObjects / 10; min(rested.Objects, woken.Objects) < least {
			return fmt.Errorf("%d and %d of %d objects are in memory, want %d: the machine is too slow for this row", rested.Objects, woken.Objects, memoryObjects, least)
		}
		each := func(m memoryUse) float64 {
			own := len(count) + len("1")
			return float64(m.Heap-without.Heap)/float64(m.Objects) - float64(own)
		}
		r.Calls, r.Rounds = memoryObjects, []Round{{Measured: each(rested)}}
		r.Note = fmt.Sprintf("right after an increment, with the server's buffers: %s B; woken by a read: %s B", Number(math.Round(each(changed))), Number(math.Round(each(woken))))
		return nil
	}, "--sync", relaxed)
}

// start is the time from the start of the process to its first answer, in a folder that is new, beside that of a process
// of the same binary that does nothing.
func start(b *bench, ctx context.Context, r *Row) error {
	for range b.Rounds {
		began := time.Now()
		if out, err := exec.CommandContext(ctx, b.Program, "version").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		nothing := time.Since(began)
		err := b.own(ctx, r.Name, func(s *process) error {
			took, err := s.firstAnswer(ctx, r.Name, incrementMethod, "1")
			r.Rounds = append(r.Rounds, Round{Measured: millis(took), Yardstick: millis(nothing)})
			r.Calls++
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// firstAnswer starts the process and calls an object until it answers, and wants this answer.
func (s *process) firstAnswer(ctx context.Context, name, method, want string) (time.Duration, error) {
	began := time.Now()
	if err := s.start(); err != nil {
		return 0, err
	}
	var in any
	if method == incrementMethod {
		in = By{1}
	}
	var got int
	err := s.until(ctx, func(ctx context.Context) error {
		return s.exchange(ctx, http.MethodPost, "http://"+s.http+"/v1/objects/"+staying+"/"+name+"/call/"+method, in, &got)
	})
	took := time.Since(began)
	if err == nil && fmt.Sprint(got) != want {
		err = fmt.Errorf("the figure is of a system that is wrong: %s is %d; want %s", name, got, want)
	}
	return took, err
}

// restart is the time from the start of the process to its first answer, after a SIGKILL of one that had so many objects.
func restart(b *bench, ctx context.Context, r *Row) error {
	return b.own(ctx, r.Name, func(s *process) error {
		if err := s.begin(ctx); err != nil {
			return err
		}
		var c *counts
		began := time.Now()
		err := b.during(ctx, r, "new", "cpu", s, func() (err error) {
			c, _, err = b.fill(ctx, s, staying, r.Name, b.Restart)
			return err
		})
		if err != nil {
			return err
		}
		r.Note = fmt.Sprintf("new objects were made at %s/s", Number(math.Round(float64(b.Restart)/time.Since(began).Seconds())))
		for range b.Rounds {
			s.kill()
			took, err := s.firstAnswer(ctx, c.objects[0], valueMethod, "1")
			if err != nil {
				return err
			}
			r.Calls++
			r.Rounds = append(r.Rounds, Round{Measured: millis(took)})
		}
		if err := s.until(ctx, func(ctx context.Context) error { return s.get(ctx, "http://"+s.http+"/readyz", nil) }); err != nil {
			return err
		}
		cs, err := b.callers(s)
		if err != nil {
			return err
		}
		r.Checked, err = c.check(ctx, cs, b.Callers)
		return err
	}, "--sync", relaxed)
}
