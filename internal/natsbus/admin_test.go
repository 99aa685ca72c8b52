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

// ObjectsOf takes the list for sorted.
func (i *inspector) ObjectsOf(_ context.Context, _ int, class, prefix, cursor string, limit int) (list []engine.ObjectInfo, ids []string, more bool, err error) {
	for _, o := range i.list {
		id := o.Class + "." + wire.Escape(o.Name)
		if class != "" && o.Class != class || !strings.HasPrefix(o.Name, prefix) || id <= cursor {
			continue
		}
		if more = len(ids) == limit; more {
			break
		}
		list, ids = append(list, o), append(ids, id)
	}
	return list, ids, more, nil
}

func (i *inspector) Sent(_ context.Context, class, name string, seq journal.Seq) (engine.SentState, error) {
	return engine.SentState{}, engine.Errorf(engine.NotFound, "%s/%s has no message %d", class, name, seq)
}

func classes(context.Context) ([]engine.ClassInfo, error) {
	return []engine.ClassInfo{{Name: "counter", Methods: map[string]engine.Method{"get": {Read: true}}, HTTP: true}}, nil
}

func (i *inspector) Durable(_ context.Context, stream string, seq journal.Seq) error {
	if !strings.HasSuffix(stream, "-0") || seq != 7 {
		return engine.Errorf(engine.NotFound, "no stream %q with %d", stream, seq)
	}
	return nil
}

func TestWhatIsDurableIsTold(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	serveAdmin(t, ns, &inspector{})
	c := NewClient(connect(t), ns)
	if err := c.Durable(t.Context(), ns.Stream(0), 7); err != nil {
		t.Error(err)
	}
	for stream, seq := range map[string]journal.Seq{ns.Stream(0): 8, ns.Stream(1): 7, "objects": 7} {
		if err := c.Durable(t.Context(), stream, seq); !errors.Is(err, engine.NotFound) {
			t.Errorf("%s: %v", stream, err)
		}
	}
}

// serveAdmin answers questions, which owners of so many partitions are asked for; a nil one is none.
func serveAdmin(t *testing.T, ns wire.Subjects, owners ...*inspector) (stop func()) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	for p, of := range owners {
		if of != nil {
			t.Cleanup(must[func()](t)(ServePart(connect(t), ns, p, of, log)))
		}
	}
	stop = must[func()](t)(ServeAdmin(connect(t), ns, Admin{Worker: "w1", Partitions: len(owners), Classes: classes,
		Report: func() any { return map[string]string{"id": "w1"} },
		Status: func(context.Context) (any, error) { return map[string]int{"workers": 2}, nil }}, log))
	t.Cleanup(stop)
	return stop
}

// named are objects, in order, and nil where the owner is to be missing.
func named(partitions, missing int, objects []engine.ObjectInfo) []*inspector {
	owners := make([]*inspector, partitions)
	for p := range owners {
		if p != missing {
			owners[p] = &inspector{state: func(context.Context, string, string) (engine.ObjectState, error) {
				return engine.ObjectState{Version: journal.Version(p)}, nil
			}}
		}
	}
	for _, o := range objects {
		if p := wire.Partition(wire.Slot(o.Class, wire.Escape(o.Name)), partitions); owners[p] != nil {
			owners[p].list = append(owners[p].list, o)
		}
	}
	return owners
}

// TestAListIsOfAllPartitions in one order, whatever the size of its pages, or there is none.
func TestAListIsOfAllPartitions(t *testing.T) {
	t.Parallel()
	var all []engine.ObjectInfo
	for i := range 100 { // the last ones are in one partition alone
		all = append(all, engine.ObjectInfo{Class: "counter", Name: fmt.Sprintf("a%02d", i), Seq: journal.Seq(i + 1)})
	}
	for i, n := 0, 0; n < 40; i++ {
		if name := fmt.Sprintf("b%03d", i); wire.Partition(wire.Slot("counter", name), 4) == 3 {
			all = append(all, engine.ObjectInfo{Class: "counter", Name: name})
			n++
		}
	}
	ns := namespace(t)
	serveAdmin(t, ns, named(4, -1, all)...)
	c := NewClient(connect(t), ns)
	for _, limit := range []int{0, 1, 7, 70, 139, 140} {
		var got []engine.ObjectInfo
		for cursor := ""; ; {
			list, next, err := c.Objects(t.Context(), "", "", cursor, limit)
			check(t, err)
			if got = append(got, list...); next == "" {
				break
			}
			if len(list) != limit {
				t.Errorf("a page of %d has %d", limit, len(list))
			}
			cursor = next
		}
		if diff := gocmp.Diff(all, got); diff != "" {
			t.Errorf("pages of %d: %s", limit, diff)
		}
	}
	ns += "_2"
	serveAdmin(t, ns, named(4, 2, all)...)
	c = NewClient(connect(t), ns)
	if list, _, err := c.Objects(t.Context(), "counter", "b", "", 0); !errors.Is(err, engine.Unavailable) || !strings.Contains(err.Error(), "partition 2 has no owner") {
		t.Errorf("without an owner: %v, %v", list, err)
	}
}

// TestTheOwnerIsAsked of the object's partition, and nobody else can tell.
func TestTheOwnerIsAsked(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const partitions, missing = 5, 3
	serveAdmin(t, ns, named(partitions, missing, nil)...)
	c := NewClient(connect(t), ns)
	for i := range 20 {
		name := fmt.Sprint("a.", i)
		p := wire.Partition(wire.Slot("counter", wire.Escape(name)), partitions)
		got, err := c.State(t.Context(), "counter", name)
		if p == missing {
			if !errors.Is(err, engine.Unavailable) || !strings.Contains(err.Error(), "partition 3 has no owner") {
				t.Errorf("%s, whose partition nobody owns: %v", name, err)
			}
		} else if err != nil || got.Version != journal.Version(p) {
			t.Errorf("%s of partition %d: %d, %v", name, p, got.Version, err)
		}
	}
	if raw, err := c.StatusOf(t.Context(), "w1"); err != nil || string(raw) != `{"id":"w1"}` {
		t.Errorf("%s, %v", raw, err)
	}
	if _, err := c.StatusOf(t.Context(), "w2"); !errors.Is(err, nats.ErrNoResponders) {
		t.Error(err)
	}
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
	list, cursor, err := c.Objects(ctx, "counter", "", "counter.a", 1)
	check(t, err)
	if diff := gocmp.Diff(of.list[:1], list); diff != "" || cursor != "counter.a%20b" {
		t.Error("objects:", cursor, diff)
	}
	gotClasses, err := c.Classes(ctx)
	check(t, err)
	wantClasses, _ := classes(ctx)
	if diff := gocmp.Diff(wantClasses, gotClasses); diff != "" {
		t.Error("classes:", diff)
	}
	status, err := c.Status(ctx)
	check(t, err)
	if string(status) != `{"workers":2}` {
		t.Errorf("status: %s", status)
	}
}

func TestQuestionIsPlainJSON(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	serveAdmin(t, ns, &inspector{})
	nc := connect(t)
	for _, tt := range []struct{ what, body, want string }{
		{"objects", ``, `{"objects":[]}`},
		{"objects", ` {"class":"counter"} `, `{"objects":[]}`},
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
		list:    []engine.ObjectInfo{{Class: "counter", Name: large}},
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
		if err := <-ended; !errors.Is(err, engine.Unavailable) || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("got %v", err)
		}
	}
	if _, err := c.Classes(t.Context()); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after stop: got %v", err)
	}
}
