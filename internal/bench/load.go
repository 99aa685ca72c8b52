package bench

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/wire"
)

// runner puts load on something for one round at a time, and checks afterwards that the system has what it answered.
type runner struct {
	system *process // nil: not one of ours
	run    func(ctx context.Context, long time.Duration) (Load, error)
	check  func(ctx context.Context) (increments int, err error) // nil: of the pipe, say
}

// round is run, and what it cost the system.
func (r *runner) round(ctx context.Context, long time.Duration) (Load, error) {
	if r.system == nil {
		return r.run(ctx, long)
	}
	before, err := r.system.cpu(ctx)
	if err != nil {
		return Load{}, err
	}
	l, err := r.run(ctx, long)
	if err != nil {
		return l, err
	}
	after, err := r.system.cpu(ctx)
	l.CPU = after - before
	return l, err
}

// side is one side of a row: what is called, where, by how many.
type side struct {
	sync    string
	objects int
	method  string // of the objects, or of the pipe
	callers int
}

func (s side) ofPipe() bool {
	return s.method == pipeEcho || s.method == pipeSingle || s.method == pipeJoined
}

// names are the objects of a row.
func names(row string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = row + "-" + strconv.Itoa(i)
	}
	return list
}

// overNATS makes the runner of a side, and has each of its objects changed once.
func (b *bench) overNATS(ctx context.Context, row string, s side) (*runner, error) {
	sys, cs, err := b.system(ctx, s.sync)
	if err != nil {
		return nil, err
	}
	objects := names(row, s.objects)
	if s.ofPipe() {
		t := target{body: incrementBody}
		for _, name := range objects {
			t.subjects = append(t.subjects, pipeSubject(pipeSpace, staying, name, s.method))
		}
		return &runner{system: sys, run: func(ctx context.Context, long time.Duration) (Load, error) { return cs.run(ctx, s.callers, t, long) }}, nil
	}
	c := newCounts(objects)
	if _, err := cs.each(ctx, b.Callers, c.increments()); err != nil {
		return nil, err
	}
	t := c.increments()
	if s.method == valueMethod {
		t = target{subjects: c.subjects(valueMethod)}
	}
	return &runner{
		system: sys,
		run:    func(ctx context.Context, long time.Duration) (Load, error) { return cs.run(ctx, s.callers, t, long) },
		check:  func(ctx context.Context) (int, error) { return c.check(ctx, cs, b.Callers) },
	}, nil
}

// counts are how many increments of each object were acknowledged.
type counts struct {
	class   string
	objects []string
	acked   []atomic.Int64
}

func newCounts(objects []string) *counts {
	return &counts{staying, objects, make([]atomic.Int64, len(objects))}
}

func (c *counts) subjects(method string) (subjects []string) {
	for _, name := range c.objects {
		subjects = append(subjects, wire.DefaultNamespace.Call(c.class, wire.Escape(name), method))
	}
	return subjects
}

func (c *counts) increments() target {
	return target{c.subjects(incrementMethod), incrementBody, func(object int, _ []byte) { c.acked[object].Add(1) }}
}

// check asks every object for its count.
func (c *counts) check(ctx context.Context, cs *callers, n int) (increments int, err error) {
	var wrong atomic.Pointer[string]
	_, err = cs.each(ctx, n, target{subjects: c.subjects(valueMethod), answered: func(object int, body []byte) {
		if want := strconv.FormatInt(c.acked[object].Load(), 10); string(body) != want {
			wrong.Store(new(fmt.Sprintf("%s/%s is %s, and %s increments were acknowledged", c.class, c.objects[object], body, want)))
		}
	}})
	if w := wrong.Load(); err == nil && w != nil {
		err = fmt.Errorf("the figure is of a system that is wrong: %s", *w)
	}
	for i := range c.acked {
		increments += int(c.acked[i].Load())
	}
	return increments, err
}

// alternate measures rounds of yardstick and figure in turn, after one of each that does not count, and checks the figure.
func (b *bench) alternate(ctx context.Context, r *Row, figure, yardstick *runner, metric func(Load) float64) error {
	pairs, err := alternate(ctx, b.Rounds, b.For, figure, yardstick)
	if err != nil {
		return err
	}
	r.of(pairs, metric)
	if err := b.profile(ctx, r, "figure", figure); err != nil {
		return err
	}
	if err := b.profile(ctx, r, "yardstick", yardstick); err != nil {
		return err
	}
	if r.Checked, err = figure.check(ctx); err != nil || yardstick.check == nil {
		return err
	}
	_, err = yardstick.check(ctx)
	return err
}

// pair is what both had in one round.
type pair struct{ figure, yardstick Load }

func alternate(ctx context.Context, rounds int, long time.Duration, figure, yardstick *runner) (pairs []pair, err error) {
	for i := -1; i < rounds; i++ {
		var p pair
		if p.yardstick, err = yardstick.round(ctx, long); err != nil {
			return nil, fmt.Errorf("yardstick: %w", err)
		}
		if p.figure, err = figure.round(ctx, long); err != nil {
			return nil, err
		}
		if i >= 0 {
			pairs = append(pairs, p)
		}
	}
	return pairs, nil
}

// of makes the row's rounds of what was measured.
func (r *Row) of(pairs []pair, metric func(Load) float64) {
	for _, p := range pairs {
		r.Calls += p.figure.Calls
		r.Rounds = append(r.Rounds, Round{metric(p.figure), metric(p.yardstick), cpu(p.figure), cpu(p.yardstick)})
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func p50(l Load) float64 { return micros(l.P50) }
func p99(l Load) float64 { return micros(l.P99) }

// natsRow is a row that both callers and yardstick reach over NATS.
func natsRow(r Row, figure, yardstick side, metric func(Load) float64) row {
	return row{r, func(b *bench, ctx context.Context, r *Row) error {
		f, err := b.overNATS(ctx, r.Name, figure)
		if err != nil {
			return err
		}
		y, err := b.overNATS(ctx, r.Name, yardstick)
		if err != nil {
			return err
		}
		return b.alternate(ctx, r, f, y, metric)
	}}
}

// noteSync is a row whose bar depends on the disk: it notes how long the disk takes for one sync.
func noteSync(r row) row {
	measure := r.measure
	r.measure = func(b *bench, ctx context.Context, r *Row) error {
		took, err := syncTime(b.dir)
		if err != nil {
			return err
		}
		r.Note = fmt.Sprintf("one fsync takes %s ms here; under 0.5 ms the bar is also 20,000 calls/s", Number(millis(took)))
		return measure(b, ctx, r)
	}
	return r
}

// syncTime is the median of how long a file of a folder takes to be synced after 200 bytes were appended to it.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // its folder goes
	took := make([]time.Duration, 100)
	for i := range took {
		if _, err := f.Write(make([]byte, 200)); err != nil {
			return 0, err
		}
		began := time.Now()
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return percentile(took, 0.5), nil
}
