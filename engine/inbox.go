package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// inbox takes the messages to a partition's objects out of the namespace's inbox, from where the last checkpoint says that
// they are answered, and hands them to the objects. passage decides how far that has come.
//
// Why each is applied once, and in order: an object answers its messages in the order of the inbox, each by one commit
// that names it, and its state keeps the last one; what it is handed again it passes over. What is handed too little is
// handed again: the checkpoint is behind what is durable. Nothing is purged but what a durable checkpoint is beyond.
type inbox struct {
	ep     *epoch
	stream journal.Inbox
	life   uint64
	ctx    context.Context
	cancel context.CancelCauseFunc
	room   chan struct{} // has an element for each message that is taken and neither answered nor held
	trying chan struct{} // has an element for each held object that is being tried

	// mu is held while a message is handed over: so an object that cannot answer one is held before the next is handed to it.
	mu      sync.Mutex
	p       *passage
	eased   chan struct{}     // closed when something was answered; nil while nobody waits
	bytes   int               // of the messages that have room
	written journal.Seq       // the cursor of the last checkpoint
	again   bool              // held objects have changed since
	durable journal.InboxMark // of the last checkpoint that is durable
	purged  journal.Seq       // the cursor up to which all is purged that may be
	purging bool
	purgeAt time.Duration // not again before
}

// letter is a request's place in the inbox.
type letter struct {
	life    uint64
	seq     journal.Seq
	at      time.Time // when the inbox stored it
	tries   int       // how often it failed
	resume  bool      // nothing of the object is under way: what it held back begins here
	dead    *Error    // it is not tried any more; why
	refused error     // why it cannot run, whatever its object is

	// Set by the object.
	outcome string // for the commit
	failed  bool   // the method, or the request, failed, and not what is around it
}

// Limits of the inbox.
const (
	lettersMax     = 1024    // messages of a partition that are handed to objects and not answered
	letterBytesMax = 8 << 20 // their bytes
	tryingMax      = 8       // held objects that are tried at a time
	tryMax         = 64      // messages of one that are under way
	slowAfter      = 50 * time.Millisecond
	inboxRetry     = 500 * time.Millisecond
	wentBackRetry  = 2 * time.Second
	purgeEvery     = 5 * time.Second
	retryMax       = 64 * time.Second // or what an error asks for
)

// bounds are further limits of the inbox, which a simulation has smaller, so that it gets there.
type bounds struct {
	perObject int // messages of one object that are handed to it and not answered
	held      int // objects whose messages wait: beyond that all wait
	open      int // messages taken and not passed before an object that takes long is held, which the others pass
	tryAtOnce int // messages that a held object is given before it is another one's turn
	purgeRest int // how many times as long as a purge took it is before the next one
}

var usualBounds = bounds{perObject: 256, held: 1000, open: 16 << 10, tryAtOnce: 256, purgeRest: 20}

// errNotAll is for a held object whose messages were not all read.
var errNotAll = errors.New("a replica answered that is behind")

// errHeldBack is for a message behind one that the object did not answer.
var errHeldBack = errors.New("an earlier message waits")

// serveInbox answers messages until ctx is done, which ends with the epoch, or before it drains.
func (ep *epoch) serveInbox(ctx context.Context) {
	defer ep.w.settledInbox(ep.p) // whoever comes next looks anew
	for ctx.Err() == nil {
		in, err := ep.openInbox(ctx)
		if err == nil {
			ep.inbox.Store(in)
			err = in.run()
			ep.inbox.CompareAndSwap(in, nil)
		}
		wait := inboxRetry
		switch back, ok := errors.AsType[*journal.InboxWentBackError](err); {
		case ctx.Err() != nil:
			return
		case ok:
			ep.w.alarmInbox(ep.p, back)
			wait = wentBackRetry
		default:
			ep.w.log.Warn("inbox not followed; tried again", "partition", ep.p, "err", err)
		}
		_ = sleep(ctx, jitter(wait, ep.w.cfg.ID, ep.p, ep.w.clock.Boot())) // its end is seen above
	}
}

// inboxTick writes what is to be written now and then.
func (ep *epoch) inboxTick() {
	if in := ep.inbox.Load(); in != nil {
		in.checkpoint()
		in.purge()
	}
}

// openInbox finds where to go on, and holds that against what the inbox has.
func (ep *epoch) openInbox(ctx context.Context) (*inbox, error) {
	tails, _, err := ep.log.Tails(ctx, ep.committer.high(), ep.ns.Epoch(ep.p), ep.ns.Checkpoint(ep.p))
	if err != nil {
		return nil, fmt.Errorf("read the last checkpoint: %w", err)
	}
	var cp journal.Checkpoint
	for _, m := range tails {
		if m.Subject != ep.ns.Checkpoint(ep.p) {
			continue
		}
		if id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch]); err != nil || id != ep.epochAt(m.Seq) {
			ep.stray(m, "a checkpoint of no epoch")
			continue
		}
		if cp, err = journal.DecodeCheckpoint(m.Data); err != nil {
			return nil, &journal.CorruptError{Stream: ep.log.Stream(), Seq: m.Seq, Err: err}
		}
	}
	in := &inbox{ep: ep, stream: ep.ses.js.Inbox(), room: make(chan struct{}, lettersMax), trying: make(chan struct{}, tryingMax)}
	life, err := readInboxLife(ctx, ep.ses.js.Meta())
	if err != nil {
		return nil, err
	}
	if in.life = max(life.Life, cp.Inbox.Life); cp.Inbox.Life < in.life {
		cp.Inbox = journal.InboxMark{} // a loss was accepted: objects know by time what they answered
	}
	if err := in.compare(ctx, cp.Inbox); err != nil {
		return nil, err
	}
	in.p, in.written = restored(cp.Inbox, ep.w.clock.Now(), ep.w.awake()), cp.Inbox.Cursor
	in.p.openMax = ep.w.bounds.open
	in.ctx, in.cancel = context.WithCancelCause(ctx)
	return in, nil
}

// compare holds a checkpoint against the inbox: the message that it names is never purged before a later one is. A dead
// letter may have been taken away; then the stream still goes beyond it, and has nothing else there.
func (in *inbox) compare(ctx context.Context, m journal.InboxMark) error {
	back := &journal.InboxWentBackError{Stream: in.stream.Stream(), Partition: in.ep.p, Seq: m.Cursor, Witness: "the last checkpoint"}
	if m.Cursor > 0 {
		last, err := in.stream.At(ctx, m.Cursor)
		if err != nil && !errors.Is(err, journal.ErrNotFound) {
			return fmt.Errorf("read the message that the checkpoint names: %w", err)
		}
		if err != nil || journal.MessageHash(last) != m.Hash {
			return back
		}
	}
	if m.Dead == nil {
		return nil
	}
	back.Seq, back.Dead = m.Dead.Seq, true
	letter, err := in.stream.At(ctx, m.Dead.Seq)
	switch {
	case err == nil && journal.HashOf(letter.Data) != m.Dead.Hash:
		return back
	case err == nil:
		return nil
	case !errors.Is(err, journal.ErrNotFound):
		return fmt.Errorf("read the dead letter that the checkpoint names: %w", err)
	}
	_, end, err := in.stream.Range(ctx)
	if err != nil {
		return fmt.Errorf("read the end of the inbox: %w", err)
	}
	if end < m.Dead.Seq {
		return back
	}
	return nil
}

// run follows the inbox until something ends that.
func (in *inbox) run() error {
	defer in.cancel(errEpochOver)
	in.ep.w.settledInbox(in.ep.p)
	ready, from := make(chan journal.Message, lettersMax), in.p.cursor+1
	in.ep.w.running.Go(func() { in.cancel(in.follow(from, ready)) })
	in.ep.w.running.Go(func() { in.handOver(ready) })
	in.ep.w.running.Go(in.tryHeld)
	<-in.ctx.Done()
	return context.Cause(in.ctx)
}

// follow takes messages that are durable: one that is not may be lost, and another take its place.
func (in *inbox) follow(from journal.Seq, ready chan<- journal.Message) error {
	var patterns []string
	for slot := in.ep.p; slot < wire.Slots; slot += in.ep.w.cfg.Partitions {
		patterns = append(patterns, in.ep.ns.InboxSlot(slot))
	}
	for m, err := range in.stream.Follow(in.ctx, from, patterns...) {
		if err != nil {
			return err
		}
		if err := in.enter(len(m.Data)); err != nil {
			return err
		}
		if durable := in.ep.w.cfg.Durable; durable != nil {
			durable(in.stream.Stream(), m.Seq, func() { ready <- m }) // there is room for as many as have entered
		} else {
			ready <- m
		}
	}
	return in.ctx.Err()
}

// enter waits until there is room for another message.
func (in *inbox) enter(bytes int) error {
	select {
	case in.room <- struct{}{}:
	case <-in.ctx.Done():
		return context.Cause(in.ctx)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.bytes > 0 && in.bytes+bytes > letterBytesMax {
		if err := in.wait(0); err != nil {
			return err
		}
	}
	in.bytes += bytes
	return nil
}

// leave gives room back. Called with mu held.
func (in *inbox) leave(bytes int) {
	<-in.room
	in.bytes -= bytes
	in.ease()
}

// ease wakes whoever waits. Called with mu held.
func (in *inbox) ease() {
	if in.eased != nil {
		close(in.eased)
		in.eased = nil
	}
}

// wait waits until something was answered, at most for some time; 0: for ever. Called with mu held, which it gives up
// meanwhile.
func (in *inbox) wait(most time.Duration) error {
	if in.eased == nil {
		in.eased = make(chan struct{})
	}
	eased := in.eased
	in.mu.Unlock()
	defer in.mu.Lock()
	var late <-chan time.Time
	if most > 0 {
		t := time.NewTimer(most)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-eased:
	case <-late:
	case <-in.ctx.Done():
	}
	return context.Cause(in.ctx)
}

// handOver gives messages to their objects.
func (in *inbox) handOver(ready <-chan journal.Message) {
	for {
		select {
		case m := <-ready:
			if in.ctx.Err() != nil {
				return
			}
			in.take(m)
		case <-in.ctx.Done():
			return
		}
	}
}

func (in *inbox) take(m journal.Message) {
	_, class, token, _, ok := in.ep.ns.SplitInbox(m.Subject)
	if !ok {
		in.misplaced(m)
		return
	}
	id := snapshot.ID(class + "." + token)
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.p.held[id] == nil && len(in.p.held) >= in.ep.w.bounds.held {
		if in.wait(0) != nil {
			return
		}
	}
	for until := in.ep.w.awake() + slowAfter; in.p.held[id] == nil && in.p.busy[id] >= in.ep.w.bounds.perObject; {
		if left := until - in.ep.w.awake(); left <= 0 {
			in.p.hold(id, m.Seq)
			in.again = true
		} else if in.wait(left) != nil {
			return
		}
	}
	waits := in.p.held[id] != nil
	in.p.take(m, id)
	if waits {
		in.leave(len(m.Data))
		return
	}
	l := in.letterOf(m)
	if handed, err := in.give(m, l, func(err error) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.settled(m, id, l, err)
	}); !handed {
		in.settled(m, id, l, err)
	}
}

// misplaced takes a message whose subject has the slot of another object, where its own would not find it again. The inbox's
// transform makes none: whoever may write the inbox itself published it. It is a dead letter at once.
func (in *inbox) misplaced(m journal.Message) {
	why := Errorf(Invalid, "subject %s names another slot than that of its object: publish to %s", m.Subject, in.ep.ns.Sends())
	for in.bury(m, 0, why) != nil {
		if sleep(in.ctx, inboxRetry) != nil {
			return
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.p.take(m, "")
	in.settled(m, "", nil, nil)
}

func (in *inbox) letterOf(m journal.Message) *letter {
	return &letter{life: in.life, seq: m.Seq, at: m.Time.UTC()}
}

// give puts a message into its object's mailbox; done is told once, when its commit is durable, or why there is none. If it
// is not handed over, done is not told, and err is what became of it. Called with mu held.
func (in *inbox) give(m journal.Message, l *letter, done func(error)) (handed bool, err error) {
	_, class, token, method, _ := in.ep.ns.SplitInbox(m.Subject) // only those of its slots are handed over
	name, err := wire.Unescape(token)
	c := in.ep.w.classes[class]
	switch {
	case err != nil:
		err = Errorf(Invalid, "%w", err)
	case c == nil:
		err = Errorf(NotFound, "no class %q", class)
	}
	if err != nil {
		if l.failed = true; l.dead != nil {
			return false, nil //nolint:nilerr // there is no object that could have a commit
		}
		return false, err
	}
	r := &Request{Class: class, Name: name, Method: method, Body: m.Data, letter: l}
	if err := in.ep.w.readLetter(c, r, m.Header); err != nil && l.dead == nil {
		l.failed = true
		l.refused = err
	}
	err = in.ep.submit(c, name, token, &task{req: r, ctx: in.ep.ctx, at: in.ep.w.awake(), reply: func(_ Reply, err error) { done(err) }})
	return err == nil, err
}

// readLetter fills in what the headers of a message say, and tells what is wrong with it.
func (w *Worker) readLetter(c *class, r *Request, h journal.Header) error {
	header := make(map[string][]string, len(h))
	for name, value := range h {
		header[name] = []string{value}
	}
	if err := r.ReadHeader(header); err != nil {
		return err
	}
	if len(r.Body) > BodyBytesMax {
		return Errorf(TooLarge, "the body has %d bytes; at most %d", len(r.Body), BodyBytesMax)
	}
	if err := c.checkMethod(r); err != nil {
		return err
	}
	if r.read {
		return Errorf(Invalid, "%s is a read: there is nothing to apply", r.Method)
	}
	return nil
}

// settled takes what became of a message. Called with mu held.
func (in *inbox) settled(m journal.Message, id snapshot.ID, l *letter, err error) {
	if in.ctx.Err() != nil {
		return // what comes next begins from the last checkpoint
	}
	in.p.settle(id, m.Seq)
	in.leave(len(m.Data))
	switch {
	case err == nil:
	case errors.Is(err, errHeldBack):
		in.p.hold(id, m.Seq)
		in.again = true
	default:
		in.failed(in.p.hold(id, m.Seq), l, err)
	}
}

// failed has a held object wait: its first message was not answered. Called with mu held.
func (in *inbox) failed(h *heldObject, l *letter, err error) {
	if back, ok := errors.AsType[*journal.InboxWentBackError](err); ok {
		in.cancel(back)
		return
	}
	e := asError(err)
	if h.cause = e; l != nil && l.failed {
		h.tries++
		h.waits = 0
	} else {
		h.waits++
	}
	d := in.ep.w.cfg.SendRetry << min(max(h.tries-1, 0), 20)
	if h.waits > 0 {
		d = in.ep.w.cfg.SendRetry / 8 << min(h.waits-1, 20)
	}
	d = max(min(d, retryMax), e.RetryAfter)
	if d += (jitter(d, h.id, h.first) - d/2) / 4; h.tries >= in.ep.w.triesOf(h.id) && h.waits == 0 {
		d = 0 // it becomes a dead letter
	}
	h.due = in.ep.w.awake() + d
	in.again = true
	in.ep.w.log.Warn("message not applied; its object's later ones wait", "object", h.id, "seq", h.first, "tries", h.tries, "again_in", h.due-in.ep.w.awake(), "err", e)
	in.ease()
}

// tryHeld tries held objects when they are due.
func (in *inbox) tryHeld() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.ctx.Err() == nil {
		ready, next := in.p.due(in.ep.w.awake())
		for _, h := range ready {
			select {
			case in.trying <- struct{}{}:
				h.trying = true
				seen := h.seen
				in.ep.w.running.Go(func() {
					in.try(h, seen)
					in.mu.Lock()
					defer in.mu.Unlock()
					<-in.trying
					in.ease()
				})
			default: // it is its turn when another one ends
			}
		}
		if next > 0 {
			next = max(next-in.ep.w.awake(), time.Millisecond)
		}
		_ = in.wait(next) // its end is seen above
	}
}

// tried is what became of a message of a held object.
type tried struct {
	m   journal.Message
	l   *letter
	err error
}

// try reads a held object's messages from the first one on and gives them to it, some at a time, up to the last one that
// was taken from the stream.
func (in *inbox) try(h *heldObject, seen journal.Seq) {
	class, token, _ := strings.Cut(string(h.id), ".")
	a := &attempt{in: in}
	more, reached, unread := false, false, errNotAll
	for m, err := range in.stream.Read(in.ctx, in.ep.ns.InboxOf(class, token), h.first) {
		if err != nil {
			unread = err
			break
		}
		if reached = m.Seq >= seen; m.Seq > seen {
			break
		}
		if more = a.given == in.ep.w.bounds.tryAtOnce; more || !a.give(m, h) {
			break
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for a.out > 0 {
		if in.wait(0) != nil {
			return
		}
	}
	if a.bad == nil && !reached && !more { // what comes next would be answered before what is missing here
		a.bad = &tried{journal.Message{Seq: max(h.first, a.last+1)}, nil, unavailable(unread)}
	}
	h.trying, in.again = false, true
	defer in.ease()
	switch bad := a.bad; {
	case bad != nil:
		if bad.m.Seq != h.first {
			h.first, h.tries, h.waits = bad.m.Seq, 0, 0
		}
		in.failed(h, bad.l, bad.err)
	case more, h.seen > seen:
		h.first, h.tries, h.waits, h.due = max(h.first, a.last+1), 0, 0, in.ep.w.awake()
	default:
		delete(in.p.held, h.id)
	}
}

// attempt is one go at a held object.
type attempt struct {
	in    *inbox
	given int
	last  journal.Seq // the last one given

	// Guarded by the inbox's mu. What failed stands here before its object can leave memory and forget that it holds back.
	out int    // given and not told
	bad *tried // the first one that was not answered
}

// give gives one message; false if none is to follow.
func (a *attempt) give(m journal.Message, h *heldObject) bool {
	in := a.in
	l := in.letterOf(m)
	if l.resume = a.given == 0; l.resume {
		l.tries = h.tries
		if h.cause != nil && l.tries >= in.ep.w.triesOf(h.id) {
			l.dead = h.cause
			if h.buried != m.Seq { // or its object cannot answer just now
				if err := in.bury(m, h.tries, h.cause); err != nil {
					a.bad = &tried{m, nil, unavailable(err)} // nothing is given yet
					return false
				}
				h.buried = m.Seq
			}
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for a.out == tryMax && in.wait(0) == nil {
	}
	if a.bad != nil || in.ctx.Err() != nil {
		return false
	}
	a.given, a.out, a.last = a.given+1, a.out+1, m.Seq
	if handed, err := in.give(m, l, func(err error) {
		in.mu.Lock()
		defer in.mu.Unlock()
		a.told(m, l, err)
	}); !handed {
		a.told(m, l, err)
	}
	return true
}

// told takes what became of one. Called with the inbox's mu held.
func (a *attempt) told(m journal.Message, l *letter, err error) {
	a.out--
	if err != nil && (a.bad == nil || a.bad.m.Seq > m.Seq) {
		a.bad = &tried{m, l, err}
	}
	a.in.ease()
}

// triesOf is how often a message of an object is tried before it is a dead letter.
func (w *Worker) triesOf(id snapshot.ID) int {
	class, _, _ := strings.Cut(string(id), ".")
	if c := w.classes[class]; c != nil {
		return c.Limits.Tries
	}
	return triesMax
}

// bury keeps a copy of a message that is not tried any more, for people. It comes before the commit that moves on, so that
// none is without; a copy that is there twice is there once.
func (in *inbox) bury(m journal.Message, tries int, cause *Error) error {
	_, class, token, method, _ := in.ep.ns.SplitInbox(m.Subject)
	d := journal.DeadLetter{Class: class, Token: token, Method: method, Life: in.life, Seq: m.Seq, At: m.Time, Tries: tries, Error: cause.Error(),
		Subject: m.Subject, Header: m.Header, Body: m.Data, Buried: in.ep.w.clock.Now().UTC()}
	ctx, cancel := context.WithTimeout(in.ctx, readTimeout)
	defer cancel()
	data := d.Encode()
	seq, err := in.stream.Put(ctx, journal.Message{Subject: in.ep.ns.Dead(class, token, uint64(m.Seq)), Data: data})
	if err == nil {
		err = in.ep.w.settle(ctx, in.stream.Stream(), seq)
	}
	if err != nil {
		return fmt.Errorf("keep the dead letter: %w", err)
	}
	in.mu.Lock()
	in.p.bury(journal.DeadMark{Seq: seq, Hash: journal.HashOf(data)}) // before the message is settled, so before a checkpoint passes it
	in.mu.Unlock()
	observe(in.ep.w.cfg.Observe.Dead, m)
	in.ep.w.log.Error("dead letter", "object", class+"."+token, "method", method, "seq", m.Seq, "tries", tries, "err", cause)
	return nil
}

// checkpoint writes how far messages are answered, if that has changed, and purges them when that is durable.
func (in *inbox) checkpoint() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.p.cursor == in.written && !in.again || in.p.cursor == 0 {
		return
	}
	cp := journal.Checkpoint{At: in.ep.w.clock.Now().UTC(), Inbox: in.p.mark(in.life, in.ep.w.clock.Now(), in.ep.w.awake())}
	in.written, in.again = in.p.cursor, false
	in.ep.committer.enqueueBatch(&batch{
		messages: []journal.Message{{Subject: in.ep.ns.Checkpoint(in.ep.p), Header: in.ep.header, Data: cp.Encode()}},
		stored: func(journal.Seq) {
			in.mu.Lock()
			defer in.mu.Unlock()
			in.durable = cp.Inbox
		},
	})
}

// cut is what one purge takes: the messages of a pattern before a position.
type cut struct {
	pattern string
	before  journal.Seq
}

// cuts are what a durable checkpoint is beyond, slot by slot, but nothing from a held message on. A partition that has all
// slots needs one for all of them while no object is held.
func (in *inbox) cuts(m journal.InboxMark) (list []cut) {
	end := m.Cursor // the message there stays: it is a witness
	if in.ep.w.cfg.Partitions == 1 && len(m.Held) == 0 {
		return []cut{{in.ep.ns.InboxAll(), end}}
	}
	held := map[int]journal.Seq{} // the first held message of a slot
	for _, h := range m.Held {
		slot := wire.Slot(h.Class, h.Token)
		if first, ok := held[slot]; !ok || h.First < first {
			held[slot] = h.First
		}
	}
	for slot := in.ep.p; slot < wire.Slots; slot += in.ep.w.cfg.Partitions {
		before := end
		if first, ok := held[slot]; ok {
			before = min(before, first)
		}
		list = append(list, cut{in.ep.ns.InboxSlot(slot), before})
	}
	return list
}

// purge removes what the last durable checkpoint is beyond.
func (in *inbox) purge() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.purging || in.durable.Cursor <= in.purged || in.ep.w.awake() < in.purgeAt {
		return
	}
	m := in.durable
	in.purging = true
	in.ep.w.running.Go(func() {
		var failed error
		for _, c := range in.cuts(m) {
			ctx, cancel := context.WithTimeout(in.ctx, readTimeout)
			began := in.ep.w.awake()
			failed = cmp.Or(failed, in.stream.Purge(ctx, c.pattern, c.before))
			cancel()
			// After each purge the server counts anew what a consumer has before it: half a second with a million subjects.
			if rest := time.Duration(in.ep.w.bounds.purgeRest) * (in.ep.w.awake() - began); rest > 0 && sleep(in.ctx, rest) != nil {
				return
			}
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		if in.purging, in.purgeAt = false, in.ep.w.awake()+purgeEvery; failed == nil {
			in.purged = m.Cursor
		} else {
			in.ep.w.log.Warn("answered messages not purged; tried again", "partition", in.ep.p, "before", m.Cursor, "err", failed)
		}
	})
}

func (in *inbox) status() InboxStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	return InboxStatus{Following: true, Cursor: in.p.cursor, Taken: in.p.position, Open: len(in.p.open), Held: len(in.p.held)}
}

// inboxLife is what the bucket says of the inbox.
type inboxLife struct {
	Life     uint64    `json:"life"`
	Accepted time.Time `json:"accepted,omitzero"`
	Why      string    `json:"why,omitempty"`

	rev journal.Seq
}

func readInboxLife(ctx context.Context, meta journal.Meta) (l inboxLife, err error) {
	value, rev, err := meta.Get(ctx, journal.InboxKey)
	if errors.Is(err, journal.ErrNotFound) {
		return inboxLife{rev: rev}, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &l)
	}
	if err != nil {
		return l, fmt.Errorf("read the key %s: %w", journal.InboxKey, err)
	}
	l.rev = rev
	return l, nil
}

// AcceptInbox accepts that the inbox lost messages that were answered, after the alarm "inbox went back", and begins a new
// life of it: what it holds now is taken anew from its beginning, and objects know what they have answered by position and
// time. A message that was lost before it was answered stays lost. What the alarm stopped begins again within some seconds, and a
// partition that lost nothing with its next epoch.
func AcceptInbox(ctx context.Context, js journal.Session, why string) (life uint64, err error) {
	l, err := readInboxLife(ctx, js.Meta())
	if err != nil {
		return 0, err
	}
	next := inboxLife{Life: l.Life + 1, Accepted: time.Now().UTC(), Why: why}
	value, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	if _, err := js.Meta().Put(ctx, journal.InboxKey, value, l.rev); err != nil {
		return 0, fmt.Errorf("write the key %s: %w", journal.InboxKey, err)
	}
	return next.Life, nil
}
