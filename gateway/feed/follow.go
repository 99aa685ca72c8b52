package feed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// record is a message on an object's subject.
type record struct {
	m           journal.Message
	class, name string
	counts      bool // it is of the last epoch before it

	once    sync.Once
	entries []engine.JournalEntry
	json    [][]byte // of the entries, without their replies
}

// size is about what it takes in memory, decoded and encoded anew.
func (r *record) size() int { return 3*r.m.Size() + 512 }

// decode is done once for all listeners, when the first one wants it.
func (r *record) decode() {
	r.once.Do(func() {
		r.entries = engine.Entries(r.m, r.class, r.name)
		r.json = make([][]byte, len(r.entries))
		for i, e := range r.entries {
			e.Reply = nil
			b, err := json.Marshal(e)
			if err != nil { // what was decoded from JSON encodes
				b, _ = json.Marshal(engine.JournalEntry{Class: e.Class, Name: e.Name, Seq: e.Seq, Version: e.Version, At: e.At, Problem: err.Error()})
			}
			r.json[i] = b
		}
	})
}

// follow yields the records of a partition from a position on, and then waits for more. Patterns are of objects' subjects.
func follow(ctx context.Context, log journal.Log, ns wire.Subjects, p int, from journal.Seq, patterns ...string) iter.Seq2[*record, error] {
	return func(yield func(*record, error) bool) {
		epochs := ns.Epoch(p)
		epoch, err := epochBefore(ctx, log, epochs, from)
		if err != nil {
			yield(nil, err)
			return
		}
		for m, err := range log.Follow(ctx, from, append(patterns, epochs)...) {
			if err != nil {
				yield(nil, err)
				return
			}
			if m.Subject == epochs {
				if r, err := journal.DecodeEpoch(m.Data); err == nil && !r.Release {
					epoch = r.Epoch
				}
				continue
			}
			r := &record{m: m}
			id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch])
			class, token, ok := ns.Object(m.Subject)
			name, err2 := wire.Unescape(token)
			r.class, r.name, r.counts = class, name, err == nil && err2 == nil && ok && id == epoch
			if !yield(r, nil) {
				return
			}
		}
	}
}

// epochBefore is the last epoch that begins before a position, which is not beyond the stream's end.
func epochBefore(ctx context.Context, log journal.Log, subject string, from journal.Seq) (journal.EpochID, error) {
	last, err := log.Last(ctx, subject)
	if errors.Is(err, journal.ErrNotFound) {
		return journal.EpochID{}, nil
	}
	if err != nil {
		return journal.EpochID{}, fmt.Errorf("read the last epoch: %w", err)
	}
	if r, err := journal.DecodeEpoch(last.Data); err == nil && last.Seq < from {
		return r.Epoch, nil // a release names the epoch that it ends
	}
	var epoch journal.EpochID
	for m, err := range log.Read(ctx, subject, 1) {
		if err != nil {
			return epoch, fmt.Errorf("read the epochs: %w", err)
		}
		if m.Seq >= from {
			return epoch, nil
		}
		if r, err := journal.DecodeEpoch(m.Data); err == nil && !r.Release {
			epoch = r.Epoch
		}
		if m.Seq == last.Seq {
			return epoch, nil
		}
	}
	return epoch, fmt.Errorf("read the epochs: they end before the last, at %d: the replica that answered is behind", last.Seq)
}
