// Package snapshottest has the tests that every [snapshot.Store] passes.
package snapshottest

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/snapshot"
)

// Test tests the store that open returns. Each subtest opens its own, which must be empty, and closes it.
func Test(t *testing.T, open func(t *testing.T) snapshot.Store) {
	tests := []struct {
		name string
		test func(*testing.T, snapshot.Store)
	}{
		{"what is put is found and what is deleted is not", putGetDelete},
		{"an empty value is not an absent one", emptyValues},
		{"of two entries with one key the later wins", laterWins},
		{"clear comes first and takes one object whole", clearFirst},
		{"a scan keeps order and bounds", scanBounds},
		{"a scan ends when its reader stops", scanStops},
		{"keys may have zero bytes and 0xff", oddKeys},
		{"spaces do not touch", spaces},
		{"an object whose id begins another's is apart", prefixIDs},
		{"an id with a zero byte is refused", refusedIDs},
		{"slices belong to their callers", slicesAreTheCallers},
		{"a view does not change", viewIsImmutable},
		{"a range reads the moment it begins", rangeReadsItsBeginning},
		{"names are listed by prefix and after", names},
		{"a batch is seen whole", batchIsAtomic},
		{"many objects change at once", concurrentObjects},
		{"it does what a map does", model},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			tt.test(t, s)
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func putGetDelete(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("x", "1"), put("y", "2"))
	apply(t, s, "cart.a", put("x", "3"), del("y"), del("never was"))
	wantGet(t, s, "cart.a", "x", "3")
	wantAbsent(t, s, "cart.a", "y")
	wantAbsent(t, s, "cart.b", "x")
	if err := s.Apply("cart.a", snapshot.Batch{}); err != nil {
		t.Errorf("apply an empty batch: %v", err)
	}
	wantScan(t, s.Scan("cart.a", snapshot.KV, "", "", false), "x")
}

func emptyValues(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("x", ""))
	v, err := s.Get("cart.a", snapshot.KV, "x")
	if err != nil || v == nil || len(v) != 0 {
		t.Errorf("Get = %#v, %v; want an empty value that is not nil", v, err)
	}
	for e, err := range s.Scan("cart.a", snapshot.KV, "", "", false) {
		if err != nil || e.Value == nil || len(e.Value) != 0 {
			t.Errorf("Scan yields %#v, %v; want an empty value that is not nil", e, err)
		}
	}
	wantScan(t, s.Scan("cart.a", snapshot.KV, "", "", false), "x")
}

func laterWins(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("x", "1"), put("x", "2"), put("y", "1"), del("y"), del("z"), put("z", "1"))
	wantGet(t, s, "cart.a", "x", "2")
	wantAbsent(t, s, "cart.a", "y")
	wantGet(t, s, "cart.a", "z", "1")
}

func clearFirst(t *testing.T, s snapshot.Store) {
	other := snapshot.Entry{Space: 0xff, Key: "\xff\xff", Value: []byte("1")}
	apply(t, s, "cart.a", put("x", "1"), put("y", "1"), other)
	apply(t, s, "cart.b", put("x", "1"))
	if err := s.Apply("cart.a", snapshot.Batch{Clear: true, Entries: []snapshot.Entry{put("y", "2")}}); err != nil {
		t.Fatal(err)
	}
	wantScan(t, s.Scan("cart.a", snapshot.KV, "", "", false), "y")
	wantGet(t, s, "cart.a", "y", "2")
	wantScan(t, s.Scan("cart.a", 0xff, "", "", false))
	wantGet(t, s, "cart.b", "x", "1")
	if err := s.Apply("cart.a", snapshot.Batch{Clear: true}); err != nil {
		t.Fatal(err)
	}
	wantScan(t, s.Scan("cart.a", snapshot.KV, "", "", false))
}

func scanBounds(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("b", "1"), put("", "0"), put("c", "3"), put("a", "2"), put("bb", "4"))
	tests := []struct {
		from, to string
		want     []string
	}{
		{"", "", []string{"", "a", "b", "bb", "c"}},
		{"a", "", []string{"a", "b", "bb", "c"}},
		{"a", "b", []string{"a"}},
		{"a\x00", "b\x00", []string{"b"}},
		{"b", "c", []string{"b", "bb"}},
		{"", "a", []string{""}},
		{"b", "b", nil},
		{"c", "a", nil},
		{"d", "", nil},
	}
	for _, tt := range tests {
		wantScan(t, s.Scan("cart.a", snapshot.KV, tt.from, tt.to, false), tt.want...)
		slices.Reverse(tt.want)
		wantScan(t, s.Scan("cart.a", snapshot.KV, tt.from, tt.to, true), tt.want...)
	}
}

func scanStops(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("a", "1"), put("b", "2"), put("c", "3"))
	_ = s.Scan("cart.a", snapshot.KV, "", "", false) // nobody ranges over it: Close must not complain
	for _, reverse := range []bool{false, true} {
		n := 0
		for range s.Scan("cart.a", snapshot.KV, "", "", reverse) {
			if n++; n == 2 {
				break
			}
		}
		if n != 2 {
			t.Errorf("the range ran %d times, want 2", n)
		}
	}
}

func oddKeys(t *testing.T, s snapshot.Store) {
	want := []string{"", "\x00", "\x00\x00", "\x00\xff", "\x01", "a", "a\x00", "a\x00b", "a\xff", "\xff", "\xff\x00", "\xff\xff", "\xff\xff\xff"}
	for _, key := range slices.Backward(want) {
		apply(t, s, "cart.a", put(key, "of "+key))
	}
	for _, key := range want {
		wantGet(t, s, "cart.a", key, "of "+key)
	}
	wantScan(t, s.Scan("cart.a", snapshot.KV, "", "", false), want...)
	wantScan(t, s.Scan("cart.a", snapshot.KV, "a", "\xff\xff", false), "a", "a\x00", "a\x00b", "a\xff", "\xff", "\xff\x00")
	apply(t, s, "cart.a", del("\x00"), del("\xff"))
	wantScan(t, s.Scan("cart.a", snapshot.KV, "", "a", false), "", "\x00\x00", "\x00\xff", "\x01")
}

func spaces(t *testing.T, s snapshot.Store) {
	all := []snapshot.Space{0, 1, snapshot.KV, snapshot.KV + 1, snapshot.Meta, 0xfe, 0xff}
	for _, space := range all {
		for _, key := range []string{"", "\x00", "\xff"} {
			apply(t, s, "cart.a", snapshot.Entry{Space: space, Key: key, Value: []byte{byte(space)}})
		}
	}
	for _, space := range all {
		wantScan(t, s.Scan("cart.a", space, "", "", false), "", "\x00", "\xff")
		wantScan(t, s.Scan("cart.a", space, "", "", true), "\xff", "\x00", "")
		v, err := s.Get("cart.a", space, "")
		if err != nil || string(v) != string([]byte{byte(space)}) {
			t.Errorf("Get in space %d = %q, %v", space, v, err)
		}
	}
	wantScan(t, s.Scan("cart.a", 2, "", "", false))
}

func prefixIDs(t *testing.T, s snapshot.Store) {
	ids := []snapshot.ID{"cart.a", "cart.aa", "cart.a\x01", "cart.ak", "cart.", "cart", "cart.a\xff"}
	for _, id := range ids {
		apply(t, s, id, put("x", "of "+string(id)), put("\x00kx", "trap"), put("\xff", "last"))
	}
	for _, id := range ids {
		wantGet(t, s, id, "x", "of "+string(id))
		wantScan(t, s.Scan(id, snapshot.KV, "", "", false), "\x00kx", "x", "\xff")
	}
	if err := s.Apply("cart.a", snapshot.Batch{Clear: true}); err != nil {
		t.Fatal(err)
	}
	wantScan(t, s.Scan("cart.a", snapshot.KV, "", "", false))
	for _, id := range ids[1:] {
		wantScan(t, s.Scan(id, snapshot.KV, "", "", false), "\x00kx", "x", "\xff")
	}
}

func refusedIDs(t *testing.T, s snapshot.Store) {
	for _, id := range []snapshot.ID{"", "\x00", "cart.a\x00", "cart\x00a"} {
		_, getErr := s.Get(id, snapshot.KV, "x")
		var scanErr error
		for _, scanErr = range s.Scan(id, snapshot.KV, "", "", false) {
		}
		for what, err := range map[string]error{
			"Apply": s.Apply(id, snapshot.Batch{Entries: []snapshot.Entry{put("x", "1")}}),
			"Index": s.Index("cart.a", id),
			"Get":   getErr,
			"Scan":  scanErr,
		} {
			if !errors.Is(err, snapshot.ErrID) {
				t.Errorf("%s of %q: %v, want ErrID", what, string(id), err)
			}
		}
	}
	wantNames(t, s.Names("", ""))
}

func slicesAreTheCallers(t *testing.T, s snapshot.Store) {
	given := []byte("1")
	apply(t, s, "cart.a", snapshot.Entry{Space: snapshot.KV, Key: "x", Value: given})
	given[0] = 'g'
	got, err := s.Get("cart.a", snapshot.KV, "x")
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range s.Scan("cart.a", snapshot.KV, "", "", false) {
		if err != nil {
			t.Fatal(err)
		}
		e.Value[0] = 's'
	}
	got[0] = 'r'
	wantGet(t, s, "cart.a", "x", "1")
	apply(t, s, "cart.a", put("x", "2"))
	if string(got) != "r" {
		t.Errorf("what Get returned became %q", got)
	}
}

func viewIsImmutable(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("x", "1"), put("y", "1"))
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	apply(t, s, "cart.a", put("x", "2"), del("y"), put("z", "2"))
	apply(t, s, "cart.b", put("x", "2"))
	wantGet(t, v, "cart.a", "x", "1")
	wantScan(t, v.Scan("cart.a", snapshot.KV, "", "", false), "x", "y")
	if err := s.Apply("cart.a", snapshot.Batch{Clear: true}); err != nil {
		t.Fatal(err)
	}
	wantScan(t, v.Scan("cart.a", snapshot.KV, "", "", true), "y", "x")
	wantAbsent(t, v, "cart.a", "z")
	wantAbsent(t, v, "cart.b", "x")
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	wantAbsent(t, s, "cart.a", "x")
	wantGet(t, s, "cart.b", "x", "2")
}

func rangeReadsItsBeginning(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("a", "1"), put("b", "1"))
	seq := s.Scan("cart.a", snapshot.KV, "", "", false)
	apply(t, s, "cart.a", put("c", "1"))
	var got []string
	for e, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Key+string(e.Value))
		apply(t, s, "cart.a", put("b", "2"), del("c"), put("d", "2"))
	}
	if diff := cmp.Diff([]string{"a1", "b1", "c1"}, got); diff != "" {
		t.Errorf("the first range (-want +got):\n%s", diff)
	}
	wantScan(t, seq, "a", "b", "d")
}

func names(t *testing.T, s snapshot.Store) {
	for _, ids := range [][]snapshot.ID{{"cart.b", "cart.a"}, {"room.x"}, {"cart.a", "cart.ab"}, {}, {"cart", "cart.\xff", "cart.\xff\xff"}} {
		if err := s.Index(ids...); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		prefix, after string
		want          []snapshot.ID
	}{
		{"", "", []snapshot.ID{"cart", "cart.a", "cart.ab", "cart.b", "cart.\xff", "cart.\xff\xff", "room.x"}},
		{"cart.", "", []snapshot.ID{"cart.a", "cart.ab", "cart.b", "cart.\xff", "cart.\xff\xff"}},
		{"cart.a", "", []snapshot.ID{"cart.a", "cart.ab"}},
		{"cart.", "cart.a", []snapshot.ID{"cart.ab", "cart.b", "cart.\xff", "cart.\xff\xff"}},
		{"cart.", "cart.aa", []snapshot.ID{"cart.ab", "cart.b", "cart.\xff", "cart.\xff\xff"}},
		{"cart.\xff", "cart.b", []snapshot.ID{"cart.\xff", "cart.\xff\xff"}},
		{"cart.", "alarm.z", []snapshot.ID{"cart.a", "cart.ab", "cart.b", "cart.\xff", "cart.\xff\xff"}},
		{"cart.", "room.x", nil},
		{"", "room.x", nil},
		{"shop", "", nil},
	}
	for _, tt := range tests {
		wantNames(t, s.Names(tt.prefix, tt.after), tt.want...)
	}
	for range s.Names("", "") {
		break
	}
	apply(t, s, "cart.a", put("x", "1"))
	if err := s.Apply("cart.b", snapshot.Batch{Clear: true}); err != nil {
		t.Fatal(err)
	}
	wantNames(t, s.Names("cart.", "cart.ab"), "cart.b", "cart.\xff", "cart.\xff\xff")
	wantScan(t, s.Scan("cart.ab", snapshot.KV, "", "", false))
}

// batchIsAtomic has a writer that always writes the same value to three keys, and readers that must never see two.
func batchIsAtomic(t *testing.T, s snapshot.Store) {
	apply(t, s, "cart.a", put("x", "0"), put("y", "0"), put("z", "0"))
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		defer close(done)
		for i := range 300 {
			n := strconv.Itoa(i)
			b := snapshot.Batch{Clear: i%2 == 0, Entries: []snapshot.Entry{put("x", n), put("y", n), put("z", n)}}
			if err := s.Apply("cart.a", b); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for reading := true; reading; {
				select {
				case <-done:
					reading = false // and once more, to see the end
				default:
				}
				var got []string
				for e, err := range s.Scan("cart.a", snapshot.KV, "", "", false) {
					if err != nil {
						t.Error(err)
						return
					}
					got = append(got, string(e.Value))
				}
				if len(got) != 3 || got[0] != got[1] || got[1] != got[2] {
					t.Errorf("a scan saw half a batch: %q", got)
					return
				}
			}
		})
	}
	wg.Wait()
	wantGet(t, s, "cart.a", "z", "299")
}

func concurrentObjects(t *testing.T, s snapshot.Store) {
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			id := snapshot.ID(fmt.Sprintf("cart.%d", w))
			for i := range 100 {
				n := strconv.Itoa(i)
				err := errors.Join(
					s.Apply(id, snapshot.Batch{Entries: []snapshot.Entry{put("last", n), put(n, n)}}),
					s.Index(id, snapshot.ID(fmt.Sprintf("room.%d.%d", w, i))),
				)
				got, getErr := s.Get(id, snapshot.KV, "last")
				if err := errors.Join(err, getErr); err != nil || string(got) != n {
					t.Errorf("object %s reads %q after it wrote %s: %v", id, got, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantNames(t, s.Names("cart", ""), "cart.0", "cart.1", "cart.2", "cart.3")
	n := 0
	for range s.Names("room.", "") {
		n++
	}
	if n != 400 {
		t.Errorf("%d rooms are listed, want 400", n)
	}
}

func put(key, value string) snapshot.Entry {
	return snapshot.Entry{Space: snapshot.KV, Key: key, Value: []byte(value)}
}

func del(key string) snapshot.Entry {
	return snapshot.Entry{Space: snapshot.KV, Key: key}
}

func apply(t *testing.T, s snapshot.Store, id snapshot.ID, entries ...snapshot.Entry) {
	t.Helper()
	if err := s.Apply(id, snapshot.Batch{Entries: entries}); err != nil {
		t.Fatalf("apply to %q: %v", string(id), err)
	}
}

func wantGet(t *testing.T, r snapshot.Reader, id snapshot.ID, key, want string) {
	t.Helper()
	got, err := r.Get(id, snapshot.KV, key)
	if err != nil || got == nil || string(got) != want {
		t.Errorf("Get(%q, %q) = %q (nil: %t), %v; want %q", string(id), key, got, got == nil, err, want)
	}
}

func wantAbsent(t *testing.T, r snapshot.Reader, id snapshot.ID, key string) {
	t.Helper()
	if got, err := r.Get(id, snapshot.KV, key); err != nil || got != nil {
		t.Errorf("Get(%q, %q) = %q, %v; want nil", string(id), key, got, err)
	}
}

func wantScan(t *testing.T, seq iter.Seq2[snapshot.Entry, error], want ...string) {
	t.Helper()
	var got []string
	for e, err := range seq {
		if err != nil {
			t.Fatalf("scan: %v", err)
		}
		got = append(got, e.Key)
	}
	if !slices.Equal(want, got) {
		t.Errorf("Scan yields %q, want %q", got, want)
	}
}

func wantNames(t *testing.T, seq iter.Seq2[snapshot.ID, error], want ...snapshot.ID) {
	t.Helper()
	var got []snapshot.ID
	for id, err := range seq {
		if err != nil {
			t.Fatalf("names: %v", err)
		}
		got = append(got, id)
	}
	if !slices.Equal(want, got) {
		t.Errorf("Names yields %q, want %q", got, want)
	}
}
