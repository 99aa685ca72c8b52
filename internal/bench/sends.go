package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// The rows about durable messages: how many are accepted and applied, how far behind, and how a backlog is drained. The
// yardstick is a publisher to an inbox that nobody reads.

// sendRow is the rate of messages that were acknowledged to their publishers, until the last of them was applied.
func sendRow(r Row, sync string, objects, callers int) row {
	return row{r, func(b *bench, ctx context.Context, r *Row) error {
		sys, cs, err := b.system(ctx, sync)
		if err != nil {
			return err
		}
		c := newCounts(names(r.Name, objects))
		if _, err := cs.each(ctx, b.Callers, c.increments()); err != nil {
			return err
		}
		last := newEnds(c)
		send := func(ns wire.Subjects, acked func(object int, ack []byte)) target {
			t := target{body: incrementBody}
			for _, name := range c.objects {
				t.subjects = append(t.subjects, ns.Send(c.class, wire.Escape(name), incrementMethod))
			}
			t.answered = acked
			return t
		}
		figure := &runner{
			system: sys,
			run: func(ctx context.Context, long time.Duration) (Load, error) {
				began := time.Now()
				l, err := cs.run(ctx, callers, send(wire.DefaultNamespace, func(object int, ack []byte) {
					c.acked[object].Add(1)
					last.note(object, ack)
				}), long)
				if err != nil {
					return l, err
				}
				err = sys.drained(ctx, last)
				l.Took = time.Since(began)
				return l, err
			},
			check: func(ctx context.Context) (int, error) { return c.check(ctx, cs, b.Callers) },
		}
		raw := send(pipeSpace, nil)
		return b.alternate(ctx, r, figure, &runner{system: sys, run: func(ctx context.Context, long time.Duration) (Load, error) {
			return cs.run(ctx, callers, raw, long)
		}}, Load.Rate)
	}}
}

// inboxes are how far the partitions of a system have answered messages.
func (s *process) inboxes(ctx context.Context) ([]engine.InboxStatus, error) {
	m, err := s.conns[0].RequestWithContext(ctx, wire.DefaultNamespace.Admin("status"), nil)
	if err != nil {
		return nil, err
	}
	var st engine.Status
	if err := json.Unmarshal(m.Data, &st); err != nil {
		return nil, err
	}
	var list []engine.InboxStatus
	for _, p := range st.Owned {
		list = append(list, p.Inbox)
	}
	return list, nil
}

// ends are the last messages that were acknowledged, by slot.
type ends struct {
	slots []int // of the objects
	last  [wire.Slots]atomic.Uint64
}

func newEnds(c *counts) *ends {
	e := &ends{slots: make([]int, len(c.objects))}
	for i, name := range c.objects {
		e.slots[i] = wire.Slot(c.class, wire.Escape(name))
	}
	return e
}

// note takes an acknowledgement.
func (e *ends) note(object int, data []byte) {
	ack, err := jetstream.ParseAck(data)
	if err != nil {
		return // the caller is told of a refusal
	}
	for slot, n := &e.last[e.slots[object]], uint64(ack.Seq); ; {
		was := slot.Load()
		if n <= was || slot.CompareAndSwap(was, n) {
			return
		}
	}
}

// drained waits until all these messages are answered.
func (s *process) drained(ctx context.Context, e *ends) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := s.inboxes(ctx)
		if err != nil {
			return err
		}
		done := true
		for slot := range e.last {
			i := now[wire.Partition(slot, len(now))]
			done = done && i.Held == 0 && uint64(i.Cursor) >= e.last[slot].Load()
		}
		if done {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

const (
	lagRate    = 1000 // messages a second
	lagFor     = 3 * time.Second
	lagObjects = 100
)

// sendLag is how long a message takes from when it is stored until its turn begins, under a steady load.
func sendLag(sync string) func(b *bench, ctx context.Context, r *Row) error {
	return func(b *bench, ctx context.Context, r *Row) error {
		sys, cs, err := b.system(ctx, sync)
		if err != nil {
			return err
		}
		c := newCounts(names(r.Name, lagObjects))
		if _, err := cs.each(ctx, b.Callers, c.increments()); err != nil {
			return err
		}
		tick := time.NewTicker(time.Second / lagRate)
		defer tick.Stop()
		n := int(lagRate * lagFor.Seconds())
		last := newEnds(c)
		for i := range n {
			<-tick.C
			object := i % lagObjects
			subject := wire.DefaultNamespace.Send(c.class, wire.Escape(c.objects[object]), incrementMethod)
			if i < n-lagObjects {
				if err := sys.conns[0].Publish(subject, incrementBody); err != nil {
					return err
				}
			} else { // the last of each object: it tells where that is
				m, err := sys.conns[0].RequestWithContext(ctx, subject, incrementBody)
				if err != nil {
					return err
				}
				last.note(object, m.Data)
			}
			c.acked[object].Add(1)
		}
		if err := sys.drained(ctx, last); err != nil {
			return err
		}
		lags, err := sys.lags(ctx, c)
		if err != nil {
			return err
		}
		slices.Sort(lags)
		r.Calls, r.Rounds = len(lags), []Round{{Measured: micros(percentile(lags, 0.99))}}
		r.Note = fmt.Sprintf("median %s µs, at %d messages/s", Number(math.Round(micros(percentile(lags, 0.5)))), lagRate)
		r.Checked, err = c.check(ctx, cs, b.Callers)
		return err
	}
}

// lags are those of all messages that objects have answered, by their journals.
func (s *process) lags(ctx context.Context, c *counts) (lags []time.Duration, err error) {
	for _, name := range c.objects {
		q, _ := json.Marshal(map[string]any{"class": c.class, "name": name}) // two strings
		m, err := s.conns[0].RequestWithContext(ctx, wire.DefaultNamespace.Admin("journal"), q)
		if err != nil {
			return nil, err
		}
		var page struct{ Entries []engine.JournalEntry }
		if err := json.Unmarshal(m.Data, &page); err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			if e.Inbox != nil {
				lags = append(lags, max(0, e.At.Sub(e.Inbox.At)))
			}
		}
	}
	return lags, nil
}

// drain is the rate at which a backlog of n messages to so many objects is applied after a start: they were published while
// no worker ran. Its memory is bounded, however many they are.
func drain(n, objects int) func(b *bench, ctx context.Context, r *Row) error {
	return func(b *bench, ctx context.Context, r *Row) error {
		return b.own(ctx, r.Name, func(s *process) error {
			if err := s.begin(ctx); err != nil { // which makes the streams
				return err
			}
			s.kill()
			c := newCounts(names(r.Name, objects))
			accepted, err := backlog(ctx, filepath.Join(s.dir, "nats"), c, n)
			if err != nil {
				return err
			}
			began := time.Now()
			if err := s.begin(ctx); err != nil {
				return err
			}
			if _, err := s.connect(b.Connections); err != nil {
				return err
			}
			first, most, err := s.watchDrain(ctx, began, n)
			if err != nil {
				return err
			}
			took := time.Since(began)
			r.Calls, r.Rounds = n, []Round{{Measured: float64(n) / took.Seconds(), Yardstick: accepted}}
			r.Note = fmt.Sprintf("the first one was applied %s ms after the start; at most %s MiB resident", Number(math.Round(millis(first))), Number(float64(most>>20)))
			cs, err := b.callers(s)
			if err != nil {
				return err
			}
			r.Checked, err = c.check(ctx, cs, b.Callers)
			return err
		}, "--sync", relaxed)
	}
}

// watchDrain waits until n messages are answered; first is when the first ones were, most what the process had in memory.
func (s *process) watchDrain(ctx context.Context, began time.Time, n int) (first time.Duration, most int64, err error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := s.inboxes(ctx)
		if err != nil {
			return first, most, err
		}
		done := journal.Seq(0)
		idle := true
		for _, i := range list {
			done = max(done, i.Cursor)
			idle = idle && i.Open == 0 && i.Held == 0
		}
		if first == 0 && done > 0 {
			first = time.Since(began)
		}
		if m, err := s.resident(); err == nil {
			most = max(most, m)
		}
		if idle && int(done) >= n {
			return first, most, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return first, most, context.Cause(ctx)
		}
	}
}

// backlog publishes n messages to the inbox of a server without a worker, and tells how many it took a second.
func backlog(ctx context.Context, dir string, c *counts, n int) (rate float64, err error) {
	server, err := embed.Start(embed.Options{Dir: dir, SyncInterval: 100 * time.Millisecond})
	if err != nil {
		return 0, err
	}
	defer server.Shutdown()
	nc, err := nats.Connect("", server.InProcess())
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := natsjs.New(nc, natsjs.WithPublishAsyncMaxPending(4096))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	for i := range n {
		object := i % len(c.objects)
		if _, err := js.PublishAsync(wire.DefaultNamespace.Send(c.class, wire.Escape(c.objects[object]), incrementMethod), incrementBody, natsjs.WithStallWait(callTimeout)); err != nil {
			return 0, err
		}
		c.acked[object].Add(1)
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
