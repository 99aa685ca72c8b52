package pebblestore

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/snapshot"
)

var update = flag.Bool("update", false, "write golden files")

// splitKey is the reverse of appendKey.
func splitKey(b []byte) (snapshot.ID, snapshot.Space, string, error) {
	if len(b) > 0 && b[0] == objectArea {
		end := bytes.IndexByte(b, 0)
		if end > 1 && end+1 < len(b) {
			return snapshot.ID(b[1:end]), snapshot.Space(b[end+1]), string(b[end+2:]), nil
		}
	}
	return "", 0, "", fmt.Errorf("key %q is not an entry's", b)
}

func TestKeysOnDiskDoNotChange(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	line := func(what string, keys ...[]byte) {
		fmt.Fprintf(&got, "%-44s", what)
		for _, key := range keys {
			fmt.Fprintf(&got, " %q", key)
		}
		fmt.Fprintln(&got)
	}
	line("format", formatKey)
	line("namespace", namespaceKey)
	line("name cart.a", indexKey("cart.a"))
	line("entry cart.a, k, x", appendKey(nil, "cart.a", snapshot.KV, "x"))
	line("entry cart.a, m, empty key", appendKey(nil, "cart.a", snapshot.Meta, ""))
	line("entry cart.a, w, 00 ff", appendKey(nil, "cart.a", snapshot.Window, "\x00\xff"))
	pair := func(what string, lower, upper []byte) { line(what, lower, upper) }
	bounds := func(id snapshot.ID) { lower, upper := objectBounds(id); pair("object "+string(id), lower, upper) }
	bounds("cart.a")
	scan := func(space snapshot.Space, from, to string) {
		lower, upper := scanBounds("cart.a", space, from, to)
		pair(fmt.Sprintf("scan cart.a, %#x, from %q, to %q", byte(space), from, to), lower, upper)
	}
	scan(snapshot.KV, "", "")
	scan(snapshot.KV, "a", "b")
	scan(0xff, "", "")
	names := func(prefix, after string) {
		lower, upper := indexBounds(prefix, after)
		pair(fmt.Sprintf("names %q after %q", prefix, after), lower, upper)
	}
	names("", "")
	names("cart.", "")
	names("cart.", "cart.a")
	names("cart.", "a")

	const file = "testdata/keys.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("a changed layout needs a new formatVersion (-want +got):\n%s", diff)
	}
}

func FuzzKeysRoundTripAndKeepOrder(f *testing.F) {
	f.Add("cart.a", byte('k'), "x", "cart.a", byte('k'), "y")
	f.Add("cart.a", byte('k'), "x", "cart.ab", byte('k'), "x")
	f.Add("a", byte(0), "\x00", "a", byte(0xff), "\xff\xff")
	f.Add("a\xff", byte(0xff), "", "a\xff\xff", byte(0), "")
	f.Fuzz(func(t *testing.T, id1 string, space1 byte, key1, id2 string, space2 byte, key2 string) {
		if snapshot.ID(id1).Check() != nil || snapshot.ID(id2).Check() != nil {
			t.Skip("not ids")
		}
		a := appendKey(nil, snapshot.ID(id1), snapshot.Space(space1), key1)
		b := appendKey(nil, snapshot.ID(id2), snapshot.Space(space2), key2)
		if len(a) != keySize(snapshot.ID(id1), key1) {
			t.Errorf("keySize is %d for a key of %d bytes", keySize(snapshot.ID(id1), key1), len(a))
		}
		id, space, key, err := splitKey(a)
		if err != nil || string(id) != id1 || byte(space) != space1 || key != key1 {
			t.Errorf("splitKey(%q) = %q, %d, %q, %v", a, string(id), space, key, err)
		}
		want := cmp.Or(strings.Compare(id1, id2), cmp.Compare(space1, space2), strings.Compare(key1, key2))
		if got := bytes.Compare(a, b); got != want {
			t.Errorf("compare %q and %q: %d, want %d", a, b, got, want)
		}
		within := func(lower, upper []byte) bool {
			return bytes.Compare(lower, b) <= 0 && bytes.Compare(b, upper) < 0
		}
		if lower, upper := objectBounds(snapshot.ID(id1)); within(lower, upper) != (id1 == id2) {
			t.Errorf("the bounds of object %q have %q in them: %t", id1, b, within(lower, upper))
		}
		inScan := id1 == id2 && space1 == space2 && key2 >= key1
		if lower, upper := scanBounds(snapshot.ID(id1), snapshot.Space(space1), key1, ""); within(lower, upper) != inScan {
			t.Errorf("the bounds of a scan of %q from %q have %q in them: %t", id1, key1, b, !inScan)
		}
	})
}
