// Package enginetest is the test kit for classes: the engine that runs in production over a journal in memory, with a
// clock that moves when told, and crashes on demand. After every turn that changed something it folds the object's
// events anew, and fails the test if the state differs: an exported field was changed outside of Apply. Behind the test it
// reads the journal as a stranger does (journal/verify), and fails it if a promise is broken.
//
//	func TestCountSurvivesCrash(t *testing.T) {
//		w := enginetest.New(t, Counters)
//		cart := Counters.Get("checkout-cart-99")
//		enginetest.Call(w, cart, (*Counter).Increment, By{})
//		w.Crash()
//		if n := enginetest.Read(w, cart, (*Counter).Value, nil); n != 1 {
//			t.Fatal(n)
//		}
//	}
package enginetest

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/boottime"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/journal/verify"
	"github.com/perdure/perdure/snapshot"
)

// partitions of a world: more than one, so that classes do not come to rely on one.
const partitions = 2

// World is where the classes under test live. It is an [engine.Env]: engine.Call(w, …) returns the error,
// enginetest.Call(w, …) fails the test instead. It is for the test's goroutine, but for calls, which any may make.
type World struct {
	engine.Env
	t       testing.TB
	classes []engine.AnyClass
	journal *journaltest.Memory
	clock   *clock
	store   *snapshot.Memory

	posted journal.Seq // the last message
	worker *engine.Worker
	client *engine.Client
	ran    chan error
}

// clock stands still until it is told to move; durations are real.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (*clock) Boot() time.Duration { return boottime.Now() }

// New starts the classes. What is wrong with them fails the test; everything ends with it.
func New(t testing.TB, classes ...engine.AnyClass) *World {
	t.Helper()
	w := &World{t: t, classes: classes, journal: journaltest.NewMemory(),
		clock: &clock{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}}
	w.journal.Now = w.clock.Now
	w.start(snapshot.NewMemory())
	t.Cleanup(func() {
		w.worker.Kill()
		w.verify()
	})
	return w
}

// verify reads the journal as a stranger does.
func (w *World) verify() {
	w.t.Helper()
	s := w.journal.Session(wire.DefaultNamespace, partitions)
	cfg := verify.Config{Partitions: partitions, Keep: map[string]verify.Keep{}}
	for _, class := range w.classes {
		if b, err := class.Bind(); err == nil {
			cfg.Keep[b.Name] = verify.Keep{For: b.Limits.KeepIDs, Max: b.Limits.KeepIDsMax}
		}
	}
	for cfg.Partition = range partitions {
		r, err := verify.Partition(context.Background(), s.Log(cfg.Partition), s.Meta(), cfg)
		if err != nil {
			w.t.Error(err)
		}
		for _, f := range r.Findings {
			w.t.Error(f)
		}
	}
}

func (w *World) start(store *snapshot.Memory) {
	w.t.Helper()
	w.store = store
	worker, err := engine.New(engine.Config{
		ID: "test", Partitions: partitions, Classes: w.classes, Store: store, Clock: w.clock,
		Connect: func(context.Context) (journal.Session, error) {
			return w.journal.Session(wire.DefaultNamespace, partitions), nil
		},
		CheckFold: func(err error) { w.t.Error(err) },
		Post:      w.post,
		SendRetry: time.Millisecond, // durations are real
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.worker, w.client = worker, engine.NewClient(worker)
	w.Env = w.client.With(w.t.Context())
	ran := make(chan error, 1)
	w.ran = ran
	go func() { ran <- worker.Run(context.Background()) }() // ends with Kill
}

// post stores a message as the inbox of a server does.
func (w *World) post(_ context.Context, r engine.Request) (journal.Seq, error) {
	header, err := r.Header()
	if err != nil {
		return 0, err
	}
	h := journal.Header{}
	for name, values := range header {
		h[name] = values[0]
	}
	w.posted = w.journal.Send(wire.DefaultNamespace, r.Class, wire.Escape(r.Name), r.Method, h, r.Body)
	return w.posted, nil
}

// Post is [engine.Post] for a message that must be stored. [World.Settle] waits until it was answered.
func Post[R, I, O any](w *World, to engine.Ref[R], m func(R, *engine.Ctx, I) (O, error), in I) {
	w.t.Helper()
	w.must(engine.Post(w, to, m, in))
}

// Settle waits until all messages are answered: applied, refused, or dead.
func (w *World) Settle() {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !w.quiet() {
		select {
		case <-tick.C:
		case <-w.Done():
			w.t.Fatal("messages wait")
		}
	}
}

func (w *World) quiet() bool {
	taken := journal.Seq(0)
	for _, p := range w.worker.Status().Owned {
		if p.Inbox.Open > 0 || p.Inbox.Held > 0 || !p.Owned {
			return false
		}
		taken = max(taken, p.Inbox.Taken)
	}
	return taken >= w.posted
}

// Dead are the messages that were given up, the oldest first.
func (w *World) Dead() (list []journal.DeadLetter) {
	w.t.Helper()
	for _, m := range w.journal.Messages(wire.DefaultNamespace.Inbox()) {
		if d, err := journal.DecodeDeadLetter(m.Data); err == nil && wire.DefaultNamespace.Dead(d.Class, d.Token, uint64(d.Seq)) == m.Subject {
			list = append(list, d)
		}
	}
	return list
}

// Advance moves the clock: what the next turns see as now.
func (w *World) Advance(d time.Duration) {
	w.clock.mu.Lock()
	defer w.clock.mu.Unlock()
	w.clock.now = w.clock.now.Add(d)
}

// Crash is kill -9, and a start on another machine: nothing is left but what the journal has.
func (w *World) Crash() {
	w.t.Helper()
	w.worker.Kill()
	w.start(snapshot.NewMemory())
}

// Restart is a clean stop and a start: objects leave memory through the snapshot store.
func (w *World) Restart() {
	w.t.Helper()
	w.worker.Stop()
	w.start(w.store)
}

// Call is [engine.Call] for a call that must succeed.
func Call[R, I, O any](w *World, to engine.Ref[R], m func(R, *engine.Ctx, I) (O, error), in I) O {
	w.t.Helper()
	out, err := engine.Call(w, to, m, in)
	w.must(err)
	return out
}

// Read is [engine.Read] for a read that must succeed.
func Read[R, I, O any](w *World, to engine.Ref[R], m func(R, engine.View, I) (O, error), in I) O {
	w.t.Helper()
	out, err := engine.Read(w, to, m, in)
	w.must(err)
	return out
}

// Fails is for a call that must fail with that code; it returns the error.
func Fails[R, I, O any](w *World, code engine.Code, to engine.Ref[R], m func(R, *engine.Ctx, I) (O, error), in I) *engine.Error {
	w.t.Helper()
	_, err := engine.Call(w, to, m, in)
	if !errors.Is(err, code) {
		w.t.Fatalf("want %s, got %v", code, err)
	}
	e, _ := errors.AsType[*engine.Error](err)
	return e
}

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// HTTP sends a request without a body to an object's OnHTTP and returns the status and the trimmed body. A refusal is
// the problem that the gateway would answer with.
func HTTP[R any](w *World, to engine.Ref[R], method, path string) (int, string) {
	rec := httptest.NewRecorder()
	engine.Fetch(w.Env, to, rec, httptest.NewRequestWithContext(w, method, path, nil))
	return rec.Code, strings.TrimSpace(rec.Body.String())
}

// Journal is what an object is made of, a change a line: "put count 3", "delete count", "event opened {…}".
func Journal[R any](w *World, of engine.Ref[R]) (lines []string) {
	w.t.Helper()
	w.settled()
	for from := journal.Seq(0); ; {
		entries, next, err := w.worker.Journal(w, of.Class, of.Name, from, 0)
		w.must(err)
		for _, e := range entries {
			for _, c := range e.Changes {
				lines = append(lines, strings.TrimSpace(c.Kind+" "+c.Key+c.Type+" "+string(c.Data)))
			}
		}
		if next == 0 {
			return lines
		}
		from = next
	}
}

// State is an object's state as its journal has it.
func State[R any](w *World, of engine.Ref[R]) engine.ObjectState {
	w.t.Helper()
	w.settled()
	s, err := w.worker.State(w, of.Class, of.Name)
	w.must(err)
	return s
}

// settled waits until the worker owns its partitions: just after a crash it does not.
func (w *World) settled() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for w.worker.Ready() != nil {
		select {
		case <-tick.C:
		case <-w.Done():
			w.t.Fatal(w.worker.Ready())
		}
	}
}
