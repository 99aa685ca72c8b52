package journaltest

import (
	"context"
	"sync"

	"github.com/perdure/perdure/journal"
)

// Fault is what happens to one append.
type Fault uint8

// The faults. In each case but None the writer must not learn more than it would from a real server.
const (
	None       Fault = iota
	Refuse           // it is sent with an expectation that does not hold: not stored, and refused when the plan is released
	Lose             // it is never sent: not stored, and not answered
	LoseAnswer       // it is stored, and not answered
	Hold             // it is stored, and answered when the plan is released
)

// Plan decides what happens to a session's appends. Safe for concurrent use.
type Plan struct {
	// Append is asked for each append of a writer; they are counted from 0 for each writer. nil is None for all.
	Append func(partition, i int) Fault
	// Meta, if set, is called before each change of a key, and may block, or refuse it with an error.
	Meta func(key string) error

	mu       sync.Mutex
	released bool
	held     []func()
}

// Held is how many answers are held.
func (p *Plan) Held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

// Pass lets the answers go that are held now, in order. What comes later is held as before.
func (p *Plan) Pass() {
	p.mu.Lock()
	held := p.held
	p.held = nil
	p.mu.Unlock()
	for _, f := range held {
		f()
	}
}

// Release lets the held answers go, in order, and holds none from now on.
func (p *Plan) Release() {
	p.mu.Lock()
	p.released = true
	p.mu.Unlock()
	p.Pass()
}

func (p *Plan) hold(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.released {
		p.held = append(p.held, f)
	}
	return !p.released
}

// Faulty puts a plan before a session.
func Faulty(s journal.Session, p *Plan) journal.Session { return faultySession{s, p} }

type faultySession struct {
	journal.Session
	plan *Plan
}

func (s faultySession) Meta() journal.Meta { return faultyMeta{s.Session.Meta(), s.plan} }

func (s faultySession) Log(p int) journal.Log { return faultyLog{s.Session.Log(p), s.plan, p} }

type faultyMeta struct {
	journal.Meta
	plan *Plan
}

func (m faultyMeta) Put(ctx context.Context, key string, value []byte, rev journal.Seq) (journal.Seq, error) {
	if m.plan.Meta != nil {
		if err := m.plan.Meta(key); err != nil {
			return 0, err
		}
	}
	return m.Meta.Put(ctx, key, value, rev)
}

type faultyLog struct {
	journal.Log
	plan      *Plan
	partition int
}

func (l faultyLog) Writer(answer func(journal.Answer)) (journal.Writer, error) {
	w := &faultyWriter{plan: l.plan, partition: l.partition, answer: answer, faults: map[journal.Seq]Fault{}}
	var err error
	w.inner, err = l.Log.Writer(w.answered)
	return w, err
}

// elsewhere is how far off the expectation of a refused append is.
const elsewhere = 1 << 40

type faultyWriter struct {
	plan      *Plan
	partition int
	inner     journal.Writer
	sent      int

	telling sync.Mutex // answers are told one at a time, whoever tells them
	answer  func(journal.Answer)

	mu     sync.Mutex
	faults map[journal.Seq]Fault // by position of the last message
}

func (w *faultyWriter) Append(last, subject journal.Seq, messages ...journal.Message) error {
	fault := None
	if w.plan.Append != nil {
		fault = w.plan.Append(w.partition, w.sent)
	}
	w.sent++
	w.mu.Lock()
	w.faults[last+journal.Seq(len(messages))] = fault
	w.mu.Unlock()
	switch fault {
	case Lose:
		return nil
	case Refuse:
		last += elsewhere
	}
	return w.inner.Append(last, subject, messages...)
}

func (w *faultyWriter) answered(a journal.Answer) {
	if a.Seq > elsewhere {
		a.Seq -= elsewhere
	}
	w.mu.Lock()
	fault := w.faults[a.Seq]
	delete(w.faults, a.Seq)
	w.mu.Unlock()
	if fault == LoseAnswer || (fault == Hold || fault == Refuse) && w.plan.hold(func() { w.tell(a) }) {
		return
	}
	w.tell(a)
}

func (w *faultyWriter) tell(a journal.Answer) {
	w.telling.Lock()
	defer w.telling.Unlock()
	w.answer(a)
}

func (w *faultyWriter) Close() { w.inner.Close() }
