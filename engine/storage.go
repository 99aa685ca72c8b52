package engine

import (
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Key is one stored value: const count = engine.Key[int64]("count").
type Key[V any] string

// Get is the value, or the zero value if there is none.
func (k Key[V]) Get(v View) V { val, _ := k.Lookup(v); return val }

// Lookup also says whether there is one. A value that does not decode fails the turn.
func (k Key[V]) Lookup(v View) (V, bool) { return load[V](v.live(), string(k)) }

// Put stores a value. What does not encode fails the turn.
// A key with a slash would be an entry of a [Map], and fails the turn.
func (k Key[V]) Put(ctx *Ctx, val V) {
	t := ctx.writable()
	if strings.Contains(string(k), "/") {
		t.fail(Internal, "key %q has a slash, as the entries of a Map have: use a Map", string(k))
	}
	store(t, string(k), val)
}

// Delete removes the value.
func (k Key[V]) Delete(ctx *Ctx) { ctx.writable().delete(string(k)) }

// Map is a stored collection, ordered by key: const lines = engine.Map[string, Line]("lines").
// Each entry is stored by itself; a Map of a million entries is not in memory.
type Map[K Ordered, V any] string

// Ordered are the types of map keys; storage keeps their order.
type Ordered interface{ ~string | ~int64 | ~uint64 }

// Get is the value at a key, or the zero value if there is none.
func (m Map[K, V]) Get(v View, key K) V { val, _ := m.Lookup(v, key); return val }

// Lookup also says whether there is one.
func (m Map[K, V]) Lookup(v View, key K) (V, bool) { return load[V](v.live(), m.at(key)) }

// Put stores a value at a key. A Map whose own name has a slash would be a part of another one, and fails the turn.
func (m Map[K, V]) Put(ctx *Ctx, key K, val V) {
	t := ctx.writable()
	if strings.Contains(string(m), "/") {
		t.fail(Internal, "the name of Map %q has a slash, which divides a Map's name from its keys", string(m))
	}
	store(t, m.at(key), val)
}

// Delete removes a key.
func (m Map[K, V]) Delete(ctx *Ctx, key K) { ctx.writable().delete(m.at(key)) }

// All are the entries in order, as they are when the loop begins; the loop may change the Map.
func (m Map[K, V]) All(v View) iter.Seq2[K, V] { return m.query().All(v) }

// From is the part of the Map from key on.
func (m Map[K, V]) From(key K) Query[K, V] { return m.query().From(key) }

// To is the part of the Map before key.
func (m Map[K, V]) To(key K) Query[K, V] { return m.query().To(key) }

// Prefix is the part of the Map whose keys begin with p, for string keys.
func (m Map[K, V]) Prefix(p K) Query[K, V] { return m.query().Prefix(p) }

// Reverse is the Map from its largest key down.
func (m Map[K, V]) Reverse() Query[K, V] { return m.query().Reverse() }

// Limit is the first n entries; 0 is all, less is none.
func (m Map[K, V]) Limit(n int) Query[K, V] { return m.query().Limit(n) }

// Last is the last n entries, in order.
func (m Map[K, V]) Last(n int) Query[K, V] { return m.query().Last(n) }

func (m Map[K, V]) at(key K) string { return string(m) + "/" + encodeKey(key) }
func (m Map[K, V]) query() Query[K, V] {
	return Query[K, V]{base: string(m) + "/", from: string(m) + "/", to: string(m) + "0"} // '0' follows '/'
}

// Query is a part of a [Map]: history.From(a).To(b).Reverse().Limit(10).All(v).
type Query[K Ordered, V any] struct {
	base, from, to string // from <= key < to
	reverse, last  bool
	limit          int
}

// From leaves out what is before key.
func (q Query[K, V]) From(key K) Query[K, V] { q.from = max(q.from, q.base+encodeKey(key)); return q }

// To leaves out key and what is behind it.
func (q Query[K, V]) To(key K) Query[K, V] { q.to = min(q.to, q.base+encodeKey(key)); return q }

// Reverse begins with the largest key.
func (q Query[K, V]) Reverse() Query[K, V] { q.reverse = true; return q }

// Limit is the first n entries of the part; 0 is all, less is none.
func (q Query[K, V]) Limit(n int) Query[K, V] { q.limit = n; return q }

// Last is the last n entries of the part, in order.
func (q Query[K, V]) Last(n int) Query[K, V] { q.limit, q.last = n, true; return q }

// Prefix is the part whose keys begin with p, for string keys.
func (q Query[K, V]) Prefix(p K) Query[K, V] {
	q.from, q.to = max(q.from, q.base+encodeKey(p)), min(q.to, q.base+encodeKey(p)+"\xff")
	return q
}

// All are the entries of the part, as they are when the loop begins; the loop may change the Map. One that does not
// decode fails the turn.
func (q Query[K, V]) All(v View) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if q.limit < 0 {
			return
		}
		if q.last {
			for _, e := range slices.Backward(q.lastEntries(v)) {
				if !yield(decodeKey[K](e.key[len(q.base):]), e.value) {
					return
				}
			}
			return
		}
		n := 0
		for key, data := range v.live().entries(q.from, q.to, q.reverse) {
			if n++; !yield(decodeKey[K](key[len(q.base):]), decode[V](v.live(), key, data)) || n == q.limit {
				return
			}
		}
	}
}

type entry[V any] struct {
	key   string
	value V
}

// lastEntries are the last limit entries, the last one first.
func (q Query[K, V]) lastEntries(v View) (es []entry[V]) {
	if q.limit <= 0 {
		return nil
	}
	for key, data := range v.live().entries(q.from, q.to, true) {
		es = append(es, entry[V]{key, decode[V](v.live(), key, data)})
		if len(es) == q.limit {
			break
		}
	}
	return es
}

func load[V any](t *turn, key string) (val V, ok bool) {
	data, ok := t.get(key)
	if ok {
		val = decode[V](t, key, data)
	}
	return val, ok
}

// decode reads a stored value. One that does not decode fails the turn: it is there, so it must not read as absent.
func decode[V any](t *turn, key string, data []byte) (val V) {
	if err := json.Unmarshal(data, &val); err != nil {
		t.fail(Internal, "key %q does not decode as %T: %w", key, val, err)
	}
	return val
}

// store encodes a value and puts it.
func store(t *turn, key string, val any) {
	data, err := json.Marshal(val)
	if err != nil {
		t.fail(Internal, "key %q: %w", key, err)
	}
	t.put(key, data)
}

func encodeKey[K Ordered](k K) string {
	switch v := reflect.ValueOf(k); v.Kind() {
	case reflect.Int64:
		return fmt.Sprintf("%016x", uint64(v.Int())^1<<63)
	case reflect.Uint64:
		return fmt.Sprintf("%016x", v.Uint())
	default:
		return v.String()
	}
}

func decodeKey[K Ordered](s string) (k K) {
	n, _ := strconv.ParseUint(s, 16, 64)
	switch v := reflect.ValueOf(&k).Elem(); v.Kind() {
	case reflect.Int64:
		v.SetInt(int64(n ^ 1<<63))
	case reflect.Uint64:
		v.SetUint(n)
	default:
		v.SetString(s)
	}
	return k
}
