package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
)

// What a round may take beyond its time, and a call of each object once.
const (
	callTimeout = 30 * time.Second
	eachTimeout = 10 * time.Minute
)

// target is what callers ask: one of several objects each time, by chance, all alike.
type target struct {
	subjects []string
	body     []byte
	answered func(object int, body []byte) // of each answer; from many goroutines; may be nil
}

// callers are goroutines that send a request, wait for its answer and send the next, over few connections. Each has a
// reply subject of its own below its connection's inbox: a request costs one message and wakes one goroutine.
type callers struct{ all []*caller }

type caller struct {
	nc     *nats.Conn
	reply  string
	answer chan *nats.Msg
	random *rand.Rand
}

// newCallers makes n callers over the connections, which stay the caller's to close.
func newCallers(conns []*nats.Conn, n int) (*callers, error) {
	cs := &callers{}
	for i, nc := range conns {
		inbox := nc.NewInbox()
		var mine []*caller
		for len(cs.all) < n*(i+1)/len(conns) {
			c := &caller{nc: nc, reply: inbox + "." + strconv.Itoa(len(mine)), answer: make(chan *nats.Msg, 1),
				random: rand.New(rand.NewPCG(uint64(len(cs.all)), 1))}
			mine, cs.all = append(mine, c), append(cs.all, c)
		}
		sub, err := nc.Subscribe(inbox+".*", func(m *nats.Msg) {
			if n, err := strconv.Atoi(m.Subject[len(inbox)+1:]); err == nil && n < len(mine) {
				mine[n].answer <- m
			}
		})
		if err == nil {
			err = sub.SetPendingLimits(-1, -1)
		}
		if err == nil {
			err = nc.Flush()
		}
		if err != nil {
			return nil, fmt.Errorf("subscribe to answers: %w", err)
		}
	}
	return cs, nil
}

// run has the first n callers call for that long, and waits for the last answers. The first error ends it.
func (cs *callers) run(ctx context.Context, n int, t target, long time.Duration) (Load, error) {
	return together(ctx, n, long+callTimeout, func(ctx context.Context, i int, began time.Time) (took []time.Duration, err error) {
		for time.Since(began) < long && ctx.Err() == nil && err == nil {
			took, err = cs.all[i].one(ctx, &t, cs.all[i].choose(len(t.subjects)), took)
		}
		return took, err
	})
}

// each calls every object of a target once, with n callers.
func (cs *callers) each(ctx context.Context, n int, t target) (Load, error) {
	return together(ctx, n, eachTimeout, func(ctx context.Context, i int, _ time.Time) (took []time.Duration, err error) {
		for object := i; object < len(t.subjects) && ctx.Err() == nil && err == nil; object += n {
			took, err = cs.all[i].one(ctx, &t, object, took)
		}
		return took, err
	})
}

// together runs n callers side by side, each of which returns its latencies. The first error ends all of them.
func together(ctx context.Context, n int, limit time.Duration, f func(ctx context.Context, i int, began time.Time) ([]time.Duration, error)) (Load, error) {
	ctx, stop := context.WithTimeoutCause(ctx, limit, errNoAnswer)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	latencies := make([][]time.Duration, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			took, err := f(ctx, i, began)
			if err != nil {
				cancel(err)
			}
			latencies[i] = took
		})
	}
	wg.Wait()
	return merge(time.Since(began), latencies), context.Cause(ctx)
}

var errNoAnswer = errors.New("no answer in time")

// choose is an object by chance.
func (c *caller) choose(objects int) int {
	if objects == 1 {
		return 0
	}
	return c.random.IntN(objects)
}

// one sends one request and appends how long its answer took. A caller that got none is not to be used again: the answer
// may still come.
func (c *caller) one(ctx context.Context, t *target, object int, took []time.Duration) ([]time.Duration, error) {
	began := time.Now()
	if err := c.nc.PublishRequest(t.subjects[object], c.reply, t.body); err != nil {
		return took, fmt.Errorf("call %s: %w", t.subjects[object], err)
	}
	select {
	case m := <-c.answer:
		took = append(took, time.Since(began))
		if err := refusal(m); err != nil {
			return took, fmt.Errorf("call %s: %w", t.subjects[object], err)
		}
		if t.answered != nil {
			t.answered(object, m.Data)
		}
		return took, nil
	case <-ctx.Done():
		return took, fmt.Errorf("call %s: %w", t.subjects[object], context.Cause(ctx))
	}
}

// refusal is the error that an answer says, if it is one.
func refusal(m *nats.Msg) error {
	switch {
	case len(m.Data) == 0 && m.Header.Get("Status") == "503":
		return nats.ErrNoResponders
	case m.Header.Get(errorHeader) != "":
		return errors.New(cmp.Or(m.Header.Get(wire.HeaderError), string(m.Data)))
	}
	return nil
}
