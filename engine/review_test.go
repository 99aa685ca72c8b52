package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// 1. A change that was sent is never said not to have happened.
func TestSentIsUnknownWhateverElseWaits(t *testing.T) {
	t.Parallel()
	plan := &journaltest.Plan{Append: func(int, int) journaltest.Fault { return journaltest.Hold }}
	w := newServer(t)
	worker := w.worker("w", func(c *Config) {
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return journaltest.Faulty(s, plan), err
		}
	})
	w.ready(worker)
	ask := func(id string) chan error {
		c := make(chan error, 1)
		worker.submit(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), ID: id}, func(_ Reply, err error) { c <- err })
		return c
	}
	first := ask("1")
	eventually(t, "sent", func() bool { return plan.Held() == 1 })
	second := ask("2")
	eventually(t, "sent", func() bool { return plan.Held() == 2 })
	o := residentObject(worker, "register", "a")
	repeat := ask("1")
	eventually(t, "all wait", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.waiters) == 3 })
	o.ep.end(errors.New("test"))
	wantCode(t, <-first, UnknownOutcome)
	if err := <-repeat; !errors.Is(err, UnknownOutcome) {
		t.Errorf("the repeat of a change that was sent: %v", err)
	}
	if err := <-second; !errors.Is(err, UnknownOutcome) {
		t.Errorf("a change that was sent: %v", err)
	}
}

// 2. What a client says after its last try must cover the tries before.
type scripted struct {
	n    atomic.Int64
	errs []error
}

func (s *scripted) Do(context.Context, Request) (Reply, error) {
	n := int(s.n.Add(1)) - 1
	return Reply{}, s.errs[min(n, len(s.errs)-1)]
}

func TestAClientRemembersThatATryHadAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, later := range []error{unavailable(errEpochOver), Errorf(Timeout, "not begun by its deadline"), Errorf(Overloaded, "x")} {
		c := NewClient(&scripted{errs: []error{Errorf(UnknownOutcome, "sent"), later}})
		_, err := c.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Limit: 100 * time.Millisecond})
		if !errors.Is(err, UnknownOutcome) {
			t.Errorf("then %v: the caller is told %v", later, err)
		}
	}
}

// 4. time
func back(t time.Time, sec uint64) time.Time {
	p := (*struct {
		wall uint64
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	p.wall -= sec << 30
	return t
}

type stepClock struct {
	machineClock
	back atomic.Uint64
}

func (c *stepClock) Now() time.Time { return back(time.Now(), c.back.Load()) }

func TestAWallClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	clock := &stepClock{}
	worker := w.worker("w", func(c *Config) { c.Clock = clock })
	w.ready(worker)
	start := time.Now().Round(0)
	sess := func(n uint64, sender string, d time.Duration) Request {
		dl := start.Add(d)
		return Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), Deadline: dl,
			Session: &SessionNumber{Sender: strings.Repeat(sender, 16), N: n, M: 1, Deadline: dl}}
	}
	must(worker.Do(t.Context(), sess(1, "ab", 2*time.Second)))(t)
	eventually(t, "past", func() bool { return time.Since(start) > 2500*time.Millisecond })
	must(worker.Do(t.Context(), sess(1, "cd", time.Minute)))(t) // recorded time is beyond the first one's deadline
	clock.back.Store(2)
	must(worker.Do(t.Context(), sess(2, "cd", time.Minute)))(t) // recorded with an earlier time
	r, err := worker.Do(t.Context(), sess(1, "ab", 2*time.Second))
	t.Logf("copy: %s replayed %v, %v", r.Body, r.Replayed, err)
	clock.back.Store(2)
	es, _, _ := worker.Journal(t.Context(), "register", "a", 0, 0)
	for i := 1; i < len(es); i++ {
		if es[i].At.Before(es[i-1].At) {
			t.Errorf("version %d is at %v, version %d before it at %v", es[i].Version, es[i].At, es[i-1].Version, es[i-1].At)
		}
	}
}

// forced double
func TestAWallClockThatIsSetBackDoubles(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	clock := &stepClock{}
	worker := w.worker("w", func(c *Config) { c.Clock = clock })
	w.ready(worker)
	start := time.Now().Round(0)
	sess := func(n uint64, sender string, d time.Duration) Request {
		dl := start.Add(d)
		return Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), Deadline: dl,
			Session: &SessionNumber{Sender: strings.Repeat(sender, 16), N: n, M: 1, Deadline: dl}}
	}
	must(worker.Do(t.Context(), sess(1, "ab", 2*time.Second)))(t)
	eventually(t, "past", func() bool { return time.Since(start) > 2500*time.Millisecond })
	must(worker.Do(t.Context(), sess(1, "cd", time.Minute)))(t) // recorded beyond ab's deadline
	must(worker.Do(t.Context(), func() Request { r := sess(9, "ab", time.Minute); r.Method = "peek"; r.Body = nil; return r }()))(t)
	// any flush (eviction, 64 KiB) or full window forgets ab now
	o := residentObject(worker, "register", "a")
	done := make(chan struct{})
	o.chore(func() { o.mu.Lock(); at := o.acked; o.mu.Unlock(); o.flush(at, nil); close(done) })
	<-done
	clock.back.Store(2)
	must(worker.Do(t.Context(), sess(2, "cd", time.Minute)))(t)
	r, err := worker.Do(t.Context(), sess(1, "ab", 2*time.Second))
	if err == nil && !r.Replayed {
		t.Errorf("a copy of a request that was applied ran again: %s at %d", r.Body, r.Version)
	}
	t.Logf("%v %v", r, err)
}

// 5. evict with failed flush
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

// 6. late flush of a former epoch
type lateStore struct {
	snapshot.Store
	armed atomic.Bool
	in    chan struct{}
	go_   chan struct{}
	done  chan struct{}
}

func (s *lateStore) Apply(id snapshot.ID, b snapshot.Batch) error {
	if s.armed.CompareAndSwap(true, false) {
		close(s.in)
		<-s.go_
		defer close(s.done)
	}
	return s.Store.Apply(id, b)
}

func TestALateFlushOfAFormerEpochDoesNotOverwriteALaterOne(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := &lateStore{Store: snapshot.NewMemory(), in: make(chan struct{}), go_: make(chan struct{}), done: make(chan struct{})}
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.ready(worker)
	w.add(worker, "a") // 1
	flush := func(o *object) chan struct{} {
		done := make(chan struct{})
		o.chore(func() { o.mu.Lock(); at := o.acked; o.mu.Unlock(); o.flush(at, nil); close(done) })
		return done
	}
	o := residentObject(worker, "register", "a")
	store.armed.Store(true)
	flush(o)
	<-store.in
	o.ep.end(errors.New("test"))
	client := NewClient(worker)
	added := make(chan struct{})
	go func() {
		defer close(added)
		for range 4 {
			if _, err := client.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}); err != nil {
				t.Error(err)
			}
		}
		<-flush(residentObject(worker, "register", "a"))
	}()
	select {
	case <-added: // the next epoch has not waited for the write that is under way
	case <-time.After(time.Second):
	}
	close(store.go_)
	<-store.done
	<-added
	if r := must(client.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t); string(r.Body) != "6" {
		t.Errorf("six were added one by one and acknowledged; the sum is %s at version %d", r.Body, r.Version)
	}
}

// 7. an epoch record is lost in a hole
func TestALostEpochRecordIsDamage(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	for range 3 { // three lives, each with an epoch and one change
		worker := w.worker("w")
		w.add(worker, "a")
		worker.Stop()
	}
	s := stream(registers.Get("a"))
	p := partitionOf("register", "a")
	n := 0
	for _, m := range w.server.Messages(s) {
		r, err := journal.DecodeEpoch(m.Data)
		if m.Subject == wire.DefaultNamespace.Epoch(p) && err == nil && !r.Release {
			if n++; n == 3 {
				defer func() {}()
				w.server.Remove(s, m.Seq)
			}
		}
	}
	// a further life, so that the witness names a later epoch: first put it back? see variant below
	worker := w.worker("w")
	eventually(t, "ready or alarm", func() bool { return worker.Ready() == nil || strings.Contains(worker.Ready().Error(), "went back") })
	t.Log(worker.Ready())
}

func TestALostFormerEpochRecordIsDamage(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	for range 2 {
		worker := w.worker("w")
		w.add(worker, "a")
		worker.Stop()
	}
	worker := w.worker("w") // a third epoch; nothing of "a" in it
	w.ready(worker)
	worker.Stop()
	s := stream(registers.Get("a"))
	p := partitionOf("register", "a")
	n := 0
	for _, m := range w.server.Messages(s) {
		r, err := journal.DecodeEpoch(m.Data)
		if m.Subject == wire.DefaultNamespace.Epoch(p) && err == nil && !r.Release {
			if n++; n == 2 {
				w.server.Remove(s, m.Seq)
			}
		}
	}
	worker = w.worker("w")
	w.ready(worker)
	r, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
	if err == nil && string(r.Body) != "2" {
		t.Errorf("it reads %s at version %d; 2 was acknowledged", r.Body, r.Version)
	}
}

// 8. records lost, snapshot record there
func TestASnapshotWithoutItsRecordIsDamage(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	idle := registers
	idle.Limits.Idle = time.Millisecond
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{idle} })
	w.ready(worker)
	s := stream(registers.Get("a"))
	snaps := func() (n int) {
		for _, m := range w.server.Messages(s) {
			if m.Subject == wire.DefaultNamespace.Snap("register", "a") {
				n++
			}
		}
		return n
	}
	for range 30 {
		must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
	}
	eventually(t, "snap", func() bool { return snaps() > 0 })
	worker.Stop()
	for _, m := range w.server.Messages(s) {
		if m.Subject == wire.DefaultNamespace.Journal("register", "a") {
			w.server.Remove(s, m.Seq)
		}
	}
	worker = w.worker("w", func(c *Config) { c.Classes = []AnyClass{idle} })
	w.ready(worker)
	r, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
	if err == nil && string(r.Body) != "30" {
		t.Errorf("it reads %s at version %d; 30 were acknowledged", r.Body, r.Version)
	}
	r, err = worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")})
	t.Logf("%s %v %v", r.Body, r.Version, err)
}

// 9.
func TestARecordIsNeverLargerThanTheServerTakes(t *testing.T) {
	t.Parallel()
	o := &object{ep: &epoch{recordMax: 48 << 10}}
	for v := range 4 {
		c := &commit{version: journal.Version(v + 1), Commit: journal.Commit{At: time.Now()}}
		c.encoded = []byte(`{"changes":[],"x":"` + strings.Repeat("x", 20<<10) + `"`)
		o.pending = append(o.pending, c)
	}
	if r, data := o.takeRecord(nil); len(data) > o.ep.recordMax {
		t.Errorf("%d commits in a record of %d bytes; the server takes %d", len(r.commits), len(data), o.ep.recordMax)
	}
}

// 10.
func TestAMarkOfTheRequestItselfCounts(t *testing.T) {
	t.Parallel()
	o := newOnce(Limits{KeepIDs: time.Hour, KeepIDsMax: 10})
	store, now := snapshot.NewMemory(), time.Now()
	for n := range uint64(unansweredMax) {
		o.add(&commit{version: journal.Version(n + 1), Commit: journal.Commit{At: now, Session: &SessionNumber{Sender: "s", N: n + 1, M: 1, Deadline: now.Add(time.Minute)}}})
	}
	r := &Request{Session: &SessionNumber{Sender: "s", N: unansweredMax + 1, M: unansweredMax + 1, Deadline: now.Add(time.Minute)}}
	if _, err := o.find(store, "r.a", r, journal.Hash{}, now, now); err != nil {
		t.Errorf("it confirms all answers, and is refused: %v", err)
	}
}

func TestAFullWindowEmptiesWithTime(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	clock := &testClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	worker := w.worker("w", func(c *Config) { c.Clock = clock })
	w.ready(worker)
	w.add(worker, "a")
	o := residentObject(worker, "register", "a")
	done := make(chan struct{})
	o.chore(func() {
		for n := range keptMax { // as many one-shot clients
			name := fmt.Sprintf("%032x", n)
			o.state.once.senders[name] = &sender{M: 1, Deadline: clock.Now().Add(30 * time.Second), Answers: map[uint64]*answer{1: {}}}
			o.state.once.kept++
		}
		close(done)
	})
	<-done
	clock.advance(24 * time.Hour) // all of them are long gone
	dl := clock.Now().Add(time.Minute)
	for i := range 3 {
		_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), Deadline: dl,
			Session: &SessionNumber{Sender: strings.Repeat("f0", 16), N: 1, M: 1, Deadline: dl}})
		if err != nil {
			t.Errorf("try %d, a day after the last deadline: %v", i, err)
		}
	}
}

// 12. a Behavior
type script struct{ b Behavior }

func (s script) Bind() (*Behavior, error) { return &s.b, nil }

type scriptAct struct{}

func (scriptAct) Invoke(ctx *Ctx, method string, in []byte) ([]byte, error) {
	ctx.Raw().Put("k", []byte("1"))
	return in, nil
}
func (scriptAct) Apply(string, []byte) error { return nil }
func (scriptAct) State() ([]byte, error)     { return nil, nil }
func (scriptAct) Hooks() any                 { return nil }

func TestAReplyThatIsNoJSONDoesNotBreakTheObject(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	js := script{Behavior{Name: "js", Methods: map[string]Method{"set": {}}, Activate: func([]byte) (Activation, error) { return scriptAct{}, nil }}}
	how := func(c *Config) { c.Classes = []AnyClass{js} }
	worker := w.worker("w", how)
	w.ready(worker)
	_, err := worker.Do(t.Context(), Request{Class: "js", Name: "a", Method: "set", Body: []byte("undefined")})
	t.Logf("first: %v", err)
	worker.Kill()
	worker = w.worker("w", how)
	w.ready(worker)
	if _, err := worker.Do(t.Context(), Request{Class: "js", Name: "a", Method: "set", Body: []byte("1")}); err != nil {
		t.Error(err)
	}
}

// 13. store used after Run
type closedStore struct {
	snapshot.Store
	closed atomic.Bool
	late   atomic.Int64
	hold   chan struct{}
	in     chan struct{}
	once   sync.Once
}

func (s *closedStore) Apply(id snapshot.ID, b snapshot.Batch) error {
	s.once.Do(func() { close(s.in); <-s.hold })
	if s.closed.Load() {
		s.late.Add(1)
	}
	return s.Store.Apply(id, b)
}

func TestNothingUsesTheStoreAfterRun(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := &closedStore{Store: snapshot.NewMemory(), hold: make(chan struct{}), in: make(chan struct{})}
	worker := w.worker("w", func(c *Config) { c.Store = store })
	w.ready(worker)
	w.add(worker, "a")
	o := residentObject(worker, "register", "a")
	done := make(chan struct{})
	o.chore(func() { o.evict(); close(done) })
	<-store.in
	killed := make(chan struct{})
	go func() { worker.Kill(); store.closed.Store(true); close(killed) }()
	select {
	case <-killed:
	case <-time.After(3 * time.Second):
	}
	close(store.hold)
	<-done
	<-killed
	if n := store.late.Load(); n > 0 {
		t.Errorf("%d uses of the store after Run has returned", n)
	}
}
