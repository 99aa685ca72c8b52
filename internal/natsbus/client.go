package natsbus

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// Client sends requests over NATS. It does not repeat them; an engine.Client around it does. It looks at objects, too, by
// asking whoever runs [ServeAdmin]. While the connection is being made again it waits for it; what is in flight when it
// breaks is given up at once. Safe for concurrent use.
type Client struct {
	nc    *nats.Conn
	ns    wire.Subjects
	slots bool               // calls go to slots
	heard *nats.Subscription // to the word of new owners; nil: none
	link  *link

	mu     sync.Mutex
	owners [wire.Slots]*tenure
}

// tenure is the time for which a slot has one owner, as far as the client knows, and one connection.
type tenure struct {
	life context.Context // of the connection
	ctx  context.Context
	end  context.CancelCauseFunc
}

// errNewOwner ends the waiting for an answer that the former owner owes.
var errNewOwner = errors.New("the object has a new owner")

var (
	_ engine.Transport = (*Client)(nil)
	_ engine.Inspector = (*Client)(nil)
)

// NewClient makes a client of a connection, which stays the caller's to close; the client ends with it, or with Close.
func NewClient(nc *nats.Conn, ns wire.Subjects) *Client {
	return &Client{nc: nc, ns: ns, link: newLink(nc)}
}

// ToSlots is the client with calls that go to the slots of their objects, past the public subjects: so the server needs no
// mapping, and the client more permissions. It hears of owners, too.
func (c *Client) ToSlots() *Client {
	c.slots = true
	return c.HearOwners()
}

// HearOwners is the client, which is not in use yet, that hears which partitions have a new owner, and gives up the waiting for what the former one
// owes, with an unknown outcome: an [engine.Client] asks the new one at once. If it may not hear that, it waits for as long as
// any other.
func (c *Client) HearOwners() *Client {
	prefix := strings.TrimSuffix(c.ns.Owners(), "*.*")
	c.heard, _ = c.nc.Subscribe(c.ns.Owners(), func(m *nats.Msg) { // of a connection that has ended it does not matter
		partition, of, _ := strings.Cut(strings.TrimPrefix(m.Subject, prefix), ".")
		p, err := strconv.Atoi(partition)
		n, err2 := strconv.Atoi(of)
		if err != nil || err2 != nil || p < 0 || p >= n {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for slot := p; slot < wire.Slots; slot += n {
			if t := c.owners[slot]; t != nil {
				t.end(errNewOwner)
				c.owners[slot] = nil
			}
		}
	})
	return c
}

// tenure is what ends when a slot has a new owner, or with the connection.
func (c *Client) tenure(slot int, life context.Context) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.owners[slot]
	if t == nil || t.life != life {
		t = &tenure{life: life}
		t.ctx, t.end = context.WithCancelCause(life)
		c.owners[slot] = t
	}
	return t.ctx
}

// Close ends the requests that are under way; later ones are refused with engine.ErrClosed.
func (c *Client) Close() {
	c.link.close()
	if c.heard != nil {
		_ = c.heard.Unsubscribe() // or it ends with the connection
	}
}

// Connected tells whether requests could leave just now.
func (c *Client) Connected() bool { return c.link.isUp() }

// Do implements engine.Transport. Without owner it is Unavailable: at once, or, [Client.HearOwners], when there is word of a new
// one, after 100 ms at the latest. When ctx ends, or the connection, before the
// answer came, the outcome is unknown. If ctx has no end, it waits 30 s beyond the request's deadline.
func (c *Client) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	encode := c.encode
	if r.HTTP != nil {
		encode = c.encodeHTTP
	}
	m, err := encode(&r)
	if err != nil {
		return engine.Reply{}, refusal(&r, err)
	}
	ctx, cancel := patience(ctx, &r)
	defer cancel()
	answer, err := c.requestOf(ctx, wire.Slot(r.Class, wire.Escape(r.Name)), m, engine.UnknownOutcome)
	if err != nil {
		c.cancel(ctx, &r)
		return engine.Reply{}, refusal(&r, err)
	}
	reply, err := parseReply(answer)
	if err == nil && r.HTTP != nil {
		err = parseHTTPReply(r.HTTP.Method, &reply)
	}
	if err != nil {
		return engine.Reply{}, refusal(&r, err)
	}
	return reply, nil
}

// ownerWithin is how long word of a new owner is waited for, before it is tried whether there is one.
const ownerWithin = 100 * time.Millisecond

// awaitOwner waits for the end of the tenure in which nobody listens: then somebody is about to.
func awaitOwner(ctx, tenure context.Context) {
	limit := time.NewTimer(ownerWithin)
	defer limit.Stop()
	select {
	case <-tenure.Done():
	case <-limit.C:
	case <-ctx.Done():
	}
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
	// Each is one token of a subject: another dot would make it another subject.
	err := errors.Join(wire.CheckIdentifier(r.Class), wire.CheckName(r.Name), wire.CheckIdentifier(r.Method))
	if err != nil {
		return nil, engine.Errorf(engine.Invalid, "%s", oneLine(err.Error()))
	}
	h, err := r.Header()
	if err != nil {
		return nil, err
	}
	subject := c.ns.Call
	switch {
	case c.slots && r.Eventual:
		subject = c.ns.ReadAt
	case c.slots:
		subject = c.ns.CallAt
	case r.Eventual:
		subject = c.ns.Read
	}
	return &nats.Msg{Subject: subject(r.Class, wire.Escape(r.Name), r.Method), Header: h, Data: r.Body}, nil
}

// Reach returns nil when a worker answers that owns one of so many partitions. It asks all of them at once, for a name that
// cannot be: whoever listens refuses that, and nobody runs anything.
func (c *Client) Reach(ctx context.Context, partitions int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan error, partitions)
	for p := range partitions {
		go func() {
			subject := strings.TrimSuffix(c.ns.SlotCalls(p), "*.*.*") + "x.%.x"
			_, err := c.request(ctx, &nats.Msg{Subject: subject}, engine.Unavailable)
			answers <- err
		}()
	}
	var err error
	for range partitions {
		if err = <-answers; err == nil {
			return nil
		}
	}
	return err
}

// request sends a message and waits for the answer, as long as the connection lasts. lost is the code if there may have been
// an answer; what was not sent, or not taken, is Unavailable.
func (c *Client) request(ctx context.Context, m *nats.Msg, lost engine.Code) (*nats.Msg, error) {
	return c.requestOf(ctx, -1, m, lost)
}

// requestOf is request for what the owner of a slot answers: it also ends when that is known to be another.
func (c *Client) requestOf(ctx context.Context, slot int, m *nats.Msg, lost engine.Code) (*nats.Msg, error) {
	life, err := c.link.up(ctx)
	if err != nil {
		return nil, engine.Errorf(engine.Unavailable, "not sent: %w", err)
	}
	asked := ctx
	if slot >= 0 && c.heard != nil {
		life = c.tenure(slot, life)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()
	answer, err := c.nc.RequestMsgWithContext(ctx, m)
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(err, nats.ErrNoResponders):
		if slot >= 0 && c.heard != nil {
			awaitOwner(asked, life)
		}
		return nil, engine.Errorf(engine.Unavailable, "nobody listens just now: %w", err)
	case errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrConnectionDraining):
		return nil, engine.Errorf(engine.Unavailable, "not sent: %w", err)
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, engine.Errorf(engine.TooLarge, "the server does not carry a request of this size: %w", err)
	case life.Err() != nil: // ctx hears of that a moment later
		err = context.Cause(life)
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, engine.Errorf(lost, "no answer: %w", err)
}
