package natsbus

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

const wait = 10 * time.Second

// wrongSlot is the subject of a method of counter/a at a slot that is not its own.
func wrongSlot(ns wire.Subjects) string {
	return fmt.Sprintf("%s.part.%d.call.counter.a.increment", ns, (wire.Slot("counter", "a")+1)%wire.Slots)
}

func TestAnyClientIsAnswered(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		if r.Class != "counter" || r.Name != "cart 99" || r.Method != "increment" || string(r.Body) != `{"by":2}` {
			t.Errorf("got %+v", r)
		}
		answer(engine.Reply{Status: 200, Body: []byte("3"), Version: 7, Replayed: r.ID != ""}, nil)
	})
	nc := connect(t)
	m := must[*nats.Msg](t)(nc.Request(string(ns)+".call.counter.cart%2099.increment", []byte(`{"by":2}`), wait))
	if diff := gocmp.Diff(nats.Header{"Perdure-Version": {"7"}}, m.Header); string(m.Data) != "3" || diff != "" {
		t.Errorf("got %q %s", m.Data, diff)
	}
	again := &nats.Msg{Subject: ns.Call("counter", "cart%2099", "increment"), Header: headersOf("perdure-request-id", "a"), Data: []byte(`{"by":2}`)}
	m = must[*nats.Msg](t)(nc.RequestMsg(again, wait))
	if diff := gocmp.Diff(nats.Header{"Perdure-Version": {"7"}, "Perdure-Replayed": {"true"}}, m.Header); diff != "" {
		t.Error(diff)
	}
}

func TestErrorIsAnsweredAsProblem(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	long := strings.Repeat("é", errorTextMax)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		switch r.Name {
		case "limited":
			answer(engine.Reply{}, engine.Errorf(engine.Limited, "slowly:\r\none after the other").RetryIn(1200*time.Millisecond))
		case "long":
			answer(engine.Reply{}, engine.Errorf(engine.Refused, "%s", long))
		default:
			answer(engine.Reply{}, errors.New("a secret of the class"))
		}
	})
	nc := connect(t)
	for _, tt := range []struct {
		name   string
		header nats.Header
		detail string
	}{
		{"limited", headersOf("Nats-Service-Error-Code", "429", "Nats-Service-Error", "limited: slowly:  one after the other",
			"Content-Type", "application/problem+json", "Retry-After", "2"), "slowly:\r\none after the other"},
		{"long", headersOf("Nats-Service-Error-Code", "422", "Nats-Service-Error", ("refused: " + long)[:errorTextMax-1],
			"Content-Type", "application/problem+json"), long},
		{"plain", headersOf("Nats-Service-Error-Code", "500", "Nats-Service-Error", "internal: the object failed; its log has the reason under this request id",
			"Content-Type", "application/problem+json"), "the object failed; its log has the reason under this request id"},
	} {
		m := must[*nats.Msg](t)(nc.Request(ns.Call("counter", tt.name, "get"), nil, wait))
		if diff := gocmp.Diff(tt.header, m.Header); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		var p engine.Problem
		check(t, json.Unmarshal(m.Data, &p))
		if p.Detail != tt.detail || fmt.Sprint(p.Status) != tt.header.Get("Nats-Service-Error-Code") {
			t.Errorf("%s: got %s", tt.name, m.Data)
		}
	}
}

func TestMalformedRequestIsRefusedUnserved(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, unserved(t))
	nc := connect(t)
	for _, m := range []*nats.Msg{
		{Subject: ns.Call("counter", "a%2eb", "get")},
		{Subject: ns.Call("counter", "a", "get"), Header: headersOf("Perdure-Wire", "9")},
		{Subject: wrongSlot(ns), Header: headersOf("Perdure-Wire", "9")},
	} {
		m = must[*nats.Msg](t)(nc.RequestMsg(m, wait))
		if m.Header.Get("Nats-Service-Error-Code") != "400" || !strings.Contains(m.Header.Get("Nats-Service-Error"), "invalid: ") {
			t.Errorf("got %v %s", m.Header, m.Data)
		}
	}
}

// rawError sends a request with a block of headers that nats.go would not write, and returns the line of its answer's error.
func rawError(t *testing.T, subject, block string) string {
	t.Helper()
	conn := must[net.Conn](t)(natsServer.InProcessConn())
	defer conn.Close()
	check(t, conn.SetDeadline(time.Now().Add(wait)))
	lines := bufio.NewReader(conn)
	must[string](t)(lines.ReadString('\n')) // the server speaks first
	_, err := fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB raw.%s 1\r\nHPUB %s raw.%s %d %d\r\n%s\r\n",
		t.Name(), subject, t.Name(), len(block), len(block), block)
	check(t, err)
	for {
		line := must[string](t)(lines.ReadString('\n'))
		if strings.HasPrefix(line, "Nats-Service-Error: ") {
			return line
		}
	}
}

// Without its headers the request would be another one.
func TestUnreadableHeadersAreRefused(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, unserved(t))
	line := rawError(t, ns.Call("counter", "a", "get"), "NATS/1.0\r\nno colon\r\n\r\n")
	if !strings.Contains(line, "invalid: the headers cannot be read") {
		t.Errorf("got %q", line)
	}
}

func TestRequestWithoutReplySubjectRuns(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	served := make(chan engine.Request, 1)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		if r.Method == "fail" {
			answer(engine.Reply{}, engine.Errorf(engine.Refused, "no"))
		} else {
			answer(engine.Reply{}, nil)
		}
		served <- r
	})
	nc := connect(t)
	for _, method := range []string{"increment", "fail"} {
		check(t, nc.Publish(ns.Call("counter", "a", method), nil))
		if r := <-served; r.Name != "a" || r.Method != method {
			t.Errorf("got %+v", r)
		}
	}
}

func TestAnswersDoNotGoIntoTheNamespace(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, answering(engine.Reply{Body: []byte("1")}, nil))
	nc := connect(t)
	journal := must[*nats.Subscription](t)(nc.SubscribeSync(ns.Journal("counter", "a")))
	call := ns.Call("counter", "a", "increment")
	check(t, nc.PublishRequest(call, ns.Journal("counter", "a"), nil))
	must[*nats.Msg](t)(nc.Request(call, nil, wait)) // the same slot answers in order
	if n, _, err := journal.Pending(); n != 0 || err != nil {
		t.Errorf("%d answers came into the journal (%v)", n, err)
	}
	in := answers{ns: ns}
	for reply, want := range map[string]string{"_INBOX.a": "_INBOX.a", "$JS.API.STREAM.DELETE.x": "", string(ns) + "2.a": string(ns) + "2.a"} {
		if got := in.replyTo(&nats.Msg{Reply: reply}); got != want {
			t.Errorf("answers to %q go to %q, want %q", reply, got, want)
		}
	}
}

func TestRequestAtTheWrongSlotIsPassedOnAsItIs(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	served := make(chan engine.Request, 1)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		served <- r
		answer(engine.Reply{Body: r.Body, Version: 1}, nil)
	})
	before := PassedOn()
	m := must[*nats.Msg](t)(connect(t).RequestMsg(&nats.Msg{Subject: wrongSlot(ns), Header: headersOf("Perdure-Request-Id", "x"), Data: []byte("5")}, wait))
	if m.Header.Get("Nats-Service-Error") != "" {
		t.Fatalf("got %v", m.Header)
	}
	if r := <-served; r.ID != "x" || r.Name != "a" || r.Method != "increment" || string(m.Data) != "5" {
		t.Errorf("served %+v, answered %q", r, m.Data)
	}
	if PassedOn() == before {
		t.Error("it was not counted")
	}
}

func TestPassingOnWhatCannotBeSentIsAnError(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	listen(t, ns, unserved(t))
	line := rawError(t, wrongSlot(ns), "NATS/1.0\r\na/b: nats.go reads this name and does not write it\r\n\r\n")
	if !strings.Contains(line, "invalid: pass the request on from "+wrongSlot(ns)) {
		t.Errorf("got %q", line)
	}
}

func TestEachPartitionTakesItsSlots(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const partitions = 3
	nc := connect(t)
	for p := range partitions {
		stop := must[func()](t)(Listen(nc, ns, p, partitions, slog.New(slog.DiscardHandler), func(r engine.Request, answer func(engine.Reply, error)) {
			answer(engine.Reply{Body: fmt.Append(nil, p)}, nil)
		}))
		defer stop()
	}
	caller := connect(t)
	for i := range 100 {
		name := fmt.Sprint("object ", i)
		token := wire.Escape(name)
		m := must[*nats.Msg](t)(caller.Request(ns.Call("counter", token, "get"), nil, wait))
		if want := fmt.Sprint(wire.Partition(wire.Slot("counter", token), partitions)); string(m.Data) != want {
			t.Errorf("%s: partition %s answered, want %s", name, m.Data, want)
		}
	}
}

func TestStopEndsIntakeAndNotAnswers(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	worker := connect(t)
	held := make(chan func(engine.Reply, error), 1)
	stop := must[func()](t)(Listen(worker, ns, 0, 1, slog.New(slog.DiscardHandler), func(_ engine.Request, answer func(engine.Reply, error)) { held <- answer }))
	nc := connect(t)
	inbox := must[*nats.Subscription](t)(nc.SubscribeSync(nc.NewInbox()))
	check(t, nc.PublishRequest(ns.Call("counter", "a", "get"), inbox.Subject, nil))
	answer := <-held
	stop()
	check(t, worker.Flush())
	if _, err := nc.Request(ns.Call("counter", "a", "get"), nil, wait); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after stop: got %v", err)
	}
	answer(engine.Reply{Body: []byte("1")}, nil)
	if m := must[*nats.Msg](t)(inbox.NextMsg(wait)); string(m.Data) != "1" {
		t.Errorf("got %q", m.Data)
	}
	stop() // once more does nothing
}

// TestStopLosesNoRequest: each request that callers send while an owner leaves is answered, or went to nobody.
func TestStopLosesNoRequest(t *testing.T) {
	t.Parallel()
	const rounds, callers = 10, 32
	ns := namespace(t)
	var requests []string
	for i := range callers {
		requests = append(requests, ns.Call("counter", fmt.Sprint(i), "get"))
	}
	for range rounds {
		worker, nc := connect(t), connect(t)
		var served atomic.Int64
		stop := must[func()](t)(Listen(worker, ns, 0, 1, slog.New(slog.DiscardHandler), func(_ engine.Request, answer func(engine.Reply, error)) {
			served.Add(1)
			answer(engine.Reply{Body: []byte("1")}, nil)
		}))
		var answered atomic.Int64
		var running sync.WaitGroup
		for _, subject := range requests {
			running.Go(func() {
				for {
					_, err := nc.Request(subject, nil, 30*time.Second)
					if errors.Is(err, nats.ErrNoResponders) {
						return
					}
					if err != nil {
						t.Errorf("a request got lost: %v", err)
						return
					}
					answered.Add(1)
				}
			})
		}
		for answered.Load() < 10*callers && !t.Failed() {
			runtime.Gosched()
		}
		stop()
		seen := served.Load()
		running.Wait()
		if served.Load() != seen || answered.Load() != seen {
			t.Errorf("%d requests were served when stop returned, %d in the end, and %d answered", seen, served.Load(), answered.Load())
		}
	}
}

func TestAnswerThatTheServerDoesNotCarryIsToldAsError(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	large := strings.Repeat("x", payloadMax)
	listen(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		if r.Method == "fail" {
			answer(engine.Reply{}, engine.Errorf(engine.Refused, "%s", large))
		} else {
			answer(engine.Reply{Body: []byte(large)}, nil)
		}
	})
	nc := connect(t)
	for method, want := range map[string]string{"get": "what was done stays done", "fail": "refused: xxx"} {
		m := must[*nats.Msg](t)(nc.Request(ns.Call("counter", "a", method), nil, wait))
		if e := engine.ParseProblem(m.Data); e.Code != engine.Internal || !strings.Contains(e.Detail, want) || !strings.Contains(e.Detail, "the server carries 131072") {
			t.Errorf("%s: got %v", method, e)
		}
	}
}

func TestListenFailsOnAClosedConnection(t *testing.T) {
	t.Parallel()
	nc := connect(t)
	nc.Close()
	_, err := Listen(nc, "objects", 0, 4, slog.New(slog.DiscardHandler), unserved(t))
	_, err2 := ServeAdmin(nc, "objects", Admin{}, slog.New(slog.DiscardHandler))
	for _, err := range []error{err, err2} {
		if !errors.Is(err, nats.ErrConnectionClosed) || !strings.Contains(cmp.Or(err, io.EOF).Error(), "subscribe to ") {
			t.Errorf("got %v", err)
		}
	}
}
