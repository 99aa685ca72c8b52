package engine

import (
	"fmt"
	"sync"
	"time"

	"github.com/perdure/perdure/journal"
)

// committer sends a partition's records, in order, with up to a window of them in flight. It is the only one that
// appends to the stream, so it knows the position of each before it is stored.
//
// A goroutine of its own sends, and so does the one whose object has nothing else to do than to wait for its commit: that
// saves the way of a single call the waking of another. Whoever sends holds sending from the taking of a message to the
// end of its append, so messages leave one at a time and in the order in which they are given positions. What is put in
// line by whom does not matter; nothing is left lying there, since whoever puts it there, and whoever makes room, sends or
// signals, and run looks again after each signal.
//
// Why an answer is safe to pass on: a record is told as stored only when it and all before it are acknowledged at the
// positions that were predicted; the first that is not ends the epoch, and everything behind it is unknown, for good.
type committer struct {
	ep     *epoch
	writer journal.Writer
	wake   chan struct{}

	sending chan struct{} // has an element while somebody sends, which comes before an object's mu, and that before mu
	buf     []byte        // the payload of the record that is being sent

	mu      sync.Mutex
	win     window[sent]
	objects []*object // that have commits to send, each once
	batches []*batch
	acked   journal.Seq // highest acknowledged position
	durable journal.Seq // highest that is durable: no farther than acked
	closed  bool
}

// sent is what a flight carries: a record, or a batch.
type sent struct {
	record *record
	batch  *batch
	at     time.Duration
}

// record is consecutive commits of one object on their way.
type record struct {
	o       *object
	commits []*commit
	first   journal.Version
	last    journal.Version
	at      time.Time
	hash    journal.Hash
	bytes   int
	subject journal.Seq // what the object's last message must be at, or NoSubjectCheck
}

// batch is messages that are stored all or none: a snapshot record. stored is called when they are; if they are not, the
// epoch is over and its objects with it, so there is nobody to tell.
type batch struct {
	messages []journal.Message
	stored   func(last journal.Seq)
}

func newCommitter(ep *epoch, next journal.Seq) *committer {
	c := &committer{ep: ep, wake: make(chan struct{}, 1), sending: make(chan struct{}, 1), acked: next - 1, durable: next - 1}
	c.win.next = next
	return c
}

// lasting is the highest position that is known to be durable: what a witness may know, or a power cut, which takes what
// nobody was told of, would look like a loss.
func (c *committer) lasting() journal.Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.durable
}

// high is the highest position that is known to be stored.
func (c *committer) high() journal.Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked
}

// enqueue puts an object that has commits in line. Called with the object's mu held, and followed by sendNow or signal.
func (c *committer) enqueue(o *object) {
	c.mu.Lock()
	c.objects = append(c.objects, o)
	c.mu.Unlock()
}

func (c *committer) enqueueBatch(b *batch) {
	c.mu.Lock()
	if !c.closed {
		c.batches = append(c.batches, b)
	}
	c.mu.Unlock()
	c.signal()
}

func (c *committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run sends until the epoch is over.
func (c *committer) run() {
	tick := time.NewTicker(c.ep.w.cfg.AckTimeout / 4)
	defer tick.Stop()
	for {
		for c.sendOne() {
		}
		select {
		case <-c.wake:
		case <-c.ep.done:
			return
		case <-tick.C:
			if c.overdue(c.ep.w.cfg.AckTimeout) {
				c.ep.end(fmt.Errorf("append: %w within %v", errNoAnswer, c.ep.w.cfg.AckTimeout))
				return
			}
		}
	}
}

// sendOne sends what is next, and tells whether there was something.
func (c *committer) sendOne() bool {
	c.sending <- struct{}{}
	sent, err := c.send()
	<-c.sending
	if err != nil {
		c.ep.end(fmt.Errorf("append: %w: %w", errUnknown, err))
	}
	return sent
}

// sendNow sends what is next from the goroutine of an object. If somebody is sending already, or there is more, that is
// left to run: an object does not work for the others.
func (c *committer) sendNow() {
	select {
	case c.sending <- struct{}{}:
	default:
		c.signal()
		return
	}
	_, err := c.send()
	<-c.sending
	if err != nil {
		c.ep.end(fmt.Errorf("append: %w: %w", errUnknown, err))
		return
	}
	c.mu.Lock()
	more := c.ready()
	c.mu.Unlock()
	if more {
		c.signal()
	}
}

// send sends what is next, and tells whether there was something. Called with sending held.
func (c *committer) send() (bool, error) {
	o, b := c.take()
	switch {
	case b != nil:
		return true, c.sendBatch(b)
	case o != nil:
		return true, c.sendRecord(o)
	}
	return false, nil
}

// ready tells whether something is in line and the window has room for it. Called with mu held.
func (c *committer) ready() bool {
	switch {
	case c.closed:
		return false
	case len(c.batches) > 0: // before any record: it would wait for ever behind single ones
		return c.win.room(len(c.batches[0].messages), batchBytes(c.batches[0]))
	}
	return len(c.objects) > 0 && c.win.room(1, c.ep.recordMax)
}

// take takes what may be sent next, nothing if the window has no room.
func (c *committer) take() (*object, *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.ready():
		return nil, nil
	case len(c.batches) > 0:
		b := c.batches[0]
		c.batches = c.batches[1:]
		return nil, b
	}
	o := c.objects[0]
	c.objects[0] = nil
	if c.objects = c.objects[1:]; len(c.objects) == 0 {
		c.objects = nil
	}
	return o, nil
}

func batchBytes(b *batch) (n int) {
	for _, m := range b.messages {
		n += m.Size()
	}
	return n
}

// sendRecord sends the object's next record. The object is in line again, behind the others, if it has more.
func (c *committer) sendRecord(o *object) error {
	var r *record
	if r, c.buf = o.takeRecord(c.buf[:0]); r == nil {
		return nil
	}
	m := journal.Message{Subject: o.subjectName(), Header: c.ep.header, Data: c.buf}
	behind := c.reserve(1, m.Size(), sent{record: r})
	return c.writer.Append(behind, r.subject, m)
}

func (c *committer) sendBatch(b *batch) error {
	behind := c.reserve(len(b.messages), batchBytes(b), sent{batch: b})
	return c.writer.Append(behind, journal.NoSubjectCheck, b.messages...)
}

func (c *committer) reserve(messages, bytes int, s sent) journal.Seq {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.at = c.ep.w.awake()
	return c.win.send(messages, bytes, s)
}

// answered takes an answer of the journal: from the writer, one at a time.
func (c *committer) answered(a journal.Answer) {
	if a.Outcome != journal.Stored {
		c.ep.w.log.Warn("append not stored", "stream", c.ep.log.Stream(), "seq", a.Seq, "outcome", a.Outcome, "err", a.Err)
		observe(c.ep.w.cfg.Observe.Unstored, a.Outcome)
	}
	c.mu.Lock()
	c.win.answer(a.Seq, a.Outcome)
	c.mu.Unlock()
	for {
		c.mu.Lock()
		s, last, outcome, ok := c.win.tell()
		if ok && outcome == journal.Stored {
			c.acked = last
		}
		more := !ok && c.ready()
		c.mu.Unlock()
		switch {
		case more:
			c.signal()
			return
		case !ok:
			return
		case outcome != journal.Stored:
			c.ep.end(fmt.Errorf("append at %d: %w: %w", last, unstored(outcome), a.Err))
			return
		}
		if durable := c.ep.w.cfg.Durable; durable != nil {
			durable(c.ep.log.Stream(), last, func() { c.told(s, last) })
		} else {
			c.told(s, last) // acknowledged is durable
		}
	}
}

// told passes on that something is durable.
func (c *committer) told(s sent, last journal.Seq) {
	c.mu.Lock()
	c.durable = last
	c.mu.Unlock()
	now := c.ep.w.awake()
	if s.batch != nil {
		s.batch.stored(last)
	} else {
		s.record.o.stored(s.record, last)
	}
	c.observe(s, now) // nobody waits for this
}

// observe tells how long took what was durable at a time.
func (c *committer) observe(s sent, now time.Duration) {
	of := &c.ep.w.cfg.Observe
	observe(of.Append, now-s.at)
	if of.Gate == nil || s.record == nil {
		return
	}
	for _, commit := range s.record.commits {
		of.Gate(now - commit.done)
	}
}

// overdue tells whether an append waits for its answer for longer than a limit.
func (c *committer) overdue(limit time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.win.told == len(c.win.flights) {
		return false
	}
	return c.ep.w.awake()-c.win.flights[c.win.told].what.at > limit
}

// close ends the committer with its epoch. The objects tell their callers.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.win.fail()
	c.batches, c.objects = nil, nil
	c.mu.Unlock()
	if c.writer != nil {
		c.writer.Close()
	}
}

// inFlight is how many messages are sent and not told.
func (c *committer) inFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.win.inFlight()
}

// drained tells whether everything is sent and answered.
func (c *committer) drained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.objects) == 0 && len(c.batches) == 0 && c.win.inFlight() == 0
}
