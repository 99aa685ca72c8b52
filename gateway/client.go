package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Client reaches objects over NATS, from a service or a gateway in a process of its own. It is an [engine.Transport] and an
// [engine.Inspector]. A request is repeated under one number until its deadline, which is that of ctx, or 30 s: while there
// is no server or no owner the caller waits, and what was under way when a connection broke is asked for again as soon as
// there is another. Safe for concurrent use; one per process is enough.
type Client struct {
	numbered *engine.Client
	bus      *natsbus.Client
	own      *nats.Conn // nil: the connection is somebody else's
}

var (
	_ engine.Transport = (*Client)(nil)
	_ engine.Inspector = (*Client)(nil)
)

// ClientOptions are what a [Client] is made with. Zero values are the defaults.
type ClientOptions struct {
	// Namespace of the objects. Default "objects".
	Namespace string
	// Name is how the server shows the connection. Default "perdure client".
	Name string
	// Wait makes a client although no server is there yet. It connects when there is one; requests wait for it.
	Wait bool
	// ToSlots sends calls to the slots of their objects, past the public subjects: so the server needs no mapping, and the
	// client the permissions of a gateway.
	ToSlots bool
	// NATS are options of the connection besides: credentials, TLS, handlers.
	NATS []nats.Option
}

// Connect makes a client with a connection of its own to NATS servers, several with commas between; "" is nats.DefaultURL.
// The connection is made again whenever it breaks, for ever.
func Connect(servers string, o ClientOptions) (*Client, error) {
	nc, err := nats.Connect(servers, o.Lasting()...)
	return o.owning(nc, err, redacted(cmp.Or(servers, nats.DefaultURL)))
}

// ConnectContext is [Connect] to where a NATS context leads, as `nats context` keeps it; "" is the selected one.
func ConnectContext(name string, o ClientOptions) (*Client, error) {
	nc, _, err := natscontext.Connect(name, o.Lasting()...)
	return o.owning(nc, err, "the context "+cmp.Or(name, "that is selected"))
}

// NewClient makes a client over a connection, which stays the caller's to close. Of the options it minds Namespace and ToSlots.
// Let the connection reconnect without end ([ClientOptions.Lasting]), or the client ends with it.
func NewClient(nc *nats.Conn, o ClientOptions) (*Client, error) {
	ns := wire.Subjects(cmp.Or(o.Namespace, string(wire.DefaultNamespace)))
	if err := ns.Check(); err != nil {
		return nil, fmt.Errorf("namespace: %w", err)
	}
	if nc == nil || nc.IsClosed() {
		return nil, errors.New("the connection to NATS is closed")
	}
	bus := natsbus.NewClient(nc, ns)
	if o.ToSlots {
		bus.ToSlots()
	} else {
		bus.HearOwners()
	}
	return &Client{numbered: engine.NewClient(bus), bus: bus}, nil
}

func (o ClientOptions) owning(nc *nats.Conn, err error, where string) (*Client, error) {
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", where, err)
	}
	c, err := NewClient(nc, o)
	if err != nil {
		nc.Close()
		return nil, err
	}
	c.own = nc
	return c, nil
}

// pingEvery is how often a connection must show that it lives: one that is silent is given up after three times that, before
// a request's usual deadline.
const pingEvery = 5 * time.Second

// Lasting are the options of a connection that is made again whenever it breaks, for ever, for whoever makes it himself.
func (o ClientOptions) Lasting() []nats.Option {
	return append([]nats.Option{
		nats.Name(cmp.Or(o.Name, "perdure client")),
		nats.RetryOnFailedConnect(o.Wait),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(), // credentials are exchanged while we run, and servers come up before they know them
		nats.CustomReconnectDelay(reconnectDelay),
		nats.ReconnectBufSize(-1), // what is published while there is no connection is not kept: it is repeated
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(2),
	}, o.NATS...)
}

const (
	reconnectFirst = 50 * time.Millisecond
	reconnectLast  = 2 * time.Second
)

// reconnectDelay is the wait after all servers were tried for the nth time. Half of it is chance: the clients of a server
// that comes back do not come all at once.
func reconnectDelay(n int) time.Duration {
	d := min(reconnectFirst<<min(n-1, 10), reconnectLast)
	return d/2 + rand.N(d/2)
}

// redacted is a list of servers without passwords.
func redacted(servers string) string {
	list := strings.Split(servers, ",")
	for i, s := range list {
		if u, err := url.Parse(strings.TrimSpace(s)); err == nil && u.Host != "" {
			list[i] = u.Redacted()
		} else if at := strings.LastIndexByte(s, '@'); at >= 0 {
			list[i] = s[at+1:]
		}
	}
	return strings.Join(list, ",")
}

// With joins a context and the client, for [engine.Call], [engine.Read] and [engine.Post].
func (c *Client) With(ctx context.Context) engine.Env { return c.numbered.With(ctx) }

// Do implements [engine.Transport]: one call, in bytes. Its errors are of type [*engine.Error].
func (c *Client) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	return c.numbered.Do(ctx, r)
}

// Post implements [engine.Transport]: it stores one message to an object, in bytes. Its errors are of type [*engine.Error].
func (c *Client) Post(ctx context.Context, r engine.Request) (journal.Seq, error) {
	return c.numbered.Post(ctx, r)
}

// Ready says why requests could not leave just now: there is no connection.
func (c *Client) Ready() error {
	if !c.bus.Connected() {
		return engine.Errorf(engine.Unavailable, "there is no connection to NATS")
	}
	return nil
}

// Reach returns nil when a worker answers that owns one of so many partitions of the namespace.
func (c *Client) Reach(ctx context.Context, partitions int) error {
	return c.bus.Reach(ctx, partitions)
}

// Close ends the requests that are under way, with an unknown outcome, refuses others as unavailable, and closes the
// connection if the client made it.
func (c *Client) Close() {
	c.bus.Close()
	if c.own != nil {
		c.own.Close()
	}
}

// State implements [engine.Inspector].
func (c *Client) State(ctx context.Context, class, name string) (s engine.ObjectState, err error) {
	err = look(ctx, func(ctx context.Context) error { s, err = c.bus.State(ctx, class, name); return err })
	return s, err
}

// Journal implements [engine.Inspector].
func (c *Client) Journal(ctx context.Context, class, name string, from journal.Seq, limit int) (entries []engine.JournalEntry, next journal.Seq, err error) {
	err = look(ctx, func(ctx context.Context) error {
		entries, next, err = c.bus.Journal(ctx, class, name, from, limit)
		return err
	})
	return entries, next, err
}

// Objects implements [engine.Inspector].
func (c *Client) Objects(ctx context.Context, class, prefix, cursor string, limit int) (list []engine.ObjectInfo, next string, err error) {
	err = look(ctx, func(ctx context.Context) error {
		list, next, err = c.bus.Objects(ctx, class, prefix, cursor, limit)
		return err
	})
	return list, next, err
}

// Sent implements [engine.Inspector].
func (c *Client) Sent(ctx context.Context, class, name string, seq journal.Seq) (s engine.SentState, err error) {
	err = look(ctx, func(ctx context.Context) error { s, err = c.bus.Sent(ctx, class, name, seq); return err })
	return s, err
}

// Classes implements [engine.Inspector].
func (c *Client) Classes(ctx context.Context) (list []engine.ClassInfo, err error) {
	err = look(ctx, func(ctx context.Context) error { list, err = c.bus.Classes(ctx); return err })
	return list, err
}

// look asks until somebody answers, as long as a call would be tried. Looking changes nothing, so it needs no number.
func look(ctx context.Context, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, engine.DefaultDeadline)
	defer cancel()
	for n := 1; ; n++ {
		err := ask(ctx)
		if !errors.Is(err, engine.Unavailable) || errors.Is(err, engine.ErrClosed) {
			return err
		}
		select {
		case <-time.After(reconnectDelay(n)):
		case <-ctx.Done():
			return err
		}
	}
}
