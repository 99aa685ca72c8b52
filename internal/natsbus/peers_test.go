package natsbus

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

func TestWordReachesTheOthers(t *testing.T) {
	t.Parallel()
	ns := wire.Subjects("words")
	heard := make(chan engine.Word, 10)
	one, other := connect(t), connect(t)
	if _, err := Peers(one, ns, "one", 1, func(w engine.Word) { heard <- w }); err != nil {
		t.Fatal(err)
	}
	if err := one.Flush(); err != nil {
		t.Fatal(err)
	}
	way, err := Peers(other, ns, "other", 2, func(engine.Word) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Publish("words.control.word.nonsense", nil); err != nil {
		t.Fatal(err)
	}
	for _, w := range []engine.Word{{Kind: engine.WordShare}, {Kind: engine.WordFree, Partition: 0, Of: 1},
		{Kind: engine.WordRenewed, Worker: "shop-1", Life: 0xf0e1d2c3b4a59687}} {
		way.Tell(w)
		select {
		case got := <-heard:
			if got != w {
				t.Errorf("told %v, heard %v", w, got)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody heard of %v", w)
		}
	}
	for _, token := range []string{"", "share-1", "free", "free-1", "free-4-4", "free--1-4", "free-01-4", "free-1-257", "owned-1-4", "free-1-4-", "renewed", "renewed-w", "renewed-f0e1d2c3b4a59687-",
		"renewed-F0E1D2C3B4A59687-w"} {
		if w, ok := engine.ParseWord(token); ok {
			t.Errorf("%q is the word %v", token, w)
		}
	}
}

// TestAProbeTellsWhoIsGone: one that listens, one whose connection has ended, and another life of the same worker.
func TestAProbeTellsWhoIsGone(t *testing.T) {
	t.Parallel()
	ns := wire.Subjects("probes")
	here, there := connect(t), connect(t)
	way, err := Peers(here, ns, "here", 1, func(engine.Word) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Peers(there, ns, "there", 2, func(engine.Word) {}); err != nil {
		t.Fatal(err)
	}
	if err := there.Flush(); err != nil {
		t.Fatal(err)
	}
	probe := func(life journal.Token, want engine.Presence) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // a probe that was handed over when the connection ended has no answer
			p := way.Probe(ctx, "there", life)
			cancel()
			if p == want {
				return
			}
			if p != engine.Unsure && want == engine.Present || time.Now().After(deadline) {
				t.Fatalf("life %d is %d; want %d", life, p, want)
			}
		}
	}
	probe(2, engine.Present)
	probe(3, engine.Gone)
	there.Close()
	probe(2, engine.Gone)
}

// TestWordOfANewOwnerEndsTheWaitingForTheFormerOne, and for no other.
func TestWordOfANewOwnerEndsTheWaitingForTheFormerOne(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	const of = 16
	former, next := connect(t), connect(t)
	asked := make(chan string, 10)
	for _, subject := range []string{string(ns) + ".call.>", string(ns) + ".part.>"} {
		must[*nats.Subscription](t)(former.Subscribe(subject, func(m *nats.Msg) { asked <- m.Subject })) // and does not answer
	}
	check(t, former.Flush())
	caller := connect(t)
	c := NewClient(caller, ns).HearOwners()
	mine, others := "", ""
	for i := 0; mine == "" || others == ""; i++ {
		if name := fmt.Sprint(i); wire.Partition(wire.Slot("counter", name), of) == 3 {
			mine = name
		} else {
			others = name
		}
	}
	answer := func(name string) chan error {
		err := make(chan error, 1)
		go func() {
			_, e := c.Do(t.Context(), engine.Request{Class: "counter", Name: name, Method: "get"})
			err <- e
		}()
		<-asked
		return err
	}
	ended, waits := answer(mine), answer(others)
	way := must[engine.Peers](t)(Peers(next, ns, "next", 1, func(w engine.Word) { t.Errorf("a worker heard %v", w) }))
	check(t, caller.Flush())
	way.Tell(engine.Word{Kind: engine.WordOwned, Partition: 3, Of: of})
	select {
	case err := <-ended:
		if !errors.Is(err, engine.UnknownOutcome) || !errors.Is(err, errNewOwner) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(wait):
		t.Fatal("it waits on")
	}
	select {
	case err := <-waits:
		t.Errorf("another partition's request ended too: %v", err)
	default:
	}
	c.Close()
	if err := <-waits; !errors.Is(err, engine.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if n := caller.NumSubscriptions(); n != 1 { // that for answers stays
		t.Errorf("%d subscriptions are left", n)
	}
}
