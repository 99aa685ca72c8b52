package engine

import (
	"testing"
	"testing/synctest"
	"time"
)

// patient waits for the end of its turn, and counts in memory how often.
type patient struct{ waited int }

func (p *patient) Wait(ctx *Ctx, _ None) (None, error) {
	p.waited++
	<-ctx.Done()
	return nil, ctx.Err()
}

func (p *patient) Waited(View, None) (int, error) { return p.waited, nil }

func (p *patient) Change(ctx *Ctx, _ None) (None, error) { Key[int]("n").Put(ctx, 1); return nil, nil }

// Ask calls another object, for so long.
func (p *patient) Ask(ctx *Ctx, limit time.Duration) (None, error) {
	return Call(ctx, Ref[*patient]{"patient", "other"}, (*patient).Change, nil, Limit(limit))
}

// patients is a worker in a bubble, whose changes are durable when the disk says so.
func patients(t *testing.T, d *disk) *Worker {
	w := newServer(t)
	worker := w.worker("w", func(c *Config) {
		c.Clock, c.Durable = &simClock{began: time.Now()}, d.durable
		c.Classes = []AnyClass{Class[patient]{Name: "patient", Limits: Limits{Turn: 20 * time.Millisecond, Idle: time.Hour}}}
	})
	w.ready(worker)
	return worker
}

// TestAMethodThatMindsItsContextIsNotGivenUp: it ends by itself when the turn's time is over, and its activation stays.
func TestAMethodThatMindsItsContextIsNotGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		worker := patients(t, &disk{})
		for range 20 {
			began := time.Now()
			_, err := worker.Do(t.Context(), Request{Class: "patient", Name: "a", Method: "wait"})
			wantCode(t, err, Timeout, "nothing changed")
			if took := time.Since(began); took != 20*time.Millisecond {
				t.Fatalf("took %v", took)
			}
		}
		if r := must(worker.Do(t.Context(), Request{Class: "patient", Name: "a", Method: "waited"}))(t); string(r.Body) != "20" {
			t.Errorf("waited %s times; want 20", r.Body)
		}
	})
}

// TestACallFromATurnWaitsNoLongerThanItsLimit, for the changes of its own object as well.
func TestACallFromATurnWaitsNoLongerThanItsLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		worker := patients(t, d)
		must(worker.Do(t.Context(), Request{Class: "patient", Name: "a", Method: "change"}))(t)
		d.hold()
		worker.submit(t.Context(), Request{Class: "patient", Name: "a", Method: "change"}, func(Reply, error) {})
		asked, began := make(chan error, 1), time.Now()
		worker.submit(t.Context(), Request{Class: "patient", Name: "a", Method: "ask", Body: []byte("5000000")}, func(_ Reply, err error) { asked <- err })
		o := residentObject(worker, "patient", "a")
		eventually(t, "the turn is over", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return !o.running })
		if took := time.Since(began); took < 5*time.Millisecond || took > 7*time.Millisecond {
			t.Errorf("took %v; want 5ms", took)
		}
		d.release()
		wantCode(t, <-asked, Timeout, "earlier changes")
	})
}
