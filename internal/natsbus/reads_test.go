package natsbus

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// places are an owner of all slots, and somebody who has copies, unless answers is nil.
type places struct{ owner, copies atomic.Int64 }

func listenToReads(t *testing.T, ns wire.Subjects, answers serveFunc) *places {
	p := &places{}
	listen(t, ns, func(_ engine.Request, answer func(engine.Reply, error)) {
		p.owner.Add(1)
		answer(engine.Reply{Status: 200, Body: []byte("9"), Version: 9}, nil)
	})
	if answers == nil {
		return p
	}
	nc := connect(t)
	stop := must[func()](t)(ListenReads(nc, ns, 0, 1, slog.New(slog.DiscardHandler), func(r engine.Request, answer func(engine.Reply, error)) {
		p.copies.Add(1)
		answers(r, answer)
	}))
	t.Cleanup(stop)
	check(t, nc.Flush())
	return p
}

func readTimes(t *testing.T, ns wire.Subjects, n int, eventual bool) {
	t.Helper()
	c := NewClient(connect(t), ns).ToSlots()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range n {
		r, err := c.Do(ctx, engine.Request{Class: "counter", Name: "a", Method: "value", Eventual: eventual, MinVersion: 3})
		if err != nil || r.Version != 9 && r.Version != 8 {
			t.Fatalf("version %d, %v", r.Version, err)
		}
	}
}

func TestReadsAreSpreadOverTheOwnerAndItsCopies(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	p := listenToReads(t, ns, func(r engine.Request, answer func(engine.Reply, error)) {
		if !r.Eventual || r.MinVersion != 3 {
			t.Errorf("got %+v", r)
		}
		answer(engine.Reply{Status: 200, Body: []byte("8"), Version: 8}, nil)
	})
	readTimes(t, ns, 400, true)
	if owner, copies := p.owner.Load(), p.copies.Load(); owner+copies != 400 || owner < 100 || copies < 100 {
		t.Errorf("the owner had %d and the copies %d of 400 reads", owner, copies)
	}
	before := p.copies.Load()
	readTimes(t, ns, 50, false)
	if n := p.copies.Load() - before; n != 0 {
		t.Errorf("copies had %d strong reads", n)
	}
}

func TestWhatACopyCannotAnswerTheOwnerDoes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	p := listenToReads(t, ns, answering(engine.Reply{}, engine.ErrNoCopy))
	readTimes(t, ns, 100, true)
	if owner, copies := p.owner.Load(), p.copies.Load(); owner != 100 || copies == 0 {
		t.Errorf("the owner answered %d of 100 reads, %d came to copies", owner, copies)
	}
	// A read in the slot of another object finds its own.
	wrong := strings.Replace(wrongSlot(ns), ".call.counter.a.increment", ".read.counter.a.value", 1)
	for range 20 {
		m := must[*nats.Msg](t)(connect(t).RequestMsg(&nats.Msg{Subject: wrong, Header: headersOf(wire.HeaderConsistency, "eventual")}, wait))
		if string(m.Data) != "9" {
			t.Fatalf("got %v %s", m.Header, m.Data)
		}
	}
}

func TestWithoutCopiesTheOwnerAnswers(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	p := listenToReads(t, ns, nil)
	readTimes(t, ns, 20, true)
	if n := p.owner.Load(); n != 20 {
		t.Errorf("the owner had %d of 20", n)
	}
}
