package bench

import (
	"context"
	"fmt"
	"time"
)

// largeRow is in the names of the rows that take minutes and gigabytes: they are measured only when asked for.
const largeRow = "large"

const (
	largeChunk  = 100_000 // objects at a time
	largeSample = 997     // of which one in so many is checked after the restart
)

// large is the restart after a SIGKILL of a process that had n objects, and what they took: memory is what its objects
// may take, in MiB.
func large(n, memory int) func(b *bench, ctx context.Context, r *Row) error {
	return func(b *bench, ctx context.Context, r *Row) error {
		return b.own(ctx, r.Name, func(s *process) error {
			if err := s.begin(ctx); err != nil {
				return err
			}
			began := time.Now()
			for i := 0; i < n; i += largeChunk {
				if _, _, err := b.fill(ctx, s, staying, largeName(i), min(largeChunk, n-i)); err != nil {
					return err
				}
			}
			filled := time.Since(began)
			m, err := s.memory(ctx)
			if err != nil {
				return err
			}
			before, err := s.resident()
			if err != nil {
				return err
			}
			s.kill()
			took, err := s.firstAnswer(ctx, names(largeName(0), 1)[0], valueMethod, "1")
			if err == nil {
				err = s.until(ctx, func(ctx context.Context) error { return s.get(ctx, "http://"+s.http+"/readyz", nil) })
			}
			if err != nil {
				return err
			}
			r.Calls, r.Rounds = n, []Round{{Measured: millis(took)}}
			after, err := s.resident()
			if err != nil {
				return err
			}
			r.Note = fmt.Sprintf("made in %.0f s; %s in memory then; the process had %s MiB, of which %s are live heap, and %s MiB after the restart", filled.Seconds(),
				Number(float64(m.Objects)), Number(float64(before>>20)), Number(float64(m.Heap>>20)), Number(float64(after>>20)))
			return b.sample(ctx, s, n, r)
		}, "--sync", relaxed, "--memory", fmt.Sprint(memory))
	}
}

func largeName(from int) string { return fmt.Sprintf("large-%d", from/largeChunk) }

// sample checks one object of many.
func (b *bench) sample(ctx context.Context, s *process, n int, r *Row) error {
	cs, err := b.callers(s)
	if err != nil {
		return err
	}
	var some []string
	for i := 0; i < n; i += largeSample {
		some = append(some, fmt.Sprintf("%s-%d", largeName(i), i%largeChunk))
	}
	c := newCounts(some)
	for i := range c.acked {
		c.acked[i].Store(1)
	}
	r.Checked, err = c.check(ctx, cs, b.Callers)
	return err
}
