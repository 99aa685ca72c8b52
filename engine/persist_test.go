package engine

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// failingStore is a store whose disk is full on demand.
type failingStore struct {
	snapshot.Store
	fail atomic.Bool
}

func (s *failingStore) Apply(id snapshot.ID, b snapshot.Batch) error {
	if s.fail.Load() {
		return errors.New("no space left")
	}
	return s.Store.Apply(id, b)
}

// TestAnIdleObjectRests: its commits go into the store, its activation stays, and it is no less idle for that.
func TestAnIdleObjectRests(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	w.add(worker, "a")
	o := residentObject(worker, "register", "a")
	var before time.Duration
	eventually(t, "idle", func() (ok bool) { before, _, ok = o.idle(); return ok })
	done := make(chan struct{})
	o.chore(func() {
		o.rest()
		if o.act == nil || len(o.state.tail) > 0 || o.state.base.Version != 1 {
			t.Errorf("at rest: activation %v, %d commits in memory, the store is at version %d", o.act, len(o.state.tail), o.state.base.Version)
		}
		close(done)
	})
	<-done
	eventually(t, "idle", func() bool { _, _, ok := o.idle(); return ok })
	if since, worn, _ := o.idle(); since != before || worn {
		t.Errorf("idle since %v, and at rest since %v; there is more to let go of: %v", before, since, worn)
	}
	if r := w.add(worker, "a"); string(r.Body) != "2" {
		t.Errorf("%s after 1 and a rest and 1", r.Body)
	}
	if residentObject(worker, "register", "a") != o {
		t.Error("it left memory")
	}
}

func TestAnObjectThatCannotBeFlushedStaysInMemory(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := &failingStore{Store: snapshot.NewMemory()}
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.ready(worker)
	w.add(worker, "a")
	evict := func() bool {
		o := residentObject(worker, "register", "a")
		done := make(chan struct{})
		o.chore(func() { o.evict(); close(done) })
		<-done
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.gone
	}
	if !evict() {
		t.Fatal("not evicted")
	}
	w.add(worker, "a")
	o := residentObject(worker, "register", "a")
	ep := o.ep
	store.fail.Store(true)
	done := make(chan struct{})
	left := false
	o.chore(func() {
		defer close(done)
		o.evict()
		o.mu.Lock()
		defer o.mu.Unlock()
		left = o.gone && !ep.over.Load()
	})
	<-done
	// The store's error ends the epoch, which drops the object; until then it must stay, since the store has an older
	// state under the same epoch. An epoch is over before it drops, so this is read in that order.
	o.mu.Lock()
	gone := o.gone
	o.mu.Unlock()
	if gone && !ep.over.Load() || left {
		t.Error("it left memory, and the store does not have what was acknowledged")
	}
}

// flushNow writes an object's state into the store, as its runner; the channel is closed when that is done.
func flushNow(o *object) chan struct{} {
	done := make(chan struct{})
	o.chore(func() {
		defer close(done)
		o.mu.Lock()
		at := o.acked
		o.mu.Unlock()
		o.flush(at, nil)
	})
	return done
}

// slowStore holds the first batch up that comes when it is armed, and counts those that come when it is closed.
type slowStore struct {
	snapshot.Store
	armed, closed atomic.Bool
	late          atomic.Int64
	in, hold      chan struct{}
	done          chan struct{}
}

func newSlowStore() *slowStore {
	return &slowStore{Store: snapshot.NewMemory(), in: make(chan struct{}), hold: make(chan struct{}), done: make(chan struct{})}
}

func (s *slowStore) Apply(id snapshot.ID, b snapshot.Batch) error {
	if s.armed.CompareAndSwap(true, false) {
		close(s.in)
		<-s.hold
		defer close(s.done)
	}
	if s.closed.Load() {
		s.late.Add(1)
	}
	return s.Store.Apply(id, b)
}

// TestALateFlushOfAFormerEpochDoesNotOverwriteALaterOne: the next epoch begins when what the former one was writing is
// written; otherwise it would read the former's values below its own.
func TestALateFlushOfAFormerEpochDoesNotOverwriteALaterOne(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := newSlowStore()
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.add(worker, "a")
	o := residentObject(worker, "register", "a")
	store.armed.Store(true)
	flushNow(o)
	<-store.in
	o.ep.end(errors.New("test"))
	client := NewClient(worker)
	add := Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}
	var adding sync.WaitGroup
	added := make(chan struct{})
	adding.Go(func() {
		for range 4 {
			if _, err := client.Do(t.Context(), add); err != nil {
				t.Error(err)
			}
		}
		<-flushNow(residentObject(worker, "register", "a"))
		close(added)
	})
	select {
	case <-added: // the next epoch did not wait: then the write lands on its state
	case <-time.After(time.Second):
	}
	close(store.hold)
	<-store.done
	adding.Wait()
	if r := must(client.Do(t.Context(), add))(t); string(r.Body) != "6" {
		t.Errorf("six were added one by one and acknowledged; the sum is %s at version %d", r.Body, r.Version)
	}
}

func TestNothingIsWrittenIntoTheStoreAfterRun(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := newSlowStore()
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.add(worker, "a")
	store.armed.Store(true)
	flushed := flushNow(residentObject(worker, "register", "a"))
	<-store.in
	killed := make(chan struct{})
	go func() {
		worker.Kill()
		store.closed.Store(true)
		close(killed)
	}()
	select {
	case <-killed: // Run did not wait
	case <-time.After(time.Second):
	}
	close(store.hold)
	<-flushed
	<-killed
	if n := store.late.Load(); n > 0 {
		t.Errorf("%d batches after Run has returned", n)
	}
}

// heldStore holds a read up when it is armed.
type heldStore struct {
	snapshot.Store
	armed    atomic.Bool
	in, hold chan struct{}
	reads    atomic.Int64
}

func newHeldStore() *heldStore {
	return &heldStore{Store: snapshot.NewMemory(), in: make(chan struct{}), hold: make(chan struct{})}
}

func (s *heldStore) Get(id snapshot.ID, space snapshot.Space, key string) ([]byte, error) {
	s.reads.Add(1)
	if s.armed.CompareAndSwap(true, false) {
		close(s.in)
		<-s.hold
	}
	return s.Store.Get(id, space, key)
}

// TestRunWaitsForWhatReadsTheStore: a store that is closed behind Run is not read any more.
func TestRunWaitsForWhatReadsTheStore(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := newHeldStore()
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.ready(worker)
	store.armed.Store(true)
	asked := make(chan error, 1)
	go func() { // it wakes the object, and that reads the store
		_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
		asked <- err
	}()
	<-store.in
	killed := make(chan struct{})
	go func() { worker.Kill(); close(killed) }()
	select {
	case <-killed:
		t.Error("Run has returned, and a replay still reads the store")
	case <-time.After(100 * time.Millisecond):
	}
	close(store.hold)
	<-killed
	wantCode(t, <-asked, Unavailable)
}

// TestATurnOfALostEpochReadsNothingMore: its method finds no state, and fails.
func TestATurnOfALostEpochReadsNothingMore(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := newHeldStore()
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.add(worker, "lost")
	o := residentObject(worker, "register", "lost")
	<-flushNow(o)
	began, release := block(t, "lost")
	asked := make(chan error, 1)
	go func() {
		_, err := worker.Do(t.Context(), Request{Class: "register", Name: "lost", Method: "block", Body: []byte("1")})
		asked <- err
	}()
	<-began
	worker.kill(errKilled)
	eventually(t, "the epoch is over", func() bool { return o.ep.over.Load() && isGone(o) })
	reads := store.reads.Load()
	close(release)
	wantCode(t, <-asked, Unavailable)
	worker.Kill()
	if n := store.reads.Load(); n != reads {
		t.Errorf("%d reads of the store by a turn whose epoch is over", n-reads)
	}
}

func isGone(o *object) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gone
}

func TestARecordIsNeverLargerThanTheServerTakes(t *testing.T) {
	t.Parallel()
	o := &object{ep: &epoch{recordMax: 48 << 10, committer: &committer{}}}
	for v := range 4 {
		c := &commit{version: journal.Version(v + 1), Commit: journal.Commit{At: time.Now()}}
		c.encoded = []byte(`{"changes":[],"x":"` + strings.Repeat("x", 20<<10) + `"`)
		o.pending = append(o.pending, c)
	}
	if r, data := o.takeRecord(nil); len(data) > o.ep.recordMax {
		t.Errorf("%d commits in a record of %d bytes; the server takes %d", len(r.commits), len(data), o.ep.recordMax)
	}
}

// frail is a class whose code outside of its methods panics when the test says so.
type frail struct{ N map[string]int }

type grown struct{ Key string }

var frailPanics atomic.Value // what panics

func (e grown) Apply(f *frail) {
	if f.N == nil && frailPanics.Load() != "Apply" {
		f.N = map[string]int{}
	}
	f.N[e.Key]++ // a version of the class that forgot the map
}

func (f *frail) MarshalJSON() ([]byte, error) {
	if frailPanics.Load() == "State" {
		panic("in State")
	}
	return []byte("{}"), nil
}

func (f *frail) UnmarshalJSON([]byte) error {
	if frailPanics.Load() == "Activate" {
		panic("in Activate")
	}
	return nil
}

var frails = Class[frail]{Name: "frail", Events: Events[frail]{"grown": grown{}}}

func (f *frail) Grow(ctx *Ctx, n int) (None, error) {
	for range n {
		Emit(ctx, f, grown{"k"})
	}
	return nil, nil
}

func (f *frail) Size(View, None) (int, error) { return len(f.N), nil }

func (f *frail) Bad(ctx *Ctx, n int) (None, error) {
	text.Put(ctx, strings.Repeat("x", n))
	ctx.OnCommit(func() { panic("in OnCommit") })
	return nil, nil
}

// TestAPanicOfAClassCostsItsObjectOnly, wherever in the class it is.
func TestAPanicOfAClassCostsItsObjectOnly(t *testing.T) { // not parallel: frail's code looks at one variable
	t.Cleanup(func() { frailPanics.Store("") })
	for _, where := range []string{"OnCommit", "State", "Apply", "Activate"} {
		t.Run(where, func(t *testing.T) {
			frailPanics.Store("")
			w := newServer(t)
			store := snapshot.NewMemory()
			how := func(c *Config) { c.Classes, c.Store = []AnyClass{frails, registers}, store }
			worker := w.worker("w", how)
			w.ready(worker)
			do := func(method, body string) error {
				_, err := worker.Do(t.Context(), Request{Class: "frail", Name: "a", Method: method, Body: []byte(body)})
				return err
			}
			if err := do("grow", "1"); err != nil {
				t.Fatal(err)
			}
			switch where {
			case "OnCommit":
				if err := do("bad", "70000"); err != nil { // large enough that its state is captured
					t.Errorf("the commit stands: %v", err)
				}
			case "State":
				frailPanics.Store(where)
				if err := do("grow", "5000"); err != nil { // likewise
					t.Errorf("the commit stands: %v", err)
				}
			case "Activate": // from what the store has
				worker.Stop()
				frailPanics.Store(where)
				worker = w.worker("w", how)
				w.ready(worker)
				wantStopped(t, do("size", ""))
			case "Apply": // from the journal
				worker.Kill()
				frailPanics.Store(where)
				store = snapshot.NewMemory()
				worker = w.worker("w", how)
				w.ready(worker)
				wantStopped(t, do("size", ""))
			}
			w.add(worker, "another")
		})
	}
}

func wantStopped(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Error("it is served")
	}
}

// TestARepeatIsKnownWhenTheStoreFails: what a write that failed was to write counts as written in memory. A worker that
// drains goes on for a while.
func TestARepeatIsKnownWhenTheStoreFails(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := &failingStore{Store: snapshot.NewMemory()}
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.ready(worker)
	name := t.Name()
	add := Request{Class: "register", Name: name, Method: "add", Body: []byte("1"), ID: "once"}
	must(worker.Do(t.Context(), add))(t)
	o := residentObject(worker, "register", name)
	pair := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	gates.Store(name, pair)
	worker.submit(context.Background(), Request{Class: "register", Name: name, Method: "block", Body: []byte("1")}, func(Reply, error) {})
	<-pair[0]
	answered := make(chan error, 1)
	worker.submit(context.Background(), add, func(_ Reply, err error) { answered <- err })
	store.fail.Store(true)
	o.chore(func() { // between the two turns
		o.mu.Lock()
		at := o.acked
		o.mu.Unlock()
		o.flush(at, nil)
	})
	close(pair[1])
	<-answered
	<-worker.ended
	n := 0
	for _, m := range w.server.Messages(stream(registers.Get(name))) {
		n += strings.Count(string(m.Data), `"id":"once"`)
	}
	if n != 1 {
		t.Errorf("the request is in the journal %d times", n)
	}
}
