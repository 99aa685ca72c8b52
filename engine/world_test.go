package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/boottime"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/journal/verify"
	"github.com/perdure/perdure/snapshot"
)

// The classes of these tests.

// register is an object whose methods do what the test says.
type register struct{}

var registers = Class[register]{Name: "register", Limits: Limits{Idle: time.Hour}}

const (
	total = Key[int64]("total")
	text  = Key[string]("text")
	items = Map[string, string]("items")
)

func (*register) Add(ctx *Ctx, by int64) (int64, error) {
	n := total.Get(ctx) + by
	total.Put(ctx, n)
	return n, nil
}

func (*register) Value(v View, _ None) (int64, error) { return total.Get(v), nil }

// Peek is a call that changes nothing.
func (*register) Peek(ctx *Ctx, _ None) (int64, error) { return total.Get(ctx), nil }

func (*register) Write(ctx *Ctx, s string) (None, error) { text.Put(ctx, s); return nil, nil }

func (*register) Long(ctx *Ctx, n int) (string, error) {
	total.Put(ctx, total.Get(ctx)+1)
	return strings.Repeat("x", n), nil
}

type item struct{ Key, Value string }

func (*register) Set(ctx *Ctx, in item) (None, error) {
	items.Put(ctx, in.Key, in.Value)
	return nil, nil
}

// Fill puts n items of so many bytes.
type fill struct{ From, N, Bytes int }

func (*register) Fill(ctx *Ctx, in fill) (None, error) {
	for i := range in.N {
		items.Put(ctx, fmt.Sprintf("%08d", in.From+i), strings.Repeat("v", in.Bytes))
	}
	return nil, nil
}

func (*register) CountItems(v View, _ None) (int, error) {
	n := 0
	for range items.All(v) {
		n++
	}
	return n, nil
}

// gates are what Block waits for, by the object's name.
var gates sync.Map

func (*register) Block(ctx *Ctx, by int64) (int64, error) {
	g, _ := gates.Load(ctx.Name())
	pair := g.([2]chan struct{})
	pair[0] <- struct{}{}
	<-pair[1]
	n := total.Get(ctx) + by
	total.Put(ctx, n)
	return n, nil
}

func (*register) OnHTTP(ctx *Ctx, w http.ResponseWriter, r *http.Request) error {
	n := total.Get(ctx)
	if r.Method == http.MethodPost {
		n++
		total.Put(ctx, n)
	}
	return WriteJSON(w, map[string]int64{"count": n})
}

// journalClass is the same as events.
type ledger struct{ Sum int64 }

type added struct{ By int64 }

func (e added) Apply(l *ledger) { l.Sum += e.By }

var ledgers = Class[ledger]{Name: "ledger", Events: Events[ledger]{"added": added{}}, Limits: Limits{Idle: time.Hour}}

func (l *ledger) Add(ctx *Ctx, by int64) (int64, error) { Emit(ctx, l, added{by}); return l.Sum, nil }
func (l *ledger) Value(View, None) (int64, error)       { return l.Sum, nil }

// world is workers over one server in memory.
type world struct {
	t      testing.TB
	server *journaltest.Memory
	keep   map[string]verify.Keep // of the classes that its workers had
}

// newServer makes a world whose streams are checked when the test has ended, unless the test itself changed them.
func newServer(t testing.TB) *world {
	w := &world{t: t, server: journaltest.NewMemory()}
	t.Cleanup(func() {
		for p := range worldPartitions {
			if w.server.Tampered(wire.DefaultNamespace.Stream(p)) {
				return
			}
		}
		w.check(t)
	})
	return w
}

// check reads the world's streams as a stranger does.
func (w *world) check(t failer) verify.Report {
	t.Helper()
	return checkStreams(t, w.server.Session(wire.DefaultNamespace, worldPartitions), wire.DefaultNamespace, w.keep)
}

// failer is what a test is told errors by.
type failer interface {
	Helper()
	Error(args ...any)
}

// checkStreams reads all streams of a namespace as a stranger does: nothing may be wrong with them.
func checkStreams(t failer, s journal.Session, ns wire.Subjects, keep map[string]verify.Keep) (all verify.Report) {
	t.Helper()
	for p := range worldPartitions {
		r, err := verify.Partition(context.Background(), s.Log(p), s.Meta(),
			verify.Config{Namespace: ns, Partition: p, Partitions: worldPartitions, Keep: keep})
		if err != nil {
			t.Error(err)
		}
		for _, f := range r.Findings {
			t.Error(f)
		}
		all.Add(r)
	}
	return all
}

const worldPartitions = 2

// worker starts a worker; how may change its configuration. It is killed with the test.
func (w *world) worker(id string, how ...func(*Config)) *Worker {
	w.t.Helper()
	cfg := Config{ID: id, Partitions: worldPartitions, Classes: []AnyClass{registers, ledgers}, Store: snapshot.NewMemory(), LeaseTerm: 10 * time.Second, // the machine may be busy
		Log: slog.New(slog.NewTextHandler(testLog{w.t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
		Connect: func(context.Context) (journal.Session, error) {
			return w.server.Session("objects", worldPartitions), nil
		}}
	for _, f := range how {
		f(&cfg)
	}
	worker, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.keep == nil {
		w.keep = map[string]verify.Keep{}
	}
	for name, c := range worker.classes {
		w.keep[name] = verify.Keep{For: c.Limits.KeepIDs, Max: c.Limits.KeepIDsMax}
	}
	ran := make(chan error, 1)
	go func() { ran <- worker.Run(context.Background()) }() // ends with Kill
	w.t.Cleanup(func() {
		worker.Kill()
		<-ran
	})
	return worker
}

// testLog writes a worker's log into the test's.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// ready waits until the worker owns everything.
func (w *world) ready(worker *Worker) {
	w.t.Helper()
	eventually(w.t, "ready", func() bool { return worker.Ready() == nil && len(owned(worker)) == worldPartitions })
}

// eventually waits until what is said is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := boottime.Now() + 20*time.Second; !is(); <-tick.C {
		if boottime.Now() > end {
			t.Fatalf("not within 20s: %s", what)
		}
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantCode(t testing.TB, err error, code Code, parts ...string) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != code {
		t.Fatalf("error %v; want %s", err, code)
	}
	for _, part := range parts {
		if !strings.Contains(e.Error(), part) {
			t.Errorf("error %q says nothing of %q", e, part)
		}
	}
	return e
}

// stream is the name of the stream that has an object's journal.
func stream(ref Ref[*register]) string {
	return fmt.Sprintf("objects-%d", partitionOf(ref.Class, ref.Name))
}
