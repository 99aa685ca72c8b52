package drill

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
)

// TestCallsThroughGateways: what came of a call is told apart, and where one gateway does not answer another is tried.
func TestCallsThroughGateways(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch id := r.Header.Get("Perdure-Request-Id"); id {
		case "ok":
			w.Header().Set("ETag", `"7"`)
			_, _ = fmt.Fprintf(w, "%q\n", r.URL.EscapedPath()+" "+string(body)+" "+r.Header.Get("Perdure-Deadline"))
		case "refused":
			engine.WriteError(w, engine.Errorf(engine.Refused, "no"))
		case "balancer":
			http.Error(w, "bad gateway", http.StatusBadGateway)
		case "cut":
			panic(http.ErrAbortHandler)
		}
	}))
	defer gateway.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	h := NewHTTP([]string{"", ""}, 1)
	first := h.choose("a b/ü")
	h.urls[first], h.urls[1-first] = gone.URL, gateway.URL+"/"
	call := func(id string) (engine.Reply, error) {
		return h.Do(t.Context(), engine.Request{Class: "c", Name: "a b/ü", Method: "m", Body: []byte("1"), ID: id, Deadline: time.Unix(1, 0)})
	}
	if _, err := call("ok"); !errors.Is(err, engine.Unavailable) {
		t.Errorf("where nobody listens: %v; want it to be unavailable", err)
	}
	reply, err := call("ok")
	if want := `"/v1/objects/c/a%20b%2F%C3%BC/call/m 1 1970-01-01T00:00:01Z"`; err != nil || string(reply.Body) != want || reply.Version != 7 {
		t.Errorf("version %d, %s, %v; want %s", reply.Version, reply.Body, err, want)
	}
	if _, err := call("refused"); !errors.Is(err, engine.Refused) {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := call("balancer"); !errors.Is(err, engine.UnknownOutcome) {
		t.Errorf("an answer that is not a gateway's: %v; want the outcome to be unknown", err)
	}
	h.failed[1-first].Store(0) // as after a while
	if _, err := call("cut"); !errors.Is(err, engine.UnknownOutcome) {
		t.Errorf("an answer that does not come: %v; want the outcome to be unknown", err)
	}
}

// TestWhatACallCameTo: certainly not executed, perhaps executed, and answered are three things.
func TestWhatACallCameTo(t *testing.T) {
	t.Parallel()
	remote := engine.Errorf(engine.Unavailable, "says the class")
	remote.Remote = true
	for _, c := range []struct {
		err                             error
		told, refused, unknown, answers int
	}{
		{nil, 1, 0, 0, 1},
		{engine.Errorf(engine.UnknownOutcome, ""), 0, 0, 1, 0},
		{engine.Errorf(engine.Internal, ""), 0, 0, 1, 0},
		{errors.New("another"), 0, 0, 1, 0},
		{engine.Errorf(engine.Unavailable, ""), 0, 1, 0, 0},
		{engine.Errorf(engine.Timeout, ""), 0, 1, 0, 0},
		{engine.Errorf(engine.Refused, ""), 0, 1, 0, 1},
		{engine.Errorf(engine.Full, ""), 0, 1, 0, 1},
		{remote, 0, 1, 0, 1},
	} {
		l := waits()
		l.settle(l.Begin(0, 0), engine.Reply{Version: 1}, c.err, ms)
		if l.told != c.told || l.refused != c.refused || l.unknown != c.unknown || l.latency.n != c.answers || l.progress(ms).Waiting != 0 {
			t.Errorf("%v: acknowledged %d, refused %d, unknown %d, answers %d; want %+v", c.err, l.told, l.refused, l.unknown, l.latency.n, c)
		}
	}
}
