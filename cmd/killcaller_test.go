package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway"
	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// overHTTP carries calls through the gateway, which numbers those without an id.
type overHTTP struct{ p *process }

// Post implements engine.Transport.
func (h overHTTP) Post(context.Context, engine.Request) (journal.Seq, error) {
	return 0, engine.Errorf(engine.Unavailable, "it calls only")
}

// Do implements engine.Transport.
func (h overHTTP) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	var header []string
	if r.ID != "" {
		header = []string{"Idempotency-Key", r.ID}
	}
	status, _, body, err := h.p.send(ctx, "POST", "/v1/objects/"+r.Class+"/"+r.Name+"/call/"+r.Method, string(r.Body), header...)
	op, network := errors.AsType[*net.OpError](err)
	switch {
	case network && op.Op == "dial":
		return engine.Reply{}, engine.Errorf(engine.Unavailable, "%w", err)
	case err != nil:
		return engine.Reply{}, engine.Errorf(engine.UnknownOutcome, "%w", err)
	case status != 200:
		return engine.Reply{}, engine.ParseProblem([]byte(body))
	}
	return engine.Reply{Status: status, Body: []byte(strings.TrimSpace(body))}, nil
}

// overNATS carries calls over a connection that is made anew when it has ended.
type overNATS struct {
	p  *process
	mu sync.Mutex
	nc *nats.Conn
}

// Post implements engine.Transport.
func (n *overNATS) Post(ctx context.Context, r engine.Request) (journal.Seq, error) {
	nc, err := n.connect()
	if err != nil {
		return 0, engine.Errorf(engine.Unavailable, "%w", err)
	}
	return natsbus.NewClient(nc, wire.DefaultNamespace).Post(ctx, r)
}

// Do implements engine.Transport.
func (n *overNATS) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	nc, err := n.connect()
	if err != nil {
		return engine.Reply{}, engine.Errorf(engine.Unavailable, "%w", err)
	}
	return natsbus.NewClient(nc, wire.DefaultNamespace).Do(ctx, r)
}

func (n *overNATS) connect() (nc *nats.Conn, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nc == nil || n.nc.IsClosed() {
		quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}) // callers are told
		nc, err = nats.Connect("nats://"+n.p.nats, nats.NoReconnect(), nats.Timeout(time.Second), quiet)
		if err != nil {
			return nil, err
		}
		n.nc = nc
	}
	return n.nc, nil
}

func (n *overNATS) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nc != nil {
		n.nc.Close()
	}
}

// killCaller is one caller. What it begins with an id or a number it finishes, unless the test is over; what it sends bare
// it sends once.
type killCaller struct {
	*killing
	n      int
	to     engine.Transport
	ids    bool          // it gives its own and repeats
	limit  time.Duration // of one try; 0: none, since it is told when nobody will answer
	random *rand.Rand
	serial int
}

// callers call in all ways: over HTTP and NATS with ids, by our client, which numbers, and bare over NATS and HTTP.
func (k *killing) callers(many int) (callers []*killCaller) {
	bus := &overNATS{p: k.p}
	k.t.Cleanup(bus.close)
	numbering, err := gateway.Connect("nats://"+k.p.nats, gateway.ClientOptions{})
	must(k.t, err)
	k.t.Cleanup(numbering.Close)
	for n := range many {
		c := &killCaller{killing: k, n: n, random: rand.New(rand.NewPCG(k.random.Uint64(), 0))}
		gate := overHTTP{k.gates[n/4%len(k.gates)]}
		switch n % 4 {
		case 0:
			c.to, c.ids, c.limit = gate, true, tryLimit
		case 1:
			c.to, c.ids, c.limit = bus, true, tryLimit
		case 2:
			c.to = numbering
		case 3:
			if c.to = gate; n > 3 {
				c.to, c.limit = bus, tryLimit // of a worker that was killed nobody tells
			}
		}
		callers = append(callers, c)
	}
	return callers
}

// tryLimit is how long one try may take.
const tryLimit = 5 * time.Second

// run calls until ctx is done.
func (c *killCaller) run(ctx context.Context) {
	for ctx.Err() == nil {
		if c.random.IntN(2) == 0 {
			c.increment()
		} else {
			c.operate()
		}
	}
}

// increment increments one of the counters that live through all kills.
func (c *killCaller) increment() {
	object := c.random.IntN(killObjects)
	id, reply, err := c.call(engine.Request{Class: "counter", Name: fmt.Sprint("k", object), Method: "increment"})
	if isNothing(err) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.increments = append(c.increments, increment{object, id, string(reply.Body)})
}

// operate does something with an object of the present histories.
func (c *killCaller) operate() {
	name, n := fmt.Sprint("h", c.life.Load()), 1+c.random.Int64N(9)
	op, r := history.Op{N: n}, engine.Request{Name: name}
	cents := fmt.Sprintf(`{"cents":%d}`, n)
	switch c.random.IntN(6) {
	case 0:
		op.Kind, r.Class, r.Method = history.Read, "counter", "value"
	case 1:
		op.Kind, r.Class, r.Method = history.Read, "account", "balance"
	case 2:
		op.Kind, r.Class, r.Method, r.Body = history.Add, "counter", "increment", fmt.Appendf(nil, `{"by":%d}`, n)
	case 3:
		op.Kind, r.Class, r.Method, r.Body = history.Add, "account", "deposit", []byte(cents)
	default:
		op.Kind, r.Class, r.Method, r.Body = history.Take, "account", "withdraw", []byte(cents)
	}
	op.Object = r.Class + "/" + name
	p := c.history.Begin(c.n, op)
	_, reply, err := c.call(r)
	switch {
	case err == nil:
		p.Told(history.Told{Value: c.value(reply.Body)})
	case errors.Is(err, engine.Refused):
		p.Told(history.Told{Short: true})
	case isNothing(err):
		p.Never()
	}
}

// value is the number that a counter or an account tells.
func (c *killCaller) value(body []byte) (n int64) {
	money := struct{ Cents *int64 }{&n}
	if json.Unmarshal(body, &n) != nil && json.Unmarshal(body, &money) != nil {
		c.t.Errorf("%s tells no number", body)
	}
	return n
}

// call sends a request and returns the id that it gave it, if it did. An error is one of the class, says that nothing
// happened, or leaves the outcome open.
func (c *killCaller) call(r engine.Request) (string, engine.Reply, error) {
	if c.ids {
		c.serial++
		r.ID = ownID + strconv.Itoa(c.n) + "-" + strconv.Itoa(c.serial)
	}
	r.Limit = time.Minute
	for {
		reply, err := c.once(r)
		e, failed := errors.AsType[*engine.Error](err)
		open := failed && e.Code == engine.UnknownOutcome
		if failed && !open && !isNothing(err) && e.Code != engine.Refused {
			c.t.Errorf("%s/%s %s: %v", r.Class, r.Name, r.Method, err)
		}
		if open || isNothing(err) {
			<-time.After(5 * time.Millisecond) // it is down, probably
			if c.ids && c.t.Context().Err() == nil {
				continue
			}
		}
		return r.ID, reply, err
	}
}

// once tries once, and not for ever: an answer may get lost.
func (c *killCaller) once(r engine.Request) (engine.Reply, error) {
	ctx := c.t.Context()
	if c.limit > 0 {
		var leave context.CancelFunc
		ctx, leave = context.WithTimeout(ctx, c.limit)
		defer leave()
	}
	return c.to.Do(ctx, r)
}

// isNothing tells whether an error says that nothing happened, and nothing will.
func isNothing(err error) bool {
	return errors.Is(err, engine.Unavailable) || errors.Is(err, engine.Timeout) || errors.Is(err, engine.Overloaded)
}
