package natsbus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Limits of questions.
const (
	questionTimeout = 10 * time.Second
	questionsMax    = 16 // at once
)

// Inspected is what questions are about: a [*engine.Worker] is one.
type Inspected interface {
	engine.Inspector
	// Durable returns when what a stream has up to a position is durable.
	Durable(ctx context.Context, stream string, seq journal.Seq) error
}

// ServeAdmin answers questions about objects in JSON, on <ns>.admin.state, journal, sent, objects, classes, durable and status. Each is
// answered in a goroutine of its own, at most 16 at once and each for at most 10 s; one more is Overloaded. An answer is
// at most what the server carries: of a journal there are fewer entries then, others are TooLarge. What is published
// without a reply subject is no question.
//
// stop ends the answering, and returns when no question is in work.
func ServeAdmin(nc *nats.Conn, ns wire.Subjects, w Inspected, status func() any, log *slog.Logger) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &admin{answers: answers{nc, ns, log}, of: w, ctx: ctx}
	var subs []*nats.Subscription
	stop = func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // it is gone with a closed connection, the only thing that can be wrong
		}
		cancel()
		a.close()
	}
	for what, answer := range map[string]func(context.Context, question) (any, error){
		"state":   a.state,
		"journal": a.journal,
		"sent":    a.sent,
		"objects": a.objects,
		"classes": a.classes,
		"durable": a.durable,
		"status":  func(context.Context, question) (any, error) { return status(), nil },
	} {
		s, err := nc.QueueSubscribe(ns.Admin(what), queueGroup, func(m *nats.Msg) { a.take(m, answer) })
		if err != nil {
			stop()
			return nil, fmt.Errorf("subscribe to %s: %w", ns.Admin(what), err)
		}
		subs = append(subs, s)
	}
	if err := nc.Flush(); err != nil {
		stop()
		return nil, fmt.Errorf("subscribe to %s: %w", ns.Admin("*"), err)
	}
	return stop, nil
}

type admin struct {
	answers
	of  Inspected
	ctx context.Context // of all questions

	mu      sync.Mutex
	closed  bool
	asked   int // in work
	running sync.WaitGroup
}

// take begins to answer a question, or refuses it.
func (a *admin) take(m *nats.Msg, answer func(context.Context, question) (any, error)) {
	to := a.replyTo(m)
	if to == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.asked == questionsMax {
		a.fail(to, engine.Errorf(engine.Overloaded, "%d questions are being answered; at most %d may be", a.asked, questionsMax).RetryIn(time.Second))
		return
	}
	a.asked++
	a.running.Go(func() {
		a.answer(to, m.Data, answer)
		a.mu.Lock()
		a.asked--
		a.mu.Unlock()
	})
}

// close refuses what comes from now on, and waits for the rest.
func (a *admin) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.running.Wait()
}

func (a *admin) answer(to string, body []byte, answer func(context.Context, question) (any, error)) {
	ctx, cancel := context.WithTimeout(a.ctx, questionTimeout)
	defer cancel()
	q, err := parseQuestion(body)
	if err != nil {
		a.fail(to, err)
		return
	}
	v, err := answer(ctx, q)
	if err != nil {
		a.fail(to, err)
		return
	}
	data, err := json.Marshal(v)
	switch {
	case err != nil:
		a.fail(to, engine.Errorf(engine.Internal, "answer: %w", err))
	case len(data) > a.answerBytesMax():
		a.fail(to, tooLarge(len(data), a.answerBytesMax(), q))
	default:
		a.publish(&nats.Msg{Subject: to, Data: data}, "")
	}
}

// parseQuestion refuses what it does not know: a misspelled field would be answered with something else.
func parseQuestion(body []byte) (q question, err error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return q, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err = d.Decode(&q); err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = fmt.Errorf("there is more behind it")
		}
	}
	if err != nil {
		return q, engine.Errorf(engine.Invalid, "question: %w; want JSON with some of class, name, seq, from, limit, prefix, cursor, stream", err)
	}
	return q, nil
}

// answerBytesMax leaves as much to headers as requests do.
func (a *answers) answerBytesMax() int { return int(a.nc.MaxPayload()) - engine.HeaderBytesMax }

func tooLarge(have, most int, q question) error {
	way := "ask with a smaller limit"
	if q.Name != "" {
		way = fmt.Sprintf("ask the gateway, under /v1/objects/%s/%s/", url.PathEscape(q.Class), url.PathEscape(q.Name))
	}
	return engine.Errorf(engine.TooLarge, "the answer has %d bytes and the server carries %d: %s, or raise its max_payload", have, most, way)
}

func (a *admin) state(ctx context.Context, q question) (any, error) {
	return a.of.State(ctx, q.Class, q.Name)
}

func (a *admin) sent(ctx context.Context, q question) (any, error) {
	return a.of.Sent(ctx, q.Class, q.Name, q.Seq)
}

func (a *admin) durable(ctx context.Context, q question) (any, error) {
	return struct{}{}, a.of.Durable(ctx, q.Stream, q.From)
}

func (a *admin) objects(ctx context.Context, q question) (any, error) {
	list, next, err := a.of.Objects(ctx, q.Class, q.Prefix, q.Cursor, q.Limit)
	return objectsAnswer{list, next}, err
}

func (a *admin) classes(ctx context.Context, _ question) (any, error) {
	list, err := a.of.Classes(ctx)
	return classesAnswer{list}, err
}

// journal answers with as many entries as fit. Those of one record stay together, since one asks on from a record.
func (a *admin) journal(ctx context.Context, q question) (any, error) {
	entries, next, err := a.of.Journal(ctx, q.Class, q.Name, q.From, q.Limit)
	if err != nil {
		return nil, err
	}
	out := entriesAnswer{Entries: make([]json.RawMessage, len(entries)), Next: next}
	size, whole := len(`{"entries":[],"next":18446744073709551615}`), 0
	for i, e := range entries {
		if i > 0 && e.Seq != entries[i-1].Seq {
			whole = i
		}
		if out.Entries[i], err = json.Marshal(e); err != nil {
			return nil, engine.Errorf(engine.Internal, "journal at %d: %w", e.Seq, err)
		}
		size += len(out.Entries[i]) + len(",")
		if size <= a.answerBytesMax() {
			continue
		}
		if whole == 0 {
			return nil, tooLarge(size, a.answerBytesMax(), q)
		}
		return entriesAnswer{out.Entries[:whole], entries[whole].Seq}, nil
	}
	return out, nil
}
