package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// A follower's copies answer reads that ask for no more than what was true a moment ago. A copy that is read is an object of the follower's
// epoch, which owns nothing: it has a mailbox and limits like any, and never commits. Its state is its own, in memory: taken from the
// store as of one record, and moved on by each that the follower takes, between two reads. So what it answers is what the object was at
// one version, whatever is written into the store meanwhile; and since only records count that the journal has, it was never less than durable.

// ErrNoCopy says that no copy here can answer a read: the owner is to be asked.
var ErrNoCopy = errors.New("no copy can answer; the owner is to be asked")

var errNoCopy = Errorf(Unavailable, "%w", ErrNoCopy)

const (
	copyReadBytesMax = 1 << 20     // a larger state is not copied into memory: its reads are the owner's
	copyWait         = time.Second // a read waits no longer for the version that it wants
	copyWaitsMax     = 1024        // reads of one partition that wait for one
	copyMovesMax     = 64          // records that a copy has not taken yet, since a read is slow: then it is dropped
	asksMax          = 1024
)

// wait is a read that wants a version.
type wait struct {
	version journal.Version
	until   time.Duration // by Worker.awake
	timer   *time.Timer
	post    func() // once: has the copy asked, which passes on what it cannot answer
}

// readCopy has a copy of this worker answer a read, or returns ErrNoCopy.
func (w *Worker) readCopy(ctx context.Context, r Request) (Reply, error) {
	f := w.copies[wire.Partition(wire.Slot(r.Class, wire.Escape(r.Name)), w.cfg.Partitions)].Load()
	if f == nil {
		return Reply{}, ErrNoCopy
	}
	return replyOf(ctx, func(reply func(Reply, error)) { f.serve(ctx, r, reply) }, func() error {
		return Errorf(Timeout, "the caller stopped waiting: %w", context.Cause(ctx))
	})
}

// read has the copies answer from now on. following ends when the follower does.
func (f *follower) read(following context.Context) error {
	w := f.ep.w
	f.stop = func() {}
	if w.cfg.Durable != nil { // a record in the journal is not all it takes
		return nil
	}
	if w.cfg.ListenReads != nil {
		stop, err := w.cfg.ListenReads(f.ep.ses.js, f.ep.p, func(r Request, reply func(Reply, error)) { f.serve(r.Context(), r, reply) })
		if err != nil {
			return err
		}
		f.stop = stop
	}
	w.running.Go(func() { f.relieve(following) }) // it may wait for a read that takes long
	w.copies[f.ep.p].Store(f)
	return nil
}

// unread ends that. What comes until the server knows of it is passed on.
func (f *follower) unread() {
	f.ep.w.copies[f.ep.p].Store(nil)
	if f.stop != nil {
		f.ep.w.running.Go(f.stop)
	}
}

// serve answers a read, or says ErrNoCopy: also for what is wrong with it, which the owner knows best.
func (f *follower) serve(ctx context.Context, r Request, reply func(Reply, error)) {
	tk := &task{request: r, ctx: ctx, at: f.ep.w.awake(), reply: func(out Reply, err error) {
		if e, ok := errors.AsType[*Error](err); ok && e.Code == Unavailable && !e.Remote {
			err = ErrNoCopy
		}
		observe(f.ep.w.cfg.Observe.CopyRead, !errors.Is(err, ErrNoCopy))
		reply(out, err)
	}}
	tk.req = &tk.request
	c, err := f.ep.w.check(tk.req)
	if err != nil || !r.Eventual {
		tk.reply(Reply{}, errNoCopy)
		return
	}
	post := func() {
		if err := f.ep.submit(c, r.Name, wire.Escape(r.Name), tk); err != nil {
			tk.reply(Reply{}, err)
		}
	}
	if r.MinVersion == 0 || !f.ask(func() { f.await(c, snapshot.ID(c.Name+"."+wire.Escape(r.Name)), r.MinVersion, sync.OnceFunc(post)) }) {
		post()
	}
}

// ask has the follower do something, if it has time.
func (f *follower) ask(do func()) bool {
	select {
	case f.asks <- do:
		return true
	default:
		return false
	}
}

// await runs post when an object's copy has a version, or when that takes too long.
func (f *follower) await(c *class, id snapshot.ID, version journal.Version, post func()) {
	r, err := f.copyOf(c, id)
	if err != nil || r.at.version >= version || f.left[id] || f.waits >= copyWaitsMax {
		post()
		return
	}
	f.waits++
	f.waiting[id] = append(f.waiting[id], &wait{version, f.ep.w.awake() + copyWait, time.AfterFunc(copyWait, post), post})
}

// arrived lets go of the reads that wait for a version which a copy has now.
func (f *follower) arrived(id snapshot.ID, version journal.Version) {
	f.release(id, func(w *wait) bool { return w.version <= version })
}

// overdue lets go of the reads that have waited for too long.
func (f *follower) overdue() {
	now := f.ep.w.awake()
	for id := range f.waiting {
		f.release(id, func(w *wait) bool { return w.until <= now })
	}
}

func (f *follower) release(id snapshot.ID, which func(*wait) bool) {
	left := slices.DeleteFunc(f.waiting[id], func(w *wait) bool {
		if !which(w) {
			return false
		}
		f.waits--
		w.timer.Stop()
		w.post()
		return true
	})
	if f.waiting[id] = left; len(left) == 0 {
		delete(f.waiting, id)
	}
}

// moved tells the copy that is read, if there is one, of the object's next record; nil: there is one that it cannot take.
func (f *follower) moved(id snapshot.ID, m journal.Message, rec *journal.Record) {
	ep := f.ep
	ep.mu.Lock()
	o := ep.objects[id]
	ep.mu.Unlock()
	if o != nil {
		o.mu.Lock()
		slow := len(o.chores) >= copyMovesMax
		o.mu.Unlock()
		if slow {
			ep.remove(o)
			o.discard()
		} else {
			o.chore(func() { o.move(m, rec) })
		}
	}
	if rec != nil {
		f.arrived(id, rec.Last())
	}
}

// relieve has copies leave memory while the worker holds more than its budget, as those of an owner do.
func (f *follower) relieve(ctx context.Context) {
	tick := time.NewTicker(lookEvery + time.Duration(f.ep.p+1)*stagger) // not all partitions at once, so that a simulation repeats
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-f.ep.press:
		case <-ctx.Done():
			return
		}
		f.ep.relieve()
	}
}

// takeState is an object's state as it is followed so far, in a store of its own, and how many bytes it has.
func (f *follower) takeState(c *class, id snapshot.ID) (*state, int, error) {
	if f.left[id] {
		return nil, 0, errNoCopy
	}
	if r := f.copies[id]; r != nil {
		if err := f.save(id, r); err != nil {
			return nil, 0, err
		}
	}
	store, own := f.ep.w.store, snapshot.NewMemory()
	meta, err := store.Get(id, snapshot.Meta, "")
	if err != nil {
		return nil, 0, f.ep.w.storeFailed(err)
	}
	size := 0
	if meta != nil {
		batch := snapshot.Batch{Entries: []snapshot.Entry{{Space: snapshot.Meta, Value: meta}}}
		for _, space := range []snapshot.Space{snapshot.KV, snapshot.State} {
			for e, err := range store.Scan(id, space, "", "", false) {
				if err != nil {
					return nil, 0, f.ep.w.storeFailed(err)
				}
				if size += len(e.Key) + len(e.Value); size > copyReadBytesMax {
					return nil, 0, errNoCopy
				}
				batch.Entries = append(batch.Entries, e)
			}
		}
		if err := own.Apply(id, batch); err != nil {
			return nil, 0, err
		}
	}
	s := newState(own, id, c)
	if err := s.load(); err != nil {
		return nil, 0, err
	}
	if s.stored && s.base.Life != f.ep.life { // it is of a journal that was lost
		return nil, 0, errNoCopy
	}
	return s, size, nil
}

// rouseCopy takes the state from the follower.
func (o *object) rouseCopy() error {
	type taken struct {
		s    *state
		size int
		err  error
	}
	f := o.ep.follower
	got := make(chan taken, 1)
	if !f.ask(func() {
		s, size, err := f.takeState(o.class, o.id)
		got <- taken{s, size, err}
	}) {
		return errNoCopy
	}
	var t taken
	select {
	case t = <-got:
	case <-o.ep.done:
		return errNoCopy
	}
	if t.err != nil {
		return t.err
	}
	if t.s.stored && !o.ep.has(t.s.base.position()) {
		return errNoCopy
	}
	act, err := t.s.activate()
	if err != nil {
		return err
	}
	o.moveTo(t.s.base.position())
	o.state, o.act, o.folded = t.s, act, t.size
	return nil
}

// has tells whether the journal has the record that a state is at. The store may be of one that lost it, and nobody else knows: whoever
// wakes such an object gets the alarm. One that is purged, or not read yet by the replica that answers, is the owner's to answer.
func (ep *epoch) has(at position) bool {
	ctx, cancel := context.WithTimeout(ep.ctx, readTimeout)
	defer cancel()
	m, err := ep.log.At(ctx, at.seq)
	return err == nil && journal.HashOf(m.Data) == at.hash
}

// move adds the object's next record. A copy that cannot take it, or has taken many, is made anew when it is read.
func (o *object) move(m journal.Message, rec *journal.Record) {
	s := o.state
	if s == nil || rec != nil && m.Seq <= o.acked.seq {
		return
	}
	r := replayed{state: s, act: o.act, at: o.acked}
	when := &o.ep.w.when
	if rec == nil || o.act == nil || rec.First != r.at.version+1 || rec.Prev != r.at.hash ||
		s.tailBytes > when.flushBytes || len(s.tail) > when.flushCommits || r.apply(m, rec) != nil {
		o.state, o.act = nil, nil
		return
	}
	o.moveTo(r.at)
	o.weigh()
}

// moveTo says what the copy has.
func (o *object) moveTo(at position) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.durable, o.acked, o.last = at.version, at, at.hash
}

// tooOld answers a read of a version that the object does not have.
func (o *object) tooOld(r *Request) error {
	if o.ep.ownsNothing() {
		return errNoCopy
	}
	return Errorf(Conflict, "the object is at version %d; at least %d was asked for", o.state.version, r.MinVersion)
}
