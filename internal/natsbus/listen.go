package natsbus

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// queueGroup is where owners listen: each request goes to one of them.
const queueGroup = "workers"

// Limits of what waits in the NATS client for one subscription. What they bound is there only while the process gets no
// time to run, and beyond them requests are dropped.
const (
	pendingMessagesMax = 1 << 20
	pendingBytesMax    = 1 << 30
)

// passedOn counts the requests that came to a slot that is not their object's.
var passedOn atomic.Uint64

// PassedOn is how many requests of this process came to the wrong slot and were passed on to the right one. It grows when
// somebody publishes to slots directly and computes them wrongly.
func PassedOn() uint64 { return passedOn.Load() }

// Listen takes the requests for the slots of a partition off NATS and gives them to serve, which must not block and calls
// its second argument once, from any goroutine. When it returns the server knows of it. A request that cannot be
// understood is refused without serve. One without a reply subject runs, and its answer is dropped.
//
// stop ends the intake and loses nothing: what the server had handed over is given to serve, and what comes later has no
// responders. It returns then, or after 2 s if the server does not answer. Answers to what serve was given go out after stop as
// before.
func Listen(nc *nats.Conn, ns wire.Subjects, partition, partitions int, log *slog.Logger,
	serve func(engine.Request, func(engine.Reply, error))) (stop func(), err error) {
	in := &intake{answers: answers{nc, ns, log}, serve: serve, callers: callers{waiting: map[string]*waitingCaller{}}}
	subs := &drained{nc: nc}
	stop = subs.stop
	for slot := partition; slot < wire.Slots; slot += partitions {
		err := subs.queue(ns.SlotCalls(slot), in.take)
		if err == nil {
			err = subs.queue(ns.SlotReads(slot), in.takeRead)
		}
		if err == nil {
			err = subs.queue(ns.SlotHTTP(slot), in.takeHTTP)
		}
		if err == nil {
			err = subs.queue(ns.Cancel(slot), in.callers.left)
		}
		if err != nil {
			stop()
			return nil, fmt.Errorf("subscribe to slot %d: %w", slot, err)
		}
	}
	if err := nc.Flush(); err != nil {
		stop()
		return nil, fmt.Errorf("subscribe to partition %d: %w", partition, err)
	}
	return stop, nil
}

type intake struct {
	answers
	serve   func(engine.Request, func(engine.Reply, error))
	callers callers // of HTTP requests
}

// ListenReads takes the reads of a partition that a standby's copies may answer, as one of those that do; the owner is another. What serve
// answers with engine.ErrNoCopy goes on to the owner as the call that it is. stop is that of [Listen].
func ListenReads(nc *nats.Conn, ns wire.Subjects, partition, partitions int, log *slog.Logger,
	serve func(engine.Request, func(engine.Reply, error))) (stop func(), err error) {
	in := &intake{answers: answers{nc, ns, log}, serve: serve}
	subs := &drained{nc: nc}
	for slot := partition; slot < wire.Slots; slot += partitions {
		if err := subs.queue(ns.SlotReads(slot), in.takeForCopy); err != nil {
			subs.stop()
			return nil, fmt.Errorf("subscribe to the reads of slot %d: %w", slot, err)
		}
	}
	return subs.stop, nil
}

// takeForCopy is takeRead where the owner is elsewhere.
func (in *intake) takeForCopy(m *nats.Msg) {
	slot, class, token, method, _ := in.ns.SplitRead(m.Subject)
	r, err := decode(class, token, method, m)
	switch {
	case err != nil:
		in.fail(in.replyTo(m), err)
		return
	case slot != wire.Slot(class, token):
		in.passOn(m, in.ns.ReadAt(class, token, method))
		return
	}
	in.serve(r, func(reply engine.Reply, err error) {
		if !errors.Is(err, engine.ErrNoCopy) {
			in.answer(in.replyTo(m), reply, err)
			return
		}
		if err := in.nc.PublishMsg(&nats.Msg{Subject: in.ns.CallAt(class, token, method), Reply: m.Reply, Header: m.Header, Data: m.Data}); err != nil {
			in.fail(in.replyTo(m), engine.Errorf(engine.Unavailable, "pass the read on to the owner: %w", err))
		}
	})
}

// take is called for every message, one at a time per slot, as takeRead is.
func (in *intake) take(m *nats.Msg) { in.takeAt(m, in.ns.SplitCall, in.ns.CallAt) }

func (in *intake) takeRead(m *nats.Msg) { in.takeAt(m, in.ns.SplitRead, in.ns.ReadAt) }

func (in *intake) takeAt(m *nats.Msg, split func(string) (int, string, string, string, bool), at func(class, token, method string) string) {
	slot, class, token, method, _ := split(m.Subject) // the subscription takes no other subjects
	r, err := decode(class, token, method, m)
	switch {
	case err != nil:
		in.fail(in.replyTo(m), err)
	case slot != wire.Slot(class, token):
		in.passOn(m, at(class, token, method))
	default:
		in.give(r, in.replyTo(m))
	}
}

// give has a request served, and its answer sent.
func (in *intake) give(r engine.Request, to string) {
	in.serve(r, func(reply engine.Reply, err error) { in.answer(to, reply, err) })
}

func (in *intake) answer(to string, reply engine.Reply, err error) {
	if err != nil {
		in.fail(to, err)
	} else {
		in.send(to, reply)
	}
}

// passOn sends a request to the slot of its object, as it is.
func (in *intake) passOn(m *nats.Msg, subject string) {
	if n := passedOn.Add(1); n&(n-1) == 0 { // the 1st, 2nd, 4th and so on: a stray caller is seen, a busy one fills no log
		in.log.Warn("request passed on to its slot", "from", m.Subject, "to", subject, "count", n)
	}
	err := in.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: m.Reply, Header: m.Header, Data: m.Data})
	if err != nil {
		in.fail(in.replyTo(m), engine.Errorf(engine.Invalid, "pass the request on from %s to %s: %w", m.Subject, subject, err))
	}
}

// decode reads a request. Its errors are of type [*engine.Error] and name object and request as far as they are known.
func decode(class, token, method string, m *nats.Msg) (r engine.Request, err error) {
	r.Class, r.Method, r.Body = class, method, m.Data
	if r.Name, err = wire.Unescape(token); err != nil {
		return r, refusal(&r, misspelled(token, err))
	}
	size := m.Size() - len(m.Subject) - len(m.Reply) - len(m.Data)
	switch {
	case size > engine.HeaderBytesMax:
		err = engine.Errorf(engine.TooLarge, "the headers have %d bytes; at most %d", size, engine.HeaderBytesMax)
	case size > 0 && m.Header == nil: // how nats.go passes on what it could not read
		err = engine.Errorf(engine.Invalid, "the headers cannot be read; want lines like those of HTTP")
	default:
		err = r.ReadHeader(m.Header)
	}
	if err != nil {
		return r, refusal(&r, err)
	}
	return r, nil
}

// misspelled says how a token should have been written, if that can be guessed.
func misspelled(token string, err error) error {
	if name, bad := url.PathUnescape(token); bad == nil && wire.CheckName(name) == nil {
		return engine.Errorf(engine.Invalid, "the object's name token %q has another spelling; want %q", token, wire.Escape(name))
	}
	if strings.Contains(token, "%") {
		return engine.Errorf(engine.Invalid, "%w; a percent sign in a name is written %%25", err)
	}
	return engine.Errorf(engine.Invalid, "%w", err)
}

func refusal(r *engine.Request, err error) error {
	e, ok := errors.AsType[*engine.Error](err)
	if !ok {
		return err
	}
	if r.Name != "" {
		e.Object = cmp.Or(e.Object, r.Class+"/"+r.Name)
	}
	e.RequestID = cmp.Or(e.RequestID, requestID(r))
	return e
}

// requestID is how logs and journals name a request.
func requestID(r *engine.Request) string {
	if r.ID == "" && r.Session != nil {
		return r.Session.Sender + "-" + strconv.FormatUint(r.Session.N, 10)
	}
	return r.ID
}
