package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// inspector answers from what it holds; state, if set, answers instead.
type inspector struct {
	engine.Inspector
	entries []engine.JournalEntry
	list    []engine.ObjectInfo
	state   func(ctx context.Context, class, name string) (engine.ObjectState, error)
}

func (i *inspector) State(ctx context.Context, class, name string) (engine.ObjectState, error) {
	return i.state(ctx, class, name)
}

func (i *inspector) Journal(_ context.Context, class, name string, from journal.Seq, limit int) (out []engine.JournalEntry, next journal.Seq, err error) {
	for _, e := range i.entries {
		if e.Seq < from {
			continue
		}
		if limit > 0 && len(out) >= limit && e.Seq != out[len(out)-1].Seq {
			return out, e.Seq, nil
		}
		e.Class, e.Name = class, name
		out = append(out, e)
	}
	return out, 0, nil
}

func (i *inspector) Objects(_ context.Context, class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
	if limit > 0 && limit < len(i.list) {
		return i.list[:limit], fmt.Sprintf("%s %s %s %d", class, prefix, cursor, limit), nil
	}
	return i.list, "", nil
}

func (i *inspector) Classes(context.Context) ([]engine.ClassInfo, error) {
	return []engine.ClassInfo{{Name: "counter", Methods: map[string]engine.Method{"get": {Read: true}}, HTTP: true}}, nil
}

func (i *inspector) Durable(_ context.Context, stream string, seq journal.Seq) error {
	if stream != "objects-1" || seq != 7 {
		return engine.Errorf(engine.NotFound, "no stream %q with %d", stream, seq)
	}
	return nil
}

func TestWhatIsDurableIsTold(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	serveAdmin(t, ns, &inspector{})
	c := NewClient(connect(t), ns)
	if err := c.Durable(t.Context(), "objects-1", 7); err != nil {
		t.Error(err)
	}
	if err := c.Durable(t.Context(), "objects-2", 7); !errors.Is(err, engine.NotFound) {
		t.Error(err)
	}
}

func serveAdmin(t *testing.T, ns wire.Subjects, of Inspected) (stop func()) {
	t.Helper()
	status := func() any { return map[string]string{"id": "w1"} }
	stop = must[func()](t)(ServeAdmin(connect(t), ns, of, status, slog.New(slog.DiscardHandler)))
	t.Cleanup(stop)
	return stop
}

func TestQuestionsAreAnswered(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	of := &inspector{
		entries: []engine.JournalEntry{
			{Seq: 300, Version: 1, At: at, Method: "increment", Changes: []journal.Change{{Kind: journal.Put, Key: "n", Data: []byte("1")}}},
			{Seq: 301, At: at, Problem: "does not count"},
		},
		list: []engine.ObjectInfo{{Class: "counter", Name: "a b", Version: 3, Changed: at, Seq: 301, Active: true}, {Class: "counter", Name: "b"}},
		state: func(_ context.Context, class, name string) (engine.ObjectState, error) {
			return engine.ObjectState{Class: class, Name: name, Version: 3, Changed: at, Seq: 301, State: json.RawMessage(`{"n":3}`)}, nil
		},
	}
	serveAdmin(t, ns, of)
	c := NewClient(connect(t), ns)
	ctx := t.Context()

	state, err := c.State(ctx, "counter", "a.b")
	check(t, err)
	want, _ := of.state(ctx, "counter", "a.b")
	if diff := gocmp.Diff(want, state); diff != "" {
		t.Error("state:", diff)
	}
	entries, next, err := c.Journal(ctx, "counter", "a", 300, 1)
	check(t, err)
	wantEntries, wantNext, _ := of.Journal(ctx, "counter", "a", 300, 1)
	if diff := gocmp.Diff(wantEntries, entries); diff != "" || next != wantNext || next != 301 {
		t.Error("journal:", next, diff)
	}
	list, cursor, err := c.Objects(ctx, "counter", "a ", "counter.a", 1)
	check(t, err)
	if diff := gocmp.Diff(of.list[:1], list); diff != "" || cursor != "counter a  counter.a 1" {
		t.Error("objects:", cursor, diff)
	}
	classes, err := c.Classes(ctx)
	check(t, err)
	wantClasses, _ := of.Classes(ctx)
	if diff := gocmp.Diff(wantClasses, classes); diff != "" {
		t.Error("classes:", diff)
	}
	status, err := c.Status(ctx)
	check(t, err)
	if string(status) != `{"id":"w1"}` {
		t.Errorf("status: %s", status)
	}
}

func TestQuestionIsPlainJSON(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	serveAdmin(t, ns, &inspector{})
	nc := connect(t)
	for _, tt := range []struct{ what, body, want string }{
		{"objects", ``, `{"objects":null}`},
		{"objects", ` {"class":"counter"} `, `{"objects":null}`},
		{"journal", `{"class":"counter","name":"a","from":3,"limit":5}`, `{"entries":[]}`},
		{"objects", `{"klass":"counter"}`, `unknown field "klass"; want JSON with some of class, name, seq, from, limit, prefix, cursor, stream`},
		{"objects", `{"limit":"5"}`, "want JSON with some of"},
		{"objects", `{} {}`, "there is more behind it"},
		{"objects", `[`, "want JSON with some of"},
	} {
		m := must[*nats.Msg](t)(nc.Request(ns.Admin(tt.what), []byte(tt.body), wait))
		if refused := m.Header.Get("Nats-Service-Error-Code") == "400"; refused {
			if e := engine.ParseProblem(m.Data); e.Code != engine.Invalid || !strings.Contains(e.Detail, tt.want) {
				t.Errorf("%s: got %v, want %q", tt.body, e, tt.want)
			}
		} else if string(m.Data) != tt.want {
			t.Errorf("%s: got %s %v, want %s", tt.body, m.Data, m.Header, tt.want)
		}
	}
}

func TestErrorOfAQuestionArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	want := &engine.Error{Code: engine.NotFound, Detail: `no class "x"`}
	serveAdmin(t, ns, &inspector{state: func(context.Context, string, string) (engine.ObjectState, error) {
		return engine.ObjectState{}, want
	}})
	_, err := NewClient(connect(t), ns).State(t.Context(), "x", "a")
	if !errors.Is(err, engine.NotFound) || err.Error() != want.Error() {
		t.Errorf("got %v", err)
	}
}

func TestQuestionNobodyAnswersIsUnavailable(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	nc := connect(t)
	if _, err := NewClient(nc, ns).Classes(t.Context()); !errors.Is(err, engine.Unavailable) || !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("got %v", err)
	}
	nc.Close()
	if _, err := NewClient(nc, ns).Classes(t.Context()); !errors.Is(err, engine.Unavailable) {
		t.Errorf("got %v", err)
	}
	other := connect(t)
	must[*nats.Subscription](t)(other.Subscribe(ns.Admin("classes"), func(m *nats.Msg) { _ = m.Respond([]byte("hello")) }))
	check(t, other.Flush())
	if _, err := NewClient(other, ns).Classes(t.Context()); !errors.Is(err, engine.Internal) {
		t.Errorf("got %v", err)
	}
}

func TestLongJournalComesInPiecesOfWholeRecords(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	of := &inspector{}
	for seq := range journal.Seq(40) {
		for range 3 { // commits of one record
			of.entries = append(of.entries, engine.JournalEntry{Class: "counter", Name: "a", Seq: seq + 1, Version: journal.Version(len(of.entries) + 1),
				Method: strings.Repeat("<", 900)}) // escaped it is six times as long; 20 fit, which are no whole records
		}
	}
	serveAdmin(t, ns, of)
	c := NewClient(connect(t), ns)
	var all []engine.JournalEntry
	pieces := 0
	for from := journal.Seq(1); from != 0; pieces++ {
		entries, next, err := c.Journal(t.Context(), "counter", "a", from, 0)
		check(t, err)
		if next != 0 && (len(entries)%3 != 0 || next != entries[len(entries)-1].Seq+1) {
			t.Fatalf("%d entries, and on from %d", len(entries), next)
		}
		all, from = append(all, entries...), next
	}
	if diff := gocmp.Diff(of.entries, all); diff != "" || pieces < 6 {
		t.Errorf("%d pieces: %s", pieces, diff)
	}
}

func TestAnswerThatCannotBeCutIsTooLarge(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	large := strings.Repeat("x", payloadMax)
	serveAdmin(t, ns, &inspector{
		entries: []engine.JournalEntry{{Seq: 1, Method: large}, {Seq: 2}},
		list:    []engine.ObjectInfo{{Name: large}},
		state: func(context.Context, string, string) (engine.ObjectState, error) {
			return engine.ObjectState{Storage: map[string]json.RawMessage{large: nil}}, nil
		},
	})
	c := NewClient(connect(t), ns)
	_, _, journalErr := c.Journal(t.Context(), "counter", "a b", 0, 0)
	_, _, objectsErr := c.Objects(t.Context(), "counter", "", "", 0)
	_, stateErr := c.State(t.Context(), "counter", "a b")
	for want, err := range map[string]error{
		"ask the gateway, under /v1/objects/counter/a%20b/, or": journalErr,
		"ask with a smaller limit, or raise its max_payload":    objectsErr,
		"ask the gateway, under /v1/objects/counter/a%20b/":     stateErr,
	} {
		if !errors.Is(err, engine.TooLarge) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOneQuestionTooManyIsRefusedAndStopEndsTheOthers(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	asked := make(chan bool, questionsMax)
	stop := serveAdmin(t, ns, &inspector{state: func(ctx context.Context, _, _ string) (engine.ObjectState, error) {
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > questionTimeout {
			t.Errorf("the question ends at %v", end)
		}
		asked <- true
		<-ctx.Done()
		return engine.ObjectState{}, engine.Errorf(engine.Unavailable, "looked at no longer: %w", context.Cause(ctx))
	}})
	c := NewClient(connect(t), ns)
	ended := make(chan error, questionsMax)
	var callers sync.WaitGroup
	defer callers.Wait()
	for range questionsMax {
		callers.Go(func() {
			_, err := c.State(t.Context(), "counter", "a")
			ended <- err
		})
	}
	for range questionsMax {
		<-asked
	}
	_, err := c.Classes(t.Context())
	if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.Overloaded || e.RetryAfter != time.Second {
		t.Errorf("got %v", err)
	}
	stop()
	for range questionsMax {
		if err := <-ended; !errors.Is(err, engine.Unavailable) || !strings.Contains(err.Error(), "looked at no longer") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := c.Classes(t.Context()); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after stop: got %v", err)
	}
}
