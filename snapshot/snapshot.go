// Package snapshot is what the engine asks of the store that keeps objects' states on a worker. The store is a cache,
// never the truth: it may be deleted, lost in part from its end, or old, and everything in it can be rebuilt from the
// journal. It knows keys, not records. snapshot/pebblestore is the store on disk, [Memory] one in memory, and both pass
// the same tests (snapshot/snapshottest).
package snapshot

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// ID names an object in the store: class, a dot, and the escaped name. It is not empty and has no byte 0.
type ID string

// ErrID is the error for an ID that is empty or has a byte 0.
var ErrID = errors.New("not an object's id")

// Check returns an [ErrID] if the ID is empty or has a byte 0: with one, an object could reach another's entries.
func (id ID) Check() error {
	if id == "" || strings.IndexByte(string(id), 0) >= 0 {
		return fmt.Errorf("%w: %q is empty or has a byte 0", ErrID, string(id))
	}
	return nil
}

// Space is a kind of entry. An object's state is ordered entries in spaces. A store takes any byte.
type Space byte

const (
	Meta   Space = 'm' // what the state is true at, and what is not in another space
	KV     Space = 'k' // storage keys
	State  Space = 's' // folded state
	Window Space = 'w' // requests that were answered
)

// Entry is one entry of an object. Its key is any string, the empty one too; keys are ordered as bytes. In a [Batch] a
// nil Value deletes it; an empty Value that is not nil is a value.
type Entry struct {
	Space Space
	Key   string
	Value []byte
}

// Batch are changes of one object that apply together, in order: of two entries with one key the later wins.
type Batch struct {
	Clear   bool // first delete all the object's entries
	Entries []Entry
}

// Reader reads objects. Slices that it returns are the caller's. An ID that [ID.Check] refuses is its error.
type Reader interface {
	// Get is one entry; nil if there is none. An empty value is not nil.
	Get(id ID, space Space, key string) ([]byte, error)
	// Scan yields the entries of a space with from <= key < to in order, or in reverse; an empty to is no bound. After
	// an error it ends.
	//
	// Scan itself reads nothing: each range over the sequence reads the store as it is when that range begins, whatever
	// is applied meanwhile, so a sequence that nobody ranges over holds nothing. To read at an earlier moment, or several
	// times at the same one, scan a [View].
	Scan(id ID, space Space, from, to string, reverse bool) iter.Seq2[Entry, error]
}

// View is the store as it was when the view was made. It must be closed, once, after the last range over its scans and
// before the store; until then it keeps what it shows on disk or in memory.
type View interface {
	Reader
	Close() error
}

// Store keeps the states of objects. Safe for concurrent use.
type Store interface {
	Reader
	// Apply applies a batch, all of it or nothing, also when the process ends meanwhile. What it applied can be read
	// when it returns. It does not sync: a crash may lose the batches applied last, never one before a kept one.
	// It keeps none of the batch's slices. After an error other than [ErrID] the store may be unusable; the worker that
	// uses it shuts down.
	Apply(id ID, b Batch) error
	// View is the store as it is now.
	View() (View, error)
	// Index adds names to the list of all objects, all of them or none.
	Index(ids ...ID) error
	// Names yields the names of the list that begin with prefix and come after the name after, in order; an empty after
	// is before all. It reads the list as it is when the range begins. The list is independent of the objects' entries:
	// Clear takes no name from it.
	Names(prefix, after string) iter.Seq2[ID, error]
	// Close ends the store. Nothing may use it then or later, and its views are closed.
	Close() error
}
