package natsbus

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// TestCallsArePassedOnInOrder and answered as their owner answers, on a server that maps none.
func TestCallsArePassedOnInOrder(t *testing.T) {
	t.Parallel()
	ns := wire.Subjects(t.Name())
	const partitions = 2
	var owned, other string // names by partition
	for i := 0; owned == "" || other == ""; i++ {
		if name := fmt.Sprint("a", i); wire.Partition(wire.Slot("counter", name), partitions) == 0 {
			owned = name
		} else {
			other = name
		}
	}
	served := make(chan engine.Request, 1000)
	t.Cleanup(must[func()](t)(Listen(connect(t), ns, 0, partitions, slog.New(slog.DiscardHandler), func(r engine.Request, answer func(engine.Reply, error)) {
		served <- r
		if r.Method == "refuse" {
			answer(engine.Reply{}, engine.Errorf(engine.Refused, "not %s", r.Body))
			return
		}
		answer(engine.Reply{Body: r.Body, Version: 7}, nil)
	})))
	stop := must[func()](t)(RelayCalls(connect(t), ns, slog.New(slog.DiscardHandler)))
	t.Cleanup(stop)
	nc := connect(t)
	c := NewClient(nc, ns)
	reply, err := c.Do(t.Context(), engine.Request{Class: "counter", Name: owned, Method: "get", Body: []byte("1"), ID: "order-17"})
	if err != nil || string(reply.Body) != "1" || reply.Version != 7 {
		t.Errorf("%+v, %v", reply, err)
	}
	if r := <-served; r.ID != "order-17" || r.Name != owned {
		t.Errorf("served %+v", r)
	}
	if _, err = c.Do(t.Context(), engine.Request{Class: "counter", Name: owned, Method: "get", Eventual: true, MinVersion: 5}); err != nil {
		t.Error(err)
	}
	if r := <-served; !r.Eventual || r.MinVersion != 5 {
		t.Errorf("served %+v", r)
	}
	_, err = c.Do(t.Context(), engine.Request{Class: "counter", Name: owned, Method: "refuse", Body: []byte("2")})
	if !errors.Is(err, engine.Refused) || !strings.Contains(err.Error(), "not 2") {
		t.Error(err)
	}
	<-served
	if _, err := c.Do(t.Context(), engine.Request{Class: "counter", Name: other, Method: "get"}); !errors.Is(err, engine.Unavailable) || !strings.Contains(err.Error(), "has no owner") {
		t.Errorf("nobody owns it: %v", err)
	}
	if m := must[*nats.Msg](t)(nc.Request(ns.Call("v1", "a", "get"), nil, wait)); engine.ParseProblem(m.Data).Code != engine.NotFound {
		t.Errorf("a class that cannot be: %s", m.Data)
	}
	const many = 500
	for i := range many {
		check(t, nc.Publish(ns.Call("counter", owned, "get"), fmt.Append(nil, i)))
	}
	for i := range many {
		if r := <-served; string(r.Body) != fmt.Sprint(i) {
			t.Fatalf("%s comes as the %dth", r.Body, i)
		}
	}
	stop()
	if _, err := nc.Request(ns.Call("counter", owned, "get"), nil, wait); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after stop: %v", err)
	}
}
