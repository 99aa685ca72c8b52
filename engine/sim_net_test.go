package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

// The simulated network: every question to the journal and every write waits, as a simOp or in a simWriter, until the
// driver lets it happen, in whole, in half (done, and the answer is still on its way), not at all, or long after whoever
// asked has given up. Behind it is a [journaltest.Memory].

// opKind is what is asked. Those from opBegin on change something.
type opKind uint8

const (
	opRead  opKind = iota // Last, At, Tails, Read, Range, Subjects, Get; a replica that is behind may answer
	opStore               // a batch of the snapshot store
	opBegin               // Begin
	opLease               // Put of a lease
	opWitness
	opPurge
	opDead // Put of a dead letter
	opProbe
	opKinds
)

// simOp is one question, or one change.
type simOp struct {
	life    *life
	session *simSession // nil: of the store
	kind    opKind
	key     string
	serial  int
	cut     bool                // with the power
	apply   func(lag int) error // as the server does it; lag is how far behind the replica is that answers
	asked   time.Time
	applied bool
	err     error
	done    chan struct{}
}

func (o *simOp) String() string { return fmt.Sprintf("%s %s", o.life, o.key) }

// stuck tells whether it neither arrives nor is answered for now. Called with mu held.
func (o *simOp) stuck() bool { return o.life.stalled || o.session != nil && o.session.ended }

// slow tells whether a renewal takes its time.
func (o *simOp) slow() bool { return o.life.s.slowLease && o.key == "put "+leaseKey(o.life.id) }

func compareOps(a, b *simOp) int {
	return cmp.Or(cmp.Compare(a.life.n, b.life.n), cmp.Compare(a.session.number(), b.session.number()),
		cmp.Compare(a.key, b.key), cmp.Compare(a.serial, b.serial))
}

var (
	errCut  = errors.New("the connection ended")
	errLost = errors.New("no answer")
)

// askFor has the driver do something, and waits for it.
func askFor[T any](ctx context.Context, c *simSession, kind opKind, key string, apply func(lag int) (T, error)) (T, error) {
	out := new(T)
	err := c.s.wait(ctx, &simOp{life: c.life, session: c, kind: kind, key: key, apply: func(lag int) (err error) {
		*out, err = apply(lag)
		return err
	}})
	if err != nil {
		return *new(T), err
	}
	return *out, nil
}

func (s *sim) wait(ctx context.Context, o *simOp) error {
	s.mu.Lock()
	cut := context.Background().Done()
	if o.session != nil {
		cut = o.session.done
		if o.session.closed {
			s.mu.Unlock()
			return errCut
		}
	}
	if o.life.dead && o.session == nil {
		s.mu.Unlock()
		return nil
	}
	o.life.serial++
	o.serial = o.life.serial
	if s.immediate[o.kind] && !o.stuck() || o.life.n == 0 {
		err := o.apply(0)
		s.mu.Unlock()
		return err
	}
	o.done, o.asked = make(chan struct{}), time.Now()
	if o.slow() && !o.stuck() {
		if o.life.renewals++; o.life.renewals%2 == 0 { // the next one may never arrive
			o.applied, o.err = true, o.apply(0)
		}
	}
	s.ops = append(s.ops, o)
	s.mu.Unlock()
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		s.abandon(o)
		return context.Cause(ctx)
	case <-cut:
		s.abandon(o)
		return errCut
	}
}

// abandon is for an op that nobody waits for any more. What changes something may still happen.
func (s *sim) abandon(o *simOp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.ops, o)
	if i < 0 {
		return
	}
	s.ops = slices.Delete(s.ops, i, i+1)
	if o.kind >= opBegin && o.kind != opProbe && !o.applied && !o.cut {
		s.ghosts = append(s.ghosts, o)
	}
}

// answer does an op, unless it is done, and tells whoever asked.
func (s *sim) answer(o *simOp, lag int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !o.applied {
		o.err = o.apply(lag)
	}
	s.finish(o, o.err)
}

// finish tells whoever asked. Called with mu held.
func (s *sim) finish(o *simOp, err error) {
	o.err = err
	s.ops = slices.DeleteFunc(s.ops, func(other *simOp) bool { return other == o })
	close(o.done)
}

// half does an op; its answer is on its way.
func (s *sim) half(o *simOp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !o.applied {
		o.applied = true
		o.err = o.apply(0)
	}
}

// lose has an op fail with an outcome that nobody knows: it is not done, done, or will be done later.
func (s *sim) lose(o *simOp, how int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	what := "fails"
	if o.kind >= opBegin && o.kind != opProbe && !o.applied {
		switch how % 3 {
		case 0:
			what = "is lost"
		case 1:
			what = "is done, and nobody hears"
			_ = o.apply(0) // so it is
		case 2:
			what = "is under way, and given up"
			s.ghosts = append(s.ghosts, o)
		}
	}
	s.finish(o, errLost)
	return what
}

// simSession is a connection of a worker to the journal.
type simSession struct {
	s      *sim
	life   *life
	n      int
	direct *journaltest.MemorySession
	done   chan struct{}
	closed bool
	ended  bool // the server has ended it, and the worker does not know: nothing reaches the worker, nor does anything that it sends arrive

	nonce journal.Token // what probes ask for
	hear  func(Word)
}

// cannot tells whether nothing goes through it. Called with mu held.
func (c *simSession) cannot() bool { return c.closed || c.ended || c.life.stalled }

func (c *simSession) number() int {
	if c == nil {
		return 0
	}
	return c.n
}

// connect opens a session.
func (s *sim) connect(l *life) (journal.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.dead {
		return nil, errCut
	}
	c := &simSession{s: s, life: l, n: len(l.sessions) + 1, direct: s.direct, done: make(chan struct{})}
	l.sessions = append(l.sessions, c)
	return c, nil
}

func (c *simSession) Meta() journal.Meta    { return simMeta{c} }
func (c *simSession) Log(p int) journal.Log { return simLog{c, p, c.direct.Log(p)} }
func (c *simSession) Inbox() journal.Inbox  { return simInbox{c.inbox()} }
func (c *simSession) inbox() simLog         { return simLog{c, theInbox, c.direct.Inbox().(journal.Log)} }
func (c *simSession) Server() string        { return "simulation" }
func (c *simSession) PayloadMax() int       { return payloadReserve + c.s.recordMax }
func (c *simSession) Done() <-chan struct{} { return c.done }
func (c *simSession) Close()                { c.s.mu.Lock(); defer c.s.mu.Unlock(); c.cut() }
func (c *simSession) String() string        { return fmt.Sprintf("%s connection %d", c.life, c.n) }

// cut ends the connection. Called with mu held.
func (c *simSession) cut() {
	if !c.closed {
		c.closed = true
		close(c.done)
	}
}

type simMeta struct{ c *simSession }

type revised struct {
	value []byte
	rev   journal.Seq
}

func (m simMeta) Get(ctx context.Context, key string) ([]byte, journal.Seq, error) {
	v, err := askFor(ctx, m.c, opRead, "get "+key, func(int) (v revised, err error) {
		v.value, v.rev, err = m.c.direct.Meta().Get(context.Background(), key)
		return v, err
	})
	return v.value, v.rev, err
}

func (m simMeta) Put(ctx context.Context, key string, value []byte, rev journal.Seq) (journal.Seq, error) {
	kind := opLease
	if key[0] == 'p' { // part.<p>
		kind = opWitness
	}
	return askFor(ctx, m.c, kind, "put "+key, func(int) (journal.Seq, error) {
		return m.c.direct.Meta().Put(context.Background(), key, value, rev)
	})
}

func (m simMeta) Remove(ctx context.Context, key string, rev journal.Seq) error {
	_, err := askFor(ctx, m.c, opLease, "remove "+key, func(int) (struct{}, error) {
		return struct{}{}, m.c.direct.Meta().Remove(context.Background(), key, rev)
	})
	return err
}

func (m simMeta) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return m.c.direct.Meta().Keys(ctx, prefix)
}

type simLog struct {
	c     *simSession
	p     int
	inner journal.Log
}

func (l simLog) key(what string) string {
	if l.p == theInbox {
		return "inbox " + what
	}
	return fmt.Sprintf("%d %s", l.p, what)
}

func (l simLog) Stream() string { return l.inner.Stream() }

// Last may come from a leader that is one no more.
func (l simLog) Last(ctx context.Context, subject string) (journal.Message, error) {
	return askFor(ctx, l.c, opRead, l.key("last "+subject), func(lag int) (journal.Message, error) {
		last, err := l.inner.Last(context.Background(), subject)
		if err != nil || lag == 0 {
			return last, err
		}
		_, end, err := l.inner.Range(context.Background())
		if err != nil {
			return last, err
		}
		old := fmt.Errorf("last on %s: %w", subject, journal.ErrNotFound)
		for m, err := range l.inner.Read(context.Background(), subject, 1) {
			if err != nil {
				return last, err
			}
			if m.Seq+journal.Seq(lag) <= end {
				last, old = m, nil
			}
		}
		return last, old
	})
}

func (l simLog) At(ctx context.Context, seq journal.Seq) (journal.Message, error) {
	return askFor(ctx, l.c, opRead, l.key(fmt.Sprint("at ", seq)), func(int) (journal.Message, error) {
		m, err := l.inner.At(context.Background(), seq)
		if _, _, ok := l.c.s.ns.Object(m.Subject); ok && m.Subject[len(l.c.s.ns)+1] == 'j' {
			l.c.s.count("replies read back from a record")
		}
		return m, err
	})
}

type tailsAnswer struct {
	tails []journal.Message
	upTo  journal.Seq
}

// Tails may come from a replica that is behind, but not before atLeast.
func (l simLog) Tails(ctx context.Context, atLeast journal.Seq, subjects ...string) ([]journal.Message, journal.Seq, error) {
	a, err := askFor(ctx, l.c, opRead, l.key("tails "+subjects[len(subjects)-1]), func(lag int) (a tailsAnswer, err error) {
		if a.tails, a.upTo, err = l.inner.Tails(context.Background(), atLeast, subjects...); err != nil || lag == 0 {
			return a, err
		}
		a.upTo = max(atLeast, a.upTo-min(a.upTo, journal.Seq(lag)))
		a.tails = nil
		for _, subject := range subjects {
			var last *journal.Message
			for m, err := range l.inner.Read(context.Background(), subject, 1) {
				if err != nil {
					return a, err
				}
				if m.Seq <= a.upTo {
					last = &m
				}
			}
			if last != nil {
				a.tails = append(a.tails, *last)
			}
		}
		l.c.s.count("answers of a replica that is behind")
		return a, nil
	})
	return a.tails, a.upTo, err
}

// Read may come from a replica that is behind.
func (l simLog) Read(ctx context.Context, subject string, from journal.Seq) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		found, err := askFor(ctx, l.c, opRead, l.key("read "+subject), func(lag int) (found []journal.Message, err error) {
			_, end, err := l.inner.Range(context.Background())
			if err != nil {
				return nil, err
			}
			for m, err := range l.inner.Read(context.Background(), subject, from) {
				if err != nil {
					return nil, err
				}
				if lag == 0 || m.Seq+journal.Seq(lag) <= end {
					found = append(found, m)
				}
			}
			return found, nil
		})
		for _, m := range found {
			if !yield(m, nil) {
				return
			}
		}
		if err != nil {
			yield(journal.Message{}, err)
		}
	}
}

// Follow is driven like everything else: a message at a time is on its way. It ends with its connection.
func (l simLog) Follow(ctx context.Context, from journal.Seq, patterns ...string) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		s := l.c.s
		f := &simFollow{l: l, c: l.c, next: max(from, 1), slots: map[int]bool{}, arrived: make(chan journal.Message, 1), lost: make(chan struct{})}
		for _, pattern := range patterns {
			if slot, ok := strings.CutPrefix(pattern, string(s.ns)+".inbox."); ok {
				slot, _, _ = strings.Cut(slot, ".")
				n, _ := strconv.Atoi(slot) // it is one
				f.slots[n] = true
			}
		}
		s.mu.Lock()
		l.c.life.serial++
		f.n = l.c.life.serial
		s.follows = append(s.follows, f)
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.follows = without(s.follows, f)
		}()
		for {
			var m journal.Message
			var err error
			select {
			case m = <-f.arrived:
			case <-f.lost:
				err = errLost
			case <-l.c.done:
				err = errCut
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// simFollow is what follows a stream.
type simFollow struct {
	l       simLog
	c       *simSession
	n       int
	next    journal.Seq
	slots   map[int]bool // of the inbox
	arrived chan journal.Message
	lost    chan struct{} // closed when it can follow no more
}

func (f *simFollow) String() string { return fmt.Sprintf("%s, follow %d from %d", f.c, f.n, f.next) }

func compareFollows(a, b *simFollow) int {
	return cmp.Or(cmp.Compare(a.c.life.n, b.c.life.n), cmp.Compare(a.c.n, b.c.n), cmp.Compare(a.n, b.n))
}

// coming is the position of the next message, if there is one and none is on its way. Called with mu held.
func (f *simFollow) coming() (at journal.Seq, ok bool) {
	s := f.c.s
	if f.c.cannot() || len(f.arrived) > 0 {
		return 0, false
	}
	if f.l.p == theInbox {
		for ; int(f.next) <= len(s.letters); f.next++ {
			if l := s.letters[f.next-1]; l.request != nil && !l.purged && f.slots[l.slot] {
				return f.next, true
			}
		}
		return 0, false
	}
	for ; f.next <= s.parts[f.l.p].end; f.next++ { // records and epochs of a partition
		m, err := f.l.inner.At(context.Background(), f.next)
		_, _, object := s.ns.Object(m.Subject)
		if err == nil && (m.Subject == s.ns.Epoch(f.l.p) || object && m.Subject[len(s.ns)+1] == 'j') {
			return f.next, true
		}
	}
	return 0, false
}

// arrive lets the next message reach whoever follows.
func (f *simFollow) arrive() {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	at, ok := f.coming()
	if !ok {
		return
	}
	m, err := f.l.inner.At(context.Background(), at)
	if err != nil {
		panic(err) // the audit says that it is there
	}
	if f.l.p == theInbox && f.c.s.letters[at-1].answered() {
		f.c.s.count("messages read again")
	}
	if f.l.p != theInbox {
		f.c.s.count("messages followed by a standby")
	}
	f.next = m.Seq + 1
	f.arrived <- m
}

// lose ends it.
func (f *simFollow) lose() {
	f.c.s.mu.Lock()
	defer f.c.s.mu.Unlock()
	f.c.s.follows = without(f.c.s.follows, f)
	close(f.lost)
}

func (l simLog) Begin(ctx context.Context, last journal.Seq, messages ...journal.Message) (journal.Seq, error) {
	messages = copied(messages)
	return askFor(ctx, l.c, opBegin, l.key("begin "+messages[0].Subject), func(int) (journal.Seq, error) {
		end, err := l.inner.Begin(context.Background(), last, messages...)
		if err == nil {
			l.c.s.stored(l.p, end, messages, l.c.life)
		}
		return end, err
	})
}

func (l simLog) Subjects(ctx context.Context, pattern string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		found, err := askFor(ctx, l.c, opRead, l.key("subjects "+pattern), func(int) (found []string, err error) {
			for s, err := range l.inner.Subjects(context.Background(), pattern) {
				if err != nil {
					return nil, err
				}
				found = append(found, s)
			}
			return found, nil
		})
		slices.Sort(found)
		for _, s := range found {
			if !yield(s, nil) {
				return
			}
		}
		if err != nil {
			yield("", err)
		}
	}
}

func (l simLog) Range(ctx context.Context) (first, last journal.Seq, err error) {
	r, err := askFor(ctx, l.c, opRead, l.key("range"), func(int) (r [2]journal.Seq, err error) {
		r[0], r[1], err = l.inner.Range(context.Background())
		return r, err
	})
	return r[0], r[1], err
}

func (l simLog) Purge(ctx context.Context, subject string, before journal.Seq) error {
	_, err := askFor(ctx, l.c, opPurge, l.key("purge "+subject), func(int) (struct{}, error) {
		if l.p == theInbox {
			l.c.s.inboxPurged(subject, before)
		} else if subject != l.c.s.ns.Fence(l.p) {
			l.c.s.parts[l.p].purged = l.c.s.parts[l.p].end
		}
		return struct{}{}, l.inner.Purge(context.Background(), subject, before)
	})
	return err
}

// simWriter is a writer: what it sent arrives in order, or is lost, from somewhere on or alone; answers come in any order.
type simWriter struct {
	c       *simSession
	p       int
	n       int
	answer  func(journal.Answer)
	closed  bool
	sent    []*simAppend // not arrived
	arrived []*simAppend // not answered
}

type simAppend struct {
	last, subject journal.Seq
	messages      []journal.Message
	answer        journal.Answer
}

func (l simLog) Writer(answer func(journal.Answer)) (journal.Writer, error) {
	s := l.c.s
	select { // or the epochs of two partitions would begin, and tick, at one instant
	case <-time.After(time.Duration(l.p+1) * simMoment / 3):
	case <-l.c.done:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.c.life.serial++
	w := &simWriter{c: l.c, p: l.p, n: l.c.life.serial, answer: answer}
	s.writers = append(s.writers, w)
	return w, nil
}

func (w *simWriter) String() string { return fmt.Sprintf("%s, writer of partition %d", w.c, w.p) }

func compareWriters(a, b *simWriter) int {
	return cmp.Or(cmp.Compare(a.c.life.n, b.c.life.n), cmp.Compare(a.c.n, b.c.n), cmp.Compare(a.p, b.p), cmp.Compare(a.n, b.n))
}

func copied(messages []journal.Message) []journal.Message {
	out := slices.Clone(messages)
	for i := range out {
		out[i].Data = slices.Clone(out[i].Data)
		if out[i].Header != nil && len(messages) == 1 { // batches share a header that nobody changes
			out[i].Header = maps.Clone(out[i].Header)
		}
	}
	return out
}

func (w *simWriter) Append(last, subject journal.Seq, messages ...journal.Message) error {
	w.c.s.mu.Lock()
	defer w.c.s.mu.Unlock()
	if w.c.closed {
		return errCut
	}
	w.sent = append(w.sent, &simAppend{last: last, subject: subject, messages: copied(messages)})
	return nil
}

func (w *simWriter) Close() {
	w.c.s.mu.Lock()
	defer w.c.s.mu.Unlock()
	w.closed, w.arrived = true, nil
}

// arrive lets the first append that is under way reach the server.
func (w *simWriter) arrive() (a *simAppend) {
	s := w.c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	a, w.sent = w.sent[0], w.sent[1:]
	a.answer = s.mem.Append(s.ns.Stream(w.p), a.last, a.subject, a.messages...)
	late := w.closed || w.c.closed || w.c.ended
	if a.answer.Outcome == journal.Stored {
		if late {
			s.count("appends stored after their writer was closed")
		}
		s.stored(w.p, a.answer.Seq, a.messages, w.c.life)
	} else if late {
		s.count("late appends refused")
	} else {
		s.count("appends refused")
	}
	if !late {
		w.arrived = append(w.arrived, a)
	}
	return a
}

// tell delivers one of the answers.
func (w *simWriter) tell(a *simAppend) {
	w.c.s.mu.Lock()
	w.arrived = slices.DeleteFunc(w.arrived, func(other *simAppend) bool { return other == a })
	answer := a.answer
	w.c.s.mu.Unlock()
	w.answer(answer)
}

// simPeers is the way from a worker to the others.
type simPeers struct{ c *simSession }

// simWord is a word on its way to all others.
type simWord struct {
	c    *simSession
	word Word
}

// Tell implements [Peers].
func (p simPeers) Tell(w Word) {
	p.c.s.mu.Lock()
	defer p.c.s.mu.Unlock()
	if w.Kind != WordOwned && !p.c.cannot() && !p.c.life.dead { // callers here ask again by themselves
		p.c.s.words = append(p.c.s.words, simWord{p.c, w})
	}
}

// Probe implements [Peers]. All are connected to one server, which knows who has subscribed to what.
func (p simPeers) Probe(ctx context.Context, worker string, life journal.Token) Presence {
	s := p.c.s
	presence, _ := askFor(ctx, p.c, opProbe, "probe "+worker, func(int) (Presence, error) { // no answer says nothing
		for _, l := range s.lives {
			for _, c := range l.sessions {
				switch {
				case c.nonce != life || c.closed || c.ended:
				case l.stalled:
					return Unsure, nil
				default:
					return Present, nil
				}
			}
		}
		s.count("workers found gone")
		return Gone, nil
	})
	return presence
}

// spread lets a word reach whoever listens.
func (s *sim) spread(w simWord) {
	s.mu.Lock()
	s.words = without(s.words, w)
	var hear []func(Word)
	for _, l := range s.lives {
		for _, c := range l.sessions {
			if c != w.c && c.hear != nil && !l.dead && !c.cannot() {
				hear = append(hear, c.hear)
			}
		}
	}
	s.count("words heard")
	s.mu.Unlock()
	for _, h := range hear {
		h(w.word)
	}
}
