package gateway

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

func TestSendStoresAMessage(t *testing.T) {
	t.Parallel()
	f := &poster{}
	g := newGateway(t, Config{Transport: f, Inspector: inspector{sent: func(class, name string, seq journal.Seq) (engine.SentState, error) {
		if seq != 17 {
			return engine.SentState{}, engine.Errorf(engine.NotFound, "no message %d", seq)
		}
		return engine.SentState{Class: class, Name: name, Seq: seq, State: engine.SentApplied, Version: 3}, nil
	}}})
	post := func(path, body string, header ...string) *http.Response {
		r := httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(body))
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		return w.Result()
	}
	got := post("/v1/objects/cart/a%2Fb/send/add", `{"by":2}`, "Idempotency-Key", "order-1", "Content-Type", "application/json")
	if body := read(t, got); got.StatusCode != 202 || body != "{\"seq\":17}\n" || got.Header.Get("Location") != "/v1/objects/cart/a%2Fb/send/17" {
		t.Errorf("got %d %s %v", got.StatusCode, body, got.Header)
	}
	if r := f.got; r.Class != "cart" || r.Name != "a/b" || r.Method != "add" || r.ID != "order-1" || string(r.Body) != `{"by":2}` {
		t.Errorf("got %+v", r)
	}
	if got := post("/v1/objects/cart/a/send/add", "", "Perdure-Not-Before", "5s"); got.StatusCode != 400 {
		t.Errorf("a delayed message: got %d", got.StatusCode)
	}
	for path, want := range map[string]int{"17": 200, "18": 404, "x": 400, "0": 400} {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/v1/objects/cart/a/send/"+path, nil))
		if w.Code != want || want == 200 && !strings.Contains(w.Body.String(), `"state":"applied"`) {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}
}

// poster takes messages.
type poster struct {
	discard
	got engine.Request
}

func (p *poster) Post(_ context.Context, r engine.Request) (journal.Seq, error) {
	p.got = r
	return 17, nil
}
