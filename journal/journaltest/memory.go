// Package journaltest has a log in memory, which test kits and simulations run over, the suite that every log passes,
// and faults that can be put before any log.
package journaltest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Memory is a server in memory: streams and a bucket for each namespace that somebody opens a session for. It keeps
// everything until it is garbage. Safe for concurrent use, and fit for a testing/synctest bubble.
type Memory struct {
	// Now is the server's clock; set it before the first message, if at all.
	Now func() time.Time

	mu      sync.Mutex
	streams map[string]*stream
	keys    map[string]key // by namespace and key
	rev     journal.Seq
	changes []change      // of keys
	grown   chan struct{} // closed, and made anew, when a stream has grown
	off     time.Duration // how far its clock is
}

// Shift sets the clock by which messages are stored.
func (m *Memory) Shift(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.off += by
}

// change is what a change of a key replaced.
type change struct {
	name string
	was  key
}

type key struct {
	value []byte
	rev   journal.Seq
}

// stream is one partition's messages. A purged one keeps its place, without data.
type stream struct {
	messages []journal.Message // messages[i] is at position i+1
	last     map[string]journal.Seq
	damaged  map[journal.Seq]bool
	tampered bool // by a test, behind the back of whoever has a session
}

// NewMemory makes an empty server.
func NewMemory() *Memory {
	return &Memory{Now: time.Now, streams: map[string]*stream{}, keys: map[string]key{}, grown: make(chan struct{})}
}

// Session opens a session, making the namespace if it is not there.
func (m *Memory) Session(ns wire.Subjects, partitions int) *MemorySession {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := []string{ns.Inbox()}
	for p := range partitions {
		names = append(names, ns.Stream(p))
	}
	for _, name := range names {
		m.stream(name)
	}
	return &MemorySession{m: m, ns: ns, done: make(chan struct{})}
}

// stream is the stream of that name, made if it is not there. Called with mu held.
func (m *Memory) stream(name string) *stream {
	s := m.streams[name]
	if s == nil {
		s = &stream{last: map[string]journal.Seq{}, damaged: map[journal.Seq]bool{}}
		m.streams[name] = s
	}
	return s
}

// Truncate takes the last n messages of a stream away, as a power cut may.
func (m *Memory) Truncate(stream string, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.tamper(stream)
	s.messages = s.messages[:max(0, len(s.messages)-n)]
	s.reindex()
}

// Revert takes the last n changes of keys back, as a power cut may: their revisions will be used again.
func (m *Memory) Revert(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; n > 0 && len(m.changes) > 0; n-- {
		c := m.changes[len(m.changes)-1]
		m.changes = m.changes[:len(m.changes)-1]
		m.rev--
		m.keys[c.name] = c.was
		if c.was.rev == 0 {
			delete(m.keys, c.name)
		}
	}
}

// Overwrite replaces the data of a stored message.
func (m *Memory) Overwrite(stream string, seq journal.Seq, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tamper(stream).messages[seq-1].Data = data
}

// Remove takes one message out of the middle of a stream, as a damaged block may.
func (m *Memory) Remove(stream string, seq journal.Seq) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.tamper(stream)
	s.messages[seq-1] = journal.Message{Seq: seq}
	s.reindex()
}

// Damage makes a message one that the log names and cannot deliver: who reads it gets ErrDamaged.
func (m *Memory) Damage(stream string, seq journal.Seq) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tamper(stream).damaged[seq] = true
}

// Append is an append as it arrives, whoever sent it and whenever: what [journal.Writer] sends, with its answer.
func (m *Memory) Append(stream string, last, subject journal.Seq, messages ...journal.Message) journal.Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[stream]
	a := journal.Answer{Seq: last + journal.Seq(len(messages)), Outcome: journal.Stored}
	switch have := s.last[messages[0].Subject]; {
	case s.end() != last:
		a.Outcome, a.Err = journal.Refused, fmt.Errorf("stream %s ends at %d, not %d", stream, s.end(), last)
	case subject != journal.NoSubjectCheck && have != subject:
		a.Outcome, a.Err = journal.Refused, fmt.Errorf("stream %s: last on %s is %d, not %d", stream, messages[0].Subject, have, subject)
	default:
		m.storeAll(s, messages)
	}
	return a
}

// Send stores a message to an object, as the inbox of a namespace does: subject is what it was published on.
func (m *Memory) Send(ns wire.Subjects, class, token, method string, header journal.Header, data []byte) journal.Seq {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store(m.stream(ns.Inbox()), journal.Message{Subject: ns.InboxMessage(class, token, method), Header: header, Data: data})
}

// Publish stores a message that no worker sent.
func (m *Memory) Publish(stream string, msg journal.Message) journal.Seq {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store(m.tamper(stream), msg)
}

func (m *Memory) tamper(name string) *stream {
	s := m.stream(name)
	s.tampered = true
	return s
}

// Tampered tells whether a test changed a stream by one of the methods above.
func (m *Memory) Tampered(stream string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streams[stream] != nil && m.streams[stream].tampered
}

// Messages are all messages of a stream that are not purged.
func (m *Memory) Messages(stream string) (all []journal.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, msg := range m.streams[stream].messages {
		if msg.Subject != "" {
			all = append(all, msg)
		}
	}
	return all
}

func (s *stream) end() journal.Seq { return journal.Seq(len(s.messages)) }

func (m *Memory) store(s *stream, msg journal.Message) journal.Seq {
	m.storeAll(s, []journal.Message{msg})
	return s.end()
}

// storeAll stores copies. Messages of a batch that have the same headers share theirs.
func (m *Memory) storeAll(s *stream, messages []journal.Message) {
	close(m.grown)
	m.grown = make(chan struct{})
	at := m.Now().Add(m.off).UTC()
	s.messages = slices.Grow(s.messages, len(messages))
	var header journal.Header
	for _, msg := range messages {
		if header == nil || !maps.Equal(header, msg.Header) {
			header = maps.Clone(msg.Header)
		}
		msg.Data, msg.Header = slices.Clone(msg.Data), header
		msg.Seq, msg.Time = s.end()+1, at
		s.messages = append(s.messages, msg)
		s.last[msg.Subject] = msg.Seq
	}
}

func (s *stream) reindex() {
	clear(s.last)
	for i, m := range s.messages {
		if m.Subject != "" {
			s.last[m.Subject] = journal.Seq(i + 1)
		}
	}
}

// MemorySession is a session with a [Memory].
type MemorySession struct {
	m    *Memory
	ns   wire.Subjects
	once sync.Once
	done chan struct{}
}

var _ journal.Session = (*MemorySession)(nil)

var errClosed = errors.New("the session is closed")

// open locks the server unless the session is closed.
func (s *MemorySession) open(ctx context.Context) (unlock func(), err error) {
	select {
	case <-s.done:
		return nil, errClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	default:
		s.m.mu.Lock()
		return s.m.mu.Unlock, nil
	}
}

// Meta is the bucket.
func (s *MemorySession) Meta() journal.Meta { return memoryMeta{s} }

// Log is a partition's stream.
func (s *MemorySession) Log(p int) journal.Log { return memoryLog{s, s.ns.Stream(p)} }

// Inbox is the stream of messages to objects.
func (s *MemorySession) Inbox() journal.Inbox { return memoryLog{s, s.ns.Inbox()} }

// Server is the id of the server's run.
func (s *MemorySession) Server() string { return "memory" }

// PayloadMax is that of our own servers.
func (s *MemorySession) PayloadMax() int { return 8 << 20 }

// Done is closed with the session.
func (s *MemorySession) Done() <-chan struct{} { return s.done }

// Close ends the session, as a lost connection does.
func (s *MemorySession) Close() { s.once.Do(func() { close(s.done) }) }

type memoryMeta struct{ s *MemorySession }

func (b memoryMeta) name(k string) string { return b.s.ns.Bucket() + " " + k }

func (b memoryMeta) Get(ctx context.Context, k string) ([]byte, journal.Seq, error) {
	unlock, err := b.s.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	v, ok := b.s.m.keys[b.name(k)]
	if !ok {
		return nil, 0, fmt.Errorf("key %s: %w", k, journal.ErrNotFound)
	}
	return slices.Clone(v.value), v.rev, nil
}

func (b memoryMeta) Put(ctx context.Context, k string, value []byte, rev journal.Seq) (journal.Seq, error) {
	unlock, err := b.s.open(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if have := b.s.m.keys[b.name(k)].rev; have != rev {
		return 0, fmt.Errorf("key %s is at revision %d, not %d: %w", k, have, rev, journal.ErrConflict)
	}
	b.s.m.rev++
	b.s.m.changes = append(b.s.m.changes, change{b.name(k), b.s.m.keys[b.name(k)]})
	b.s.m.keys[b.name(k)] = key{slices.Clone(value), b.s.m.rev}
	return b.s.m.rev, nil
}

func (b memoryMeta) Remove(ctx context.Context, k string, rev journal.Seq) error {
	unlock, err := b.s.open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if v, ok := b.s.m.keys[b.name(k)]; ok && v.rev <= rev {
		b.s.m.rev++ // so that it can be taken back like any change
		b.s.m.changes = append(b.s.m.changes, change{b.name(k), v})
		delete(b.s.m.keys, b.name(k))
	}
	return nil
}

func (b memoryMeta) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		unlock, err := b.s.open(ctx)
		if err != nil {
			yield("", err)
			return
		}
		var keys []string
		for name := range b.s.m.keys {
			if k, ok := strings.CutPrefix(name, b.name("")); ok && strings.HasPrefix(k, prefix) {
				keys = append(keys, k)
			}
		}
		unlock()
		slices.Sort(keys)
		for _, k := range keys {
			if !yield(k, nil) {
				return
			}
		}
	}
}

type memoryLog struct {
	s    *MemorySession
	name string
}

// open locks the server and finds the stream.
func (l memoryLog) open(ctx context.Context) (*stream, func(), error) {
	unlock, err := l.s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	st := l.s.m.streams[l.name]
	if st == nil {
		unlock()
		return nil, nil, fmt.Errorf("stream %s: %w", l.name, journal.ErrMissing)
	}
	return st, unlock, nil
}

// load is the message at a position.
func (l memoryLog) load(st *stream, seq journal.Seq) (journal.Message, error) {
	if st.damaged[seq] {
		return journal.Message{}, fmt.Errorf("stream %s: sequence %d: %w", l.name, seq, journal.ErrDamaged)
	}
	return st.messages[seq-1], nil
}

func (l memoryLog) Stream() string { return l.name }

func (l memoryLog) Last(ctx context.Context, subject string) (journal.Message, error) {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return journal.Message{}, err
	}
	defer unlock()
	last := st.last[subject]
	if strings.Contains(subject, "*") {
		for on, seq := range st.last {
			if matches(subject, on) {
				last = max(last, seq)
			}
		}
	}
	if last != 0 {
		return l.load(st, last)
	}
	return journal.Message{}, fmt.Errorf("stream %s: last on %s: %w", l.name, subject, journal.ErrNotFound)
}

func (l memoryLog) At(ctx context.Context, seq journal.Seq) (journal.Message, error) {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return journal.Message{}, err
	}
	defer unlock()
	if seq >= 1 && seq <= st.end() && st.messages[seq-1].Subject != "" {
		return l.load(st, seq)
	}
	return journal.Message{}, fmt.Errorf("stream %s: sequence %d: %w", l.name, seq, journal.ErrNotFound)
}

func (l memoryLog) Tails(ctx context.Context, atLeast journal.Seq, subjects ...string) (tails []journal.Message, upTo journal.Seq, err error) {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer unlock()
	if st.end() < atLeast {
		return nil, 0, fmt.Errorf("stream %s ends at %d, before %d: %w", l.name, st.end(), atLeast, journal.ErrDamaged)
	}
	for _, subject := range subjects {
		if seq := st.last[subject]; seq != 0 {
			m, err := l.load(st, seq)
			if err != nil {
				return nil, 0, err
			}
			tails = append(tails, m)
		}
	}
	slices.SortFunc(tails, func(a, b journal.Message) int { return int(a.Seq) - int(b.Seq) })
	return tails, st.end(), nil
}

func (l memoryLog) Read(ctx context.Context, subject string, from journal.Seq) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		st, unlock, err := l.open(ctx)
		if err != nil {
			yield(journal.Message{}, err)
			return
		}
		var found []journal.Message
		wild := strings.ContainsAny(subject, "*>")
		for i := min(max(from, 1)-1, st.end()); i < st.end(); i++ {
			if m := &st.messages[i]; m.Subject == subject || wild && m.Subject != "" && matches(subject, m.Subject) {
				found = append(found, *m)
			}
		}
		for i, m := range found {
			if _, err = l.load(st, m.Seq); err != nil {
				found = found[:i]
				break
			}
		}
		unlock()
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

func (l memoryLog) Follow(ctx context.Context, from journal.Seq, patterns ...string) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		next := max(from, 1)
		for {
			found, grown, err := l.after(ctx, next, patterns)
			for _, m := range found {
				if !yield(m, nil) {
					return
				}
				next = m.Seq + 1
			}
			switch {
			case err != nil:
				yield(journal.Message{}, err)
				return
			case len(found) > 0:
				continue
			}
			select {
			case <-grown:
			case <-l.s.done: // told above
			case <-ctx.Done():
			}
		}
	}
}

// after is some of what there is from a position on, and what will be closed when there is more.
func (l memoryLog) after(ctx context.Context, from journal.Seq, patterns []string) (found []journal.Message, grown <-chan struct{}, err error) {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	for seq := from; seq <= st.end() && len(found) < followMax; seq++ {
		on := st.messages[seq-1].Subject
		if on == "" || !slices.ContainsFunc(patterns, func(p string) bool { return matches(p, on) }) {
			continue
		}
		m, err := l.load(st, seq)
		if err != nil {
			return found, nil, err
		}
		found = append(found, m)
	}
	return found, l.s.m.grown, nil
}

// followMax is how many messages are under way to whoever follows.
const followMax = 256

func (l memoryLog) Put(ctx context.Context, m journal.Message) (journal.Seq, error) {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return l.s.m.store(st, m), nil
}

func (l memoryLog) Begin(ctx context.Context, last journal.Seq, messages ...journal.Message) (journal.Seq, error) {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if have := st.last[messages[0].Subject]; have != last {
		return 0, fmt.Errorf("stream %s: last on %s is %d, not %d: %w", l.name, messages[0].Subject, have, last, journal.ErrConflict)
	}
	l.s.m.storeAll(st, messages)
	return st.end(), nil
}

func (l memoryLog) Subjects(ctx context.Context, pattern string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		st, unlock, err := l.open(ctx)
		if err != nil {
			yield("", err)
			return
		}
		subjects := slices.Collect(maps.Keys(st.last))
		unlock()
		for _, s := range subjects {
			if matches(pattern, s) && !yield(s, nil) {
				return
			}
		}
	}
}

// matches is NATS's rule: * is one token, > at the end is one or more.
func matches(pattern, subject string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, ".")
		token, rest, more := strings.Cut(subject, ".")
		switch {
		case p == ">":
			return true
		case p != "*" && p != token, moreP != more:
			return false
		case !more:
			return true
		}
		pattern, subject = restP, rest
	}
}

func (l memoryLog) Range(ctx context.Context) (first, last journal.Seq, err error) {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer unlock()
	first = st.end() + 1
	for i, m := range st.messages {
		if m.Subject != "" {
			first = journal.Seq(i + 1)
			break
		}
	}
	return first, st.end(), nil
}

func (l memoryLog) Purge(ctx context.Context, subject string, before journal.Seq) error {
	st, unlock, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for i := range st.messages[:min(max(before, 1)-1, st.end())] {
		if m := &st.messages[i]; m.Subject != "" && (m.Subject == subject || matches(subject, m.Subject)) {
			if st.last[m.Subject] == m.Seq {
				delete(st.last, m.Subject)
			}
			*m = journal.Message{Seq: m.Seq}
		}
	}
	return nil
}

func (l memoryLog) Writer(answer func(journal.Answer)) (journal.Writer, error) {
	w := &memoryWriter{log: l, answer: answer, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run() // ends with Close or with the session
	return w, nil
}

// memoryWriter stores at once and answers from a goroutine of its own, as a connection would.
type memoryWriter struct {
	log    memoryLog
	answer func(journal.Answer)
	wake   chan struct{}
	once   sync.Once
	done   chan struct{}

	mu      sync.Mutex
	answers []journal.Answer
}

func (w *memoryWriter) run() {
	for {
		select {
		case <-w.wake:
		case <-w.done:
			return
		case <-w.log.s.done:
			return
		}
		w.mu.Lock()
		answers := w.answers
		w.answers = nil
		w.mu.Unlock()
		for _, a := range answers {
			w.answer(a)
		}
	}
}

func (w *memoryWriter) Append(last, subject journal.Seq, messages ...journal.Message) error {
	_, unlock, err := w.log.open(context.Background())
	if err != nil {
		return err
	}
	unlock()
	a := w.log.s.m.Append(w.log.name, last, subject, messages...)
	w.mu.Lock()
	w.answers = append(w.answers, a)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

func (w *memoryWriter) Close() { w.once.Do(func() { close(w.done) }) }
