package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
)

// tally counts what an observer is told.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
	took   map[string]time.Duration
}

func (c *tally) note(what string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
	c.took[what] += took
}

func (c *tally) of(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[what]
}

// watch has a tally told of a worker.
func (c *tally) watch(cfg *Config) {
	c.counts, c.took = map[string]int{}, map[string]time.Duration{}
	timed := func(what string) func(time.Duration) { return func(d time.Duration) { c.note(what, d) } }
	cfg.Observe = Observer{
		Gate: timed("gate"), Append: timed("append"), Begun: timed("begun"), HandedOver: timed("handed over"), Renewed: timed("renewed"),
		Wake: func(_ string, d time.Duration, records int) {
			c.note("wake", d)
			for range records {
				c.note("record", 0)
			}
		},
		Unstored:    func(o journal.Outcome) { c.note(o.String(), 0) },
		Stray:       func(m journal.Message) { c.note("stray "+string(m.Data), 0) },
		Incarnation: func(journal.Incarnation) { c.note("incarnation", 0) },
		Unrenewed:   func(error) { c.note("unrenewed", 0) },
		Ended:       func(e Ending) { c.note("ended "+string(e), 0) },
	}
}

func TestWhatAWorkerDoesIsTold(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	var told tally
	var mu sync.Mutex
	var session journal.Session
	w := world.worker("a", told.watch, func(c *Config) {
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			mu.Lock()
			defer mu.Unlock()
			session = s
			return s, err
		}
	})
	world.ready(w)
	want := func(what string, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%q %d times", what, n), func() bool { return told.of(what) == n })
	}
	name := namesIn(0, 1)[0]
	client := NewClient(w)
	do := func(method string) {
		t.Helper()
		r := Request{Class: "register", Name: name, Method: method}
		if method == "add" {
			r.Body = []byte("1")
		}
		if _, err := client.Do(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		do("add")
	}
	want("gate", 3)
	want("begun", worldPartitions)
	want("incarnation", 1)

	mu.Lock()
	session.Close()
	mu.Unlock()
	want("ended connection", worldPartitions)
	want("incarnation", 2)
	want("begun", 2*worldPartitions)
	do("value")
	if records, wakes := told.of("record"), told.of("wake"); records != 3 || wakes != 2 {
		t.Errorf("%d records replayed in %d wake-ups, want 3 in 2", records, wakes)
	}

	world.server.Publish("objects-0", journal.Message{Subject: w.ns.Journal("register", name), Data: []byte("foreign")})
	do("add")
	want("refused", 1)
	want("ended refused", 1)
	do("value")
	if told.of("stray foreign") == 0 {
		t.Error("a foreign message is not told")
	}

	meta := world.server.Session("objects", worldPartitions).Meta()
	eventually(t, "its lease is another's between two renewals", func() bool {
		l := must(readLeases(t.Context(), meta))(t)["a"]
		l.Nonce, l.Created = l.Nonce+1, 0
		_, err := meta.Put(t.Context(), leaseKey("a"), l.encode(), l.rev)
		return err == nil
	})
	want("unrenewed", 1)
	want("ended lease", worldPartitions)
	want("incarnation", 3)
	want("begun", 3*worldPartitions+1)

	w.Kill()
	want("ended killed", worldPartitions)
	told.mu.Lock()
	defer told.mu.Unlock()
	if told.counts["append"] < told.counts["gate"] || told.took["append"] <= 0 || told.took["gate"] <= 0 || told.took["begun"] <= 0 {
		t.Errorf("%v %v", told.counts, told.took)
	}
}

func TestAHandOverIsTold(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	var told tally
	a := world.worker("a", told.watch)
	world.ready(a)
	world.worker("b")
	eventually(t, "one partition is handed over", func() bool { return told.of("handed over") == 1 && told.of("ended released") == 1 })
	if s := a.Status(); s.Lease <= 0 || s.Lease > a.cfg.LeaseTerm {
		t.Errorf("the lease is good for %v", s.Lease)
	}
	a.Stop()
	if s := a.Status(); s.Lease != 0 {
		t.Errorf("it has stopped, and its lease is good for %v", s.Lease)
	}
	if told.of("ended released") != worldPartitions {
		t.Errorf("%v", told.counts)
	}
}

func TestEveryEndHasACause(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cause error
		want  Ending
	}{
		{errStopped, EndReleased},
		{fmt.Errorf("append at 7: %w: %w", unstored(journal.Refused), journal.ErrConflict), EndRefused},
		{fmt.Errorf("append at 7: %w: %w", unstored(journal.Unknown), context.DeadlineExceeded), EndUnknown},
		{fmt.Errorf("append: %w within 1s", errNoAnswer), EndUnknown},
		{fmt.Errorf("%w: a newer epoch is in the journal", errEpochOver), EndFollowed},
		{&journal.WentBackError{}, EndWentBack},
		{errNoLease, EndLease},
		{context.Canceled, EndOther},
	} {
		if got := ending(c.cause); got != c.want {
			t.Errorf("%v is %q, want %q", c.cause, got, c.want)
		}
	}
}
