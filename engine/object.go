package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// object is one object in one epoch: its mailbox, its state and its output gate. It lives from its first request until
// it is evicted or the epoch ends; then another takes its place.
//
// One goroutine at a time runs it, and only while there is work. A turn's changes are a commit: memory shows it to the
// next turn at once, the committer sends it, and what depends on it waits at the gate until the journal has it.
type object struct {
	ep    *epoch
	class *class
	name  string
	id    snapshot.ID

	// Owned by whoever runs the object. All flags stand around mu: there are many objects, and a gap is 8 bytes.
	state     *state // nil: not awake
	act       Activation
	folded    int // bytes of the class's folded state when it was last captured
	snapMin   int // no snapshot record before so many records: the last try made none
	broken    error
	retryAt   time.Duration
	snapping  chan struct{} // not nil: a snapshot record is on its way; closed when it is stored, or is not to be
	capturing bool          // a state is on its way into the store
	heldBack  bool          // a letter was not answered: none behind it is before that one comes again

	mu         sync.Mutex // held for a moment, never across a turn, a wake-up or I/O
	running    bool
	gone       bool // evicted, or the epoch is over: ask for the object anew
	queued     bool // in the committer's queue
	fresh      bool // no record since it woke: the next one also checks the object's last position
	queue      []*task
	queueBytes int
	chores     []func()
	run        int // which goroutine runs it; another number means that the former was given up
	turn       *turn
	turnSince  time.Duration
	turnTask   *task
	watched    *time.Timer // runs while there may be a turn to give up
	idleSince  time.Duration
	memory     int // what it counts for in the worker's budget

	// The gate, guarded by mu.
	durable journal.Version // all commits up to it are durable
	waiters []waiter        // by version
	acked   position        // of the last durable record
	last    journal.Hash    // of the last record that was sent, for the next one's prev

	// For the committer, guarded by mu.
	pending []*commit       // not sent yet
	unacked int             // records in flight
	sent    journal.Version // all commits up to it are
	barrier journal.Version // a record must end here, so that there is a position for a snapshot
	subject journal.Seq     // of the object's last message, for the first record since it woke
	records int             // durable since the last flush
	bytes   int             // of them
}

// position is where a record is and what it holds.
type position struct {
	version journal.Version
	seq     journal.Seq
	hash    journal.Hash
	at      time.Time
}

// waiter is something that must not leave before a commit is durable.
type waiter struct {
	version journal.Version
	fire    func(error) // nil: now
}

// task is a request in a mailbox.
type task struct {
	req   *Request
	ctx   context.Context // of a caller in this process
	at    time.Duration   // when it came, by Worker.awake
	reply func(Reply, error)
	bytes int // what it counts for while it waits

	request Request // where req is: one piece of memory for both
}

// size is what the request counts for while it waits.
func (t *task) size() int {
	if t.req.letter != nil {
		return 0 // the inbox has its own bound
	}
	n := 256 + len(t.req.Body)
	if h := t.req.HTTP; h != nil {
		n += len(h.URL)
		for name, values := range h.Header {
			for _, v := range values {
				n += len(name) + len(v)
			}
		}
	}
	return n
}

// token is the name as it is in subjects and in the id.
func (o *object) token() string { return string(o.id[len(o.class.Name)+1:]) }

func (o *object) String() string { return o.class.Name + "/" + o.name }

// errGone says that this object is not the one any more: look it up again.
var errGone = errors.New("the object left memory")

// post puts a request into the mailbox.
func (o *object) post(t *task) error {
	t.bytes = t.size()
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &o.class.Limits
	switch {
	case o.gone:
		return errGone
	case t.req.letter != nil:
	case len(o.queue) >= l.Queue:
		return Errorf(Overloaded, "%d requests wait for this object; at most %d may", len(o.queue), l.Queue).RetryIn(time.Second)
	case o.queueBytes+t.bytes > l.QueueBytes:
		return Errorf(Overloaded, "requests of %d bytes wait for this object; at most %d may", o.queueBytes, l.QueueBytes).RetryIn(time.Second)
	}
	if !o.ep.w.reserve(t.bytes) {
		return Errorf(Overloaded, "too much waits for all objects of this worker; at most %d bytes may", o.ep.w.cfg.QueueBytes).RetryIn(time.Second)
	}
	o.queue = append(o.queue, t)
	o.queueBytes += t.bytes
	o.start()
	return nil
}

// chore has the object's runner do something between two turns, unless the object is gone.
func (o *object) chore(f func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gone {
		return false
	}
	o.chores = append(o.chores, f)
	o.start()
	return true
}

// start runs the object unless it runs. Called with mu held.
func (o *object) start() {
	if o.running {
		return
	}
	o.running = true
	run := o.run
	o.ep.w.spawn(func() { o.loop(run) })
}

// loop runs what waits, and ends when nothing does, or when the turn that it ran was given up and another loop took over.
func (o *object) loop(run int) {
	for served := false; ; {
		chore, t := o.take(run, served)
		switch {
		case chore != nil:
			chore()
		case t != nil:
			if !o.serve(run, t) {
				return
			}
			served = true
		default:
			return
		}
	}
}

// take takes what is next. served tells whether a request was served since the object began to run: chores leave it as
// idle as it was.
func (o *object) take(run int, served bool) (func(), *task) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.run != run:
		return nil, nil
	case len(o.chores) > 0:
		c := o.chores[0]
		if o.chores = o.chores[1:]; len(o.chores) == 0 {
			o.chores = nil
		}
		return c, nil
	case len(o.queue) > 0 && !o.gone:
		t := o.queue[0]
		o.queue[0] = nil
		if o.queue = o.queue[1:]; len(o.queue) == 0 {
			o.queue = nil
		}
		o.queueBytes -= t.bytes
		o.ep.w.release(t.bytes)
		return nil, t
	}
	o.running = false
	if served {
		o.idleSince = o.ep.w.awake()
	}
	return nil, nil
}

// serve runs one request and tells whether this goroutine still runs the object.
func (o *object) serve(run int, tk *task) bool {
	began := o.ep.w.awake()
	l := tk.req.letter
	if l != nil {
		if o.heldBack = o.heldBack && !l.resume; o.heldBack {
			tk.reply(Reply{}, errHeldBack)
			return true
		}
	} else if waited := began - tk.at; waited > o.class.Limits.QueueAge {
		o.refuse(tk, Errorf(Overloaded, "the request waited %v for this object; at most %v", waited.Round(time.Millisecond), o.class.Limits.QueueAge).RetryIn(time.Second))
		return true
	}
	if tk.ctx.Err() != nil { // nobody waits any more, and nothing has happened
		o.refuse(tk, Errorf(Timeout, "the caller left before it began; nothing changed"))
		return true
	}
	if err := o.wake(run, tk); errors.Is(err, errGivenUp) {
		return false
	} else if err != nil {
		o.heldBack = o.heldBack || l != nil
		if o.state != nil { // an OnWake saw the state, acknowledged or not
			o.refuseAfter(tk, err)
		} else {
			o.refuse(tk, err)
		}
		return true
	}
	now := o.now()
	if l != nil {
		if o.beforeLetter(tk, now) {
			return true
		}
	} else if tk.req.Deadline.Before(now) {
		o.refuse(tk, Errorf(Timeout, "not begun by its deadline %s", tk.req.Deadline.UTC().Format(time.RFC3339Nano)))
		return true
	}
	var hash journal.Hash
	if tk.req.MinVersion > o.state.version {
		o.refuseAfter(tk, o.tooOld(tk.req))
		return true
	}
	if !o.ep.ownsNothing() && (tk.req.ID != "" || tk.req.Session != nil) {
		hash = tk.req.hash()
		a, err := o.state.answerOf(tk.req, hash, now)
		if l != nil && (err != nil || a != nil) {
			o.repeatedLetter(tk, now, err)
			return true
		}
		if err != nil {
			o.refuseAfter(tk, err)
			return true
		}
		if a != nil {
			o.replay(tk, a)
			return true
		}
	}
	t := o.begin(tk, now, began)
	reply, err := t.run()
	if !o.finish(run, t) {
		return false
	}
	if err == nil && (len(t.changes) > 0 || l != nil) {
		err = o.commit(t, tk, hash, reply)
	}
	switch {
	case err != nil && l != nil:
		o.spoilt(t, err)
		o.failLetter(t, tk, hash, err)
	case err != nil:
		o.fail(t, tk, err)
	case len(t.changes) == 0 && l == nil:
		t.committed()
		o.answer(tk, o.state.version, reply, false)
	}
	o.weigh()
	o.ep.w.observeTurn(o.class, tk.req, err, began-tk.at, o.ep.w.awake()-began)
	return true
}

// now is the time of a turn: never before that of an earlier one.
func (o *object) now() time.Time {
	now := o.ep.w.clock.Now().Round(0) // as it will be recorded: the monotonic reading goes on when the clock is set back
	if now.Before(o.state.at) {
		return o.state.at
	}
	return now
}

func (o *object) begin(tk *task, now time.Time, began time.Duration) *turn {
	limit := o.class.Limits.Turn
	if tk.req.letter == nil {
		limit = min(limit, tk.req.Deadline.Sub(now))
	}
	deadline := time.Now().Add(limit)
	t := &turn{o: o, act: o.act, req: tk.req, now: now, version: o.state.version, ctx: turnContext{parent: tk.ctx, deadline: deadline}}
	o.arm(t, tk, began)
	return t
}

// arm makes a turn the one that runs, and that is given up when it runs too long.
func (o *object) arm(t *turn, tk *task, began time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turn, o.turnTask, o.turnSince = t, tk, began
	if o.watched == nil {
		o.watched = time.AfterFunc(givenUpAfter(o.class.Limits.Turn), o.watch)
	}
}

// givenUpAfter is when a turn is given up: a tenth of its limit later than its context ends, so that a method that minds its
// context ends by itself.
func givenUpAfter(limit time.Duration) time.Duration { return limit + limit/10 }

// watch gives up a turn that is beyond its limit: the caller is told, the activation is dropped, and another goroutine
// runs the object. The one in the method ends when the method does; it can reach nothing of the object's any more.
func (o *object) watch() {
	limit := o.class.Limits.Turn
	o.mu.Lock()
	t, tk := o.turn, o.turnTask
	if t == nil {
		o.watched = nil
		o.mu.Unlock()
		return
	}
	if left := givenUpAfter(limit) - (o.ep.w.awake() - o.turnSince); left > 0 {
		o.watched = time.AfterFunc(left, o.watch)
		o.mu.Unlock()
		return
	}
	o.run++
	run := o.run
	o.turn, o.turnTask, o.watched = nil, nil, nil
	o.ep.w.running.Go(func() {
		t.end()
		o.act = nil
		if l := tk.req.letter; l != nil {
			o.heldBack, l.failed = true, true
		}
		t.log().Error("method given up", "limit", limit)
		o.refuse(tk, Errorf(Timeout, "%w: %v; nothing changed", errTurnLimit, limit))
		o.loop(run)
	})
	o.mu.Unlock()
}

// finish ends a turn and tells whether it was still this goroutine's.
func (o *object) finish(run int, t *turn) bool {
	o.mu.Lock()
	mine := o.run == run
	if mine {
		o.turn, o.turnTask = nil, nil
	}
	o.mu.Unlock()
	t.end()
	return mine
}

// commit makes the turn's changes a commit. From here on memory shows them; whoever depends on them waits at the gate.
func (o *object) commit(t *turn, tk *task, hash journal.Hash, reply *journal.Reply) error {
	if err := o.ep.w.mayWrite(); err != nil {
		return err
	}
	source := "call"
	if tk.req.HTTP != nil {
		source = "http"
	}
	var sent *journal.Sent
	if l := tk.req.letter; l != nil {
		source, sent = "inbox", o.letterMark(l, l.outcome)
	}
	c := &commit{version: o.state.version + 1, done: o.ep.w.awake(), Commit: journal.Commit{
		At: t.now, ID: tk.req.ID, Session: tk.req.Session, Hash: hash, Source: source, Inbox: sent, Method: tk.req.Method,
		Caller: tk.req.Caller, Trace: tk.req.Trace, Changes: t.changes, Reply: reply,
	}}
	c.format = o.ep.w.needs(&c.Commit)
	if err := o.ep.ses.mayWrite(c.format); err != nil {
		return err
	}
	c.encoded = journal.AppendCommit(make([]byte, 0, 256), &c.Commit)
	c.size = len(c.encoded)
	if n := len(c.encoded) + journal.RecordOverhead + journal.CommitOverhead; n > o.ep.recordMax {
		return Errorf(TooLarge, "the turn's changes and reply make a record of %d bytes; at most %d", n, o.ep.recordMax)
	}
	if c.ID == "" && c.Session == nil {
		c.Reply = nil // nobody can ask for it again
	}
	o.state.add(c)
	o.checkFold(t)
	t.committed()
	folded, capture := o.capture()
	o.mu.Lock()
	if o.gone { // the epoch ended meanwhile: the commit was never sent
		o.mu.Unlock()
		return errEpochOver
	}
	o.pending = append(o.pending, c)
	o.waiters = append(o.waiters, waiter{c.version, o.answerer(tk, c.version, reply, false)})
	for _, f := range t.whenDurable {
		o.waiters = append(o.waiters, waiter{c.version, func(err error) {
			if err == nil {
				go f()
			}
		}})
	}
	if capture {
		o.barrier = c.version
		o.waiters = append(o.waiters, waiter{c.version, func(err error) { o.captured(folded, err) }})
	}
	first := o.line()
	alone := len(o.queue) == 0
	o.mu.Unlock()
	switch {
	case first && alone:
		o.ep.committer.sendNow()
	case first: // the next turn does not wait for this one's record
		o.ep.committer.signal()
	}
	return nil
}

// line puts the object in the committer's line if it has a record to send, and tells whether it did. Called with mu held.
func (o *object) line() bool {
	if o.queued || len(o.pending) == 0 || o.gone || o.unacked >= recordsInFlightMax {
		return false
	}
	o.queued = true
	o.ep.committer.enqueue(o)
	return true
}

// checkFold holds the state in memory against the events: an exported field changes only in Apply.
func (o *object) checkFold(t *turn) {
	tell := o.ep.w.cfg.CheckFold
	if tell == nil || t.act == nil {
		return
	}
	have, err := foldOf(t.act)
	fresh, err2 := o.state.activate()
	if err := errors.Join(err, err2); err != nil {
		tell(fmt.Errorf("%s %s: %w", o, t.req.Method, err))
		return
	}
	if want, err := foldOf(fresh); err != nil || !bytes.Equal(have, want) {
		tell(fmt.Errorf("%s %s: the state is %s, the events give %s: an exported field changes only in Apply", o, t.req.Method, have, want))
	}
}

// committed runs what the method left for the end of a turn that succeeded.
func (t *turn) committed() {
	defer func() {
		if p := recover(); p != nil {
			t.log().Error("OnCommit panicked; the commit stands, the activation is rebuilt", "panic", p)
			t.o.act = nil
		}
	}()
	for _, f := range t.onCommit {
		f()
	}
}

// spoilt drops the activation of a turn that failed, if that may be wrong.
func (o *object) spoilt(t *turn, err error) {
	if t.emitted || errors.As(err, new(panicked)) {
		o.act = nil
	}
}

// fail answers a turn that failed. What it changed is dropped; where memory may be wrong, so is the activation.
func (o *object) fail(t *turn, tk *task, err error) {
	o.spoilt(t, err)
	if errors.Is(err, errEpochOver) {
		err = unavailable(err)
	}
	e := asError(err)
	if e.cause != nil && e.Detail == faulty {
		t.log().Warn("method failed", "err", e.cause)
		if errors.Is(e.cause, context.DeadlineExceeded) && !time.Now().Before(t.ctx.deadline) { // it minds its context
			e = Errorf(Timeout, "the turn's time is over; nothing changed")
		}
	}
	o.refuseAfter(tk, e)
}

// named fills in what an error that leaves the object says about its place.
func (o *object) named(tk *task, err error) *Error {
	e := *asError(err)
	if e.Object == "" {
		e.Object = o.String()
	}
	if e.RequestID == "" {
		e.RequestID = tk.req.requestID()
	}
	return &e
}

// refuse answers with an error that says nothing of the object's state.
func (o *object) refuse(tk *task, err error) { tk.reply(Reply{}, o.named(tk, err)) }

// refuseAfter answers with an error that may tell of the state, so it leaves like a read.
func (o *object) refuseAfter(tk *task, err error) {
	o.gate(o.state.version, func(lost error) {
		if lost == nil {
			lost = o.ep.mayAnswer()
		}
		if lost != nil {
			err = unavailable(lost)
		}
		o.refuse(tk, err)
	})
}

// answer lets a reply leave when the commits up to version are durable. Without a record of its own it also needs a valid
// lease at that moment: a worker that was deposed may still see acknowledgements of what it had sent before.
func (o *object) answer(tk *task, version journal.Version, r *journal.Reply, replayed bool) {
	fire := o.answerer(tk, version, r, replayed)
	o.gate(version, func(err error) {
		if err == nil {
			err = o.ep.mayAnswer()
		}
		switch {
		case err == nil:
		case replayed: // what it repeats was sent
			err = sentUnknown()
		default:
			err = unavailable(err) // it changed nothing, so its outcome is known
		}
		fire(err)
	})
}

func (o *object) answerer(tk *task, version journal.Version, r *journal.Reply, replayed bool) func(error) {
	return func(err error) {
		if err != nil {
			tk.reply(Reply{}, o.named(tk, err))
			return
		}
		if r == nil { // of a message that did not run again
			r = &journal.Reply{Status: 200}
		}
		if tk.req.HTTP == nil && tk.req.letter == nil && r.Status >= 400 { // a message that this request repeats was refused
			tk.reply(Reply{}, o.named(tk, ParseProblem(r.Body)))
			return
		}
		tk.reply(Reply{Status: r.Status, Header: r.Header, Body: r.Body, Version: version, Replayed: replayed}, nil)
	}
}

// replay answers a repeat with the recorded reply: from memory, the store, or the record that has it.
func (o *object) replay(tk *task, a *answer) {
	reply := a.Reply
	if a.commit != nil {
		reply = a.commit.Reply
	}
	if reply == nil && a.Seq != 0 {
		ctx, cancel := context.WithTimeout(o.ep.ctx, readTimeout)
		defer cancel()
		m, err := o.ep.log.At(ctx, a.Seq)
		if err == nil {
			reply, err = replyIn(m.Data, a.Version)
		}
		if err != nil {
			o.ep.w.log.Error("recorded reply not readable", "object", o, "seq", a.Seq, "version", a.Version, "err", err)
			o.refuse(tk, unavailable(fmt.Errorf("read the recorded reply: %w", err)))
			return
		}
	}
	if reply == nil {
		reply = &journal.Reply{Status: 200}
	}
	o.answer(tk, a.Version, reply, true)
}

// gate runs f when the commits up to version are durable, with an error if that will never be known.
func (o *object) gate(version journal.Version, f func(error)) {
	o.mu.Lock()
	switch {
	case version <= o.durable:
		o.mu.Unlock()
		f(nil)
		return
	case o.gone:
		o.mu.Unlock()
		f(unavailable(errEpochOver))
		return
	}
	o.waiters = append(o.waiters, waiter{version, f})
	o.mu.Unlock()
}

// waitDurable waits until the commits up to version are durable.
func (o *object) waitDurable(ctx context.Context, version journal.Version) error {
	if err := ctx.Err(); err != nil { // both may be there already, and then it is this
		return Errorf(Timeout, "before the object's earlier changes were waited for: %w", err)
	}
	done := make(chan error, 1)
	o.gate(version, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return Errorf(Timeout, "waiting for the object's earlier changes: %w", ctx.Err())
	}
}

// takeRecord takes the next commits to be sent as one record: as many as fit, but none beyond the barrier. If there are
// more the object is in line again.
func (o *object) takeRecord(dst []byte) (*record, []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, size := 0, journal.RecordOverhead
	var encoded []journal.Encoded
	for n < len(o.pending) {
		c := o.pending[n]
		size += len(c.encoded) + journal.CommitOverhead
		if n > 0 && size > min(journal.RecordBytesMax, o.ep.recordMax) {
			break
		}
		encoded = append(encoded, journal.Encoded{JSON: c.encoded, At: c.At, MinReader: c.format})
		n++
		if c.version == o.barrier {
			break
		}
	}
	if n == 0 || o.gone || o.unacked >= recordsInFlightMax {
		o.queued = false
		return nil, dst
	}
	r := &record{o: o, commits: o.pending[:n:n], first: o.pending[0].version, last: o.pending[n-1].version,
		at: o.pending[n-1].At, subject: journal.NoSubjectCheck}
	o.pending = o.pending[n:]
	if len(o.pending) == 0 {
		o.pending = nil
	}
	if o.fresh {
		r.subject, o.fresh = o.subject, false
	}
	dst = journal.AppendRecord(dst, r.first, o.last, encoded)
	for _, c := range r.commits {
		c.encoded = nil
	}
	r.hash, r.bytes = journal.HashOf(dst), len(dst)
	o.last, o.sent = r.hash, r.last
	o.unacked++
	o.queued = false
	o.line()
	return r, dst
}

// stored opens the gate for a record that is durable.
func (o *object) stored(r *record, seq journal.Seq) {
	o.mu.Lock()
	for _, c := range r.commits {
		c.seq = seq
	}
	o.durable = r.last
	o.acked = position{r.last, seq, r.hash, r.at}
	o.unacked--
	o.records++
	o.bytes += r.bytes
	more := o.line()
	n := 0
	for n < len(o.waiters) && o.waiters[n].version <= r.last {
		n++
	}
	open := o.waiters[:n:n]
	if o.waiters = o.waiters[n:]; len(o.waiters) == 0 {
		o.waiters = nil
	}
	o.mu.Unlock()
	if more {
		o.ep.committer.signal()
	}
	if r.first == 1 {
		o.newborn()
	}
	for _, w := range open {
		w.fire(nil)
	}
}

// leave makes the object one that is not there any more. Called with mu held.
func (o *object) leave() {
	o.gone = true
	o.unwatch() // or the timer would keep the object until it fires
}

// unwatch stops the timer if there is no turn to give up. Called with mu held.
func (o *object) unwatch() {
	if o.watched != nil && o.turn == nil && o.watched.Stop() {
		o.watched = nil
	}
}

// drop ends the object with its epoch. Who waits for a commit that was sent gets an unknown outcome; nothing of the
// others happened.
func (o *object) drop() {
	o.mu.Lock()
	if o.gone {
		o.mu.Unlock()
		return
	}
	o.leave()
	sent := o.sent
	waiters, queue, t := o.waiters, o.queue, o.turn
	o.waiters, o.queue, o.pending, o.chores = nil, nil, nil, nil
	o.mu.Unlock()
	if t != nil {
		t.lose() // its method stops early; what it did is not sent
	}
	for _, w := range waiters {
		if w.version <= sent {
			w.fire(sentUnknown())
		} else {
			w.fire(unavailable(errEpochOver))
		}
	}
	for _, tk := range queue {
		o.ep.w.release(tk.bytes)
		tk.reply(Reply{}, o.named(tk, unavailable(errEpochOver)))
	}
}

// discard is drop for an object that is in memory no more.
func (o *object) discard() {
	o.drop()
	o.mu.Lock()
	o.ep.w.memory.Add(-int64(o.memory))
	o.memory = 0
	o.mu.Unlock()
}

// sentUnknown is for a change that was sent, and may or may not be stored.
func sentUnknown() *Error {
	return Errorf(UnknownOutcome, "the change was sent and its outcome is not known; repeat with the same request id")
}

// unavailable is for what did not happen because the partition has no owner just now.
func unavailable(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok && e.Code == Unavailable {
		return e
	}
	return Errorf(Unavailable, "the object has no owner just now: %w", err).RetryIn(50 * time.Millisecond)
}

var errEpochOver = errors.New("the epoch is over")

var errNoAnswer = errors.New("no answer")

func (o *object) subjectName() string { return o.ep.ns.Journal(o.class.Name, o.token()) }

// recordsInFlightMax is how many records of one object are in flight: enough that the log is never idle for it, and
// few, so that what a hot object commits meanwhile is joined into few records.
const recordsInFlightMax = 8
