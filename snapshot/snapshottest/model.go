package snapshottest

import (
	"bytes"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/snapshot"
)

// place is where a value is in the model.
type place struct {
	id    snapshot.ID
	space snapshot.Space
	key   string
}

// world is what the store must hold, as plain maps.
type world struct {
	values map[place][]byte
	names  map[snapshot.ID]bool
}

// Few and close values, so that drawn operations meet.
var (
	drawName  = rapid.SampledFrom([]snapshot.ID{"a", "aa", "ab", "b", "a\x01", "\xff"})
	drawSpace = rapid.SampledFrom([]snapshot.Space{0, snapshot.KV, snapshot.KV + 1, 0xff})
	drawKey   = rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 0xff}), 0, 3).Draw(t, "bytes"))
	})
	drawValue = rapid.SliceOfN(rapid.Byte(), 0, 4)
)

// model draws sequences of operations and compares each answer with a plain map's. All sequences use one store; each
// has names of its own there.
func model(t *testing.T, s snapshot.Store) {
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		prefix := fmt.Sprintf("round%d.", round)
		id := rapid.Map(drawName, func(name snapshot.ID) snapshot.ID { return snapshot.ID(prefix) + name })
		w := world{values: map[place][]byte{}, names: map[snapshot.ID]bool{}}
		var view snapshot.View
		var viewed world
		t.Cleanup(func() {
			if view != nil && view.Close() != nil {
				t.Error("a view does not close")
			}
		})
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) { w.apply(t, s, id.Draw(t, "id")) },
			"get":   func(t *rapid.T) { w.get(t, s, id.Draw(t, "id")) },
			"scan":  func(t *rapid.T) { w.scan(t, s, id.Draw(t, "id")) },
			"index": func(t *rapid.T) { w.index(t, s, rapid.SliceOfN(id, 0, 3).Draw(t, "ids")) },
			"names": func(t *rapid.T) { w.list(t, s, prefix) },
			"view": func(t *rapid.T) {
				if view != nil {
					must(t, view.Close())
				}
				var err error
				view, err = s.View()
				must(t, err)
				viewed = world{values: maps.Clone(w.values)}
			},
			"scan the view": func(t *rapid.T) {
				if view != nil {
					viewed.scan(t, view, id.Draw(t, "id"))
				}
			},
			"get from the view": func(t *rapid.T) {
				if view != nil {
					viewed.get(t, view, id.Draw(t, "id"))
				}
			},
		})
	})
}

func (w world) apply(t *rapid.T, s snapshot.Store, id snapshot.ID) {
	b := snapshot.Batch{Clear: rapid.IntRange(0, 4).Draw(t, "clear") == 0}
	if b.Clear {
		maps.DeleteFunc(w.values, func(p place, _ []byte) bool { return p.id == id })
	}
	for range rapid.IntRange(0, 4).Draw(t, "entries") {
		e := snapshot.Entry{Space: drawSpace.Draw(t, "space"), Key: drawKey.Draw(t, "key")}
		at := place{id, e.Space, e.Key}
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			delete(w.values, at)
		} else {
			e.Value = append([]byte{}, drawValue.Draw(t, "value")...)
			w.values[at] = bytes.Clone(e.Value)
		}
		b.Entries = append(b.Entries, e)
	}
	must(t, s.Apply(id, b))
}

func (w world) get(t *rapid.T, r snapshot.Reader, id snapshot.ID) {
	space, key := drawSpace.Draw(t, "space"), drawKey.Draw(t, "key")
	got, err := r.Get(id, space, key)
	must(t, err)
	if diff := cmp.Diff(w.values[place{id, space, key}], got); diff != "" {
		t.Errorf("Get (-want +got):\n%s", diff)
	}
}

func (w world) scan(t *rapid.T, r snapshot.Reader, id snapshot.ID) {
	space, reverse := drawSpace.Draw(t, "space"), rapid.Bool().Draw(t, "reverse")
	from, to := drawKey.Draw(t, "from"), drawKey.Draw(t, "to")
	var want []snapshot.Entry
	for p, v := range w.values {
		if p.id == id && p.space == space && p.key >= from && (to == "" || p.key < to) {
			want = append(want, snapshot.Entry{Space: space, Key: p.key, Value: v})
		}
	}
	slices.SortFunc(want, func(a, b snapshot.Entry) int { return strings.Compare(a.Key, b.Key) })
	if reverse {
		slices.Reverse(want)
	}
	if diff := cmp.Diff(want, collect(t, r.Scan(id, space, from, to, reverse))); diff != "" {
		t.Errorf("Scan (-want +got):\n%s", diff)
	}
}

func (w world) index(t *rapid.T, s snapshot.Store, ids []snapshot.ID) {
	must(t, s.Index(ids...))
	for _, id := range ids {
		w.names[id] = true
	}
}

func (w world) list(t *rapid.T, s snapshot.Store, prefix string) {
	after := prefix + drawKey.Draw(t, "after")
	prefix += rapid.SampledFrom([]string{"", "a", "aa", "\xff"}).Draw(t, "prefix")
	var want []snapshot.ID
	for _, id := range slices.Sorted(maps.Keys(w.names)) {
		if strings.HasPrefix(string(id), prefix) && string(id) > after {
			want = append(want, id)
		}
	}
	if diff := cmp.Diff(want, collect(t, s.Names(prefix, after))); diff != "" {
		t.Errorf("Names(%q, %q) (-want +got):\n%s", prefix, after, diff)
	}
}

func collect[T any](t *rapid.T, seq iter.Seq2[T, error]) []T {
	var all []T
	for v, err := range seq {
		must(t, err)
		all = append(all, v)
	}
	return all
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
