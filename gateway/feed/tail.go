package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

// tail is the ends of all streams, as one journal session follows them. It ends with the session, and its listeners with
// it: they go on with another one, from their places.
type tail struct {
	cfg    *Config
	ctx    context.Context // ends with the tail; its cause says why
	cancel context.CancelCauseFunc
	ready  chan struct{}   // closed when all partitions have a memory
	js     journal.Session // from then on
	count  int             // listeners; guarded by the hub

	mu        sync.Mutex
	parts     []part
	begun     int // partitions that have a memory
	listeners map[*Listener]bool
}

// part is a partition's memory.
//
// Invariant: records are those of the stream that count, in (low, high], in order. low only grows, and all up to high is
// durable.
type part struct {
	low     journal.Seq
	lowOn   string // the subject of the message at low; empty if low is 0
	high    journal.Seq
	records []*record
	bytes   int64

	waiting []*record     // followed and not known to be durable yet
	asked   int           // how many of them the one question under way is about; 0: there is none
	room    chan struct{} // has an element for each of them
}

// waitingMax bounds what is followed and not durable: the owner itself has no more in flight.
const waitingMax = 2 * journal.Window

func newTail(c *Config) *tail {
	t := &tail{cfg: c, ready: make(chan struct{}), parts: make([]part, c.Partitions), listeners: map[*Listener]bool{}}
	for p := range t.parts {
		t.parts[p].room = make(chan struct{}, waitingMax)
	}
	t.ctx, t.cancel = context.WithCancelCause(context.Background())
	return t
}

// fail ends the tail. The first cause counts.
func (t *tail) fail(cause error) { t.cancel(cause) }

// over is the error of what needs the tail and finds it ended.
func (t *tail) over() error {
	return engine.Errorf(engine.Unavailable, "the journal is not followed any more: %w; go on from the last id", context.Cause(t.ctx))
}

// run follows until the tail has failed.
func (t *tail) run() {
	js, err := t.cfg.Connect(t.ctx)
	if err != nil {
		t.fail(fmt.Errorf("connect: %w", err))
		return
	}
	defer js.Close()
	t.js = js
	var following sync.WaitGroup
	for p := range t.parts {
		following.Go(func() { t.fail(t.follow(p)) })
	}
	following.Go(func() {
		select {
		case <-js.Done():
			t.fail(errors.New("the connection to the journal ended"))
		case <-t.ctx.Done():
		}
	})
	following.Wait()
	if cause := context.Cause(t.ctx); !errors.Is(cause, errNobody) && !errors.Is(cause, errClosing) {
		t.cfg.Log.Warn("the feed ended; listeners go on with another", "err", cause)
	}
}

// follow fills a partition's memory from the last record on.
func (t *tail) follow(p int) error {
	log, all := t.js.Log(p), t.cfg.Namespace.JournalOf("*")
	last, err := log.Last(t.ctx, all)
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	if err := t.settle(log.Stream(), last.Seq); err != nil {
		return err
	}
	t.begin(p, last)
	for r, err := range follow(t.ctx, log, t.cfg.Namespace, p, last.Seq+1, all) {
		if err != nil {
			return err
		}
		if r.counts {
			if err := t.take(p, log.Stream(), r); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle waits until what a stream has up to a position is durable.
func (t *tail) settle(stream string, seq journal.Seq) error {
	if t.cfg.Durable == nil || seq == 0 {
		return nil
	}
	done := make(chan struct{})
	t.cfg.Durable(stream, seq, func() { close(done) })
	select {
	case <-done:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// begin makes the memory of a partition: empty, behind the last record that there is.
func (t *tail) begin(p int, last journal.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	part := &t.parts[p]
	part.low, part.lowOn, part.high = last.Seq, last.Subject, last.Seq
	if t.begun++; t.begun == len(t.parts) {
		close(t.ready)
	}
}

// take has a record put into memory when it is durable. One question at a time asks for that: the records that come
// meanwhile are the next one's.
func (t *tail) take(p int, stream string, r *record) error {
	part := &t.parts[p]
	select {
	case part.room <- struct{}{}:
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
	t.mu.Lock()
	part.waiting = append(part.waiting, r)
	idle := part.asked == 0
	if idle {
		part.asked = 1
	}
	t.mu.Unlock()
	if idle {
		t.ask(p, stream, r.m.Seq)
	}
	return nil
}

// ask has the records that part.asked counts, up to seq, put into memory when they are durable.
func (t *tail) ask(p int, stream string, seq journal.Seq) {
	if t.cfg.Durable == nil {
		t.durable(p, stream)
		return
	}
	t.cfg.Durable(stream, seq, func() { t.durable(p, stream) })
}

// durable is called when the records that were asked for are.
func (t *tail) durable(p int, stream string) {
	t.mu.Lock()
	part := &t.parts[p]
	for _, r := range part.waiting[:part.asked] {
		t.add(p, r)
		<-part.room
	}
	part.waiting = slices.Delete(part.waiting, 0, part.asked)
	part.asked = len(part.waiting)
	var last journal.Seq
	if part.asked > 0 {
		last = part.waiting[part.asked-1].m.Seq
	}
	t.mu.Unlock()
	if last != 0 {
		t.ask(p, stream, last)
	}
}

// add puts a record into memory, forgets the oldest ones if there is no room, and wakes who listens to it. Called with mu
// held.
func (t *tail) add(p int, r *record) {
	for l := range t.listeners {
		l.notice(p, r) // before high moves on: who has nothing to be told is told up to there
	}
	part := &t.parts[p]
	part.records = append(part.records, r)
	part.bytes += int64(r.size())
	part.high = r.m.Seq
	for most := t.cfg.MemoryBytes / int64(len(t.parts)); part.bytes > most && len(part.records) > 1; {
		oldest := part.records[0]
		part.records[0] = nil
		part.records = part.records[1:]
		part.bytes -= int64(oldest.size())
		part.low, part.lowOn = oldest.m.Seq, oldest.m.Subject
	}
}

// behind are the records in memory behind a position.
func (part *part) behind(seq journal.Seq) []*record {
	i, _ := slices.BinarySearchFunc(part.records, seq, func(r *record, seq journal.Seq) int {
		if r.m.Seq <= seq {
			return -1
		}
		return 1
	})
	return part.records[i:]
}
