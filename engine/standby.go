package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// A standby follows the journal of a partition that its worker would own next, and keeps what the objects are in the worker's
// store, as an owner does. Then a take-over finds states there that are true at the objects' last records, and replays
// nothing. It writes neither into the journal nor into the bucket, and nothing about safety hangs on it: whoever wakes an object compares
// its state with the journal, whoever wrote it.
//
// Two never write an object's entries at one time. A follower begins only while no epoch of this worker's is there
// (claim.enter), and an epoch that has its fence waits until the follower has ended before it serves, which is before it writes (claim.takeCopy);
// own allows the next follower when that epoch has written its last (epoch.waitWritten, claim.giveCopy).

// standby is a claim's place for whoever follows the partition. Guarded by the claim's mu.
type standby struct {
	next     bool // the partition would be ours next
	taken    bool // an epoch of ours is there, or about to be
	follower *follower
}

// setNext says whether the partition would be ours if its owner were not there.
func (c *claim) setNext(next bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copy.next != next {
		c.copy.next = next
		c.changed()
	}
}

// follows tells whether the partition is to be followed, and what is closed when that changes. What has become ours is followed on until an
// epoch of ours begins.
func (c *claim) follows() (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return (c.copy.next || c.ours && c.copy.follower != nil) && !c.copy.taken, c.change()
}

// enter lets a follower begin.
func (c *claim) enter(f *follower) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.copy.next || c.copy.taken {
		return false
	}
	c.copy.follower = f
	return true
}

// exit is a follower's end.
func (c *claim) exit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.copy.follower = nil
}

// takeCopy ends the follower, for an epoch whose record is at a position, and returns when it has ended: at that record if it was not far
// behind. None begins before giveCopy.
func (c *claim) takeCopy(at journal.Seq) {
	c.mu.Lock()
	c.copy.taken = true
	f := c.copy.follower
	if f != nil {
		f.finish <- at // there is room: it is told once
	}
	c.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

// copied is how far the partition is followed; 0: it is not.
func (c *claim) copied() journal.Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copy.follower == nil {
		return 0
	}
	return journal.Seq(c.copy.follower.seen.Load())
}

// giveCopy says that no epoch of ours is there.
func (c *claim) giveCopy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.copy.taken {
		c.copy.taken = false
		c.changed()
	}
}

// followed is how far a partition's copies go: what counts up to there is in the store, but of objects that were left.
type followed struct {
	Seq  journal.Seq  `json:"seq"`
	Hash journal.Hash `json:"hash"` // of the message there
	Life uint64       `json:"life"`
}

// followedID is where the store has it: no object has that id.
func followedID(p int) snapshot.ID { return snapshot.ID(fmt.Sprintf("$standby.%d", p)) }

// follower follows one partition.
//
// A state is what a replay makes: a record counts by the same rule, and goes on from the one before it by version and hash. Where the copy
// cannot go on, since records are purged, it begins anew from the snapshot record, one object at a time. An object that this
// does not help, or whose journal went back, is left as it is until it wakes up.
type follower struct {
	ep     *epoch // it owns nothing
	at     followed
	seen   atomic.Uint64 // at.Seq, for others
	last   []byte        // the message there
	reach  journal.Seq   // the last message that there was when it began: from there on it is not behind
	copies map[snapshot.ID]*replayed
	bytes  int  // of what the copies hold that the store does not have
	broken bool // a write failed: what it was to write is not known any more
	left   map[snapshot.ID]bool
	finish chan journal.Seq
	done   chan struct{}

	asks    chan func()             // what readers have it do between two messages
	waiting map[snapshot.ID][]*wait // reads that want a version which is not there yet
	waits   int
	stop    func() // ends what it is asked from elsewhere; nil: its copies answer nothing yet
}

const (
	copiesMax     = 1024    // objects that have something which the store does not have yet:
	copyBytesMax  = 4 << 20 // few, since a take-over waits until it has
	copyEvery     = time.Second
	copyCatchUp   = 250 * time.Millisecond // a take-over waits no longer until the copies are up to date
	copyAhead     = 256                    // messages on the way to a follower
	copyLeftMax   = 10000                  // objects that are known to be left
	copyRetryLast = 5 * time.Second
)

// stand follows a partition whenever that is to be followed, until ctx is done.
func (s *session) stand(ctx context.Context, p int) {
	c := &s.claims[p]
	for backoff := firstBackoff; ctx.Err() == nil; {
		follows, moved := c.follows()
		if !follows {
			backoff = firstBackoff
			select {
			case <-moved:
			case <-ctx.Done():
			}
			continue
		}
		began := s.w.awake()
		err := s.follow(ctx, p)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if s.w.awake()-began > copyRetryLast {
			backoff = firstBackoff
		}
		s.w.log.Warn("partition not followed; tried again", "partition", p, "err", err)
		_ = sleep(ctx, jitter(backoff, s.w.cfg.ID, p, s.w.clock.Boot()))
		backoff = min(2*backoff, copyRetryLast)
	}
}

// follow follows a partition until it is not to be followed any more. nil is for an end that was asked for.
func (s *session) follow(ctx context.Context, p int) error {
	f, err := s.newFollower(ctx, p)
	if err != nil {
		return err
	}
	defer f.ep.cancel()
	defer close(f.done)
	if !s.claims[p].enter(f) {
		return nil
	}
	defer s.claims[p].exit()
	s.w.log.Info("partition followed", "partition", p, "from", f.at.Seq+1)
	err = f.run(ctx)
	f.unread()
	defer f.ep.end(errStopped)
	switch cause := context.Cause(s.w.life); {
	case errors.Is(cause, errKilled):
		return nil
	case f.broken: // while the worker drains its life says nothing of that
		return err
	case cause != nil && !errors.Is(cause, errDrain):
		return err // a write failed, and what it was to write is not known any more: another one would leave half a state
	}
	return errors.Join(err, f.flush())
}

func (s *session) newFollower(ctx context.Context, p int) (*follower, error) {
	w, _, err := journal.ReadWitness(ctx, s.js.Meta(), p)
	if err != nil {
		return nil, err
	}
	log := s.js.Log(p)
	last, at, err := lastEpoch(ctx, log, s.w.ns.Epoch(p))
	if err == nil {
		err = s.compare(ctx, log, p, w, last, at) // what is shorter than it was known to be is not read, either
	}
	if err != nil {
		return nil, err
	}
	ep := s.newEpoch(p, log, nil, w)
	ep.committer = newCommitter(ep, 1)
	ep.ctx, ep.cancel = context.WithCancel(ctx)
	f := &follower{ep: ep, copies: map[snapshot.ID]*replayed{}, left: map[snapshot.ID]bool{}, finish: make(chan journal.Seq, 1), done: make(chan struct{}),
		asks: make(chan func(), asksMax), waiting: map[snapshot.ID][]*wait{}}
	ep.follower = f
	if err := f.open(ep.ctx); err != nil {
		ep.cancel()
		return nil, err
	}
	return f, nil
}

// open finds where to go on.
func (f *follower) open(ctx context.Context) error {
	ep := f.ep
	raw, err := ep.w.store.Get(followedID(ep.p), snapshot.Meta, "")
	if err != nil {
		return ep.w.storeFailed(err)
	}
	if raw != nil {
		if err := json.Unmarshal(raw, &f.at); err != nil {
			ep.w.log.Warn("position of the copies not readable; they begin anew", "partition", ep.p, "err", err)
		}
	}
	fits, err := f.fits(ctx)
	if err != nil {
		return err
	}
	if !fits {
		f.at = followed{Life: ep.life}
	}
	f.seen.Store(uint64(f.at.Seq))
	if err := ep.readHistory(ctx); err != nil {
		return err
	}
	for _, subject := range []string{ep.ns.JournalOf("*"), ep.ns.Epoch(ep.p)} {
		m, err := ep.log.Last(ctx, subject)
		if err != nil && !errors.Is(err, journal.ErrNotFound) {
			return fmt.Errorf("read the end of the journal: %w", err)
		}
		f.reach = max(f.reach, m.Seq)
	}
	return nil
}

// fits tells whether the journal still has what the copies go up to. If it does not, the journal lost it: that is told, and the copies are
// read anew. The states of what was lost stay, as witnesses: whoever wakes such an object gets the alarm.
func (f *follower) fits(ctx context.Context) (bool, error) {
	ep := f.ep
	if f.at.Seq == 0 || f.at.Life != ep.life {
		return false, nil
	}
	_, end, err := ep.log.Range(ctx)
	if err != nil {
		return false, fmt.Errorf("read the stream's end: %w", err)
	}
	m, err := ep.log.At(ctx, f.at.Seq)
	switch {
	case err == nil && journal.HashOf(m.Data) == f.at.Hash:
		return true, nil
	case errors.Is(err, journal.ErrNotFound) && end >= f.at.Seq: // purged
		return true, nil
	case err != nil && !errors.Is(err, journal.ErrNotFound):
		return false, fmt.Errorf("read what the copies go up to: %w", err)
	}
	ep.w.log.Error("the journal does not have what this worker followed: it went back; objects whose copies are ahead of it stop when they wake up",
		"partition", ep.p, "stream", ep.log.Stream(), "known", f.at.Seq, "have", end)
	return false, nil
}

// run takes what the journal has and gets, until the partition is not to be followed any more.
func (f *follower) run(ctx context.Context) error {
	following, stop := context.WithCancelCause(ctx)
	messages := make(chan journal.Message, copyAhead)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop(errStopped)
	wg.Go(func() {
		for m, err := range f.ep.log.Follow(following, f.at.Seq+1, f.ep.ns.JournalOf("*"), f.ep.ns.Epoch(f.ep.p)) {
			if err != nil {
				stop(err)
				return
			}
			select {
			case messages <- m:
			case <-following.Done():
				return
			}
		}
	})
	tick := time.NewTicker(copyEvery)
	defer tick.Stop()
	var until journal.Seq // 0: not to end yet
	var late <-chan time.Time
	for until == 0 || f.at.Seq < until {
		if f.stop == nil && until == 0 && !f.behind() {
			if err := f.read(following); err != nil {
				return err
			}
		}
		follows, moved := f.ep.ses.claims[f.ep.p].follows()
		if !follows && until == 0 {
			select {
			case until = <-f.finish: // an epoch of ours is there
				continue
			default:
				return nil
			}
		}
		if until != 0 && late == nil {
			if f.behind() {
				return nil
			}
			late = time.After(copyCatchUp)
		}
		var err error
		select {
		case m := <-messages:
			err = f.take(following, m)
		case do := <-f.asks:
			do()
			err = context.Cause(f.ep.w.life) // a write of it may have failed
		case <-tick.C:
			f.overdue()
			if err = f.flush(); err == nil {
				err = f.lookAround(following)
			}
		case <-moved:
		case until = <-f.finish:
		case <-late:
			return nil
		case <-following.Done():
			return context.Cause(following)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// behind tells whether it still reads what there was before it began.
func (f *follower) behind() bool { return f.at.Seq < f.reach }

// take takes the next message of the journal.
func (f *follower) take(ctx context.Context, m journal.Message) error {
	var err error
	if m.Subject == f.ep.ns.Epoch(f.ep.p) {
		err = f.takeEpoch(ctx, m)
	} else {
		err = f.takeRecord(ctx, m)
	}
	if err != nil {
		return err
	}
	f.at.Seq, f.last = m.Seq, m.Data
	f.seen.Store(uint64(m.Seq))
	if len(f.copies) >= copiesMax || f.bytes >= copyBytesMax {
		return f.flush()
	}
	return nil
}

var errNewLife = errors.New("a loss of the journal was accepted")

func (f *follower) takeEpoch(ctx context.Context, m journal.Message) error {
	r, err := journal.DecodeEpoch(m.Data)
	if err != nil {
		return &journal.CorruptError{Stream: f.ep.log.Stream(), Seq: m.Seq, Err: err}
	}
	if r.Release {
		return nil
	}
	if n := len(f.ep.history); n == 0 || f.ep.history[n-1].seq < m.Seq {
		f.ep.history = append(f.ep.history, mark{m.Seq, r.Epoch})
	}
	w, _, err := journal.ReadWitness(ctx, f.ep.ses.js.Meta(), f.ep.p)
	if err == nil {
		err = f.heard(w)
	}
	return err
}

// heard tells why it cannot go on by what the witness says.
func (f *follower) heard(w journal.Witness) error {
	switch {
	case w.Life != f.ep.life:
		return errNewLife
	case w.Alarm != nil: // nobody serves the partition until it is accepted
		return w.Alarm
	}
	return nil
}

// lookAround asks the witness: while there is an alarm no epoch begins that would tell of it. What cannot be read now is read at the next look.
func (f *follower) lookAround(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, copyCatchUp)
	defer cancel()
	w, _, err := journal.ReadWitness(ctx, f.ep.ses.js.Meta(), f.ep.p)
	if err != nil {
		return nil // see above
	}
	return f.heard(w)
}

func (f *follower) takeRecord(ctx context.Context, m journal.Message) error {
	if ok, err := f.ep.counts(m); !ok {
		return err
	}
	class, token, ok := f.ep.ns.Object(m.Subject)
	c := f.ep.w.classes[class]
	id := snapshot.ID(class + "." + token)
	if !ok || c == nil || f.left[id] {
		return nil
	}
	r, err := f.copyOf(c, id)
	if err != nil {
		return err
	}
	if m.Seq <= r.at.seq {
		return nil // the store has it
	}
	rec, err := journal.DecodeRecord(m.Data)
	switch {
	case err != nil:
	case rec.First > r.at.version+1:
		r, err = f.refill(ctx, c, id, m)
	case rec.First != r.at.version+1 || rec.Prev != r.at.hash:
		err = fmt.Errorf("it begins with version %d after %s, the copy is version %d with %s", rec.First, rec.Prev, r.at.version, r.at.hash)
	default:
		err = f.apply(r, m, rec)
	}
	switch {
	case err == nil:
		f.copies[id] = r
		f.moved(id, m, rec)
		return nil
	case ctx.Err() != nil || errors.Is(err, errEpochOver):
		return err
	}
	f.leave(id, m.Seq, err)
	return nil
}

// copyOf is an object as the store has it, or as it was followed since.
func (f *follower) copyOf(c *class, id snapshot.ID) (*replayed, error) {
	if r := f.copies[id]; r != nil {
		return r, nil
	}
	s := newState(f.ep.w.store, id, c)
	if err := s.load(); err != nil {
		f.ep.w.log.Warn("copy not readable; it begins anew", "object", id, "err", err)
		s.forget()
	}
	if s.stored && s.base.Life != f.ep.life {
		s.forget()
	}
	return &replayed{state: s, at: s.base.position()}, nil
}

func (f *follower) apply(r *replayed, m journal.Message, rec *journal.Record) (err error) {
	if r.act == nil {
		if r.act, err = r.state.activate(); err != nil {
			return err
		}
		if folded, err := r.state.folded(); err == nil {
			f.bytes += len(folded)
		}
	}
	f.bytes += len(m.Data)
	return r.apply(m, rec)
}

// refill makes a copy anew, as of a record: from the last snapshot record if that is newer than the store's state, and the records after it.
func (f *follower) refill(ctx context.Context, c *class, id snapshot.ID, m journal.Message) (*replayed, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	f.ep.w.log.Debug("copy made anew", "object", id, "seq", m.Seq)
	delete(f.copies, id)
	stored, err := f.copyOf(c, id)
	if err != nil {
		return nil, err
	}
	s := stored.state
	tails, _, err := f.ep.log.Tails(ctx, m.Seq, f.ep.ns.Snap(c.Name, string(id[len(c.Name)+1:])))
	if err != nil {
		return nil, fmt.Errorf("ask for the last snapshot record: %w", err)
	}
	if len(tails) > 0 {
		if err := f.ep.readHistory(ctx); err != nil { // it may be of a later epoch than m is
			return nil, err
		}
		if err := f.ep.restore(ctx, s, &tails[0], &tails[0], f.ep.w.store); err != nil {
			return nil, err
		}
	}
	r, err := f.ep.activate(s, s.base.position(), m.Seq)
	if err == nil && r.at.seq < m.Seq {
		err = f.ep.catchUp(ctx, &r, &m, true)
	}
	f.bytes += s.tailBytes
	return &r, err
}

// leave has an object be until it wakes up: the store keeps what it has.
func (f *follower) leave(id snapshot.ID, seq journal.Seq, err error) {
	f.ep.w.log.Warn("copy left as it is: the object is rebuilt when it wakes up", "object", id, "stream", f.ep.log.Stream(), "seq", seq, "err", err)
	delete(f.copies, id)
	f.moved(id, journal.Message{}, nil)
	if len(f.left) >= copyLeftMax {
		clear(f.left) // they are found again
	}
	f.left[id] = true
}

// save brings the store to where a copy is.
func (f *follower) save(id snapshot.ID, r *replayed) error {
	if len(r.state.tail) == 0 {
		return nil
	}
	folded, err := foldOf(r.act)
	if err != nil {
		f.leave(id, r.at.seq, err)
		return nil
	}
	if err := r.save(f.ep, folded); err != nil {
		f.broken = true
		return f.ep.w.storeFailed(err)
	}
	return nil
}

// flush brings the store to where the copies are.
func (f *follower) flush() error {
	for _, id := range slices.Sorted(maps.Keys(f.copies)) {
		if err := f.save(id, f.copies[id]); err != nil {
			return err
		}
	}
	clear(f.copies)
	f.bytes = 0
	if f.last == nil {
		return nil
	}
	f.at.Hash = journal.HashOf(f.last)
	raw, err := json.Marshal(f.at)
	if err != nil {
		return err
	}
	err = f.ep.write(func() error {
		return f.ep.w.store.Apply(followedID(f.ep.p), snapshot.Batch{Entries: []snapshot.Entry{{Space: snapshot.Meta, Value: raw}}})
	})
	if err != nil {
		return f.ep.w.storeFailed(err)
	}
	f.last = nil
	return nil
}
