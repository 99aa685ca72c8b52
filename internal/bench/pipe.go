package bench

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// pipeSpace is the pipe's namespace: streams and subjects beside those of the system.
const pipeSpace wire.Subjects = "pipe"

// What the pipe does with a request is its method.
const (
	pipeEcho   = "echo"   // answers at once
	pipeSingle = "single" // one record of each request
	pipeJoined = "joined" // requests of one object that wait together become one record
)

// joinedMax is how many records of one object are in flight, as in the engine.
const joinedMax = 8

// errorHeader marks an answer that says what went wrong.
const errorHeader = wire.HeaderErrorCode

// Durable is the policy of [engine.Config]: it runs open when what a stream acknowledged at a position is durable as
// well. Nil: the acknowledgement is all it takes.
type Durable func(stream string, seq journal.Seq, open func())

// pipe is the yardstick of a log without an engine.
type pipe struct {
	nc      *nats.Conn // requests, replies and appends, as the engine's
	ns      wire.Subjects
	shape   shape
	durable Durable
	parts   []*pipePart
}

// pipePart is the pipe of one partition's stream. Whoever sends holds mu, so records are sent in the order of their
// positions.
type pipePart struct {
	pipe   *pipe
	stream string
	writer journal.Writer

	mu      sync.Mutex
	next    journal.Seq
	flights []pipeRecord // by position, up to next
	objects map[string]*joined
	waiting []waitingRecord // for room in the window
	failed  error
	buf     []byte
}

// pipeRecord is a record on its way, and whom to answer.
type pipeRecord struct {
	object  *joined // nil: a single
	answers []func(error)
}

// waitingRecord is one that found the window full.
type waitingRecord struct {
	subject string
	pipeRecord
}

// joined are the requests of one object that wait while so many of its records are in flight.
type joined struct {
	subject  string
	inFlight int
	waiting  []func(error)
}

// shape is a record as the engine writes it for an increment: what is before, in, between and behind its commits.
type shape struct {
	header         journal.Header
	before, commit []byte
	reply          []byte
}

func newShape() shape {
	value := []byte("12345")
	c := journal.Commit{Source: "call", Method: incrementMethod, Reply: &journal.Reply{Status: 200, Body: value},
		Changes: []journal.Change{{Kind: journal.Put, Key: string(count), Data: value}}}
	commit := journal.AppendCommit(nil, &c)
	whole := journal.AppendRecord(nil, 12345, journal.HashOf(value), []journal.Encoded{{JSON: commit, At: time.Now()}})
	before, _, _ := bytes.Cut(whole, commit)
	epoch := journal.EpochID{Number: 1, Token: 1 << 63}
	return shape{header: journal.Header{wire.HeaderFormat: "1", wire.HeaderEpoch: epoch.String()}, before: before, commit: commit, reply: value}
}

// record is the payload for so many commits.
func (s *shape) record(dst []byte, commits int) []byte {
	dst = append(dst, s.before...)
	for i := range commits {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, s.commit...), '}')
	}
	return append(dst, `]}`...)
}

// commitsMax is how many commits one record holds.
func (s *shape) commitsMax() int { return journal.RecordBytesMax / (len(s.commit) + 2) }

// openPipe makes the pipe's streams, if need be, and finds their ends. Nobody else writes to them.
func openPipe(ctx context.Context, js *jetstream.Session, ns wire.Subjects, settings jetstream.Settings, durable Durable) (*pipe, error) {
	kept, err := js.Open(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("open the pipe's streams: %w", err)
	}
	p := &pipe{nc: js.Conn(), ns: ns, shape: newShape(), durable: durable}
	for i := range kept.Partitions {
		log := js.Log(i)
		_, last, err := log.Range(ctx)
		if err != nil {
			return nil, err
		}
		part := &pipePart{pipe: p, stream: log.Stream(), next: last + 1, objects: map[string]*joined{}}
		if part.writer, err = log.Writer(part.answered); err != nil {
			return nil, err
		}
		p.parts = append(p.parts, part)
	}
	return p, nil
}

// listen takes requests off the subjects of all slots, with one subscription. It ends with the connection.
func (p *pipe) listen() error {
	s, err := p.nc.QueueSubscribe(string(p.ns)+".part.*.call.*.*.*", "pipe", p.take)
	if err == nil {
		err = s.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = p.nc.Flush()
	}
	if err != nil {
		return fmt.Errorf("subscribe the pipe: %w", err)
	}
	return nil
}

// take is called for every message, one at a time.
func (p *pipe) take(m *nats.Msg) {
	slot, class, token, method, ok := p.ns.SplitCall(m.Subject)
	if !ok {
		return // the subject has a form that nobody here sends
	}
	if method == pipeEcho {
		p.answer(m.Reply, nil)
		return
	}
	p.parts[wire.Partition(slot, len(p.parts))].submit(p.ns.Journal(class, token), method, func(err error) { p.answer(m.Reply, err) })
}

// do is a request from within the process.
func (p *pipe) do(ctx context.Context, class, name, method string) error {
	token := wire.Escape(name)
	done := make(chan error, 1)
	part := p.parts[wire.Partition(wire.Slot(class, token), len(p.parts))]
	part.submit(p.ns.Journal(class, token), method, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// version is in the answers' headers, as in the engine's.
var version = nats.Header{wire.HeaderVersion: {"12345"}}

func (p *pipe) answer(to string, err error) {
	m := &nats.Msg{Subject: to, Header: version, Data: p.shape.reply}
	if err != nil {
		m.Header, m.Data = nats.Header{errorHeader: {"500"}}, []byte(err.Error())
	}
	_ = p.nc.PublishMsg(m) // without an answer the caller's round fails
}

// submit makes a record of a request, now or when there is room. answer is called once.
func (pp *pipePart) submit(subject, method string, answer func(error)) {
	pp.mu.Lock()
	defer pp.mu.Unlock()
	if pp.failed != nil {
		answer(pp.failed)
		return
	}
	if method == pipeSingle {
		pp.send(subject, pipeRecord{answers: []func(error){answer}})
		return
	}
	o := pp.objects[subject]
	if o == nil {
		o = &joined{subject: subject}
		pp.objects[subject] = o
	}
	o.waiting = append(o.waiting, answer)
	pp.sendJoined(o)
}

// sendJoined sends what waits for an object, if so few of its records are in flight. Called with mu held.
func (pp *pipePart) sendJoined(o *joined) {
	for len(o.waiting) > 0 && o.inFlight < joinedMax {
		n := min(len(o.waiting), pp.pipe.shape.commitsMax())
		o.inFlight++
		pp.send(o.subject, pipeRecord{o, o.waiting[:n:n]})
		o.waiting = o.waiting[n:]
	}
}

// send sends a record, or keeps it until the window has room. Called with mu held.
func (pp *pipePart) send(subject string, r pipeRecord) {
	if len(pp.flights) >= journal.Window {
		pp.waiting = append(pp.waiting, waitingRecord{subject, r})
		return
	}
	pp.buf = pp.pipe.shape.record(pp.buf[:0], len(r.answers))
	behind := pp.next - 1
	pp.next++
	pp.flights = append(pp.flights, r)
	err := pp.writer.Append(behind, journal.NoSubjectCheck, journal.Message{Subject: subject, Header: pp.pipe.shape.header, Data: pp.buf})
	if err != nil {
		pp.failed = err // the connection is gone, and all answers with it
	}
}

// fail ends the pipe: a record was not stored, so none behind it is. Whoever waits hears of it.
func (pp *pipePart) fail(err error) {
	pp.mu.Lock()
	lost := pp.flights
	for _, w := range pp.waiting {
		lost = append(lost, w.pipeRecord)
	}
	for _, o := range pp.objects {
		lost = append(lost, pipeRecord{answers: o.waiting})
		o.waiting = nil
	}
	pp.flights, pp.waiting, pp.failed = nil, nil, err
	pp.mu.Unlock()
	for _, r := range lost {
		for _, answer := range r.answers {
			answer(err)
		}
	}
}

// answered takes an answer of the journal. On one server they come in the order of positions.
func (pp *pipePart) answered(a journal.Answer) {
	pp.mu.Lock()
	first := pp.next - journal.Seq(len(pp.flights))
	if pp.failed != nil {
		pp.mu.Unlock()
		return
	}
	if a.Outcome != journal.Stored || a.Seq != first {
		pp.mu.Unlock()
		pp.fail(fmt.Errorf("%s at %d: %s, want %d stored: %w", pp.stream, a.Seq, a.Outcome, first, a.Err))
		return
	}
	r := pp.flights[0]
	pp.flights[0] = pipeRecord{}
	pp.flights = pp.flights[1:]
	if len(pp.waiting) > 0 {
		w := pp.waiting[0]
		pp.waiting = pp.waiting[1:]
		pp.send(w.subject, w.pipeRecord)
	}
	pp.mu.Unlock()
	if pp.pipe.durable != nil {
		pp.pipe.durable(pp.stream, a.Seq, func() { pp.stored(r) })
	} else {
		pp.stored(r)
	}
}

// stored answers for a record that is durable.
func (pp *pipePart) stored(r pipeRecord) {
	if r.object != nil {
		pp.mu.Lock()
		r.object.inFlight--
		if pp.failed == nil {
			pp.sendJoined(r.object)
		}
		pp.mu.Unlock()
	}
	for _, answer := range r.answers {
		answer(nil)
	}
}

// pipeSubject is where callers send a request to the pipe: the slot's own subject.
func pipeSubject(ns wire.Subjects, class, name, method string) string {
	token := wire.Escape(name)
	prefix, _ := strings.CutSuffix(ns.SlotCalls(wire.Slot(class, token)), "*.*.*")
	return prefix + class + "." + token + "." + method
}
