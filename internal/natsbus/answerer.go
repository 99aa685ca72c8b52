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
)

// Limits of questions.
const (
	questionTimeout = 10 * time.Second
	questionsMax    = 16 // at once
)

// answerer answers questions in JSON, each in a goroutine of its own, at most 16 at once and each for at most 10 s; one more is
// Overloaded. An answer is at most what the server carries. What is published without a reply subject is no question.
type answerer struct {
	answers
	ctx    context.Context // of all questions
	cancel context.CancelFunc
	subs   *drained

	mu      sync.Mutex
	closed  bool
	asked   int // in work
	running sync.WaitGroup
}

// answerTo answers one kind of question.
type answerTo func(context.Context, question) (any, error)

func newAnswerer(nc *nats.Conn, ns wire.Subjects, log *slog.Logger) *answerer {
	a := &answerer{answers: answers{nc, ns, log}, subs: &drained{nc: nc}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// serve answers what comes on subjects. If it fails all is stopped.
func (a *answerer) serve(questions map[string]answerTo) error {
	for subject, answer := range questions {
		s, err := a.nc.QueueSubscribe(subject, queueGroup, func(m *nats.Msg) { a.take(m, answer) })
		if err != nil {
			a.stop()
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		a.subs.add(s)
	}
	if err := a.nc.Flush(); err != nil {
		a.stop()
		return fmt.Errorf("subscribe to questions: %w", err)
	}
	return nil
}

// stop ends the answering, and returns when no question is in work: those that are end as Unavailable, and so do those that
// the server had handed over.
func (a *answerer) stop() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.subs.stop()
	a.running.Wait()
}

// take begins to answer a question, or refuses it.
func (a *answerer) take(m *nats.Msg, answer answerTo) {
	to := a.replyTo(m)
	if to == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		a.fail(to, engine.Errorf(engine.Unavailable, "no questions are answered here any more"))
		return
	case a.asked == questionsMax:
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

func (a *answerer) answer(to string, body []byte, answer answerTo) {
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
