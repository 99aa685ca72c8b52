package engine

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/journal/journaltest"
)

// notebook is an object whose storage the model test drives: one turn does several steps.
type notebook struct{}

var notebooks = Class[notebook]{Name: "notebook"}

const (
	pages = Map[string, int]("pages")
	byNo  = Map[int64, string]("byNo")
)

type step struct {
	Put, Delete string // a key of pages
	Value       int
	No          int64 // a key of byNo, if Word is set
	Word        string
	Fail        bool // the turn ends in an error
}

func (*notebook) Do(ctx *Ctx, steps []step) (int, error) {
	for _, s := range steps {
		switch {
		case s.Fail:
			return 0, Errorf(Refused, "as asked")
		case s.Put != "":
			pages.Put(ctx, s.Put, s.Value)
		case s.Delete != "":
			pages.Delete(ctx, s.Delete)
		case s.Word != "":
			byNo.Put(ctx, s.No, s.Word)
		}
	}
	return len(list(ctx, query{})), nil // a turn reads its own writes
}

// query is a part of pages.
type query struct {
	From, To, Prefix string
	Reverse          bool
	Limit, Last      int
}

type page struct {
	Key   string
	Value int
}

func (*notebook) List(v View, q query) ([]page, error) { return list(v, q), nil }

func list(v View, q query) (found []page) {
	part := pages.query()
	if q.From != "" {
		part = part.From(q.From)
	}
	if q.To != "" {
		part = part.To(q.To)
	}
	if q.Prefix != "" {
		part = part.Prefix(q.Prefix)
	}
	if q.Reverse {
		part = part.Reverse()
	}
	if q.Limit > 0 {
		part = part.Limit(q.Limit)
	}
	if q.Last > 0 {
		part = part.Last(q.Last)
	}
	for k, n := range part.All(v) {
		found = append(found, page{k, n})
	}
	return found
}

// Negative counts the entries of a part of a negative limit.
func (*notebook) Negative(v View, _ None) (n int, err error) {
	for range pages.Limit(-1).All(v) {
		n++
	}
	return n, nil
}

func (*notebook) Numbers(v View, _ None) ([]int64, error) {
	return slices.Collect(firsts(byNo.All(v))), nil
}

func firsts[K, V any](seq func(func(K, V) bool)) func(func(K) bool) {
	return func(yield func(K) bool) { seq(func(k K, _ V) bool { return yield(k) }) }
}

// in answers a query from a plain map.
func (q query) in(m map[string]int) (found []page) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k >= q.From && (q.To == "" || k < q.To) && (q.Prefix == "" || len(k) >= len(q.Prefix) && k[:len(q.Prefix)] == q.Prefix) {
			found = append(found, page{k, m[k]})
		}
	}
	switch {
	case q.Last > 0:
		return found[max(0, len(found)-q.Last):]
	case q.Reverse:
		slices.Reverse(found)
	}
	if q.Limit > 0 {
		found = found[:min(q.Limit, len(found))]
	}
	return found
}

// TestStorageIsAPlainMap drives an object's storage and a map with the same steps: turns that succeed and turns that
// fail, evictions, clean restarts and crashes in between.
func TestStorageIsAPlainMap(t *testing.T) {
	keys := rapid.SampledFrom([]string{"a", "a/b", "aa", "b", "ba", "ü", "z", "z\x00", "\U0010ffff"})
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		switch rapid.IntRange(0, 6).Draw(t, "kind") {
		case 0:
			return step{Delete: keys.Draw(t, "key")}
		case 1:
			return step{Fail: rapid.IntRange(0, 3).Draw(t, "fails") == 0}
		default:
			return step{Put: keys.Draw(t, "key"), Value: rapid.IntRange(0, 99).Draw(t, "value")}
		}
	}), 1, 6)
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: quiet{t, context.Background()}, server: journaltest.NewMemory()}
		worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{notebooks} })
		defer func() {
			worker.Kill()
			w.check(rt)
		}()
		store := worker.cfg.Store
		model := map[string]int{}
		for range rapid.IntRange(1, 20).Draw(rt, "turns") {
			env := NewClient(worker).With(context.Background())
			turn := steps.Draw(rt, "turn")
			_, err := Call(env, notebooks.Get("n"), (*notebook).Do, turn)
			if failed := slices.ContainsFunc(turn, func(s step) bool { return s.Fail }); failed != (err != nil) {
				rt.Fatalf("%v: %v", turn, err)
			}
			if err == nil {
				for _, s := range turn {
					if s.Put != "" {
						model[s.Put] = s.Value
					}
					delete(model, s.Delete)
				}
			}
			switch rapid.IntRange(0, 5).Draw(rt, "between turns") {
			case 0:
				o := residentObject(worker, "notebook", "n")
				o.chore(o.evict)
			case 1:
				worker.Kill()
				worker = w.worker("w", func(c *Config) { c.Classes, c.Store = []AnyClass{notebooks}, store })
			case 2:
				worker.Stop()
				worker = w.worker("w", func(c *Config) { c.Classes, c.Store = []AnyClass{notebooks}, store })
			}
			if have, err := Read(NewClient(worker).With(context.Background()), notebooks.Get("n"), (*notebook).Negative, nil); err != nil || have != 0 {
				rt.Fatalf("a limit of -1 gives %d entries, %v", have, err)
			}
			q := query{From: keys.Draw(rt, "from"), To: keys.Draw(rt, "to"), Prefix: "a", Reverse: rapid.Bool().Draw(rt, "reverse"),
				Limit: rapid.IntRange(0, 3).Draw(rt, "limit"), Last: rapid.IntRange(0, 3).Draw(rt, "last")}
			for _, q := range []query{{}, {Reverse: true}, {From: q.From}, {To: q.To}, {From: q.From, To: q.To, Reverse: q.Reverse},
				{Prefix: q.Prefix, Limit: q.Limit}, {Last: q.Last}, {Reverse: q.Reverse, Limit: q.Limit}} {
				have, err := Read(NewClient(worker).With(context.Background()), notebooks.Get("n"), (*notebook).List, q)
				if want := q.in(model); err != nil || !slices.Equal(have, want) {
					rt.Fatalf("%+v: %v, %v; want %v", q, have, err, want)
				}
			}
		}
	})
}

// quiet is a test whose log is not written: a model test would fill it.
type quiet struct {
	testing.TB
	ctx context.Context
}

func (quiet) Log(...any)                 {}
func (quiet) Cleanup(func())             {} // the model test ends its workers itself
func (q quiet) Context() context.Context { return q.ctx }

func TestNumbersSortAsNumbers(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{notebooks} })
	env := NewClient(worker).With(t.Context())
	want := []int64{math.MinInt64, -300, -2, 0, 1, 7, 1 << 40, math.MaxInt64}
	for _, i := range []int{3, 0, 7, 5, 1, 6, 2, 4} {
		must(Call(env, notebooks.Get("n"), (*notebook).Do, []step{{No: want[i], Word: "x"}}))(t)
	}
	if have := must(Read(env, notebooks.Get("n"), (*notebook).Numbers, nil))(t); !slices.Equal(have, want) {
		t.Errorf("%v", have)
	}
}

// slashed has a key that would be an entry of a Map.
type slashed struct{}

var slashes = Class[slashed]{Name: "slashed"}

func (*slashed) Put(ctx *Ctx, _ None) (None, error) { Key[int]("pages/a").Put(ctx, 1); return nil, nil }

func (*slashed) PutMap(ctx *Ctx, _ None) (None, error) {
	Map[string, int]("pages/a").Put(ctx, "b", 1)
	return nil, nil
}

// Panic panics after it changed something.
func (*slashed) Panic(ctx *Ctx, _ None) (None, error) {
	Key[int]("n").Put(ctx, 1)
	panic(fmt.Sprintf("secret of %s", ctx.Name()))
}

func (*slashed) N(v View, _ None) (int, error) { return Key[int]("n").Get(v), nil }

// sleepy has an OnWake that the test holds up, or lets fail.
type sleepy struct{ cached int }

var sleepies = Class[sleepy]{Name: "sleepy", Limits: Limits{Turn: 20 * time.Millisecond, Idle: time.Hour}}

var wakes = map[string]chan error{"slow": make(chan error, 1), "fails": make(chan error, 1)}

func (s *sleepy) OnWake(v View) error {
	s.cached = Key[int]("n").Get(v) + 1
	if c := wakes[v.Name()]; c != nil {
		return <-c
	}
	return nil
}

func (s *sleepy) Cached(View, None) (int, error) { return s.cached, nil }
func (s *sleepy) Set(ctx *Ctx, n int) (None, error) {
	Key[int]("n").Put(ctx, n)
	return nil, nil
}

func TestOnWakeFillsTheCacheAndMayFailOrTakeTooLong(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{sleepies} })
	env := NewClient(worker).With(t.Context())
	must(Call(env, sleepies.Get("a"), (*sleepy).Set, 41))(t)
	o := residentObject(worker, "sleepy", "a")
	o.chore(o.evict)
	eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
	if n := must(Read(env, sleepies.Get("a"), (*sleepy).Cached, nil))(t); n != 42 {
		t.Errorf("%d", n)
	}

	wakes["fails"] <- Errorf(Refused, "not today")
	_, err := Read(env, sleepies.Get("fails"), (*sleepy).Cached, nil)
	wantCode(t, err, Refused, "not today")
	wakes["fails"] <- nil
	eventually(t, "it is tried again", func() bool {
		n, err := Read(env, sleepies.Get("fails"), (*sleepy).Cached, nil)
		return err == nil && n == 1
	})

	_, err = Read(env, sleepies.Get("slow"), (*sleepy).Cached, nil)
	wantCode(t, err, Timeout)
	wakes["slow"] <- nil // the one that was given up ends
	wakes["slow"] <- nil
	if n := must(Read(env, sleepies.Get("slow"), (*sleepy).Cached, nil))(t); n != 1 {
		t.Errorf("%d", n)
	}
}
