package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/counter/counterapi"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
)

// shop is some callers of counters, and what they were told.
type shop struct {
	client  *Client
	callers sync.WaitGroup
	told    [shopCounters]atomic.Int64
	unknown [shopCounters]atomic.Int64
	posted  atomic.Int64

	mu      sync.Mutex
	longest time.Duration // of a call
}

const (
	shopCounters = 3
	shopCallers  = 6
)

func shopName(i int) string { return fmt.Sprint("shop", i) }

// open begins to call and post until ctx is done; a call that has begun is waited for.
func (s *shop) open(ctx context.Context, t *testing.T) {
	env := s.client.With(context.WithoutCancel(ctx))
	for i := range shopCallers {
		i %= shopCounters
		s.callers.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				_, err := engine.Call(env, counterapi.Counters.Get(shopName(i)), counterapi.Counter.Increment, counterapi.By{}, engine.Limit(time.Minute))
				s.mu.Lock()
				s.longest = max(s.longest, time.Since(began))
				s.mu.Unlock()
				switch {
				case err == nil:
					s.told[i].Add(1)
				case errors.Is(err, engine.UnknownOutcome):
					s.unknown[i].Add(1)
				}
				if err != nil {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			}
		})
	}
	s.callers.Go(func() {
		for ctx.Err() == nil {
			if err := engine.Post(env, counterapi.Counters.Get("posted"), counterapi.Counter.Increment, counterapi.By{}); err != nil {
				t.Errorf("post: %v", err)
				return
			}
			s.posted.Add(1)
			<-time.After(time.Millisecond) // the calls are what is to be pressed
		}
	})
}

// check holds what callers were told against the counters.
func (s *shop) check(t *testing.T) {
	t.Helper()
	env := s.client.With(t.Context())
	value := func(name string) int64 {
		n, err := engine.Read(env, counterapi.Counters.Get(name), counterapi.Counter.Value, nil)
		check(t, err)
		return n
	}
	for i := range shopCounters {
		n, told, unknown := value(shopName(i)), s.told[i].Load(), s.unknown[i].Load()
		if told == 0 || n < told || n > told+unknown {
			t.Errorf("%s is %d; %d increments were told, of %d the outcome is unknown", shopName(i), n, told, unknown)
		}
	}
	for range 1000 {
		if n := value("posted"); n >= s.posted.Load() {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if n := value("posted"); n == 0 || n != s.posted.Load() {
		t.Errorf("posted is %d, and %d messages were stored", n, s.posted.Load())
	}
}

// TestACallerNoticesRestartsAndOwnerChangesAsTimeOnly: the server ends and comes back under load, one worker stops and
// another dies, and every call is answered and applied once.
func TestACallerNoticesRestartsAndOwnerChangesAsTimeOnly(t *testing.T) {
	t.Parallel()
	f := newField(t)
	first := f.worker("first")
	f.serving(first)
	s := &shop{client: f.client(ClientOptions{})}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s.open(ctx, t)
	progress := func() {
		t.Helper()
		before := s.told[0].Load()
		for range 4000 {
			if s.told[0].Load() > before+20 {
				return
			}
			<-time.After(10 * time.Millisecond)
		}
		t.Fatal("nobody is answered")
	}
	progress()
	for range 3 {
		f.end()
		f.start()
		progress()
	}
	second := f.worker("second")
	progress()
	first.Stop()
	progress()
	third := f.worker("third")
	progress()
	second.Kill()
	progress()
	f.end()
	third.Kill() // nobody is there for a while, and then another
	f.start()
	f.worker("fourth")
	progress()
	stop()
	s.callers.Wait()
	s.check(t)
	t.Logf("%d, %d and %d calls, %d messages; the longest call took %v", s.told[0].Load(), s.told[1].Load(), s.told[2].Load(),
		s.posted.Load(), s.longest)
}

func TestErrorsOfTheClassArriveWhole(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.serving(f.worker("w"))
	env := f.client(ClientOptions{}).With(t.Context())
	fail := func(in failure, opts ...engine.CallOption) *engine.Error {
		t.Helper()
		_, err := engine.Call(env, engine.Remote[*faulty]("faulty").Get("a b"), (*faulty).Fail, in, opts...)
		e, ok := errors.AsType[*engine.Error](err)
		if !ok || !e.Remote || e.Object != "faulty/a b" || e.RequestID == "" {
			t.Fatalf("%+v: %#v", in, err)
		}
		return e
	}
	for _, code := range engine.Codes() {
		if code == engine.Unavailable || code == engine.UnknownOutcome {
			continue // they are repeated, so what the caller hears in the end may be of the machinery
		}
		e := fail(failure{Code: code, After: 1500 * time.Millisecond}, engine.RequestID("id-"+string(code)))
		if !errors.Is(e, code) || e.Detail != "as told" || e.RetryAfter != 1500*time.Millisecond || e.RequestID != "id-"+string(code) {
			t.Errorf("%s: %#v", code, e)
		}
		if e.Overloaded() != (code == engine.Overloaded || code == engine.Limited) {
			t.Errorf("%s: overloaded %v", code, e.Overloaded())
		}
	}
	if e := fail(failure{Plain: true}); e.Code != engine.Internal || strings.Contains(e.Detail, "plain") {
		t.Errorf("a plain error: %#v", e)
	}
	for _, code := range []engine.Code{engine.Unavailable, engine.UnknownOutcome} {
		var err error
		for range 20 { // the limit may come while the last try is under way, on a busy machine: its outcome is unknown then, and nothing of the class
			_, err = engine.Call(env, engine.Remote[*faulty]("faulty").Get("a b"), (*faulty).Fail, failure{Code: code}, engine.RequestID("again"), engine.Limit(500*time.Millisecond))
			if !errors.Is(err, engine.UnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
				break
			}
		}
		if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != code || !e.Retryable() || e.Object != "faulty/a b" || e.RequestID != "again" {
			t.Errorf("%s: %#v", code, err)
		}
	}
	_, err := engine.Call(env, engine.Remote[*faulty]("nobody").Get("a"), (*faulty).Fail, failure{})
	if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.NotFound || e.Remote || e.Object != "nobody/a" {
		t.Errorf("no class: %#v", err)
	}
}

// TestAnswersThatDoNotComeAreUnknownOutcomes, and the marks tell objects which answers they need not keep.
func TestAnswersThatDoNotComeAreUnknownOutcomes(t *testing.T) {
	t.Parallel()
	f := newField(t)
	seen := make(chan engine.Request, 8)
	stop, err := natsbus.Listen(f.dial(), wire.DefaultNamespace, 0, 1, slog.New(slog.DiscardHandler), func(r engine.Request, answer func(engine.Reply, error)) {
		seen <- r
		if r.Name != "silent" {
			answer(engine.Reply{Body: []byte("1"), Version: 1}, nil)
		}
	})
	check(t, err)
	t.Cleanup(stop)
	c := f.client(ClientOptions{})
	increment := func(ctx context.Context, name string) error {
		_, err := engine.Call(c.With(ctx), counterapi.Counters.Get(name), counterapi.Counter.Increment, counterapi.By{})
		return err
	}
	for range 3 {
		check(t, increment(t.Context(), "a"))
		if n := (<-seen).Session; n.M != n.N {
			t.Errorf("request %d says that all below %d are answered", n.N, n.M)
		}
	}
	unknown := func(err, cause error) {
		t.Helper()
		n := (<-seen).Session
		e, ok := errors.AsType[*engine.Error](err)
		if !ok || e.Code != engine.UnknownOutcome || e.Remote || e.Object != "counter/silent" || e.RequestID != fmt.Sprint(n.Sender, "-", n.N) || !errors.Is(err, cause) {
			t.Errorf("got %#v, want the unknown outcome of request %+v because of %v", err, n, cause)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	unknown(increment(short, "silent"), context.DeadlineExceeded)
	failed := make(chan error, 1)
	go func() { failed <- increment(t.Context(), "silent") }()
	for len(seen) == 0 {
		<-time.After(time.Millisecond)
	}
	c.Close()
	unknown(<-failed, engine.ErrClosed)
	if err := increment(t.Context(), "a"); !errors.Is(err, engine.Unavailable) || !errors.Is(err, engine.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := c.Classes(t.Context()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAClientMayBeThereBeforeTheServer(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.end()
	servers := "nats://ann:secret@" + f.options.Listen
	if _, err := Connect(servers, ClientOptions{}); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), f.options.Listen) {
		t.Errorf("got %v", err)
	}
	c, err := Connect(servers, ClientOptions{Wait: true})
	check(t, err)
	t.Cleanup(c.Close)
	if err := c.Ready(); !errors.Is(err, engine.Unavailable) {
		t.Errorf("without a server it is ready: %v", err)
	}
	answered := make(chan error, 2)
	go func() {
		n, err := engine.Call(c.With(t.Context()), counterapi.Counters.Get("a"), counterapi.Counter.Increment, counterapi.By{By: 3})
		if n != 3 && err == nil {
			err = fmt.Errorf("it counts %d", n)
		}
		answered <- err
	}()
	go func() { _, err := c.Classes(t.Context()); answered <- err }()
	f.start()
	f.worker("w")
	for range 2 {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	if err := c.Ready(); err != nil {
		t.Errorf("with a server it is not ready: %v", err)
	}
}

func TestAClientOfAnotherConnectionLeavesItOpen(t *testing.T) {
	t.Parallel()
	f := newField(t)
	nc := f.dial()
	c, err := NewClient(nc, ClientOptions{})
	check(t, err)
	c.Close()
	if !nc.IsConnected() {
		t.Error("the connection is closed")
	}
	if _, err := NewClient(nc, ClientOptions{Namespace: "a.b"}); err == nil || !strings.Contains(err.Error(), "namespace") {
		t.Errorf("got %v", err)
	}
	nc.Close()
	if _, err := NewClient(nc, ClientOptions{}); err == nil {
		t.Error("it takes a connection that is closed")
	}
}

func TestAContextSaysWhereToConnect(t *testing.T) {
	t.Parallel()
	f := newField(t)
	file := filepath.Join(t.TempDir(), "field.json")
	check(t, os.WriteFile(file, fmt.Appendf(nil, `{"url":%q}`, f.server.URL()), 0o600))
	c, err := ConnectContext(file, ClientOptions{Name: "shop"})
	check(t, err)
	defer c.Close()
	if name := c.own.Opts.Name; name != "shop" || c.Ready() != nil {
		t.Errorf("connected as %q: %v", name, c.Ready())
	}
	if _, err := ConnectContext(file+"x", ClientOptions{}); err == nil || !strings.Contains(err.Error(), file+"x") {
		t.Errorf("got %v", err)
	}
}

// TestNothingOfAClientIsLeftBehindIt looks for goroutines that it started, directly or not: they inherit its label.
func TestNothingOfAClientIsLeftBehindIt(t *testing.T) {
	t.Parallel()
	f := newField(t)
	shared := f.dial()
	_, _ = shared.Request("nobody", nil, time.Second) // the goroutine that hands answers over is the connection's
	for name, make := range map[string]func() (*Client, error){
		"own":    func() (*Client, error) { return Connect(f.server.URL(), ClientOptions{}) },
		"shared": func() (*Client, error) { return NewClient(shared, ClientOptions{}) },
		"down":   func() (*Client, error) { return Connect("nats://127.0.0.1:1", ClientOptions{Wait: true}) },
	} {
		label := t.Name() + " " + name
		pprof.Do(t.Context(), pprof.Labels("client", label), func(ctx context.Context) {
			c, err := make()
			check(t, err)
			if labelled(label) == "" {
				t.Errorf("%s: it has no goroutines: they would not be found when it has ended", name)
			}
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			if _, err = c.Do(short, engine.Request{Class: "counter", Name: "a", Method: "increment"}); err == nil {
				t.Errorf("%s: without a worker it is answered", name)
			}
			c.Close()
		})
		left := ""
		for range 1000 {
			if left = labelled(label); left == "" {
				break
			}
			<-time.After(10 * time.Millisecond)
		}
		if left != "" {
			t.Errorf("%s: left behind:\n%s", name, left)
		}
	}
}

var goroutine = regexp.MustCompile(`(?s)\d+ @ .*?\n\n`)

// labelled are the stacks of the goroutines with a label, but for the caller's own.
func labelled(client string) (stacks string) {
	var all bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&all, 1) // a buffer takes everything
	for _, g := range goroutine.FindAllString(all.String(), -1) {
		if strings.Contains(g, fmt.Sprintf("%q:%q", "client", client)) && !strings.Contains(g, "gateway.labelled") {
			stacks += g
		}
	}
	return stacks
}

// TestAGatewayStandsOnAClient: as one in a process of its own does.
func TestAGatewayStandsOnAClient(t *testing.T) {
	t.Parallel()
	f := newField(t)
	f.serving(f.worker("w"))
	c := f.client(ClientOptions{})
	g, err := New(Config{Transport: c, Ready: c.Ready})
	check(t, err)
	const object = "/v1/objects/" + "counter/a"
	for _, tt := range []struct{ method, url, want string }{
		{"POST", object + "/call/increment", "1\n"},
		{"GET", object + "/state", `"version":1`},
		{"GET", object + "/journal", `"method":"increment"`},
		{"GET", "/v1/objects", `"name":"a"`},
		{"GET", "/v1/classes", `"counter"`},
		{"GET", "/readyz", ""},
	} {
		got := send(t, g, tt.method, tt.url, "")
		if text := read(t, got); got.StatusCode != 200 || !strings.Contains(text, tt.want) {
			t.Errorf("%s %s: got %d %s, want %s", tt.method, tt.url, got.StatusCode, text, tt.want)
		}
	}
	sent := send(t, g, "POST", object+"/send/increment", "")
	where := sent.Header.Get("Location")
	if sent.StatusCode != 202 || where == "" {
		t.Fatalf("send: %d %s", sent.StatusCode, read(t, sent))
	}
	for range 1000 {
		if strings.Contains(read(t, send(t, g, "GET", where, "")), `"applied"`) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Error("the message is not applied")
}

func TestReconnectDelayGrowsToABound(t *testing.T) {
	t.Parallel()
	for n, most := range map[int]time.Duration{1: reconnectFirst, 2: 2 * reconnectFirst, 100: reconnectLast} {
		for range 100 {
			if d := reconnectDelay(n); d < most/2 || d > most {
				t.Fatalf("wait %d is %v, want %v to %v", n, d, most/2, most)
			}
		}
	}
}
