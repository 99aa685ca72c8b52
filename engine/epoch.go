package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// epoch is one worker's ownership of one partition: what it owns, and the proof that it does. When it is over, it is
// over for good: its objects are dropped, its answers count for nothing, and another epoch begins with new ones.
type epoch struct {
	w         *Worker
	ns        wire.Subjects
	ses       *session
	p         int
	log       journal.Log
	id        journal.EpochID
	seq       journal.Seq // of the epoch record
	life      uint64      // how often a loss in the partition's journal was accepted
	header    journal.Header
	recordMax int
	history   []mark // all epochs of the stream, by position
	ctx       context.Context
	cancel    context.CancelFunc
	committer *committer
	inbox     atomic.Pointer[inbox] // nil: not followed now
	kept      journal.Seq           // what the store was last told of; owned by serve
	index     index

	follower *follower // not nil: a standby reads the journal with it; no epoch record names it, what it writes are copies, and so are its objects

	done    chan struct{} // closed when it is over
	over    atomic.Bool
	writing sync.WaitGroup // what is being written into the store; nothing joins it once over is set
	press   chan struct{}
	// evicting has an element for each object that is leaving memory, or going to rest. An epoch that ends forgets what it had in mind,
	// and them with it.
	evicting chan struct{}

	listening atomic.Bool // requests reach it from everywhere
	closing   atomic.Bool // what it has is finished, and nothing new begins but what a turn waits for

	mu      sync.Mutex
	objects map[snapshot.ID]*object
	cause   error
}

// mark is where an epoch begins in the stream.
type mark struct {
	seq journal.Seq
	id  journal.EpochID
}

// readHistory reads which epochs began, and where.
func (ep *epoch) readHistory(ctx context.Context) error {
	ep.history = nil
	for m, err := range ep.log.Read(ctx, ep.ns.Epoch(ep.p), 1) {
		if err != nil {
			return fmt.Errorf("read the epochs: %w", err)
		}
		if r, err := journal.DecodeEpoch(m.Data); err == nil && !r.Release {
			ep.history = append(ep.history, mark{m.Seq, r.Epoch})
		}
	}
	return nil
}

// epochAt is the last epoch that begins before a position: what a record there must name.
func (ep *epoch) epochAt(seq journal.Seq) journal.EpochID {
	i, _ := slices.BinarySearchFunc(ep.history, seq, func(m mark, seq journal.Seq) int { return cmp.Compare(m.seq, seq) })
	if i == 0 {
		return journal.EpochID{}
	}
	return ep.history[i-1].id
}

// object is the object of that name, made if it is not in memory. inside: a turn waits for it, so while the epoch drains it
// is part of what is finished.
func (ep *epoch) object(c *class, name, token string, inside bool) (*object, error) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.over.Load() {
		return nil, unavailable(errEpochOver)
	}
	if ep.closing.Load() && !inside {
		return nil, unavailable(errHandingOver)
	}
	o := ep.objects[snapshot.ID(c.Name+"."+token)] // only here the id need not be on the heap
	if o == nil {
		id := snapshot.ID(c.Name + "." + token)
		o = &object{ep: ep, class: c, name: name, id: id, idleSince: ep.w.awake()}
		if name == token {
			o.name = o.token() // or it would keep the request
		}
		ep.objects[id] = o
	}
	return o, nil
}

// remove is called by an object that leaves memory.
func (ep *epoch) remove(o *object) {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.objects[o.id] == o {
		delete(ep.objects, o.id)
	}
}

// mayAnswer tells whether something may be answered that has no record of its own: the lease of the incarnation that
// the epoch record names is valid now, after the turn ran, and there is no sign of a newer epoch.
func (ep *epoch) mayAnswer() error {
	switch {
	case ep.over.Load():
		return errEpochOver
	case ep.ownsNothing(): // a copy says as of which version it answers, and that never was more than true
	case !ep.ses.valid():
		return errNoLease
	}
	return nil
}

var (
	errNoLease     = errors.New("the worker's lease is not valid")
	errHandingOver = errors.New("the partition is being handed over")
)

func (ep *epoch) ownsNothing() bool { return ep.follower != nil }

// end ends the epoch. The first cause is kept.
func (ep *epoch) end(cause error) {
	ep.mu.Lock()
	if ep.over.Swap(true) {
		ep.mu.Unlock()
		return
	}
	ep.cause = cause
	objects := ep.objects
	ep.objects = nil
	close(ep.done)
	ep.mu.Unlock()
	ep.cancel()
	if !ep.ownsNothing() {
		observe(ep.w.cfg.Observe.Ended, ending(cause))
	}
	ep.committer.close()
	for _, o := range objects {
		o.discard()
	}
}

// write writes into the store, unless the epoch is over: the next one has begun then, perhaps, and the store is its own.
func (ep *epoch) write(f func() error) error {
	ep.mu.Lock()
	over := ep.over.Load()
	if !over {
		ep.writing.Add(1)
	}
	ep.mu.Unlock()
	if over {
		return errEpochOver
	}
	defer ep.writing.Done()
	return f()
}

// storeFailed ends the epoch, before anything else runs in it, and the worker: what was to be written counts as written in
// memory, so an object would take a repeat for new, and its next write would leave it out.
func (ep *epoch) storeFailed(err error) error {
	err = ep.w.storeFailed(err)
	ep.end(err)
	return err
}

// waitWritten waits for what is being written when the epoch is over: before another one begins, or the store is closed.
func (ep *epoch) waitWritten() { ep.writing.Wait() }

// pressed says that the worker holds more than its budget.
func (ep *epoch) pressed() {
	select {
	case ep.press <- struct{}{}:
	default:
	}
}

// serve runs the epoch until it is over, ctx is done, or the partition is another worker's share; then it drains, and releases
// the partition.
func (ep *epoch) serve(ctx context.Context) error {
	ep.w.running.Go(ep.committer.run)
	ep.ses.tell(WordOwned, ep.p) // before it listens: what is asked of this owner is not to be asked again
	stop, err := ep.w.listen(ep)
	if err != nil {
		ep.end(err)
		return fmt.Errorf("listen: %w", err)
	}
	ep.listening.Store(true)
	ep.w.running.Go(ep.purgeFences)
	inbox, stopInbox := context.WithCancelCause(ep.ctx)
	defer stopInbox(nil)
	ep.w.running.Go(func() { ep.serveInbox(inbox) })
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		ours, moved := ep.ses.claims[ep.p].get()
		if !ours || errors.Is(context.Cause(ctx), errDrain) {
			ep.drain(ctx, func() { stop(); stopInbox(errDrain) })
			ep.end(errStopped)
			return nil
		}
		select {
		case <-moved:
		case <-ep.done:
			stop()
			return ep.cause
		case <-ctx.Done():
			if !errors.Is(context.Cause(ctx), errDrain) {
				stop()
				ep.end(context.Cause(ctx))
				return nil
			}
		case <-tick.C:
			if ep.over.Load() || ctx.Err() != nil {
				continue
			}
			ep.relieve() // what was busy when the budget was passed may be idle now
			ep.inboxTick()
			if err := ep.ses.witness(ep); err != nil {
				ep.end(err)
			}
		case <-ep.press:
			ep.relieve()
		}
	}
}

// purgeFences removes the fillers of former epochs: they have done what they are for.
func (ep *epoch) purgeFences() {
	if err := ep.log.Purge(ep.ctx, ep.ns.Fence(ep.p), ep.seq); err != nil && !ep.over.Load() {
		ep.w.log.Warn("fillers of former epochs not purged", "partition", ep.p, "err", err)
	}
}

const (
	lookEvery = time.Second
	drainFor  = 10 * time.Second
	drainPoll = 5 * time.Millisecond
)

// drain hands the partition over: it brings the store up to date as far as that goes while callers are served, stops what
// comes in, lets what is in the mailboxes finish, and releases the partition. When there is nobody to hand it to, it is
// not the pause that matters but the next start: then all states are written into the store.
func (ep *epoch) drain(ctx context.Context, stop func()) {
	unlink := context.AfterFunc(ctx, func() { // killed, or the lease is lost
		if cause := context.Cause(ctx); !errors.Is(cause, errDrain) {
			ep.end(cause)
		}
	})
	defer unlink()
	in := ep.inbox.Load()
	deadline := ep.w.awake() + drainFor
	alone := ep.ses.heir(ep.p) == ""
	if !alone {
		ep.restAll(ep.w.awake() + restFor)
		defer ep.takeTurn()()
		deadline = ep.w.awake() + drainFor
	}
	paused := ep.w.awake()
	stop()
	ep.closing.Store(true)
	poll := drainPoll
	if !alone {
		poll = handPoll
	}
	tick := time.NewTicker(poll + time.Duration(ep.p)*time.Microsecond) // not all partitions at once, so that a simulation repeats
	defer tick.Stop()
	await := func(done func() bool) {
		for !done() && !ep.over.Load() && ep.w.awake() < deadline {
			select {
			case <-tick.C:
			case <-ep.done:
			}
		}
	}
	if alone {
		await(ep.emptied)
	} else {
		busy := ep.members()
		await(func() bool { // an append that got lost is not waited for: the next epoch, which is released at once, settles it
			busy = slices.DeleteFunc(busy, (*object).finished)
			return len(busy) == 0 && ep.committer.drained() || ep.committer.overdue(handAck)
		})
	}
	if in != nil {
		in.checkpoint()
		await(func() bool { return ep.committer.drained() || !alone && ep.committer.overdue(handAck) })
	}
	if !ep.over.Load() {
		ep.ses.release(ep)
		if !alone {
			observe(ep.w.cfg.Observe.HandedOver, ep.w.awake()-paused)
		}
	}
}

const (
	restFor  = 5 * time.Second
	turnFor  = 2 * time.Second
	handAck  = time.Second
	handPoll = time.Millisecond
)

// takeTurn waits until no other partition of the worker is being handed over, so that each is without owner as shortly as can be: they would
// all take longer side by side. It does not wait for one that takes long. What it returns ends the turn.
func (ep *epoch) takeTurn() (done func()) {
	t := time.NewTimer(turnFor + time.Duration(ep.p)*time.Microsecond)
	defer t.Stop()
	select {
	case ep.w.handing <- struct{}{}:
		return func() { <-ep.w.handing }
	case <-t.C:
	case <-ep.done:
	}
	return func() {}
}

// members are the objects that are in memory.
func (ep *epoch) members() []*object {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	return slices.SortedFunc(maps.Values(ep.objects), func(a, b *object) int { return cmp.Compare(a.id, b.id) })
}

// restAll writes the states of those that do nothing just now into the store, while the epoch goes on, until a time by
// Worker.awake.
func (ep *epoch) restAll(until time.Duration) {
	for _, o := range ep.members() {
		if _, worn, idle := o.idle(); !worn || !idle || ep.w.awake() > until {
			continue
		}
		if !ep.apart(o, o.rest) {
			return
		}
	}
}

// emptied evicts all objects and tells whether none is left.
func (ep *epoch) emptied() bool {
	ep.mu.Lock()
	left := len(ep.objects)
	ep.mu.Unlock()
	for _, o := range ep.members() {
		if _, _, ok := o.idle(); ok {
			o.chore(o.evict)
		}
	}
	return left == 0 && ep.committer.drained()
}

// submit hands a request to its object.
func (ep *epoch) submit(c *class, name, token string, tk *task) error {
	for {
		o, err := ep.object(c, name, token, len(tk.req.Chain) > 0 || tk.req.letter != nil)
		if err != nil {
			return err
		}
		if err := o.post(tk); !errors.Is(err, errGone) {
			return err
		}
		ep.remove(o)
	}
}
