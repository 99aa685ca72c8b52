package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/journal"
)

// leaseValue is what the key worker.<id> holds.
type leaseValue struct {
	Nonce   journal.Token `json:"nonce"`
	Created journal.Seq   `json:"created,omitempty"` // the revision that created this incarnation; 0 in that revision itself
	Closed  bool          `json:"closed,omitempty"`
	TermMS  int64         `json:"term_ms"`
	Intake  string        `json:"intake"`           // local: callers are answered in the process too, not only through its connection; else nats
	Server  string        `json:"server,omitempty"` // the run of the server that its requests, answers and appends go through
	At      time.Time     `json:"at"`               // of this renewal, by the worker's clock: for people

	// What follows is for the share, which decides nothing about safety.
	Standing standing  `json:"standing,omitempty"`
	Began    time.Time `json:"began"`           // this life, by the worker's clock
	Flaps    int       `json:"flaps,omitempty"` // how many lives in a row before it ended early
	Software string    `json:"software,omitempty"`

	// Gone are incarnations of this worker that are closed although their revisions are later than the present one,
	// because the bucket came back shorter. The lock on the data folder proves it.
	Gone []journal.Incarnation `json:"gone,omitempty"`

	// Reads is the highest format that the worker reads. A lease that says nothing is of a worker that reads the first.
	Reads int `json:"reads,omitempty"`

	kept journal.Extra
}

func leaseKey(worker string) string { return "worker." + worker }

func (v leaseValue) encode() []byte {
	b, err := journal.EncodeKeeping(v, v.kept)
	if err != nil {
		panic(fmt.Sprintf("engine: a lease does not encode: %v", err)) // its fields always do
	}
	return b
}

// lease is a lease key as it was read: its value and revision, or that it is absent.
type lease struct {
	leaseValue
	rev journal.Seq
}

func decodeLease(value []byte, rev journal.Seq) (lease, error) {
	l := lease{rev: rev}
	if value == nil {
		return l, nil
	}
	var err error
	if l.kept, err = journal.DecodeKeeping(value, &l.leaseValue); err != nil {
		return l, fmt.Errorf("lease: %w", err)
	}
	return l, nil
}

func (l lease) absent() bool { return l.Nonce == 0 }

func (l lease) incarnation() journal.Incarnation {
	inc := journal.Incarnation{Revision: l.Created, Nonce: l.Nonce}
	if inc.Revision == 0 {
		inc.Revision = l.rev
	}
	return inc
}

func (l lease) reads() int { return max(l.Reads, journal.FormatBase) }

func (l lease) term() time.Duration { return time.Duration(l.TermMS) * time.Millisecond }

// proves tells whether the key proves that an incarnation is closed: it says so, or it holds a later one, which is
// created only on top of a closed one. Absence and an earlier incarnation prove nothing: a bucket can lose its end.
func (l lease) proves(closed journal.Incarnation) bool {
	switch inc := l.incarnation(); {
	case l.absent():
		return false
	case inc == closed:
		return l.Closed
	default:
		return inc.Revision > closed.Revision || slices.Contains(l.Gone, closed)
	}
}

// verdict is what a worker may do about a partition.
type verdict uint8

const (
	mustWait verdict = iota // until the lease of the last epoch's worker is closed
	mayBegin                // append the epoch batch
)

// mayFollow decides whether a worker of incarnation me may begin an epoch after last, nil if there is none. holder is
// the lease key of last's worker.
//
// An epoch may be followed only by its own worker under the same incarnation, by anyone once that incarnation is closed,
// and by anyone if it is a release, whose author stopped answering before it sent it.
func mayFollow(last *journal.EpochRecord, worker string, me journal.Incarnation, holder lease) verdict {
	switch {
	case last == nil, last.Release:
		return mayBegin
	case last.Worker == worker && last.Incarnation == me:
		return mayBegin
	case holder.proves(last.Incarnation):
		return mayBegin
	}
	return mustWait
}

// trust is how long a worker may rely on its lease. It counts from when the renewal that succeeded was SENT, so a slow
// answer does not make it longer.
type trust struct {
	term  time.Duration
	until time.Duration // on the clock that goes on while the machine sleeps
}

func (t *trust) renewed(sent time.Duration)      { t.until = max(t.until, sent+t.term) }
func (t *trust) valid(now time.Duration) bool    { return now < t.until }
func (t *trust) renewEvery() time.Duration       { return t.term / 4 }
func takerWait(term time.Duration) time.Duration { return term + term/10 }
