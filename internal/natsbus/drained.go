package natsbus

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// drained are subscriptions that end together, without losing what the server had handed over.
type drained struct {
	nc   *nats.Conn
	all  []*nats.Subscription
	open sync.WaitGroup // those whose handler may still run
}

// drainWithin bounds the wait for a server that does not answer.
const drainWithin = 2 * time.Second

// queue subscribes in the queue group, with room for all that waits while the process gets no time to run.
func (d *drained) queue(subject string, take nats.MsgHandler) error {
	s, err := d.nc.QueueSubscribe(subject, queueGroup, take)
	if err != nil {
		return err
	}
	d.add(s)
	return s.SetPendingLimits(pendingMessagesMax, pendingBytesMax)
}

func (d *drained) add(s *nats.Subscription) {
	d.open.Add(1)
	s.SetClosedHandler(func(string) { d.open.Done() }) // called behind the last message
	d.all = append(d.all, s)
}

// stop ends them. It may be called more than once.
func (d *drained) stop() {
	limit := time.After(drainWithin)
	// The client's own draining looks every 100 ms whether a subscription has nothing left, which is long for callers that
	// wait for the next owner. So: the server hears of it, its answer comes behind the last message, and a barrier behind
	// that one in each queue. On a connection that has ended nothing comes any more, and errors say nothing else.
	for _, s := range d.all {
		_ = s.Drain()
	}
	if d.nc.FlushTimeout(drainWithin) == nil {
		passed := make(chan struct{})
		if d.nc.Barrier(func() { close(passed) }) == nil {
			within(limit, passed)
		}
	}
	for _, s := range d.all {
		_ = s.Unsubscribe()
	}
	closed := make(chan struct{})
	go func() { d.open.Wait(); close(closed) }()
	within(limit, closed)
}

func within(limit <-chan time.Time, done <-chan struct{}) {
	select {
	case <-done:
	case <-limit:
	}
}
