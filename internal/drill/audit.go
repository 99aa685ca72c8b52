package drill

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Epoch is the begin or the end of a worker's ownership of a partition, as the journal has it.
type Epoch struct {
	Partition int
	Seq       journal.Seq
	At        time.Time // when the server stored it
	Record    journal.EpochRecord
}

// Audit holds a ledger against the journal. It is given a partition's epochs and then, in the stream's order, its records
// from the drill's begin on, one partition after the other. By the rule of every reader it counts those that are of the last
// epoch before them and fit behind the object's record before.
type Audit struct {
	ledger *Ledger
	trails map[string]*trail // by subject
	epochs []Epoch           // of the partition
	next   int               // of epochs
	found  findings

	Records, Commits int
	Applied          int // of those whose outcome is unknown
}

// trail is one object's history.
type trail struct {
	account *account
	version journal.Version
	prev    journal.Hash
	seen    []bool                     // by the number of the call
	moved   map[uint32]journal.Version // calls that are not where the ledger was told
}

// NewAudit begins an audit of a ledger that is complete.
func NewAudit(l *Ledger, subjectOf func(object int) string) *Audit {
	a := &Audit{ledger: l, trails: map[string]*trail{}}
	for i, o := range l.objects {
		a.trails[subjectOf(i)] = &trail{account: o, seen: make([]bool, o.calls+1), moved: map[uint32]journal.Version{}}
	}
	return a
}

// Partition begins a partition.
func (a *Audit) Partition(epochs []Epoch) { a.epochs, a.next = epochs, 0 }

// Record takes a message on an object's subject.
func (a *Audit) Record(m journal.Message) error {
	t := a.trails[m.Subject]
	if t == nil {
		return nil // of somebody else's object
	}
	for a.next < len(a.epochs) && a.epochs[a.next].Seq < m.Seq {
		a.next++
	}
	id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch])
	if err != nil || a.next == 0 || id != a.epochs[a.next-1].Record.Epoch {
		return nil //nolint:nilerr // it counts for nothing; package verify tells of it
	}
	r, err := journal.DecodeRecord(m.Data)
	if err != nil {
		return fmt.Errorf("sequence %d: %w", m.Seq, err)
	}
	if r.First != t.version+1 || r.Prev != t.prev {
		return nil
	}
	t.prev = journal.HashOf(m.Data)
	a.Records++
	for _, c := range r.Commits {
		t.version++
		a.Commits++
		a.commit(t, c.ID)
	}
	return nil
}

// commit takes the commit that made the trail's version.
func (a *Audit) commit(t *trail, id string) {
	o, n := t.account, a.ledger.number(id)
	switch {
	case n == 0 || n > o.calls:
		a.finding(Unasked, o, 0, "version %d was made by the request %.80q, which is none of this drill", t.version, id)
	case t.seen[n]:
		a.finding(Twice, o, n, "version %d is made by it, as an earlier one was", t.version)
	default:
		t.seen[n] = true
		if t.version > journal.Version(len(o.acked)) || o.acked[t.version-1] != n {
			t.moved[n] = t.version
		}
	}
}

// End tells what does not fit. It may be called once.
func (a *Audit) End() {
	trails := make([]*trail, 0, len(a.trails))
	for _, t := range a.trails {
		trails = append(trails, t)
	}
	slices.SortFunc(trails, func(x, y *trail) int { return cmp.Compare(x.account.name, y.account.name) })
	for _, t := range trails {
		o := t.account
		for i, n := range o.acked {
			if n != 0 {
				a.told(t, n, journal.Version(i+1))
			}
		}
		for _, s := range o.strange {
			a.told(t, s.call, s.version)
		}
		for _, n := range o.refused {
			if t.seen[n] {
				a.finding(Unasked, o, n, "its caller was told that it was not done, and the journal has it")
			}
		}
		for _, n := range o.unknown {
			if t.seen[n] {
				a.Applied++
			}
		}
	}
}

// told holds one acknowledged call against the journal.
func (a *Audit) told(t *trail, n uint32, version journal.Version) {
	switch at, moved := t.moved[n]; {
	case !t.seen[n]:
		a.finding(Lost, t.account, n, "it was told version %d, and the journal does not have it; that ends at version %d", version, t.version)
	case moved && at != version:
		a.finding(OutOfOrder, t.account, n, "it was told version %d, and is version %d in the journal", version, at)
	}
}

func (a *Audit) finding(f Fault, o *account, call uint32, format string, args ...any) {
	a.found.add(Finding{Fault: f, Object: o.name, Call: a.ledger.id(call), What: fmt.Sprintf(format, args...)})
}

// Reached is the version that an object has in the journal.
func (a *Audit) Reached(subject string) journal.Version { return a.trails[subject].version }
