package snapshot

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Memory is a [Store] in memory, for tests and the test kit. Its zero value is not usable; see [NewMemory].
//
// An object's entries are one sorted slice that is never changed in place: Apply makes a new one. So a view is a copy of
// the map, and a scan needs no lock. Apply costs time in proportion to the object.
type Memory struct {
	// mu is held to read the fields, and exclusively to change them.
	mu      sync.RWMutex
	objects objects
	names   []ID // sorted
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{objects: objects{}}
}

// Get is one entry; see [Reader].
func (m *Memory) Get(id ID, space Space, key string) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.objects.Get(id, space, key)
}

// Scan yields entries; see [Reader].
func (m *Memory) Scan(id ID, space Space, from, to string, reverse bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		m.mu.RLock()
		now := objects{id: m.objects[id]}
		m.mu.RUnlock()
		now.Scan(id, space, from, to, reverse)(yield)
	}
}

// Apply applies a batch; see [Store].
func (m *Memory) Apply(id ID, b Batch) error {
	if err := id.Check(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var entries []Entry
	if !b.Clear {
		entries = slices.Clone(m.objects[id])
	}
	for _, e := range b.Entries {
		i, found := slices.BinarySearchFunc(entries, e, compareEntries)
		e.Value = bytes.Clone(e.Value)
		switch {
		case e.Value != nil && found:
			entries[i] = e
		case e.Value != nil:
			entries = slices.Insert(entries, i, e)
		case found:
			entries = slices.Delete(entries, i, i+1)
		}
	}
	if len(entries) == 0 {
		delete(m.objects, id)
	} else {
		m.objects[id] = entries
	}
	return nil
}

// View is the store as it is now; see [Store].
func (m *Memory) View() (View, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return maps.Clone(m.objects), nil
}

// Index adds names to the list of all objects; see [Store].
func (m *Memory) Index(ids ...ID) error {
	for _, id := range ids {
		if err := id.Check(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		if i, found := slices.BinarySearch(m.names, id); !found {
			m.names = slices.Insert(m.names, i, id)
		}
	}
	return nil
}

// Names yields names of the list; see [Store].
func (m *Memory) Names(prefix, after string) iter.Seq2[ID, error] {
	return func(yield func(ID, error) bool) {
		for _, id := range m.listed(prefix, after) {
			if !yield(id, nil) {
				return
			}
		}
	}
}

// listed is a copy, so that whoever ranges over it may index more.
func (m *Memory) listed(prefix, after string) []ID {
	m.mu.RLock()
	defer m.mu.RUnlock()
	from, _ := slices.BinarySearch(m.names, ID(prefix))
	if i, found := slices.BinarySearch(m.names, ID(after)); found {
		from = max(from, i+1)
	} else {
		from = max(from, i)
	}
	to := from
	for to < len(m.names) && strings.HasPrefix(string(m.names[to]), prefix) {
		to++
	}
	return slices.Clone(m.names[from:to])
}

// Clone is the store as it is now, to bring it back later as an old one.
func (m *Memory) Clone() *Memory {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &Memory{objects: maps.Clone(m.objects), names: slices.Clone(m.names)}
}

// Close does nothing.
func (m *Memory) Close() error { return nil }

// objects are the entries of each object, sorted by space and key. A view is one that nobody changes.
type objects map[ID][]Entry

func (o objects) Get(id ID, space Space, key string) ([]byte, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	i, found := slices.BinarySearchFunc(o[id], Entry{Space: space, Key: key}, compareEntries)
	if !found {
		return nil, nil
	}
	return bytes.Clone(o[id][i].Value), nil
}

func (o objects) Scan(id ID, space Space, from, to string, reverse bool) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := id.Check(); err != nil {
			yield(Entry{}, err)
			return
		}
		found := span(o[id], space, from, to)
		for i := range found {
			if reverse {
				i = len(found) - 1 - i
			}
			e := found[i]
			e.Value = bytes.Clone(e.Value)
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (o objects) Close() error { return nil }

// span is the part of entries that is in the space and the bounds.
func span(entries []Entry, space Space, from, to string) []Entry {
	first, _ := slices.BinarySearchFunc(entries, Entry{Space: space, Key: from}, compareEntries)
	entries = entries[first:]
	end, _ := slices.BinarySearchFunc(entries, space, func(e Entry, s Space) int {
		if e.Space == s && (to == "" || e.Key < to) {
			return -1
		}
		return 1
	})
	return entries[:end]
}

func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Space, b.Space), strings.Compare(a.Key, b.Key))
}
