package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// thresholds say when a state goes from memory into the store, and a snapshot of it into the journal.
type thresholds struct {
	flushBytes   int // of commits in memory; more if the class's folded state is larger
	flushCommits int
	snapRecords  int           // a snapshot record when so many records, and snapRatio times the state's bytes, came since the last one;
	snapQuiet    int           // or so many records, when the object rests or leaves memory
	rest         time.Duration // an object that was idle for so long rests: what the store can have leaves memory
}

// usual is what every worker has. The simulation has smaller ones, so that it gets there.
var usual = thresholds{flushBytes: 64 << 10, flushCommits: 1024, snapRecords: 100, snapQuiet: 25, rest: 5 * time.Second}

const (
	snapRatio    = 4
	snapBytesMax = 16 << 20 // a larger state gets no snapshot record
	snapPartsMax = journal.Window / 2
)

// capture decides whether the state goes into the store, and if so takes what the class has folded, as of the turn that
// just ended: later turns go on while the commits up to it become durable. A record will end here, so that the snapshot
// has a position.
func (o *object) capture() (folded []byte, ok bool) {
	s := o.state
	when := &o.ep.w.when
	if o.act == nil || o.capturing || s.tailBytes < max(when.flushBytes, o.folded) && len(s.tail) < when.flushCommits {
		return nil, false
	}
	folded, err := foldOf(o.act)
	if err != nil {
		o.ep.w.log.Error("state does not encode; it stays in memory", "object", o, "err", err)
		return nil, false
	}
	o.capturing, o.folded = true, len(folded)
	return folded, true
}

// captured writes the captured state when its record is durable.
func (o *object) captured(folded []byte, err error) {
	if err != nil {
		return // the epoch is over, and this object with it
	}
	o.mu.Lock()
	at := o.acked
	o.mu.Unlock()
	o.chore(func() {
		o.capturing = false
		o.flush(at, folded)
		o.maybeSnapshot(o.ep.w.when.snapRecords)
		o.weigh()
	})
}

// flush brings the store to a durable record. Only the object's runner calls it.
func (o *object) flush(at position, folded []byte) (ok bool) {
	s := o.state
	b := s.base
	b.Version, b.Seq, b.Hash, b.At = at.version, at.seq, at.hash, at.at
	b.Epoch, b.Life, b.Copied = o.ep.id, o.ep.life, false
	o.mu.Lock()
	b.Records, b.Bytes = b.Records+o.records, b.Bytes+o.bytes
	o.records, o.bytes = 0, 0
	o.mu.Unlock()
	err := o.ep.write(func() error { return s.flush(o.ep.w.store, b, folded) })
	if err != nil && !errors.Is(err, errEpochOver) {
		_ = o.ep.storeFailed(err) // the worker shuts down; the journal has everything
	}
	return err == nil
}

// rest lets go of what the object needs for its next turn only if that comes soon, if nothing waits for it: its commits,
// which go into the store, and the timer of its last turn.
func (o *object) rest() {
	if o.capturing || !o.save() {
		return
	}
	o.weigh()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.unwatch()
}

// save brings the store to the object's last commit, unless something waits for the object, and tells whether it is there.
func (o *object) save() bool {
	if !o.quiet() {
		return false
	}
	s := o.state
	if o.ep.ownsNothing() {
		return true // the follower has it
	}
	if s == nil || s.version == 0 || len(s.tail) == 0 && s.base.Epoch == o.ep.id {
		return true
	}
	if o.act == nil {
		act, err := s.activate()
		if err != nil {
			o.touch() // it stays as it is, and the next request tells
			return false
		}
		o.act = act
	}
	folded, err := foldOf(o.act)
	if err != nil {
		o.ep.w.log.Error("state does not encode; the object stays in memory", "object", o, "err", err)
		o.touch()
		return false
	}
	o.mu.Lock()
	at := o.acked
	o.mu.Unlock()
	if !o.flush(at, folded) {
		return false
	}
	o.maybeSnapshot(o.ep.w.when.snapQuiet)
	return true
}

// evict takes the object out of memory if nothing waits for it.
func (o *object) evict() {
	if !o.save() {
		return
	}
	o.mu.Lock()
	busy := len(o.queue) > 0 || len(o.chores) > 0 || o.snapping != nil || o.gone
	if !busy {
		o.leave()
		o.ep.w.memory.Add(-int64(o.memory))
		o.memory = 0
	}
	o.mu.Unlock()
	if !busy {
		o.ep.remove(o)
	}
}

// quiet tells whether nothing waits for the object and all its commits are durable.
func (o *object) quiet() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) == 0 && len(o.pending) == 0 && len(o.waiters) == 0 && o.unacked == 0 && o.turn == nil && !o.gone
}

// touch has the object count as idle from now on: what has failed is tried again when it was idle for as long once more.
func (o *object) touch() {
	o.mu.Lock()
	o.idleSince = o.ep.w.awake()
	o.mu.Unlock()
}

// idle is since when the object does nothing. One that is worn has something to let go of when it rests.
func (o *object) idle() (since time.Duration, worn, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.idleSince, o.records > 0 || o.watched != nil, !o.running && !o.gone && len(o.waiters) == 0 && o.unacked == 0 && len(o.pending) == 0
}

// finished tells whether nothing of what was asked of the object is still to be done or answered.
func (o *object) finished() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gone || !o.running && len(o.waiters) == 0 && o.unacked == 0 && len(o.pending) == 0
}

// weigh tells the worker's budget what the object takes.
func (o *object) weigh() {
	if o.state == nil {
		return
	}
	n := o.state.bytes() + o.folded
	o.mu.Lock()
	if o.gone { // it counts for nothing any more
		o.mu.Unlock()
		return
	}
	d := n - o.memory
	o.memory = n
	o.mu.Unlock()
	if o.ep.w.memory.Add(int64(d)) > o.ep.w.cfg.MemoryBytes {
		o.ep.pressed()
	}
}

// maybeSnapshot writes a snapshot record if enough has happened since the last one. It is taken from a view of the
// store, which stays as it is while later turns run, and goes through the committer like everything in the stream.
func (o *object) maybeSnapshot(records int) {
	b := o.state.base
	if o.snapping != nil || b.Records < max(records, o.snapMin) || b.Bytes < snapRatio*b.Snaps[0].Bytes {
		return
	}
	view, err := o.ep.w.store.View()
	if err != nil {
		_ = o.ep.storeFailed(err)
		return
	}
	o.snapping = make(chan struct{})
	o.ep.w.running.Go(func() {
		parts, size, err := o.snapParts(view, b)
		if err2 := view.Close(); err == nil {
			err = err2
		}
		if err != nil || len(parts) == 0 {
			if err != nil {
				o.ep.w.log.Warn("no snapshot record", "object", o, "err", err)
			}
			o.chore(func() { o.snapMin = 2 * b.Records; o.snapped() })
			return
		}
		o.ep.committer.enqueueBatch(&batch{messages: parts, stored: func(last journal.Seq) {
			o.chore(func() { o.snapshotStored(b, last, len(parts), size) })
		}})
	})
}

// snapped ends the making of a snapshot record.
func (o *object) snapped() {
	close(o.snapping)
	o.snapping = nil
}

func (o *object) snapshotStored(b base, last journal.Seq, parts, size int) {
	o.snapped()
	s := o.state
	s.base.Snaps[1] = s.base.Snaps[0]
	s.base.Snaps[0] = snapAt{First: last - journal.Seq(parts-1), Covers: b.Seq, Bytes: size}
	s.base.Records -= b.Records
	s.base.Bytes -= b.Bytes
	if err := o.ep.write(func() error { return s.saveBase(o.ep.w.store) }); err != nil {
		if !errors.Is(err, errEpochOver) {
			_ = o.ep.storeFailed(err)
		}
		return
	}
	if o.class.Limits.Purge {
		o.purge()
	}
}

// snapParts makes the messages of a snapshot record. A state that is too large makes none.
func (o *object) snapParts(view snapshot.View, b base) (messages []journal.Message, size int, err error) {
	var parts []journal.Snap
	var entries []journal.SnapEntry
	bytes := 0
	cut := func() {
		parts = append(parts, journal.Snap{Part: len(parts) + 1, Version: b.Version, Seq: b.Seq, Hash: b.Hash, At: b.At, Entries: entries})
		entries, bytes = nil, 0
	}
	for _, space := range []snapshot.Space{snapshot.KV, snapshot.State, snapshot.Window} {
		for e, err := range view.Scan(o.id, space, "", "", false) {
			if err != nil {
				return nil, 0, err
			}
			data := e.Value
			if space != snapshot.Window {
				if data, err = fromStore(e.Value); err != nil {
					return nil, 0, fmt.Errorf("%c %q: %w", space, e.Key, err)
				}
			}
			n := len(e.Key) + len(data) + 64
			if size += n; size > snapBytesMax {
				return nil, 0, nil
			}
			if bytes += n; bytes > o.ep.recordMax/2 && len(entries) > 0 {
				cut()
				bytes = n
			}
			entries = append(entries, journal.SnapEntry{Space: string(rune(space)), Key: e.Key, Data: data})
		}
	}
	cut()
	if len(parts) > snapPartsMax {
		return nil, 0, nil
	}
	for _, p := range parts {
		p.Of = len(parts)
		data, err := p.Encode()
		if err != nil {
			return nil, 0, err
		}
		if len(data) > o.ep.recordMax {
			return nil, 0, nil // keys that need many escapes
		}
		messages = append(messages, journal.Message{Subject: o.ep.ns.Snap(o.class.Name, o.token()), Header: o.ep.header, Data: data})
	}
	return messages, size, nil
}

// purge removes the records that two complete snapshot records cover, and the snapshot records before those two.
func (o *object) purge() {
	s := o.state
	older := s.base.Snaps[1]
	if older.Covers == 0 {
		return
	}
	before := older.Covers // the record that the snapshot names stays: it is the chain's next link
	if named, err := s.oldestNamed(); err != nil {
		_ = o.ep.storeFailed(err)
		return
	} else if named != 0 {
		before = min(before, named)
	}
	o.ep.w.running.Go(func() {
		ctx, cancel := context.WithTimeout(o.ep.ctx, readTimeout)
		defer cancel()
		err := o.ep.log.Purge(ctx, o.ep.ns.Journal(o.class.Name, o.token()), before)
		if err == nil {
			err = o.ep.log.Purge(ctx, o.ep.ns.Snap(o.class.Name, o.token()), older.First)
		}
		if err != nil {
			o.ep.w.log.Warn("records not purged", "object", o, "before", before, "err", err)
		}
	})
}

// oldestNamed is the lowest position of a record that a kept reply is read back from, 0 if there is none.
func (s *state) oldestNamed() (journal.Seq, error) {
	lowest := s.once.oldestNamed()
	for e, err := range s.store.Scan(s.id, snapshot.Window, "i/", "i0", false) {
		if err != nil {
			return 0, err
		}
		var a answer
		if err := json.Unmarshal(e.Value, &a); err != nil {
			return 0, fmt.Errorf("snapshot of %s: %s: %w", s.id, e.Key, err)
		}
		if a.Seq != 0 && (lowest == 0 || a.Seq < lowest) {
			lowest = a.Seq
		}
	}
	return lowest, nil
}
