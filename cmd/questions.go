package cmd

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/natsbus"
)

// questions are those that `perdure status`, state, objects and the like ask, which one worker answers for all objects. So a
// worker answers while it has all partitions: one that has some of them knows nothing of the others' objects.
type questions struct {
	n   *node
	nc  *nats.Conn
	end func() // nil: they are not answered now
}

// begin answers from now on.
func (q *questions) begin() (err error) {
	if q.end == nil {
		q.end, err = natsbus.ServeAdmin(q.nc, q.n.ns, q.n.worker, func() any { return q.n.report() }, q.n.log)
	}
	return err
}

func (q *questions) stop() {
	if q.end != nil {
		q.end()
		q.end = nil
	}
}

// follow answers while the worker has all partitions, until ctx is done.
func (q *questions) follow(ctx context.Context) {
	tick := time.NewTicker(questionsEvery)
	defer tick.Stop()
	for {
		if !q.n.hasAll() {
			q.stop()
		} else if err := q.begin(); err != nil {
			q.n.log.Warn("questions are not answered", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// questionsEvery is how soon a worker notices that it has all partitions, or not any more.
const questionsEvery = 100 * time.Millisecond

// hasAll tells whether the worker owns each partition, or would, but for an alarm.
func (n *node) hasAll() bool {
	s, all := n.worker.Status(), 0
	for _, p := range s.Owned {
		if p.Owned || p.Alarm != "" {
			all++
		}
	}
	return all == s.Partitions
}
