package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

func TestARequestCrossesTheWireWhole(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	got := make(chan engine.Request, 1)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		got <- r
		answer(engine.Reply{Status: 200, Body: []byte("3"), Version: 7, Replayed: true}, nil)
	})
	deadline := time.Now().Add(time.Minute).UTC().Truncate(time.Microsecond)
	sent := engine.Request{Class: "counter", Name: "a.b/ü %", Method: "increment", Body: []byte(`{"by":2}`), Read: true,
		Session: &engine.SessionNumber{Sender: strings.Repeat("ab", 16), N: 12, M: 9, Deadline: deadline}, Deadline: deadline,
		Caller: engine.Caller{Claimed: "shop"}, Chain: []string{"cart/a,b", "order/1"}, Trace: trace}
	reply := must[engine.Reply](t)(NewClient(connect(t), ns).Do(t.Context(), sent))
	if string(reply.Body) != "3" || reply.Version != 7 || !reply.Replayed || reply.Status != 200 {
		t.Errorf("%+v", reply)
	}
	if diff := cmp.Diff(sent, <-got, cmp.AllowUnexported(), cmp.FilterPath(func(p cmp.Path) bool {
		name := p.Last().String()
		return name == ".read" || name == ".made"
	}, cmp.Ignore())); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsCrossTheWireWhole(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	sent := engine.Errorf(engine.Limited, "one a second\nand no more").RetryIn(1500 * time.Millisecond)
	sent.Remote, sent.Object, sent.RequestID = true, "counter/a", "id-1"
	listen(t, ns, answering(engine.Reply{}, sent))
	nc := connect(t)
	_, err := NewClient(nc, ns).Do(t.Context(), engine.Request{Class: "counter", Name: "a", Method: "increment"})
	e, ok := errors.AsType[*engine.Error](err)
	if !ok || e.Code != engine.Limited || e.Detail != sent.Detail || e.RetryAfter != sent.RetryAfter || !e.Remote || e.Object != "counter/a" || e.RequestID != "id-1" {
		t.Errorf("%+v", err)
	}
	m := must[*nats.Msg](t)(nc.Request(ns.Call("counter", "a", "increment"), nil, time.Minute))
	for name, want := range map[string]string{wire.HeaderErrorCode: "429", wire.HeaderError: "limited: one a second and no more",
		wire.HeaderContentType: "application/problem+json", wire.HeaderRetryAfter: "2"} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
}

func TestWhatCannotBeUnderstoodIsRefusedWithoutTheObject(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, unserved(t))
	nc := connect(t)
	for name, c := range map[string]struct {
		token  string
		header nats.Header
		says   string
	}{
		"another spelling": {"a%2eb", nil, `want "a%2Eb"`},
		"session":          {"a", nats.Header{wire.HeaderSession: {"me 1"}}, wire.HeaderSession},
		"deadline":         {"a", nats.Header{wire.HeaderDeadline: {"soon"}}, wire.HeaderDeadline},
		"content type":     {"a", nats.Header{wire.HeaderContentType: {"text/plain"}}, "application/json"},
		"wire":             {"a", nats.Header{wire.HeaderWire: {"2"}}, wire.HeaderWire},
	} {
		m := nats.NewMsg(ns.Call("counter", c.token, "increment"))
		m.Header = c.header
		r := must[*nats.Msg](t)(nc.RequestMsg(m, time.Minute))
		e := engine.ParseProblem(r.Data)
		if e.Code != engine.Invalid || !strings.Contains(e.Detail, c.says) {
			t.Errorf("%s: %v; want invalid with %q", name, e, c.says)
		}
	}
}

func TestARequestInTheWrongSlotIsPassedOn(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	got := make(chan string, 1)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		got <- r.Name
		answer(engine.Reply{Status: 200, Body: []byte("1")}, nil)
	})
	before := PassedOn()
	wrong := (wire.Slot("counter", "a") + 1) % wire.Slots
	subject := strings.Replace(ns.SlotCalls(wrong), "*.*.*", "counter.a.increment", 1)
	r := must[*nats.Msg](t)(connect(t).Request(subject, nil, time.Minute))
	if name := <-got; name != "a" || string(r.Data) != "1" || PassedOn() == before {
		t.Errorf("%s, %s, %d passed on", name, r.Data, PassedOn()-before)
	}
}

func TestWithoutReplySubjectItRunsAndWithoutOwnerItDoesNot(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	nc := connect(t)
	_, err := NewClient(nc, ns).Do(t.Context(), engine.Request{Class: "counter", Name: "a", Method: "increment"})
	if !errors.Is(err, engine.Unavailable) {
		t.Errorf("without owner: %v", err)
	}
	got := make(chan engine.Request, 1)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		answer(engine.Reply{Status: 200}, nil)
		got <- r
	})
	check(t, nc.Publish(ns.Call("counter", "a", "increment"), []byte("{}")))
	if r := <-got; r.Name != "a" || string(r.Body) != "{}" {
		t.Errorf("%+v", r)
	}
}

func TestALostAnswerIsAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, func(engine.Request, func(engine.Reply, error)) {}) // never answers
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := NewClient(connect(t), ns).Do(ctx, engine.Request{Class: "counter", Name: "a", Method: "increment"})
	if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.UnknownOutcome || !e.Retryable() {
		t.Errorf("%v", err)
	}
}

// inspector answers every question with what it was asked.
type inspector struct{}

func (inspector) State(_ context.Context, class, name string) (engine.ObjectState, error) {
	if class == "nothing" {
		return engine.ObjectState{}, engine.Errorf(engine.NotFound, "no class %q", class)
	}
	return engine.ObjectState{Class: class, Name: name, Version: 4, Storage: map[string]json.RawMessage{"count": []byte("4")}}, nil
}

func (inspector) Journal(_ context.Context, class, name string, from journal.Seq, limit int) ([]engine.JournalEntry, journal.Seq, error) {
	entries := make([]engine.JournalEntry, limit)
	for i := range entries {
		entries[i] = engine.JournalEntry{Class: class, Name: name, Seq: from + journal.Seq(i), Method: strings.Repeat("m", 1000)}
	}
	return entries, from + journal.Seq(limit), nil
}

func (inspector) Objects(_ context.Context, class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
	return []engine.ObjectInfo{{Class: class, Name: prefix + cursor, Version: journal.Version(limit)}}, "more", nil
}

func (inspector) Classes(context.Context) ([]engine.ClassInfo, error) {
	return []engine.ClassInfo{{Name: "counter", Methods: map[string]engine.Method{"value": {Read: true}}}}, nil
}

func TestQuestionsAreAnswered(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	stop := must[func()](t)(ServeAdmin(connect(t), ns, inspector{}, func() any { return map[string]int{"partitions": 4} }, slog.New(slog.DiscardHandler)))
	t.Cleanup(stop)
	nc := connect(t)
	c := NewClient(nc, ns)
	if s := must[engine.ObjectState](t)(c.State(t.Context(), "counter", "a")); s.Version != 4 || s.Name != "a" || string(s.Storage["count"]) != "4" {
		t.Errorf("%+v", s)
	}
	if _, err := c.State(t.Context(), "nothing", "a"); !errors.Is(err, engine.NotFound) {
		t.Error(err)
	}
	list, next, err := c.Objects(t.Context(), "counter", "p", "c", 7)
	if err != nil || next != "more" || len(list) != 1 || list[0].Name != "pc" || list[0].Version != 7 {
		t.Errorf("%+v %s %v", list, next, err)
	}
	if classes := must[[]engine.ClassInfo](t)(c.Classes(t.Context())); !classes[0].Methods["value"].Read {
		t.Errorf("%+v", classes)
	}
	if raw := must[json.RawMessage](t)(c.Status(t.Context())); string(raw) != `{"partitions":4}` {
		t.Errorf("%s", raw)
	}
	// What the server does not carry in one answer comes in parts, without gaps.
	seq := journal.Seq(1)
	for seq < 400 {
		entries, next, err := c.Journal(t.Context(), "counter", "a", seq, 400)
		if err != nil || len(entries) == 0 || len(entries) >= 400 || entries[0].Seq != seq || next != entries[len(entries)-1].Seq+1 {
			t.Fatalf("%d entries from %d, next %d, %v", len(entries), seq, next, err)
		}
		seq = next
	}
	m := must[*nats.Msg](t)(nc.Request(ns.Admin("state"), []byte(`{"klass":"counter"}`), time.Minute))
	if e := engine.ParseProblem(m.Data); e.Code != engine.Invalid || !strings.Contains(e.Detail, "klass") {
		t.Error(e)
	}
}
