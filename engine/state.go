package engine

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// state is an object's state: what the snapshot store has, and on top of it the commits that are not there yet. It is
// owned by whoever runs the object; nothing in it is shared.
//
//	get: overlay -> store            flush: tail -> one batch of the store, with the position it is true at
//
// Invariant: the store's entries are those after commit base.Version; tail holds the commits after it, without gaps,
// and overlay their last values. Only commits that passed the gate are flushed.
type state struct {
	store snapshot.Reader
	id    snapshot.ID
	class *class

	version journal.Version // of the last commit, acknowledged or not
	at      time.Time       // of the last commit; no later turn has an earlier time
	base    base
	stored  bool // the store has a base: there is something to read below the overlay

	overlay cells
	tail    []*commit
	once    once

	tailBytes int // of the commits in tail
	readBytes int // of overlay cells that only remember what the store has
}

// base is what the store's entries are true at. It is the object's entry in the space Meta.
type base struct {
	Version journal.Version `json:"version"`
	Seq     journal.Seq     `json:"seq"`  // of the record whose last commit is Version
	Hash    journal.Hash    `json:"hash"` // of that record's payload: a witness of what the journal had
	At      time.Time       `json:"at"`
	Epoch   journal.EpochID `json:"epoch"`            // under which this was last known to be all; within it the journal is not asked again
	Life    uint64          `json:"life"`             // of the partition: it grows when a journal that lost records is accepted
	Copied  bool            `json:"copied,omitempty"` // by a standby, from the journal alone: nobody may have been told of that record

	Snaps   [2]snapAt `json:"snaps,omitzero"` // the last two snapshot records, the newest first
	Records int       `json:"records"`        // since the last snapshot record
	Bytes   int       `json:"bytes"`          // of these records
}

// snapAt is a snapshot record of the object.
type snapAt struct {
	First  journal.Seq `json:"first"`  // position of its first part
	Covers journal.Seq `json:"covers"` // position of the record it is true at
	Bytes  int         `json:"bytes"`
}

// cell is a value in memory. Data is nil for a key that is not there.
type cell struct {
	data    []byte
	version journal.Version // of the commit that set it; 0: only read
}

// commit is one turn's changes on their way into the journal and from memory into the store.
type commit struct {
	journal.Commit
	version journal.Version
	size    int           // of its changes and reply, for budgets
	seq     journal.Seq   // of its record, once it is known
	encoded []byte        // until it is sent
	done    time.Duration // when its turn ended, by Worker.awake
}

// pruneMax is how many entries of forgotten requests one flush removes at most.
const pruneMax = 512

// readBytesMax bounds what an object remembers of values that it only read.
const readBytesMax = 64 << 10

func newState(store snapshot.Reader, id snapshot.ID, c *class) *state {
	return &state{store: store, id: id, class: c, once: newOnce(c.Limits)}
}

// load takes the store's entries of the object as the base, if it has any.
func (s *state) load() error {
	raw, err := s.store.Get(s.id, snapshot.Meta, "")
	if err != nil || raw == nil {
		return err
	}
	if err := json.Unmarshal(raw, &s.base); err != nil {
		return fmt.Errorf("snapshot of %s: %w", s.id, err)
	}
	s.stored, s.version, s.at = true, s.base.Version, s.base.At
	return s.once.load(s.store, s.id)
}

// forget drops everything: the store's entries are not to be used.
func (s *state) forget() { *s = *newState(s.store, s.id, s.class) }

// answerOf looks for the answer of a request. Without a base, what the store has is of a journal that was lost.
func (s *state) answerOf(r *Request, hash journal.Hash, now time.Time) (*answer, error) {
	var below snapshot.Reader
	if s.stored {
		below = s.store
	}
	return s.once.find(below, s.id, r, hash, s.at, now)
}

// get is a committed value.
func (s *state) get(key string) ([]byte, bool, error) {
	if c, ok := s.overlay.get(key); ok {
		return c.data, c.data != nil, nil
	}
	if !s.stored {
		return nil, false, nil
	}
	raw, err := s.store.Get(s.id, snapshot.KV, key)
	if err != nil {
		return nil, false, err
	}
	data, err := fromStore(raw)
	if err != nil {
		return nil, false, fmt.Errorf("key %q: %w", key, err)
	}
	s.remember(key, data)
	return data, data != nil, nil
}

func (s *state) remember(key string, data []byte) {
	s.readBytes += len(key) + len(data)
	if s.readBytes > readBytesMax {
		s.overlay.dropRead()
		s.readBytes = len(key) + len(data)
	}
	s.overlay.set(key, cell{data: data})
}

// Stored values begin with the tag of their encoding.
const (
	tagJSON = 'j'
	tagRaw  = 'b'
)

func toStore(data []byte) []byte { return append([]byte{tagJSON}, data...) }

func fromStore(raw []byte) ([]byte, error) {
	switch {
	case raw == nil:
		return nil, nil
	case len(raw) > 0 && raw[0] == tagJSON:
		return raw[1:], nil
	}
	return nil, fmt.Errorf("stored with an encoding that this version does not know")
}

// entries yields the committed entries with from <= key < to, with above on top, in order or in reverse.
func (s *state) entries(from, to string, reverse bool, above map[string]cell) iter.Seq2[string, entryOrError] {
	over := s.overlaid(from, to, above)
	slices.SortFunc(over, func(a, b overlaidEntry) int { return cmp.Compare(a.key, b.key) })
	if reverse {
		slices.Reverse(over)
	}
	stored := s.stored
	before := func(a, b string) bool { return a != b && a < b != reverse }
	return func(yield func(string, entryOrError) bool) {
		i := 0
		emit := func(upTo string, all bool) bool { // overlaid entries before a key of the store
			for i < len(over) && (all || before(over[i].key, upTo)) {
				e := over[i]
				i++
				if e.data != nil && !yield(e.key, entryOrError{data: e.data}) {
					return false
				}
			}
			return true
		}
		if stored {
			for e, err := range s.store.Scan(s.id, snapshot.KV, from, to, reverse) {
				if err != nil {
					yield("", entryOrError{err: err})
					return
				}
				if !emit(e.Key, false) {
					return
				}
				if i < len(over) && over[i].key == e.Key {
					continue // overlaid: emitted in its turn
				}
				data, err := fromStore(e.Value)
				if !yield(e.Key, entryOrError{data: data, err: err}) {
					return
				}
			}
		}
		emit("", true)
	}
}

type entryOrError struct {
	data []byte
	err  error
}

type overlaidEntry struct {
	key  string
	data []byte
}

func (s *state) overlaid(from, to string, above map[string]cell) (over []overlaidEntry) {
	in := func(key string) bool { return key >= from && (to == "" || key < to) }
	for key, c := range above {
		if in(key) {
			over = append(over, overlaidEntry{key, c.data})
		}
	}
	for key, c := range s.overlay.all() {
		if _, hidden := above[key]; !hidden && in(key) {
			over = append(over, overlaidEntry{key, c.data})
		}
	}
	return over
}

// add puts a commit on top: live and at replay alike.
func (s *state) add(c *commit) {
	s.version, s.at = c.version, c.At
	for _, ch := range c.Changes {
		if ch.Kind == journal.Event {
			continue
		}
		if old, ok := s.overlay.get(ch.Key); ok && old.version == 0 {
			s.readBytes -= len(ch.Key) + len(old.data)
		}
		s.overlay.set(ch.Key, cell{ch.Data, c.version}) // nil data: deleted
	}
	s.tail = append(s.tail, c)
	s.tailBytes += c.size
	s.once.add(c)
}

// folded is the activation's state at the base, nil if there is none.
func (s *state) folded() ([]byte, error) {
	if !s.stored {
		return nil, nil
	}
	raw, err := s.store.Get(s.id, snapshot.State, "")
	if err != nil {
		return nil, err
	}
	return fromStore(raw)
}

// activate makes the class's activation as of the last commit.
func (s *state) activate() (Activation, error) {
	folded, err := s.folded()
	if err != nil {
		return nil, err
	}
	act, err := guarded("Activate", func() (Activation, error) { return s.class.Activate(folded) })
	if err != nil {
		return nil, fmt.Errorf("activate %s from its snapshot: %w", s.id, err)
	}
	for _, c := range s.tail {
		if err := applyEvents(act, c); err != nil {
			return nil, err
		}
	}
	return act, nil
}

// guarded runs code of the class outside a turn. A panic of it costs the object, never the process.
func guarded[T any](what string, f func() (T, error)) (out T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s panicked: %v", what, p)
		}
	}()
	return f()
}

// foldOf is an activation's folded state.
func foldOf(act Activation) ([]byte, error) { return guarded("State", act.State) }

func applyEvents(act Activation, c *commit) error {
	for _, ch := range c.Changes {
		if ch.Kind != journal.Event {
			continue
		}
		if _, err := guarded("Apply", func() (struct{}, error) { return struct{}{}, act.Apply(ch.Type, ch.Data) }); err != nil {
			return fmt.Errorf("version %d: %w", c.version, err)
		}
	}
	return nil
}

// flush brings the store to the record at b, whose last commit is b.Version, and drops what it
// holds from memory. folded is the activation's state at that commit, nil if the class folds nothing.
func (s *state) flush(store snapshot.Store, b base, folded []byte) error {
	n := 0
	for n < len(s.tail) && s.tail[n].version <= b.Version {
		n++
	}
	batch := snapshot.Batch{Clear: !s.stored}
	if s.stored && s.once.ids > 0 { // there may be own ids to forget
		var err error
		if batch.Entries, err = s.once.prune(store, s.id, s.once.ids-ownIDs(s.tail[n:]), b.At, pruneMax); err != nil {
			return err
		}
	}
	last := map[string]int{}
	for _, c := range s.tail[:n] {
		for _, ch := range c.Changes {
			var value []byte
			switch ch.Kind {
			case journal.Put:
				value = toStore(ch.Data)
			case journal.Delete:
			default:
				continue
			}
			if i, ok := last[ch.Key]; ok {
				batch.Entries[i].Value = value
				continue
			}
			last[ch.Key] = len(batch.Entries)
			batch.Entries = append(batch.Entries, snapshot.Entry{Space: snapshot.KV, Key: ch.Key, Value: value})
		}
	}
	if folded != nil {
		batch.Entries = append(batch.Entries, snapshot.Entry{Space: snapshot.State, Value: toStore(folded)})
	}
	var below snapshot.Reader
	if s.stored {
		below = store
	}
	var err error
	if batch.Entries, err = s.once.flush(batch.Entries, below, s.id, s.tail[:n], s.tail[n:], b.At); err != nil {
		return err
	}
	meta, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("snapshot of %s: %w", s.id, err)
	}
	batch.Entries = append(batch.Entries, snapshot.Entry{Space: snapshot.Meta, Value: meta})
	if err := store.Apply(s.id, batch); err != nil {
		return fmt.Errorf("write snapshot of %s: %w", s.id, err)
	}
	s.settle(n, b)
	return nil
}

// saveBase writes what changed in the base beside the position: where the snapshot records are.
func (s *state) saveBase(store snapshot.Store) error {
	meta, err := json.Marshal(s.base)
	if err != nil {
		return fmt.Errorf("snapshot of %s: %w", s.id, err)
	}
	return store.Apply(s.id, snapshot.Batch{Entries: []snapshot.Entry{{Space: snapshot.Meta, Value: meta}}})
}

// settle drops what the store has now.
func (s *state) settle(n int, b base) {
	for _, c := range s.tail[:n] {
		s.tailBytes -= c.size
		for _, ch := range c.Changes {
			if cell, ok := s.overlay.get(ch.Key); ok && ch.Kind != journal.Event && cell.version != 0 && cell.version <= b.Version {
				s.overlay.drop(ch.Key)
			}
		}
	}
	s.tail = slices.Clone(s.tail[n:])
	s.base, s.stored = b, true
}

// bytes is about how much memory the object takes.
func (s *state) bytes() int { return 1024 + 2*s.tailBytes + s.readBytes + s.once.bytes() }
