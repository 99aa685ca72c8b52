package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// notebook is an object whose storage the model test drives: one turn does several steps.
type notebook struct{}

var notebooks = Class[notebook]{Name: "notebook"}

const (
	heading = Key[int]("heading")
	pages   = Map[string, int]("pages")
	byNo    = Map[int64, int]("byNo")
)

// step is a part of a turn.
type step struct {
	Do    string // put, delete, clear (each while all are listed), list, get; with No behind for byNo; head, unhead; fail, panic
	Key   string
	No    int64
	Value int
	Pages span[string]
	Nos   span[int64]
}

// span is a part of a Map.
type span[K Ordered] struct {
	From, To, Prefix *K
	Reverse          bool
	Limit, Last      *int // one of them at most
}

// Do takes the steps, and tells what those that look have seen.
func (*notebook) Do(ctx *Ctx, steps []step) (seen []string, err error) {
	for _, s := range steps {
		switch s.Do {
		case "put":
			pages.Put(ctx, s.Key, s.Value)
		case "putNo":
			byNo.Put(ctx, s.No, s.Value)
		case "delete":
			pages.Delete(ctx, s.Key)
		case "deleteNo":
			byNo.Delete(ctx, s.No)
		case "clear":
			seen = append(seen, clearPages(ctx))
		case "head":
			heading.Put(ctx, s.Value)
		case "unhead":
			heading.Delete(ctx)
		case "fail":
			return nil, Errorf(Refused, "as asked")
		case "panic":
			panic("as asked")
		default:
			seen = append(seen, look(ctx, s))
		}
	}
	return seen, nil
}

// clearPages deletes every page in a loop over them, and writes one that the loop must not meet.
func clearPages(ctx *Ctx) string {
	return written(func(yield func(string, int) bool) {
		for k, v := range pages.All(ctx) {
			pages.Delete(ctx, k)
			pages.Put(ctx, "~", 1)
			if !yield(k, v) {
				return
			}
		}
	})
}

// Look is what the steps that look see.
func (*notebook) Look(v View, steps []step) (seen []string, err error) {
	for _, s := range steps {
		seen = append(seen, look(v, s))
	}
	return seen, nil
}

func look(v View, s step) string {
	switch s.Do {
	case "list":
		return written(s.Pages.of(pages).All(v))
	case "listNo":
		return written(s.Nos.of(byNo).All(v))
	case "get":
		n, ok := pages.Lookup(v, s.Key)
		return fmt.Sprint(n, ok)
	case "getNo":
		n, ok := byNo.Lookup(v, s.No)
		return fmt.Sprint(n, ok)
	}
	n, ok := heading.Lookup(v)
	return fmt.Sprint(n, ok)
}

func (s span[K]) of(m Map[K, int]) Query[K, int] {
	q := m.query()
	if s.From != nil {
		q = q.From(*s.From)
	}
	if s.To != nil {
		q = q.To(*s.To)
	}
	if s.Prefix != nil {
		q = q.Prefix(*s.Prefix)
	}
	if s.Reverse {
		q = q.Reverse()
	}
	if s.Limit != nil {
		q = q.Limit(*s.Limit)
	}
	if s.Last != nil {
		q = q.Last(*s.Last)
	}
	return q
}

// written is a list in one string.
func written[K any](list iter.Seq2[K, int]) string {
	var b strings.Builder
	for k, v := range list {
		fmt.Fprintf(&b, "%v=%d ", k, v)
	}
	return b.String()
}

// book is what a notebook must be like: plain maps.
type book struct {
	pages   map[string]int
	numbers map[int64]int
	heading *int
}

func (b *book) clone() *book { return &book{maps.Clone(b.pages), maps.Clone(b.numbers), b.heading} }

// do takes the steps of a turn and tells what is seen, or that it fails.
func (b *book) do(steps []step) (seen []string, failed Code) {
	for _, s := range steps {
		switch s.Do {
		case "put":
			b.pages[s.Key] = s.Value
		case "putNo":
			b.numbers[s.No] = s.Value
		case "delete":
			delete(b.pages, s.Key)
		case "deleteNo":
			delete(b.numbers, s.No)
		case "clear":
			seen = append(seen, written(span[string]{}.in(b.pages)))
			if len(b.pages) > 0 {
				b.pages = map[string]int{"~": 1}
			}
		case "head":
			b.heading = new(s.Value)
		case "unhead":
			b.heading = nil
		case "fail":
			return nil, Refused
		case "panic":
			return nil, Internal
		default:
			seen = append(seen, b.look(s))
		}
	}
	return seen, ""
}

func (b *book) look(s step) string {
	switch s.Do {
	case "list":
		return written(s.Pages.in(b.pages))
	case "listNo":
		return written(s.Nos.in(b.numbers))
	case "get":
		n, ok := b.pages[s.Key]
		return fmt.Sprint(n, ok)
	case "getNo":
		n, ok := b.numbers[s.No]
		return fmt.Sprint(n, ok)
	}
	if b.heading == nil {
		return fmt.Sprint(0, false)
	}
	return fmt.Sprint(*b.heading, true)
}

// in are the entries of a plain map.
func (s span[K]) in(m map[K]int) iter.Seq2[K, int] {
	var keys []K
	for _, k := range slices.SortedFunc(maps.Keys(m), func(a, b K) int { return cmp.Compare(a, b) }) {
		if (s.From == nil || k >= *s.From) && (s.To == nil || k < *s.To) && (s.Prefix == nil || strings.HasPrefix(fmt.Sprint(k), fmt.Sprint(*s.Prefix))) {
			keys = append(keys, k)
		}
	}
	switch {
	case s.Last != nil:
		keys = keys[len(keys)-min(max(*s.Last, 0), len(keys)):] // in order, whatever Reverse says
	case s.Reverse:
		slices.Reverse(keys)
	}
	if s.Limit != nil && *s.Limit != 0 {
		keys = keys[:min(max(*s.Limit, 0), len(keys))]
	}
	return func(yield func(K, int) bool) {
		for _, k := range keys {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

var (
	pageKeys = rapid.SampledFrom([]string{"a", "a/b", "aa", "b", "ba", "ü", "z", "z\x00", "\U0010ffff"})
	numbers  = rapid.SampledFrom([]int64{math.MinInt64, -300, -2, 0, 1, 7, 1 << 40, math.MaxInt64})
	looks    = []string{"list", "list", "listNo", "get", "getNo", "headed"}
	changes  = []string{"put", "put", "put", "putNo", "putNo", "delete", "deleteNo", "clear", "head", "unhead", "fail", "panic"}
)

// spans draws parts; those of numbers have no prefix.
func spans[K Ordered](keys *rapid.Generator[K], prefixes ...K) *rapid.Generator[span[K]] {
	maybe := func(t *rapid.T, of *rapid.Generator[K], what string) *K {
		if rapid.IntRange(0, 2).Draw(t, what+"?") != 0 {
			return nil
		}
		return new(of.Draw(t, what))
	}
	return rapid.Custom(func(t *rapid.T) (s span[K]) {
		s.From, s.To, s.Reverse = maybe(t, keys, "from"), maybe(t, keys, "to"), rapid.Bool().Draw(t, "reverse")
		if len(prefixes) > 0 {
			s.Prefix = maybe(t, rapid.SampledFrom(prefixes), "prefix")
		}
		switch n := rapid.IntRange(-1, 4).Draw(t, "n"); rapid.IntRange(0, 3).Draw(t, "bound") {
		case 0:
			s.Limit = &n
		case 1:
			s.Last = &n
		}
		return s
	})
}

func steps(kinds []string) *rapid.Generator[[]step] {
	kind, pageSpans, noSpans := rapid.SampledFrom(kinds), spans(pageKeys, "", "a", "z", "ü"), spans(numbers)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		s := step{Do: kind.Draw(t, "do")}
		switch s.Do {
		case "list":
			s.Pages = pageSpans.Draw(t, "pages")
		case "listNo":
			s.Nos = noSpans.Draw(t, "numbers")
		default:
			s.Key, s.No, s.Value = pageKeys.Draw(t, "key"), numbers.Draw(t, "no"), rapid.IntRange(0, 99).Draw(t, "value")
		}
		return s
	}), 1, 8)
}

// TestStorageIsAPlainMap drives an object's storage and plain maps with the same steps: turns that succeed, fail and
// panic, with looks at what they have just done; evictions, clean restarts, crashes, and stores that are lost in between.
func TestStorageIsAPlainMap(t *testing.T) {
	turns, looking := steps(append(slices.Clone(looks), changes...)), steps(looks)
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: quiet{t, context.Background()}, server: journaltest.NewMemory()}
		store := snapshot.Store(snapshot.NewMemory())
		start := func() *Worker {
			worker := w.worker("w", func(c *Config) { c.Classes, c.Store = []AnyClass{notebooks}, store })
			w.ready(worker) // sooner than a client's back-off finds out
			return worker
		}
		worker := start()
		defer func() {
			worker.Kill()
			w.check(rt)
		}()
		model := &book{pages: map[string]int{}, numbers: map[int64]int{}}
		for range rapid.IntRange(1, 20).Draw(rt, "turns") {
			env := NewClient(worker).With(context.Background())
			turn, after := turns.Draw(rt, "turn"), model.clone()
			want, failed := after.do(turn)
			seen, err := Call(env, notebooks.Get("n"), (*notebook).Do, turn)
			if failed != "" && !errors.Is(err, failed) || failed == "" && err != nil || !slices.Equal(seen, want) {
				rt.Fatalf("%+v: %q, %v; want %q, %v", turn, seen, err, want, failed)
			}
			if failed == "" {
				model = after
			}
			switch rapid.IntRange(0, 7).Draw(rt, "between turns") {
			case 0, 1:
				if o := residentObject(worker, "notebook", "n"); o != nil { // a panic has dropped it, perhaps
					o.chore(o.evict)
				}
			case 2:
				worker.Kill()
				worker = start()
			case 3:
				worker.Stop()
				worker = start()
			case 4:
				worker.Kill()
				store = snapshot.NewMemory() // all there is now is the journal
				worker = start()
			}
			questions := append(looking.Draw(rt, "looks"), step{Do: "list"}, step{Do: "listNo"}, step{Do: "headed"})
			want, _ = model.clone().do(questions)
			have, err := Read(NewClient(worker).With(context.Background()), notebooks.Get("n"), (*notebook).Look, questions)
			if err != nil || !slices.Equal(have, want) {
				rt.Fatalf("%+v: %q, %v; want %q", questions, have, err, want)
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
