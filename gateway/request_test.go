package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
)

func TestRequestIDIsQuotedOrBare(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("i", 256)
	for _, c := range []struct {
		name    string
		headers []string
		id      string
		words   string // of the refusal
	}{
		{"none", nil, "", ""},
		{"bare", []string{"Idempotency-Key: order-17"}, "order-17", ""},
		{"quoted", []string{`Idempotency-Key: "order-17"`}, "order-17", ""},
		{"escaped", []string{`Idempotency-Key: "a\"b\\c"`}, `a"b\c`, ""},
		{"bare UTF-8", []string{"Idempotency-Key: größe"}, "größe", ""},
		{"our header", []string{"Perdure-Request-Id: order-17"}, "order-17", ""},
		{"both the same", []string{`Idempotency-Key: "order-17"`, "Perdure-Request-Id: order-17"}, "order-17", ""},
		{"longest", []string{"Idempotency-Key: " + long}, long, ""},
		{"longest quoted", []string{`Idempotency-Key: "` + long + `"`}, long, ""},
		{"both, different", []string{"Idempotency-Key: a", "Perdure-Request-Id: b"}, "", "different ids"},
		{"twice", []string{"Idempotency-Key: a", "Idempotency-Key: a"}, "", "2 times"},
		{"empty", []string{"Idempotency-Key: "}, "", "1 to 256 bytes"},
		{"empty quoted", []string{`Idempotency-Key: ""`}, "", "1 to 256 bytes"},
		{"too long", []string{"Idempotency-Key: " + long + "x"}, "", "1 to 256 bytes"},
		{"our header too long", []string{"Perdure-Request-Id: " + long + "x"}, "", "Perdure-Request-Id: want 1 to 256"},
		{"not UTF-8", []string{"Idempotency-Key: \xff"}, "", "UTF-8"},
		{"not closed", []string{`Idempotency-Key: "a`}, "", "nothing behind"},
		{"only a quote", []string{`Idempotency-Key: "`}, "", "nothing behind"},
		{"with a parameter", []string{`Idempotency-Key: "a";b=1`}, "", "nothing behind"},
		{"wrong escape", []string{`Idempotency-Key: "a\n"`}, "", "nothing behind"},
		{"escape at the end", []string{`Idempotency-Key: "a\`}, "", "nothing behind"},
		{"not ASCII in quotes", []string{`Idempotency-Key: "ü"`}, "", "nothing behind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := answers(engine.Reply{Status: 200, Replayed: true}, nil)
			got := send(t, newGateway(t, Config{Transport: f}), "POST", "/counter/x", "", c.headers...)
			if c.words != "" {
				wantProblem(t, got, 400, engine.Invalid, c.words)
				return
			}
			replayed := ""
			if c.id != "" {
				replayed = "true"
			}
			if asked := f.requests(); len(asked) != 1 || asked[0].ID != c.id {
				t.Errorf("asked %+v, want id %q", asked, c.id)
			}
			if got.Header.Get("Perdure-Request-Id") != c.id || got.Header.Get("Idempotency-Replayed") != replayed {
				t.Errorf("headers %v", got.Header)
			}
		})
	}
}

func TestErrorNamesTheCallersID(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Transport: answers(engine.Reply{}, engine.Errorf(engine.IDReused, "used"))})
	got := send(t, g, "POST", "/counter/x", "", "Idempotency-Key: order-17")
	if id := got.Header.Get("Perdure-Request-Id"); id != "order-17" {
		t.Errorf("Perdure-Request-Id is %q", id)
	}
	if e := engine.ParseProblem([]byte(read(t, got))); e.RequestID != "order-17" || e.Code != engine.IDReused {
		t.Errorf("got %+v", e)
	}
}

func TestDeadlineIsATimeOrADuration(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"5s": 5 * time.Second, "1h": time.Hour, "2026-11-24T10:00:07Z": 7 * time.Second, "2026-11-24T11:00:00.25+01:00": 250 * time.Millisecond,
	} {
		got, err := deadline(http.Header{"Perdure-Deadline": {value}}, now)
		if err != nil || !got.Equal(now.Add(want)) {
			t.Errorf("%s: got %v, %v", value, got, err)
		}
	}
	for value, want := range map[string]engine.Code{
		"soon": engine.Invalid, "": engine.Invalid, "5": engine.Invalid, "61m": engine.Invalid, "2027-11-24T10:00:00Z": engine.Invalid,
		"0s": engine.Timeout, "-1s": engine.Timeout, "2026-11-24T10:00:00Z": engine.Timeout, "2025-01-01T00:00:00Z": engine.Timeout,
	} {
		if got, err := deadline(http.Header{"Perdure-Deadline": {value}}, now); !errors.Is(err, want) {
			t.Errorf("%q: got %v, %v, want %s", value, got, err, want)
		}
	}
	g := newGateway(t, Config{})
	wantProblem(t, send(t, g, "POST", "/counter/x", "", "Perdure-Deadline: -1s"), 504, engine.Timeout, "has passed")
	wantProblem(t, send(t, g, "POST", "/counter/x", "", "Perdure-Deadline: soon"), 400, engine.Invalid, "like 5s")
	wantProblem(t, send(t, g, "POST", "/counter/x", "", "Perdure-Deadline: 1s", "Perdure-Deadline: 1s"), 400, engine.Invalid, "2 times")
	if got, err := deadline(http.Header{}, now); !got.IsZero() || err != nil {
		t.Errorf("without a header: %v, %v", got, err)
	}
}

func TestCallerAndTracePassOn(t *testing.T) {
	t.Parallel()
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, c := range []struct{ name, header, caller, trace string }{
		{"caller", "Perdure-Caller: shop", "shop", ""},
		{"trace", "traceparent: " + trace, "", trace},
		{"trace of a later version", "traceparent: cc" + trace[2:] + "-more", "", "cc" + trace[2:] + "-more"},
		{"version 00 with more", "traceparent: " + trace + "-more", "", ""},
		{"later version run together", "traceparent: cc" + trace[2:] + "more", "", ""},
		{"version ff", "traceparent: ff" + trace[2:], "", ""},
		{"upper case", "traceparent: " + strings.ToUpper(trace), "", ""},
		{"no trace id", "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01", "", ""},
		{"no parent", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", "", ""},
		{"short", "traceparent: 00-0af7651916cd43dd", "", ""},
		{"misplaced dash", "traceparent: 00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01", "", ""},
		{"empty", "traceparent: ", "", ""},
	} {
		f := answers(engine.Reply{Status: 200}, nil)
		send(t, newGateway(t, Config{Transport: f}), "POST", "/counter/x", "", c.header)
		asked := f.requests()
		if len(asked) != 1 || asked[0].Caller.Claimed != c.caller || asked[0].Caller.Verified != "" || asked[0].Trace != c.trace {
			t.Errorf("%s: asked %+v", c.name, asked)
		}
	}
	for _, caller := range []string{strings.Repeat("c", 257), "\xff"} {
		got := send(t, newGateway(t, Config{}), "POST", "/counter/x", "", "Perdure-Caller: "+caller)
		wantProblem(t, got, 400, engine.Invalid, "Perdure-Caller")
	}
}

func TestBodyUpToItsLimitPassesWhole(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{Status: 200}, nil)
	s := httptest.NewServer(newGateway(t, Config{Transport: f}))
	defer s.Close()
	body := bytes.Repeat([]byte("b"), engine.BodyBytesMax)
	for _, r := range []io.Reader{bytes.NewReader(body), struct{ io.Reader }{bytes.NewReader(body)}} { // with a length, and in chunks
		got, err := http.Post(s.URL+"/counter/x", "text/plain", r)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
	}
	for _, r := range f.requests() {
		if !bytes.Equal(r.Body, body) {
			t.Errorf("%d bytes arrived", len(r.Body))
		}
	}
	if n := len(f.requests()); n != 2 {
		t.Errorf("%d requests arrived", n)
	}
}

// raw sends bytes over a connection of its own, and returns the answer while write may still be at it.
func raw(t *testing.T, s *httptest.Server, write func(net.Conn)) *http.Response {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() { defer close(done); write(c) }()
	got, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTwoMegabyteBodyIsRefusedByItsLength(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{}, nil)
	s := httptest.NewServer(newGateway(t, Config{Transport: f}))
	defer s.Close()
	got := raw(t, s, func(c net.Conn) { // not one byte of the body need be sent
		fmt.Fprintf(c, "POST /counter/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 2<<20)
	})
	wantProblem(t, got, 413, engine.TooLarge, "2097152 bytes; at most 1048576")
	if n := len(f.requests()); n != 0 {
		t.Errorf("%d requests reached the object", n)
	}
}

func TestEndlessBodyIsCutOffAtItsLimit(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{}, nil)
	s := httptest.NewServer(newGateway(t, Config{Transport: f, BodyBytesMax: 10000}))
	defer s.Close()
	got := raw(t, s, func(c net.Conn) {
		fmt.Fprint(c, "POST /counter/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := fmt.Sprintf("1000\r\n%s\r\n", strings.Repeat("b", 0x1000))
		for { // until the server closes the connection
			if _, err := io.WriteString(c, chunk); err != nil {
				return
			}
		}
	})
	wantProblem(t, got, 413, engine.TooLarge, "more than 10000 bytes")
	if !got.Close {
		t.Error("the connection stays open")
	}
	if n := len(f.requests()); n != 0 {
		t.Errorf("%d requests reached the object", n)
	}
}

func TestSlowBodyIsGivenUp(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{}, nil)
	s := httptest.NewServer(newGateway(t, Config{Transport: f, ClientTimeout: 50 * time.Millisecond}))
	defer s.Close()
	for _, framing := range []string{"Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"} {
		got := raw(t, s, func(c net.Conn) { fmt.Fprint(c, "POST /counter/x HTTP/1.1\r\nHost: x\r\n"+framing) })
		wantProblem(t, got, 504, engine.Timeout, "did not arrive within 50ms")
		if !got.Close {
			t.Error("the connection stays open")
		}
	}
	if n := len(f.requests()); n != 0 {
		t.Errorf("%d requests reached the object", n)
	}
}

func TestSlowBodyDoesNotHoldBackARefusal(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(newGateway(t, Config{ClientTimeout: 50 * time.Millisecond}))
	defer s.Close()
	got := raw(t, s, func(c net.Conn) {
		fmt.Fprint(c, "POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	})
	wantProblem(t, got, 404, engine.NotFound, "")
}

func TestBodyThatEndsEarlyIsRefused(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{}, nil)
	s := httptest.NewServer(newGateway(t, Config{Transport: f}))
	defer s.Close()
	got := raw(t, s, func(c net.Conn) {
		fmt.Fprint(c, "POST /counter/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
		_ = c.(*net.TCPConn).CloseWrite()
	})
	wantProblem(t, got, 400, engine.Invalid, "the body ends early")
	if n := len(f.requests()); n != 0 {
		t.Errorf("%d requests reached the object", n)
	}
}

func TestDeadlineCoversTheBody(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{}, nil)
	g := newGateway(t, Config{Transport: f})
	r := httptest.NewRequest("POST", "/counter/x", late{})
	r.Header.Set("Perdure-Deadline", "1ms")
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	wantProblem(t, w.Result(), 504, engine.Timeout, "before the body had arrived")
	if n := len(f.requests()); n != 0 {
		t.Errorf("%d requests reached the object", n)
	}
}

// late is a body that arrives after 2 ms.
type late struct{}

func (late) Read([]byte) (int, error) { <-time.After(2 * time.Millisecond); return 0, io.EOF }

// A server reads on while the object works; a limit that passed then would look like a client that leaves.
func TestBodyLimitDoesNotEndASlowTurn(t *testing.T) {
	t.Parallel()
	f := &transport{do: func(ctx context.Context, _ engine.Request) (engine.Reply, error) {
		select {
		case <-ctx.Done():
			return engine.Reply{}, engine.Errorf(engine.UnknownOutcome, "the caller stopped waiting")
		case <-time.After(300 * time.Millisecond): // thrice the limit
			return engine.Reply{Status: 200, Body: []byte("done")}, nil
		}
	}}
	s := httptest.NewServer(newGateway(t, Config{Transport: f, ClientTimeout: 100 * time.Millisecond}))
	defer s.Close()
	got, err := http.Post(s.URL+"/counter/x", "text/plain", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if body := read(t, got); body != "done" {
		t.Errorf("got %d %s", got.StatusCode, body)
	}
}

func TestCallerThatGivesUpIsNoticed(t *testing.T) {
	t.Parallel()
	began, left := make(chan struct{}), make(chan struct{})
	f := &transport{do: func(ctx context.Context, _ engine.Request) (engine.Reply, error) {
		close(began)
		<-ctx.Done()
		return engine.Reply{}, engine.Errorf(engine.UnknownOutcome, "the caller stopped waiting")
	}}
	g := newGateway(t, Config{Transport: f})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		g.ServeHTTP(w, r)
	}))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	r, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/counter/x", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := http.DefaultClient.Do(r); err == nil {
		t.Error("got an answer")
	}
	<-left
	wantMetric(t, g, `perdure_http_requests_total{route="/{class}/{name}",status="499"} 1`)
}
