package natsbus

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// cancel tells the owner that nobody waits for an HTTP request any more. It is a hint: one that gets lost, or comes before the
// request, leaves a turn to its own limits.
func (c *Client) cancel(ctx context.Context, r *engine.Request) {
	if r.HTTP == nil || r.Session == nil || !errors.Is(ctx.Err(), context.Canceled) { // a try that took long is repeated
		return
	}
	slot := wire.Slot(r.Class, wire.Escape(r.Name))
	_ = c.nc.Publish(c.ns.Cancel(slot), []byte(numberOf(r.Session))) // without a connection the request is over as well
}

// numberOf names a request of all: <sender> <n>.
func numberOf(s *engine.SessionNumber) string { return s.Sender + " " + strconv.FormatUint(s.N, 10) }

// callers are those that wait for HTTP requests, by the numbers of these.
type callers struct {
	mu      sync.Mutex
	waiting map[string]*waitingCaller
}

type waitingCaller struct {
	ctx    context.Context
	leave  context.CancelFunc
	copies int // of the request; a gateway repeats it
}

// enter is the request with a context that ends when its caller leaves; done is called when it is answered.
func (c *callers) enter(r engine.Request) (in engine.Request, done func()) {
	if r.Session == nil {
		return r, func() {}
	}
	number := numberOf(r.Session)
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[number]
	if w == nil {
		w = &waitingCaller{}
		w.ctx, w.leave = context.WithCancel(context.Background())
		c.waiting[number] = w
	}
	w.copies++
	return r.WithContext(w.ctx), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if w.copies--; w.copies == 0 {
			w.leave()
			delete(c.waiting, number)
		}
	}
}

// left takes word of a caller that has left.
func (c *callers) left(m *nats.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.waiting[string(m.Data)]; w != nil {
		w.leave()
	}
}
