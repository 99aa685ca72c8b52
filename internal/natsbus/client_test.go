package natsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

func TestRequestArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	served := make(chan engine.Request, 1)
	reply := engine.Reply{Status: 200, Body: []byte(`{"count":3}`), Version: 1<<64 - 1, Replayed: true}
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) { served <- r; answer(reply, nil) })
	c := NewClient(connect(t), ns)
	at := time.Date(2031, 2, 3, 4, 5, 6, 7, time.UTC)
	base := engine.Request{Class: "counter", Name: "a.b, ü%\n>", Method: "increment"}
	for _, change := range []func(*engine.Request){
		func(r *engine.Request) {},
		func(r *engine.Request) { r.Body = []byte(`{"by":2}`) },
		func(r *engine.Request) { r.Read = true },
		func(r *engine.Request) { r.ID = "order 17; ü" },
		func(r *engine.Request) { r.Deadline = at },
		func(r *engine.Request) { r.Limit = 1500 * time.Millisecond },
		func(r *engine.Request) {
			r.Deadline, r.Session = at, &engine.SessionNumber{Sender: sender, N: 1<<64 - 1, M: 3, Deadline: at}
		},
		func(r *engine.Request) { r.Caller.Claimed = "zoe" },
		func(r *engine.Request) { r.Chain = []string{"cart/a,b\n", "cart/%2C", "account/x/y"} },
		func(r *engine.Request) { r.Trace = trace },
	} {
		r := base
		change(&r)
		got, err := c.Do(t.Context(), r)
		check(t, err)
		if diff := gocmp.Diff(reply, got); diff != "" {
			t.Error(diff)
		}
		if diff := gocmp.Diff(r, <-served, cmpopts.IgnoreUnexported(engine.Request{}), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestVerifiedCallerIsAClaimOverThere(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	served := make(chan engine.Request, 1)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) { served <- r; answer(engine.Reply{}, nil) })
	r := engine.Request{Class: "counter", Name: "a", Method: "get", Caller: engine.Caller{Claimed: "admin", Verified: "zoe"}}
	_, err := NewClient(connect(t), ns).Do(t.Context(), r)
	check(t, err)
	if got := (<-served).Caller; got != (engine.Caller{Claimed: "zoe"}) {
		t.Errorf("got %+v", got)
	}
}

func TestEveryErrorArrivesAsItWasSent(t *testing.T) {
	t.Parallel()
	for _, code := range engine.Codes() {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			want := &engine.Error{Code: code, Detail: "why\nindeed", Object: "other/b", RequestID: "r", Remote: true, RetryAfter: 1500 * time.Millisecond}
			listen(t, ns, answering(engine.Reply{}, want))
			_, err := NewClient(connect(t), ns).Do(t.Context(), engine.Request{Class: "counter", Name: "a", Method: "get"})
			got, ok := errors.AsType[*engine.Error](err)
			if diff := gocmp.Diff(want, got, cmpopts.IgnoreUnexported(engine.Error{})); !ok || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

// failure asks for the error of a request, which is to be of that code, and name object and request.
func failure(t *testing.T, ctx context.Context, c *Client, r engine.Request, code engine.Code) *engine.Error {
	t.Helper()
	_, err := c.Do(ctx, r)
	e, ok := errors.AsType[*engine.Error](err)
	if !ok || e.Code != code || r.Name != "" && e.Object != r.Class+"/"+r.Name || e.RequestID != requestID(&r) {
		t.Fatalf("got %#v, want %s of %s/%s", err, code, r.Class, r.Name)
	}
	return e
}

func TestWithoutOwnerItIsUnavailable(t *testing.T) {
	t.Parallel()
	r := engine.Request{Class: "counter", Name: "a", Method: "get", Deadline: untilTime, Session: &engine.SessionNumber{Sender: sender, N: 1, M: 1}}
	failure(t, t.Context(), NewClient(connect(t), namespace(t)), r, engine.Unavailable)
}

func TestWithoutAnswerTheOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	r := engine.Request{Class: "counter", Name: "a", Method: "get", ID: "x"}
	for name, end := range map[string]func(*nats.Conn, context.CancelFunc){
		"the caller gives up":   func(_ *nats.Conn, cancel context.CancelFunc) { cancel() },
		"the connection closes": func(nc *nats.Conn, _ context.CancelFunc) { nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := namespace(t)
			nc := connect(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			listen(t, ns, func(engine.Request, func(engine.Reply, error)) { end(nc, cancel) })
			failure(t, ctx, NewClient(nc, ns), r, engine.UnknownOutcome)
		})
	}
}

func TestLostRequestIsNotWaitedForForEver(t *testing.T) {
	t.Parallel()
	near := func(ctx context.Context, want time.Duration) {
		t.Helper()
		end, ok := ctx.Deadline()
		if left := time.Until(end); !ok || left > want || left < want-wait {
			t.Errorf("the wait ends in %v, want %v", left, want)
		}
	}
	for _, tt := range []struct {
		r    engine.Request
		want time.Duration
	}{
		{engine.Request{}, 60 * time.Second},
		{engine.Request{Limit: 5 * time.Minute}, 330 * time.Second},
		{engine.Request{Deadline: time.Now().Add(time.Hour)}, time.Hour + 30*time.Second},
	} {
		ctx, cancel := patience(t.Context(), &tt.r)
		near(ctx, tt.want)
		cancel()
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ctx, cancel := patience(short, &engine.Request{})
	defer cancel()
	near(ctx, 20*time.Second)
}

func TestRequestThatCannotBeCarriedIsRefusedHere(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, unserved(t))
	c := NewClient(connect(t), ns)
	for _, tt := range []struct {
		name   string
		change func(*engine.Request)
		code   engine.Code
		want   string
	}{
		{"HTTP", func(r *engine.Request) { r.HTTP = &engine.HTTPRequest{} }, engine.Invalid, "HTTP request: parse"},
		{"class", func(r *engine.Request) { r.Class = "a.b" }, engine.Invalid, `"a.b" is no identifier`},
		{"method", func(r *engine.Request) { r.Method = "get.x" }, engine.Invalid, `"get.x" is no identifier`},
		{"no name", func(r *engine.Request) { r.Name = "" }, engine.Invalid, "name is empty"},
		{"id with a line break", func(r *engine.Request) { r.ID = "a\nb" }, engine.Invalid, `Perdure-Request-Id is "a\nb": want no line break`},
		{"id with space around it", func(r *engine.Request) { r.ID = " a" }, engine.Invalid, "no space around it"},
		{"caller with a line break", func(r *engine.Request) { r.Caller.Claimed = "a\rb" }, engine.Invalid, "Perdure-Caller"},
		{"body", func(r *engine.Request) { r.Body = make([]byte, payloadMax+1) }, engine.TooLarge, "the server does not carry"},
	} {
		r := engine.Request{Class: "counter", Name: "a", Method: "get"}
		tt.change(&r)
		if e := failure(t, t.Context(), c, r, tt.code); !strings.Contains(e.Detail, tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, e, tt.want)
		}
	}
}

func TestAnswerOfAnotherServiceIsInternal(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	nc := connect(t)
	must[*nats.Subscription](t)(nc.Subscribe(string(ns)+".part.*.call.counter.*.*", func(m *nats.Msg) {
		h := nats.Header{}
		if strings.HasSuffix(m.Subject, ".fail") {
			h["Nats-Service-Error-Code"] = []string{"404"}
		}
		_ = m.RespondMsg(&nats.Msg{Data: []byte("hello"), Header: h})
	}))
	check(t, nc.Flush())
	for _, method := range []string{"get", "fail"} {
		r := engine.Request{Class: "counter", Name: "a", Method: method}
		failure(t, t.Context(), NewClient(connect(t), ns), r, engine.Internal)
	}
}

// transport runs a function before each try.
type transport struct {
	*Client
	before func()
}

func (tr transport) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	tr.before()
	return tr.Client.Do(ctx, r)
}

func TestEngineClientRepeatsUnderTheSameNumberUntilThereIsAnOwner(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	tries := 0
	var mu sync.Mutex
	var numbers []string
	c := engine.NewClient(transport{NewClient(connect(t), ns), func() {
		if tries++; tries == 2 {
			listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
				mu.Lock()
				defer mu.Unlock()
				numbers = append(numbers, fmt.Sprint(r.Session.Sender, " ", r.Session.N, " ", r.Session.M))
				if len(numbers) == 1 {
					answer(engine.Reply{}, engine.Errorf(engine.UnknownOutcome, "the epoch is over"))
				} else {
					answer(engine.Reply{Body: []byte("1")}, nil)
				}
			})
		}
	}})
	reply, err := c.Do(t.Context(), engine.Request{Class: "counter", Name: "a", Method: "increment"})
	mu.Lock()
	defer mu.Unlock()
	if err != nil || string(reply.Body) != "1" || tries != 3 || len(numbers) != 2 || numbers[0] != numbers[1] {
		t.Errorf("got %s, %v after %d tries as %q", reply.Body, err, tries, numbers)
	}
}

func BenchmarkEncode(b *testing.B) {
	c := &Client{ns: wire.DefaultNamespace}
	for name, session := range map[string]*engine.SessionNumber{"bare": nil, "session": {Sender: sender, N: 12, M: 9}} {
		b.Run(name, func(b *testing.B) {
			r := engine.Request{Class: "counter", Name: "cart-99", Method: "increment", Body: []byte("1"), Deadline: untilTime, Session: session}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.encode(&r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAnswer is an answer on its way into a connection that nobody listens to.
func BenchmarkAnswer(b *testing.B) {
	a := &answers{nc: connect(b), ns: wire.DefaultNamespace, log: slog.New(slog.DiscardHandler)}
	reply := engine.Reply{Body: []byte("12345"), Version: 12345}
	b.ReportAllocs()
	for b.Loop() {
		a.send("_INBOX.nobody.1", reply)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	ns := namespace(b)
	listen(b, ns, answering(engine.Reply{Body: []byte("3"), Version: 1}, nil))
	c := NewClient(connect(b), ns)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := engine.Request{Class: "counter", Name: "a", Method: "get", Deadline: untilTime, Session: &engine.SessionNumber{Sender: sender, N: 1, M: 1}}
		for i := 0; pb.Next(); i++ {
			r.Name = fmt.Sprint(i % 100)
			if _, err := c.Do(b.Context(), r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
