package natsbus

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
)

func TestAnHTTPRequestArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	served := make(chan engine.Request, 1)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		served <- r
		answer(engine.Reply{Status: 200}, nil)
	})
	c := NewClient(connect(t), ns)
	at := time.Date(2031, 2, 3, 4, 5, 6, 7, time.UTC)
	for _, want := range []engine.Request{
		{HTTP: &engine.HTTPRequest{Method: "GET", URL: "/counter/a", Host: "h", Header: http.Header{}}},
		{HTTP: &engine.HTTPRequest{Method: "HEAD", URL: "/counter/a?", Header: http.Header{"User-Agent": {"x/1"}}}},
		{HTTP: &engine.HTTPRequest{Method: "PURGE", URL: "/counter/a%2Fb//c/../%2E%2e?q=%zz&ü=1;x", Host: "h:80", Header: http.Header{"X-Y": {"1", "", "a, b"}, "Cookie": {"a=b"}}}},
		{HTTP: &engine.HTTPRequest{Method: "POST", URL: "/counter/a", Host: "h", Header: http.Header{"Content-Length": {"5"}, "Content-Type": {"image/png"}, "Perdure-Own": {"1"}}}, Body: []byte("\x00\xff\r\n\r")},
		{HTTP: &engine.HTTPRequest{Method: "GET", URL: "/counter/a", Header: http.Header{"Content-Length": {"2"}}}, Body: []byte("{}"), ID: "order 17; ü"},
		{HTTP: &engine.HTTPRequest{Method: "GET", URL: "/counter/a", Header: http.Header{}}, Deadline: at, Trace: trace, Caller: engine.Caller{Claimed: "zoe"},
			Session: &engine.SessionNumber{Sender: sender, N: 7, M: 3, Deadline: at}},
	} {
		want.Class, want.Name = "counter", "a.b, ü%"
		_, err := c.Do(t.Context(), want)
		check(t, err)
		got := <-served
		if diff := gocmp.Diff(want, got, cmpopts.IgnoreUnexported(engine.Request{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", want.HTTP.Method, want.HTTP.URL, diff)
		}
	}
}

func TestAnHTTPReplyArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	ns, replies := namespace(t), make(chan engine.Reply, 1)
	listen(t, ns, func(_ engine.Request, answer func(engine.Reply, error)) { answer(<-replies, nil) })
	c := NewClient(connect(t), ns)
	for _, tt := range []struct {
		method     string
		sent, want engine.Reply
	}{
		{"GET", engine.Reply{Status: 200, Body: []byte("\x00\r\n0"), Header: http.Header{"Content-Type": {"image/png"}, "Set-Cookie": {"a=b", "c=d"}}},
			engine.Reply{Status: 200, Body: []byte("\x00\r\n0"), Header: http.Header{"Content-Type": {"image/png"}, "Set-Cookie": {"a=b", "c=d"}, "Content-Length": {"4"}}}},
		{"POST", engine.Reply{Status: 499, Version: 7, Replayed: true}, engine.Reply{Status: 499, Version: 7, Replayed: true, Header: http.Header{"Content-Length": {"0"}}}},
		{"GET", engine.Reply{Status: 304, Header: http.Header{"Etag": {"x"}}}, engine.Reply{Status: 304, Header: http.Header{"Etag": {"x"}}}},
		{"GET", engine.Reply{Status: 201, Header: http.Header{"Connection": {"X-Hop"}, "X-Hop": {"1"}, "Transfer-Encoding": {"gzip"}, "X-End": {"1"}}},
			engine.Reply{Status: 201, Header: http.Header{"X-End": {"1"}, "Content-Length": {"0"}}}},
		{"HEAD", engine.Reply{Status: 200, Header: http.Header{"Content-Length": {"1234"}}}, engine.Reply{Status: 200, Header: http.Header{"Content-Length": {"1234"}}}},
		{"HEAD", engine.Reply{Status: 200, Body: []byte("12")}, engine.Reply{Status: 200, Header: http.Header{"Content-Length": {"2"}}}},
		{"HEAD", engine.Reply{Status: 200}, engine.Reply{Status: 200}},
	} {
		replies <- tt.sent
		got, err := c.Do(t.Context(), getting("/counter/a", tt.method))
		check(t, err)
		if diff := gocmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s %d (-want +got):\n%s", tt.method, tt.sent.Status, diff)
		}
	}
}

func getting(url, method string) engine.Request {
	return engine.Request{Class: "counter", Name: "a", HTTP: &engine.HTTPRequest{Method: method, URL: url, Header: http.Header{}}}
}

func TestErrorsOfHTTPRequestsAreThoseOfCalls(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	large := strings.Repeat("x", payloadMax)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		switch r.HTTP.URL {
		case "/large":
			answer(engine.Reply{Status: 200, Body: []byte(large)}, nil)
		case "/odd":
			answer(engine.Reply{Status: 42}, nil)
		default:
			answer(engine.Reply{}, engine.Errorf(engine.Refused, "no"))
		}
	})
	c := NewClient(connect(t), ns)
	for url, want := range map[string]string{"/refused": "refused: no", "/large": "what was done stays done", "/odd": "status 42, which HTTP does not have"} {
		if _, err := c.Do(t.Context(), getting(url, "GET")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
	r := getting("/", "POST")
	r.Body = []byte(large)
	failure(t, t.Context(), c, r, engine.TooLarge)
	r = getting("/", "GET")
	r.HTTP.Header = http.Header{"X": {strings.Repeat("x", httpHeadBytesMax)}}
	failure(t, t.Context(), c, r, engine.TooLarge)
}

func TestWhatIsNoHTTPRequestIsRefusedUnserved(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, unserved(t))
	nc := connect(t)
	const whole = "POST /counter/a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"
	for _, body := range []string{"", "hello", whole[:len(whole)-1], whole + "x", whole + whole} {
		m := must[*nats.Msg](t)(nc.Request(ns.HTTP("counter", "a"), []byte(body), wait))
		if e := engine.ParseProblem(m.Data); e.Code != engine.Invalid || e.Object != "counter/a" {
			t.Errorf("%q: got %v", body, e)
		}
	}
}

func TestAnHTTPRequestInTheWrongSlotIsPassedOn(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, answering(engine.Reply{Status: 200, Body: []byte("1")}, nil))
	r := getting("/counter/a", "GET")
	m := must[*nats.Msg](t)(NewClient(connect(t), ns).encodeHTTP(&r))
	m.Subject = strings.Replace(wrongSlot(ns), ".call.counter.a.increment", ".http.counter.a", 1)
	m = must[*nats.Msg](t)(connect(t).RequestMsg(m, wait))
	reply := must[engine.Reply](t)(parseReply(m))
	check(t, parseHTTPReply("GET", &reply))
	if string(reply.Body) != "1" {
		t.Errorf("got %+v", reply)
	}
}

func TestACallerThatLeavesEndsItsHTTPRequest(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	type task struct {
		engine.Request
		answer func(engine.Reply, error)
	}
	held := make(chan task, 3)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) { held <- task{r, answer} })
	c := NewClient(connect(t), ns)
	at := time.Now().Add(time.Minute)
	send := func(ctx context.Context, n uint64) {
		r := getting("/counter/a", "GET")
		r.Deadline, r.Session = at, &engine.SessionNumber{Sender: sender, N: n, M: 1, Deadline: at}
		_, _ = c.Do(ctx, r)
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	leaving, leave := context.WithCancel(t.Context())
	impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	calls.Go(func() { send(t.Context(), 1) })
	stays := <-held
	calls.Go(func() { send(impatient, 2) }) // it will ask again, under the same number
	asksAgain := <-held
	<-impatient.Done()
	calls.Go(func() { send(leaving, 3) })
	leaves := <-held
	leave()
	select {
	case <-leaves.Context().Done():
	case <-time.After(30 * time.Second):
		t.Error("a caller left, and its request goes on")
	}
	for _, other := range []task{stays, asksAgain} {
		if other.Context().Err() != nil {
			t.Errorf("request %d ends, and its caller waits", other.Session.N)
		}
		other.answer(engine.Reply{Status: 200}, nil)
	}
	leaves.answer(engine.Reply{Status: 200}, nil)
}

func TestReachAsksWhoOwnsAnything(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	c := NewClient(connect(t), ns)
	if err := c.Reach(t.Context(), 4); err == nil {
		t.Error("nobody listens, and is reached")
	}
	stop := must[func()](t)(Listen(connect(t), ns, 3, 4, slog.New(slog.DiscardHandler), unserved(t)))
	check(t, c.Reach(t.Context(), 4))
	stop()
	if err := c.Reach(t.Context(), 4); err == nil {
		t.Error("who stopped is reached")
	}
}
