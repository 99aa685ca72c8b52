package pebblestore

import (
	"cmp"
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/perdure/perdure/snapshot"
)

// reader reads objects from the database as it is, or from a snapshot of it.
type reader struct {
	from  pebble.Reader
	fatal *fatal
}

// Get is one entry; see [snapshot.Reader].
func (r reader) Get(id snapshot.ID, space snapshot.Space, key string) ([]byte, error) {
	if err := errors.Join(id.Check(), r.fatal.failure()); err != nil {
		return nil, fmt.Errorf("get: %w", err)
	}
	value, closer, err := r.from.Get(appendKey(make([]byte, 0, keySize(id, key)), id, space, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get from object %s: %w", id, r.fatal.read(err))
	}
	// Pebble takes its memory back at Close, and the append keeps an empty value apart from nil.
	value = append([]byte{}, value...)
	if err := closer.Close(); err != nil {
		return nil, fmt.Errorf("get from object %s: %w", id, err)
	}
	return value, nil
}

// Scan yields entries; see [snapshot.Reader].
func (r reader) Scan(id snapshot.ID, space snapshot.Space, from, to string, reverse bool) iter.Seq2[snapshot.Entry, error] {
	return func(yield func(snapshot.Entry, error) bool) {
		if err := id.Check(); err != nil {
			yield(snapshot.Entry{}, fmt.Errorf("scan: %w", err))
			return
		}
		if to != "" && from >= to {
			return
		}
		lower, upper := scanBounds(id, space, from, to)
		prefix := keySize(id, "")
		more := true
		err := r.each(lower, upper, reverse, func(key, value []byte) bool {
			entry := snapshot.Entry{Space: space, Key: string(key[prefix:]), Value: append([]byte{}, value...)}
			more = yield(entry, nil)
			return more
		})
		if err != nil && more {
			yield(snapshot.Entry{}, fmt.Errorf("scan object %s: %w", id, err))
		}
	}
}

// names yields the names of the list that begin with prefix and come after the name after.
func (r reader) names(prefix, after string) iter.Seq2[snapshot.ID, error] {
	return func(yield func(snapshot.ID, error) bool) {
		lower, upper := indexBounds(prefix, after)
		more := true
		err := r.each(lower, upper, false, func(key, _ []byte) bool {
			more = yield(snapshot.ID(key[1:]), nil)
			return more
		})
		if err != nil && more {
			yield("", fmt.Errorf("list names: %w", err))
		}
	}
}

// each calls visit for the keys in the bounds, until it returns false. Key and value are Pebble's memory.
func (r reader) each(lower, upper []byte, reverse bool, visit func(key, value []byte) bool) (err error) {
	if err := r.fatal.failure(); err != nil {
		return err
	}
	it, err := r.from.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return r.fatal.read(err)
	}
	// Also when the caller's loop panics: an open iterator keeps files and makes Close fail. Its Close returns the error
	// that ended the loop, too.
	defer func() { err = r.fatal.read(cmp.Or(err, it.Close())) }()
	first, next := it.First, it.Next
	if reverse {
		first, next = it.Last, it.Prev
	}
	for ok := first(); ok; ok = next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !visit(it.Key(), value) {
			return nil
		}
	}
	return nil
}

// view is a snapshot of the database.
type view struct{ reader }

// Close lets go of what only the view shows.
func (v view) Close() error { return v.from.Close() }
