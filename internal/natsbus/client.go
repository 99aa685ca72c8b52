package natsbus

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// Client sends requests over NATS. It does not repeat them; an engine.Client around it does. It looks at objects, too, by
// asking whoever runs [ServeAdmin]. Safe for concurrent use.
type Client struct {
	nc *nats.Conn
	ns wire.Subjects
}

var (
	_ engine.Transport = (*Client)(nil)
	_ engine.Inspector = (*Client)(nil)
)

// NewClient makes a client of a connection, which stays the caller's to close.
func NewClient(nc *nats.Conn, ns wire.Subjects) *Client { return &Client{nc, ns} }

// Do implements engine.Transport. Without owner it is Unavailable at once. When ctx ends, or the connection, before the
// answer came, the outcome is unknown. If ctx has no end, it waits 30 s beyond the request's deadline.
func (c *Client) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	m, err := c.encode(&r)
	if err != nil {
		return engine.Reply{}, refusal(&r, err)
	}
	ctx, cancel := patience(ctx, &r)
	defer cancel()
	answer, err := c.nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return engine.Reply{}, refusal(&r, undelivered(err, engine.UnknownOutcome))
	}
	reply, err := parseReply(answer)
	if err != nil {
		return engine.Reply{}, refusal(&r, err)
	}
	return reply, nil
}

// patience bounds a wait that would last for ever if the request or its answer got lost.
func patience(ctx context.Context, r *engine.Request) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	begun := cmp.Or(r.Limit, engine.DefaultDeadline)
	if !r.Deadline.IsZero() {
		begun = time.Until(r.Deadline)
	}
	return context.WithTimeout(ctx, begun+engine.DefaultDeadline)
}

func (c *Client) encode(r *engine.Request) (*nats.Msg, error) {
	if r.HTTP != nil {
		return nil, engine.Errorf(engine.Invalid, "HTTP requests are not carried over NATS; call a method")
	}
	// Each is one token of a subject: another dot would make it another subject.
	err := errors.Join(wire.CheckIdentifier(r.Class), wire.CheckName(r.Name), wire.CheckIdentifier(r.Method))
	if err != nil {
		return nil, engine.Errorf(engine.Invalid, "%s", oneLine(err.Error()))
	}
	h, err := r.Header()
	if err != nil {
		return nil, err
	}
	return &nats.Msg{Subject: c.ns.Call(r.Class, wire.Escape(r.Name), r.Method), Header: h, Data: r.Body}, nil
}

// undelivered is why there is no answer, lost what it means if there may have been one.
func undelivered(err error, lost engine.Code) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return engine.Errorf(engine.Unavailable, "nobody listens just now: %w", err)
	case errors.Is(err, nats.ErrMaxPayload):
		return engine.Errorf(engine.TooLarge, "the server does not carry a request of this size: %w", err)
	}
	return engine.Errorf(lost, "no answer: %w", err)
}
