package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// Codes of the server's that mean something here.
const (
	codeTooLarge = 10054 // message size exceeds maximum allowed
	codeNoSpace  = 10023 // insufficient resources
	codeStopped  = 10077 // the stream took no more for lack of space
)

// Post implements engine.Transport: it publishes the request as a message to its object and waits until the inbox has it.
func (c *Client) Post(ctx context.Context, r engine.Request) (journal.Seq, error) {
	if r.HTTP != nil {
		return 0, engine.Errorf(engine.Invalid, "HTTP requests are no messages; send one to a method")
	}
	m, err := c.encode(&r)
	if err != nil {
		return 0, refusal(&r, err)
	}
	m.Subject = c.ns.Send(r.Class, wire.Escape(r.Name), r.Method)
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	answer, err := c.request(ctx, m, engine.UnknownOutcome)
	if err != nil {
		return 0, refusal(&r, err)
	}
	seq, err := c.parseStored(answer.Data)
	if err != nil {
		return 0, refusal(&r, err)
	}
	return seq, nil
}

// postTimeout is how long one try waits: a message or its answer may get lost, and nobody tells.
const postTimeout = 5 * time.Second

func (c *Client) parseStored(data []byte) (journal.Seq, error) {
	ack, err := jetstream.ParseAck(data)
	refused, ok := errors.AsType[*jetstream.APIError](err)
	switch {
	case err == nil && ack.Stream != c.ns.Inbox():
		return 0, engine.Errorf(engine.Internal, "the message was stored by stream %q, which is not the inbox", ack.Stream)
	case err == nil:
		return ack.Seq, nil
	case !ok:
		return 0, engine.Errorf(engine.UnknownOutcome, "the inbox: %w", err)
	case refused.ErrCode == codeTooLarge:
		return 0, engine.Errorf(engine.TooLarge, "the inbox does not take a message of this size: %w", err)
	case refused.ErrCode == codeNoSpace || refused.ErrCode == codeStopped:
		return 0, engine.Errorf(engine.Full, "the inbox has no room: %w", err).RetryIn(10 * time.Second)
	case refused.Code >= 500:
		return 0, engine.Errorf(engine.Unavailable, "the inbox: %w", err)
	}
	return 0, engine.Errorf(engine.Invalid, "the inbox: %w", err)
}

// StorePosts receives what is published as messages to objects, stores it in the inbox, and acknowledges when durable says so:
// for a server whose process syncs its files itself, and maps public sends to slots. The acknowledgement is the inbox's own, so
// that a publisher sees no difference. durable runs open when all that a stream has up to a position is on disk; mayStore, asked
// for each message, refuses it with an error.
func StorePosts(nc *nats.Conn, ns wire.Subjects, durable func(stream string, seq journal.Seq, open func()), mayStore func() error, log *slog.Logger) (stop func(), err error) {
	p := &poster{nc: nc, ns: ns, durable: durable, mayStore: mayStore, log: log, replies: newReplies()}
	acks, err := nc.Subscribe(p.all(), p.acknowledged)
	if err != nil {
		return nil, fmt.Errorf("subscribe to acknowledgements: %w", err)
	}
	posts, err := nc.QueueSubscribe(ns.SlottedSends(), queueGroup, p.take)
	for _, s := range []*nats.Subscription{acks, posts} {
		if err == nil {
			err = s.SetPendingLimits(pendingMessagesMax, pendingBytesMax)
		}
	}
	err = errors.Join(err, nc.Flush())
	stop = func() {
		_ = posts.Unsubscribe() // it is gone with a closed connection, the only thing that can be wrong
		_ = acks.Unsubscribe()
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", ns.SlottedSends(), err)
	}
	return stop, nil
}

type poster struct {
	nc       *nats.Conn
	ns       wire.Subjects
	durable  func(stream string, seq journal.Seq, open func())
	mayStore func() error
	log      *slog.Logger
	*replies
}

// take stores one message. It is called for one at a time, so they are stored in the order in which they came.
func (p *poster) take(m *nats.Msg) {
	slot, rest, _ := strings.Cut(strings.TrimPrefix(m.Subject, string(p.ns)+".part."), ".send.")
	if err := p.mayStore(); err != nil {
		p.refuse(m.Reply, 503, codeNoSpace, err.Error())
		return
	}
	msg := &nats.Msg{Subject: string(p.ns) + ".inbox." + slot + "." + rest, Header: m.Header, Data: m.Data}
	if m.Reply != "" {
		var ok bool
		if msg.Reply, ok = p.wait(m.Reply); !ok {
			p.refuse(m.Reply, 503, codeNoSpace, "too many publishers wait for their acknowledgement")
			return
		}
	}
	if err := p.nc.PublishMsg(msg); err != nil {
		p.log.Warn("message not passed on to the inbox", "subject", msg.Subject, "err", err)
	}
}

// acknowledged passes an acknowledgement on when what it says is on disk; a refusal at once.
func (p *poster) acknowledged(m *nats.Msg) {
	reply, ok := p.replies.take(m.Subject)
	if !ok {
		return
	}
	ack, err := jetstream.ParseAck(m.Data)
	if err != nil || ack.Stream != p.ns.Inbox() {
		p.answer(reply, m)
		return
	}
	p.durable(ack.Stream, ack.Seq, func() { p.answer(reply, m) })
}

func (p *poster) answer(reply string, m *nats.Msg) {
	if err := p.nc.PublishMsg(&nats.Msg{Subject: reply, Header: m.Header, Data: m.Data}); err != nil {
		p.log.Warn("acknowledgement not sent", "to", reply, "err", err)
	}
}

// refuse answers as the inbox would.
func (p *poster) refuse(reply string, code, errCode int, why string) {
	if reply == "" {
		return
	}
	data, _ := json.Marshal(struct {
		Stream string             `json:"stream"`
		Error  jetstream.APIError `json:"error"`
	}{p.ns.Inbox(), jetstream.APIError{Code: code, ErrCode: errCode, Description: why}}) // strings and numbers
	p.answer(reply, &nats.Msg{Data: data})
}
