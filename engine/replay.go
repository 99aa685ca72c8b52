package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// replayed is an object's state with its activation, as of its last record.
type replayed struct {
	state *state
	act   Activation
	at    position
	// subject is the position of the last message on the object's subject, whether or not it counts.
	subject journal.Seq
	read    int // how many records were read and applied
}

// replay rebuilds an object: what the store has, or a snapshot record, and the records after it. into is where a
// snapshot record is unpacked.
//
// An object that wakes has into as its store: a long tail is spilled there, and what the store had as all in this very
// epoch counts as all, since no commit came since. Whoever only looks knows neither.
//
// It is complete, whichever replica answers: Tails is as of a position that is at least the highest that this owner
// saw acknowledged, its epoch included, and the records are read until they reach the one that Tails named.
func (ep *epoch) replay(ctx context.Context, s *state, token string, into snapshot.Store, waking bool) (replayed, error) {
	if err := s.load(); err != nil {
		ep.w.log.Warn("snapshot not readable; the object is rebuilt from its journal", "object", s.id, "err", err)
		s.forget()
	}
	if waking && s.stored && s.base.Epoch == ep.id && s.base.Life == ep.life {
		return ep.activate(s, s.base.position(), s.base.Seq)
	}
	last, snap, err := ep.tails(ctx, s.class.Name, token)
	if err != nil {
		return replayed{}, err
	}
	if err := ep.compare(s, last); err != nil {
		return replayed{}, err
	}
	if err := ep.restore(ctx, s, snap, last, into); err != nil {
		return replayed{}, err
	}
	if last == nil {
		return ep.activate(s, position{}, 0)
	}
	r, err := ep.activate(s, s.base.position(), last.Seq)
	if err != nil {
		return r, err
	}
	return r, ep.catchUp(ctx, &r, last, waking)
}

// catchUp applies the records after r.at up to last.
func (ep *epoch) catchUp(ctx context.Context, r *replayed, last *journal.Message, spill bool) error {
	for try := 0; ; try++ {
		err := ep.readRecords(ctx, r, last, spill)
		if try == behindTries || !errors.Is(err, errBehind) {
			return err
		}
		if err := sleep(ctx, behindWait); err != nil {
			return err
		}
	}
}

// A replica may be behind the one that answered Tails. It is asked again, from where the answer ended, before that
// counts as damage.
const (
	behindTries = 20
	behindWait  = 50 * time.Millisecond
)

var errBehind = fmt.Errorf("%w: the last record is not there", journal.ErrDamaged)

func (b base) position() position { return position{b.Version, b.Seq, b.Hash, b.At} }

func (ep *epoch) activate(s *state, at position, subject journal.Seq) (replayed, error) {
	act, err := s.activate()
	return replayed{state: s, act: act, at: at, subject: subject}, err
}

// tails asks for the ends of the object's journal and snapshots, and for the last epoch with the same question, so that
// an answer from under a newer epoch is seen.
func (ep *epoch) tails(ctx context.Context, class, token string) (last, snap *journal.Message, err error) {
	epochs, records, snaps := ep.ns.Epoch(ep.p), ep.ns.Journal(class, token), ep.ns.Snap(class, token)
	tails, _, err := ep.log.Tails(ctx, ep.committer.high(), epochs, records, snaps)
	if err != nil {
		return nil, nil, fmt.Errorf("ask for the end of the journal: %w", err)
	}
	mine := false
	for i, m := range tails {
		switch m.Subject {
		case epochs:
			mine = m.Seq == ep.seq
		case records:
			last = &tails[i]
		case snaps:
			snap = &tails[i]
		}
	}
	if !mine {
		err := fmt.Errorf("%w: a newer epoch is in the journal", errEpochOver)
		ep.end(err)
		return nil, nil, unavailable(err)
	}
	return last, snap, nil
}

// snapTail is the last part of a snapshot record.
type snapTail struct {
	*journal.Snap
	at journal.Seq
}

// snapOf reads the last part of a snapshot record; nil if it is not the last part of one that counts.
func (ep *epoch) snapOf(m journal.Message) *snapTail {
	if id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch]); err != nil || id != ep.epochAt(m.Seq) {
		ep.stray(m, "a snapshot record of no epoch")
		return nil
	}
	snap, err := journal.DecodeSnap(m.Data)
	if err != nil || snap.Part != snap.Of {
		return nil
	}
	return &snapTail{snap, m.Seq}
}

// restore takes the newest snapshot record that can be used as the base, unless the store's own is newer. newest is the
// last message on the object's snapshot subject, nil if there is none. Usually that is the one; if it cannot be used, the
// ones before it are tried, since the records before them may be purged.
func (ep *epoch) restore(ctx context.Context, s *state, newest, last *journal.Message, into snapshot.Store) error {
	if newest == nil {
		return nil
	}
	if done, err := ep.restoreFrom(ctx, s, *newest, last, into); done || err != nil {
		return err
	}
	ep.w.log.Warn("the last snapshot record cannot be used; an earlier one is looked for", "object", s.id, "stream", ep.log.Stream(), "seq", newest.Seq)
	var earlier []journal.Message
	for m, err := range ep.log.Read(ctx, newest.Subject, 1) {
		if err != nil {
			return fmt.Errorf("read the snapshot records: %w", err)
		}
		if m.Seq < newest.Seq {
			earlier = append(earlier, m)
		}
	}
	for _, m := range slices.Backward(earlier) {
		if done, err := ep.restoreFrom(ctx, s, m, last, into); done || err != nil {
			return err
		}
	}
	return nil // from what the store has, or from the first record
}

// restoreFrom is restore for one message; done tells whether the base is decided.
func (ep *epoch) restoreFrom(ctx context.Context, s *state, m journal.Message, last *journal.Message, into snapshot.Store) (done bool, err error) {
	snap := ep.snapOf(m)
	switch {
	case snap == nil:
		return false, nil
	case last == nil || last.Seq < snap.Seq:
		return false, &journal.CorruptError{Stream: ep.log.Stream(), Seq: snap.Seq, Err: fmt.Errorf("the snapshot record at %d names it: %w", snap.at, journal.ErrDamaged)}
	case s.stored && s.base.Seq >= snap.Seq:
		return true, nil
	}
	if err := ep.unpack(ctx, s, snap, into); errors.Is(err, errUnusable) {
		ep.w.log.Warn("snapshot record not usable", "object", s.id, "seq", snap.at, "err", err)
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, nil
}

// errUnusable says that a snapshot record lacks a part, or has an entry that this version does not know.
var errUnusable = errors.New("the snapshot record is not usable")

// compare holds the store's witness against the journal. A store that knows of a record that the journal does not have
// proves that the journal lost it, unless that was accepted since. A journal whose loss was accepted goes on above what was
// lost, so a later record proves the store's only within one life; across lives it has to be the very record. Forgetting is
// always safe: the store is a cache.
func (ep *epoch) compare(s *state, last *journal.Message) error {
	if !s.stored {
		return nil
	}
	b := s.base
	fits := last != nil && (b.Seq < last.Seq && b.Life == ep.life || b.Seq == last.Seq && b.Hash == journal.HashOf(last.Data))
	switch {
	case fits:
		return nil
	case b.Life < ep.life || b.Life > ep.life && last != nil && last.Seq > b.Seq: // the latter: the bucket has lost that
		ep.w.log.Warn("the snapshot is from before a loss that was accepted; the object is rebuilt from what the journal has", "object", s.id, "version", b.Version)
		s.forget()
		return nil
	}
	have := journal.Seq(0)
	if last != nil {
		have = last.Seq
	}
	what := "the snapshot"
	if b.Copied {
		what = "the standby's copy"
	}
	err := &journal.WentBackError{Stream: ep.log.Stream(), Partition: ep.p, Known: b.Seq, Have: have,
		Witness: fmt.Sprintf("%s of %s at version %d", what, s.id, b.Version), Life: b.Life}
	ep.alarm(err)
	return unavailable(err)
}

// counts tells whether a message is of the epoch before it. One of a later epoch is an error: a stray is of a former one, never of one
// that is still to come.
func (ep *epoch) counts(m journal.Message) (bool, error) {
	id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch])
	if err == nil && id.Number > ep.epochAt(m.Seq).Number {
		return false, &journal.CorruptError{Stream: ep.log.Stream(), Seq: m.Seq, Err: fmt.Errorf("it is of epoch %s, whose record is not there: %w", id, journal.ErrDamaged)}
	}
	if err != nil || id != ep.epochAt(m.Seq) {
		ep.stray(m, "a record of no epoch, or not of the one before it")
		return false, nil //nolint:nilerr // that is what it is
	}
	return true, nil
}

// readRecords is one try of catchUp.
func (ep *epoch) readRecords(ctx context.Context, r *replayed, last *journal.Message, spill bool) error {
	s := r.state
	var odd error // the last record with this epoch that does not fit, until one that fits shows that it was a stray
	reached := r.at.seq == last.Seq
	if !reached {
		for m, err := range ep.log.Read(ctx, last.Subject, r.at.seq+1) {
			if err != nil {
				return fmt.Errorf("read the journal: %w", err)
			}
			if m.Seq > last.Seq {
				break
			}
			reached = m.Seq == last.Seq && journal.HashOf(m.Data) == journal.HashOf(last.Data)
			if ok, err := ep.counts(m); err != nil {
				return err
			} else if !ok {
				continue
			}
			rec, err := journal.DecodeRecord(m.Data)
			if err != nil {
				return &journal.CorruptError{Stream: ep.log.Stream(), Seq: m.Seq, Err: err}
			}
			if rec.First != r.at.version+1 || rec.Prev != r.at.hash {
				odd = &journal.CorruptError{Stream: ep.log.Stream(), Seq: m.Seq, Err: fmt.Errorf(
					"it begins with version %d after %s, before it is version %d with %s", rec.First, rec.Prev, r.at.version, r.at.hash)}
				continue
			}
			if odd != nil {
				ep.w.log.Error("a record that follows nothing is passed over", "object", s.id, "err", odd)
				observe(ep.w.cfg.Observe.Stray, m)
				odd = nil
			}
			if err := r.apply(m, rec); err != nil {
				return &journal.CorruptError{Stream: ep.log.Stream(), Seq: m.Seq, Err: err}
			}
			if spill && s.tailBytes > ep.w.when.flushBytes {
				if err := r.spill(ep); err != nil {
					return err
				}
			}
		}
	}
	switch {
	case odd != nil:
		return odd
	case !reached:
		return fmt.Errorf("stream %s ends before sequence %d of %s, which it names as the last: %w", ep.log.Stream(), last.Seq, s.id, errBehind)
	}
	return nil
}

// apply adds one record.
func (r *replayed) apply(m journal.Message, rec *journal.Record) error {
	for i := range rec.Commits {
		c := &commit{Commit: rec.Commits[i], version: rec.First + journal.Version(i), seq: m.Seq, size: len(m.Data) / len(rec.Commits)}
		r.state.add(c)
		if err := applyEvents(r.act, c); err != nil {
			return err
		}
	}
	r.at = position{rec.Last(), m.Seq, journal.HashOf(m.Data), rec.At}
	r.state.base.Records++
	r.read++
	r.state.base.Bytes += len(m.Data)
	return nil
}

// spill writes what was replayed so far, so that a long tail does not have to be in memory.
func (r *replayed) spill(ep *epoch) error {
	folded, err := foldOf(r.act)
	if err != nil {
		return fmt.Errorf("fold %s: %w", r.state.id, err)
	}
	return r.save(ep, folded)
}

// save writes what was replayed so far into the store. It is not known to be all.
func (r *replayed) save(ep *epoch, folded []byte) error {
	b := r.state.base
	b.Version, b.Seq, b.Hash, b.At, b.Life = r.at.version, r.at.seq, r.at.hash, r.at.at, ep.life
	b.Epoch, b.Copied = journal.EpochID{}, ep.ownsNothing()
	return ep.write(func() error { return r.state.flush(ep.w.store, b, folded) })
}

// unpack takes a snapshot record as the base.
func (ep *epoch) unpack(ctx context.Context, s *state, snap *snapTail, into snapshot.Store) error {
	batch := snapshot.Batch{Clear: true}
	size := 0
	for part := 1; part <= snap.Of; part++ {
		p := snap.Snap
		if part < snap.Of {
			m, err := ep.log.At(ctx, snap.at-journal.Seq(snap.Of-part))
			if err != nil && !errors.Is(err, journal.ErrNotFound) && !errors.Is(err, journal.ErrDamaged) {
				return fmt.Errorf("read part %d of %d of the snapshot record at %d: %w", part, snap.Of, snap.at, err)
			}
			if err != nil {
				return fmt.Errorf("%w: read part %d of %d: %w", errUnusable, part, snap.Of, err)
			}
			if p, err = journal.DecodeSnap(m.Data); err != nil {
				return fmt.Errorf("%w: part %d of %d: %w", errUnusable, part, snap.Of, err)
			}
			if p.Part != part || p.Of != snap.Of || p.Version != snap.Version || p.Hash != snap.Hash {
				return fmt.Errorf("%w: part %d of %d is of another snapshot", errUnusable, part, snap.Of)
			}
		}
		for _, e := range p.Entries {
			if len(e.Space) != 1 {
				return fmt.Errorf("%w: entry of space %q: %w", errUnusable, e.Space, journal.ErrNewer)
			}
			value := e.Data
			if sp := snapshot.Space(e.Space[0]); sp == snapshot.KV || sp == snapshot.State {
				value = toStore(e.Data)
			}
			size += len(value)
			batch.Entries = append(batch.Entries, snapshot.Entry{Space: snapshot.Space(e.Space[0]), Key: e.Key, Value: value})
		}
	}
	b := base{Version: snap.Version, Seq: snap.Seq, Hash: snap.Hash, At: snap.At, Life: ep.life, Copied: ep.ownsNothing()}
	b.Snaps[0] = snapAt{First: snap.at - journal.Seq(snap.Of-1), Covers: snap.Seq, Bytes: size}
	meta, err := json.Marshal(b)
	if err != nil {
		return err
	}
	batch.Entries = append(batch.Entries, snapshot.Entry{Space: snapshot.Meta, Value: meta})
	if err := ep.write(func() error { return into.Apply(s.id, batch) }); errors.Is(err, errEpochOver) {
		return err
	} else if err != nil {
		return ep.storeFailed(err)
	}
	*s = *newState(into, s.id, s.class)
	return s.load()
}

// stray reports a message that a reader must not count. That there is one means that the fence was passed or that
// somebody else writes into the stream.
func (ep *epoch) stray(m journal.Message, why string) {
	ep.w.log.Error("message in the journal does not count", "why", why, "stream", ep.log.Stream(), "seq", m.Seq, "subject", m.Subject)
	observe(ep.w.cfg.Observe.Stray, m)
}

// readTimeout is how long the journal may take to answer one question.
const readTimeout = 15 * time.Second

// wake brings the object into memory unless it is there. errGivenUp means that this goroutine does not run the object
// any more.
func (o *object) wake(run int, tk *task) error {
	if o.act != nil {
		return nil
	}
	now := o.ep.w.awake()
	if o.broken != nil && now < o.retryAt {
		return o.broken
	}
	err := o.rouse(run, tk)
	switch {
	case errors.Is(err, errGivenUp):
		return err
	case err == nil:
		o.broken = nil
		return nil
	}
	o.act = nil
	o.broken, o.retryAt = o.ep.wakeError(o.String(), err), now+brokenFor
	return o.broken
}

// brokenFor is how long an object that does not wake up answers with the same error before it is tried again.
const brokenFor = time.Second

// wakeError is why an object is not awake, or cannot be looked at, as its callers hear it.
func (ep *epoch) wakeError(object string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if _, corrupt := errors.AsType[*journal.CorruptError](err); corrupt || errors.Is(err, journal.ErrDamaged) {
		ep.w.log.Error("object stopped: its journal cannot be replayed", "object", object, "err", err)
		return Errorf(Internal, "the object is stopped: %w", err)
	}
	ep.w.log.Warn("object not woken", "object", object, "err", err)
	return unavailable(err)
}

func (o *object) rouse(run int, tk *task) error {
	began := o.ep.w.awake()
	if o.state == nil && o.ep.ownsNothing() {
		if err := o.rouseCopy(); err != nil {
			return err
		}
	} else if o.state == nil {
		// No limit of time: a long journal takes long. Each question to the log has its own, and all end with the epoch.
		r, err := o.ep.replay(o.ep.ctx, newState(o.ep.w.store, o.id, o.class), o.token(), o.ep.w.store, true)
		if err != nil {
			return err
		}
		o.mu.Lock()
		o.durable, o.acked, o.last = r.at.version, r.at, r.at.hash
		o.fresh, o.subject = true, r.subject
		o.mu.Unlock()
		o.state, o.act = r.state, r.act
		o.ep.w.observeWake(o.class, o.ep.w.awake()-began, r.read)
	} else {
		act, err := o.state.activate()
		if err != nil {
			return err
		}
		o.act = act
	}
	return wakeUp(o, o.act, run, tk)
}
