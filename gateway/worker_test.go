package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway/feed"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// shelf is a class with a method and an OnHTTP that tells what it sees.
type shelf struct{ Items []string }

type placed struct{ Item string }

func (e placed) Apply(s *shelf) { s.Items = append(s.Items, e.Item) }

func (s *shelf) Held(engine.View, engine.None) (int, error) { return len(s.Items), nil }

func (s *shelf) Place(ctx *engine.Ctx, in placed) (string, error) {
	engine.Emit(ctx, s, in)
	return "placed " + in.Item, nil
}

func (s *shelf) OnHTTP(ctx *engine.Ctx, w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodDelete {
		return engine.Errorf(engine.Denied, "a shelf is for ever")
	}
	_, err := fmt.Fprintf(w, "%s %s %s %d", r.Method, ctx.Name(), strings.TrimPrefix(r.URL.Path, "/shelf/"+ctx.Name()), len(s.Items))
	return err
}

// overAWorker is a gateway over a worker in this process, whose journal is in memory.
func overAWorker(t *testing.T) *Gateway {
	t.Helper()
	return overAFeed(t, feed.Config{})
}

// overAFeed is the same, with a feed that is set up so.
func overAFeed(t *testing.T, c feed.Config) *Gateway {
	t.Helper()
	const partitions = 2
	m, j := NewMetrics("dev"), journaltest.NewMemory()
	w, err := engine.New(engine.Config{ID: "test", Partitions: partitions, Store: snapshot.NewMemory(), Observe: m.Observer(),
		Classes: []engine.AnyClass{engine.Class[shelf]{Name: "shelf", Events: engine.Events[shelf]{"placed": placed{}}}},
		Connect: func(context.Context) (journal.Session, error) { return j.Session("objects", partitions), nil }})
	if err != nil {
		t.Fatal(err)
	}
	m.Watch(w.Status)
	ran := make(chan error, 1)
	go func() { ran <- w.Run(context.Background()) }()
	t.Cleanup(func() {
		w.Stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
	c.Life, c.Partitions = "0123456789abcdef", partitions
	c.Connect = func(context.Context) (journal.Session, error) { return j.Session("objects", partitions), nil }
	hub, err := feed.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	g := newGateway(t, Config{Transport: engine.NewClient(w), Inspector: w, Ready: w.Ready, Metrics: m, Feed: hub})
	for w.Ready() != nil {
		<-time.After(time.Millisecond)
	}
	return g
}

func TestObjectsOfAWorkerAreReached(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	text := func(method, url, body, want string, headers ...string) *http.Response {
		t.Helper()
		got := send(t, g, method, url, body, headers...)
		if text := read(t, got); got.StatusCode != 200 || text != want {
			t.Errorf("%s %s: got %d %q, want %q", method, url, got.StatusCode, text, want)
		}
		return got
	}
	const key, place = "Idempotency-Key: order-17", "/v1/objects/shelf/a%2Fb/call/place"
	first := text("POST", place, `{"Item":"jam"}`, "\"placed jam\"\n", key)
	again := text("POST", place, `{"Item":"jam"}`, "\"placed jam\"\n", key)
	if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" || again.Header.Get("ETag") != `"1"` {
		t.Errorf("first %v, again %v", first.Header, again.Header)
	}
	wantProblem(t, send(t, g, "POST", place, `{"Item":"tea"}`, key), 422, engine.IDReused, "order-17")
	wantProblem(t, send(t, g, "POST", place, `{"Item":`), 400, engine.Invalid, "")
	wantProblem(t, send(t, g, "POST", "/v1/objects/shelf/x/call/steal", ""), 404, engine.NotFound, "place")
	wantProblem(t, send(t, g, "POST", "/v1/objects/table/x/call/place", ""), 404, engine.NotFound, "shelf")
	wantProblem(t, send(t, g, "DELETE", "/shelf/a%2Fb", ""), 403, engine.Denied, "for ever")

	text("GET", "/shelf/a%2Fb/c/%2E%2E?x", "", "GET a/b /c/.. 1")
	text("GET", "/shelf/%2E%2E/x", "", "GET .. /x 0")

	state := send(t, g, "GET", "/v1/objects/shelf/a%2Fb/state", "")
	var s engine.ObjectState
	if err := json.Unmarshal([]byte(read(t, state)), &s); err != nil || string(s.State) != `{"Items":["jam"]}` || state.Header.Get("ETag") != `"1"` {
		t.Errorf("state %+v, %v", s, err)
	}
	if lines := read(t, send(t, g, "GET", "/v1/objects/shelf/a%2Fb/journal", "")); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, `"id":"order-17"`) {
		t.Errorf("journal %s", lines)
	}
	wantMetric(t, g, `perdure_calls_total{class="shelf",code="ok",method="place"} 1`)
	wantMetric(t, g, `perdure_partitions_owned 2`)
}
