package engine

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
)

// disk is a Durable that a test can hold: "acknowledged" and "durable" are not the same.
type disk struct {
	mu      sync.Mutex
	held    []func()
	holding bool
}

func (d *disk) durable(_ string, _ journal.Seq, open func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holding {
		d.held = append(d.held, open)
		return
	}
	open()
}

func (d *disk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.holding = true
}

func (d *disk) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.held)
}

// release lets all go, in order.
func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, open := range d.held {
		open()
	}
	d.held, d.holding = nil, false
}

// notYet fails if something comes that must wait.
func notYet[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case v := <-c:
		t.Fatalf("%s did not wait: %v", what, v)
	case <-time.After(50 * time.Millisecond):
	}
}

// held starts a worker with an object that has one change that is durable, and one that is acknowledged only.
func held(t *testing.T) (*Worker, *disk, *epoch, <-chan error) {
	w := newServer(t)
	d := &disk{}
	worker := w.worker("w", func(c *Config) { c.Durable = d.durable })
	w.add(worker, "a")
	eventually(t, "the list is complete", func() bool {
		_, _, err := worker.Objects(t.Context(), "register", "", "", 0)
		return err == nil
	})
	ep := worker.epochs[partitionOf("register", "a")].Load()
	low := ep.committer.lasting()
	d.hold()
	added := make(chan error, 1)
	worker.submit(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}, func(_ Reply, err error) { added <- err })
	eventually(t, "acknowledged", func() bool { return ep.committer.high() > low && d.waiting() == 1 })
	if ep.committer.lasting() != low {
		t.Errorf("%d is durable; want %d", ep.committer.lasting(), low)
	}
	return worker, d, ep, added
}

// TestNobodySeesWhatAPowerCutCouldTake: not those who look, and not the witness.
func TestNobodySeesWhatAPowerCutCouldTake(t *testing.T) {
	t.Parallel()
	worker, d, ep, added := held(t)
	if err := ep.ses.witness(ep); err != nil {
		t.Error(err)
	}
	low := ep.committer.lasting()
	if known, _, err := journal.ReadWitness(t.Context(), ep.ses.js.Meta(), ep.p); err != nil || known.Acked > low {
		t.Errorf("the witness knows of %d, which may go; durable is %d (%v)", known.Acked, low, err)
	}
	states, journals, lists := make(chan journal.Version, 1), make(chan int, 1), make(chan int, 1)
	go func() {
		s, err := worker.State(t.Context(), "register", "a")
		if err != nil {
			t.Error(err)
		}
		states <- s.Version
	}()
	go func() {
		entries, _, err := worker.Journal(t.Context(), "register", "a", 0, 0)
		if err != nil {
			t.Error(err)
		}
		journals <- len(entries)
	}()
	go func() {
		list, _, err := worker.Objects(t.Context(), "register", "", "", 0)
		if err != nil {
			t.Error(err)
		}
		lists <- len(list)
	}()
	notYet(t, "state", states)
	notYet(t, "journal", journals)
	notYet(t, "list", lists)
	notYet(t, "the caller", added)
	d.release()
	if v := <-states; v != 2 {
		t.Errorf("the state is of version %d", v)
	}
	if n := <-journals; n != 2 {
		t.Errorf("%d entries", n)
	}
	if n := <-lists; n != 1 {
		t.Errorf("%d objects", n)
	}
	if err := <-added; err != nil {
		t.Error(err)
	}
}

// TestAnEpochBeginsWithWhatAPowerCutCannotTake: what the one before it had acknowledged is durable before it is read.
func TestAnEpochBeginsWithWhatAPowerCutCannotTake(t *testing.T) {
	t.Parallel()
	worker, d, ep, added := held(t)
	ep.end(errors.New("test"))
	wantCode(t, <-added, UnknownOutcome)
	read := make(chan string, 1)
	go func() {
		r, err := NewClient(worker).Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
		if err != nil {
			t.Error(err)
		}
		read <- string(r.Body)
	}()
	eventually(t, "the next fence waits for the disk", func() bool { return d.waiting() == 2 })
	notYet(t, "the next epoch", read)
	d.release()
	if got := <-read; got != "2" {
		t.Errorf("the next epoch reads %s", got)
	}
}
