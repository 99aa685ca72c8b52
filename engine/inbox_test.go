package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// Messages to objects, over a journal in memory.

// send puts a message into the world's inbox.
func (w *world) send(name, method, body string, header ...string) journal.Seq {
	h := journal.Header{}
	for i := 0; i < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	return w.server.Send(wire.DefaultNamespace, "register", wire.Escape(name), method, h, []byte(body))
}

// answered waits until all partitions have answered all messages that are there, but those of held objects.
func answered(t *testing.T, w *Worker, last journal.Seq) {
	t.Helper()
	until(t, func() bool {
		for _, p := range w.Status().Owned {
			if p.Inbox.Open > 0 || !p.Owned {
				return false
			}
		}
		high := journal.Seq(0)
		for _, p := range w.Status().Owned {
			high = max(high, p.Inbox.Taken)
		}
		return high >= last
	})
}

// until waits for something that takes a while.
func until(t *testing.T, done func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not within 20 s")
		}
	}
}

// sents are the outcomes of an object's messages, by the journal.
func (w *world) sents(name string) (list []string) {
	subject := wire.DefaultNamespace.Journal("register", wire.Escape(name))
	for p := range worldPartitions {
		for _, m := range w.server.Messages(wire.DefaultNamespace.Stream(p)) {
			if m.Subject != subject {
				continue
			}
			rec, err := journal.DecodeRecord(m.Data)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, c := range rec.Commits {
				if c.Inbox != nil {
					list = append(list, fmt.Sprint(c.Inbox.Seq, c.Inbox.Outcome))
				}
			}
		}
	}
	return list
}

func TestMessagesAreAppliedOnceInOrder(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	var last journal.Seq
	for i := range 500 { // before there is a worker
		last = world.send(fmt.Sprint("o", i%7), "add", "1")
	}
	store := snapshot.NewMemory()
	a := world.worker("a", func(c *Config) { c.Store = store })
	for i := range 500 {
		last = world.send(fmt.Sprint("o", i%7), "add", "1")
	}
	answered(t, a, last)
	total := int64(0)
	until(t, func() bool { // the other partition may be behind
		total = 0
		for i := range 7 {
			total += value(t, a, fmt.Sprint("o", i))
		}
		return total >= 1000
	})
	if total != 1000 {
		t.Fatalf("the objects have %d of 1000", total)
	}
	a.Kill() // before there is a checkpoint, perhaps
	b := world.worker("a", func(c *Config) { c.Store = snapshot.NewMemory() })
	last = world.send("o0", "add", "1")
	answered(t, b, last)
	total = 0
	for i := range 7 {
		total += value(t, b, fmt.Sprint("o", i))
	}
	if total != 1001 {
		t.Fatalf("the objects have %d of 1001", total)
	}
	b.Stop()
	c := world.worker("a", func(c *Config) { c.Store = store }) // an old store
	last = world.send("o0", "add", "1")
	answered(t, c, last)
	if got, n := value(t, c, "o0"), len(world.sents("o0")); got != int64(n) {
		t.Fatalf("o0 is %d after %d messages", got, n)
	}
}

// value is an object's count.
func value(t *testing.T, w *Worker, name string) int64 {
	t.Helper()
	n, err := Read(NewClient(w).With(t.Context()), registers.Get(name), (*register).Value, nil)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAPublishersRepeatIsAppliedOnce(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	w := world.worker("a")
	client, soon := "0123456789abcdef0123456789abcdef", time.Now().Add(time.Minute).UTC().Format(time.RFC3339Nano)
	numbered := func(n, m int) []string {
		return []string{wire.HeaderSession, fmt.Sprint(client, " ", n, " ", m), wire.HeaderDeadline, soon}
	}
	world.send("x", "add", "1", wire.HeaderRequestID, "order-1")
	world.send("x", "add", "1", wire.HeaderRequestID, "order-1")
	world.send("x", "add", "2", wire.HeaderRequestID, "order-1") // another request
	world.send("x", "add", "10", numbered(1, 1)...)
	world.send("x", "add", "10", numbered(1, 1)...)
	world.send("x", "add", "10", numbered(2, 2)...)
	world.send("x", "add", "10", numbered(1, 1)...) // below the mark
	past := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339Nano)
	last := world.send("x", "add", "100", wire.HeaderDeadline, past) // stored after its deadline
	answered(t, w, last)
	if got := value(t, w, "x"); got != 21 {
		t.Errorf("x is %d; want 21", got)
	}
	want := "[1 2repeat 3notRun 4 5repeat 6 7notRun 8notRun]"
	if got := fmt.Sprint(world.sents("x")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// A call under the id of a message is its repeat.
	n, err := Call(NewClient(w).With(t.Context()), registers.Get("x"), (*register).Add, 1, RequestID("order-1"))
	if err != nil || n != 1 {
		t.Errorf("got %d, %v; want the recorded 1", n, err)
	}
}

// failing are how often Fallible fails still, by object.
var failing atomic.Int64

type fallible struct{}

var fallibles = Class[fallible]{Name: "register", Limits: Limits{Idle: time.Hour, Tries: 3}}

func (*fallible) Add(ctx *Ctx, by int64) (int64, error) {
	switch {
	case by < 0 && failing.Add(-1) >= 0:
		total.Put(ctx, -1000)
		return 0, errors.New("not now")
	case by == 0:
		return 0, Errorf(Refused, "nothing to add")
	case by == 77:
		panic("seventy-seven")
	}
	n := total.Get(ctx) + by
	total.Put(ctx, n)
	return n, nil
}

func (*fallible) Value(v View, _ None) (int64, error) { return total.Get(v), nil }

func quickly(c *Config) { c.Classes, c.SendRetry = []AnyClass{fallibles}, time.Millisecond }

func TestAFailingMessageHoldsBackItsObjectOnly(t *testing.T) {
	world := newServer(t)
	stubborn := fallibles
	stubborn.Limits.Tries = 1 << 20
	w := world.worker("a", quickly, func(c *Config) { c.Classes = []AnyClass{stubborn} })
	failing.Store(1 << 40)
	world.send("bad", "add", "-5")
	world.send("bad", "add", "7")
	world.send("good", "add", "1")
	world.send("bad", "add", "0") // refused, and so answered
	last := world.send("good", "add", "1")
	until(t, func() bool { return value(t, w, "good") == 2 })
	if got := value(t, w, "bad"); got != 0 {
		t.Errorf("bad is %d while its first message fails", got)
	}
	failing.Store(0)
	answered(t, w, last)
	until(t, func() bool { return value(t, w, "bad") == 2 && len(world.sents("bad")) == 3 })
	if got := fmt.Sprint(world.sents("bad")); got != "[1 2 4refused]" {
		t.Errorf("got %s", got)
	}
}

func TestWhatFailsTooOftenIsADeadLetter(t *testing.T) {
	world := newServer(t)
	w := world.worker("a", quickly)
	world.send("x", "add", "77")                                                     // panics
	world.send("x", "nothing", "1")                                                  // no such method
	world.send("x", "add", `"three"`)                                                // no such argument
	world.send("x", "value", "")                                                     // a read
	world.send("x", "add", "1", "Perdure-Wire", "2")                                 // another contract
	world.server.Send(wire.DefaultNamespace, "nobody", "x", "add", nil, []byte("1")) // no such class
	world.send("x", "add", "1")
	until(t, func() bool { return value(t, w, "x") == 1 })
	if got := fmt.Sprint(world.sents("x")); got != "[1dead 2dead 3dead 4dead 5dead 7]" {
		t.Errorf("got %s", got)
	}
	var dead []string
	until(t, func() bool {
		dead = nil
		for _, m := range world.server.Messages(wire.DefaultNamespace.Inbox()) {
			if _, _, _, _, ok := wire.DefaultNamespace.SplitInbox(m.Subject); !ok {
				dead = append(dead, m.Subject)
			}
		}
		return len(dead) == 6
	})
}

func TestAnInboxThatWentBackIsNoticed(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	a := world.worker("a")
	last := journal.Seq(0)
	for range 20 {
		last = world.send("x", "add", "1")
	}
	answered(t, a, last)
	a.Stop() // with a checkpoint
	world.server.Truncate(wire.DefaultNamespace.Inbox(), 5)
	for range 5 { // where others were
		world.send("x", "add", "100")
	}
	b := world.worker("a")
	until(t, func() bool {
		for _, p := range b.Status().Owned {
			if p.Inbox.Alarm != "" {
				return true
			}
		}
		return false
	})
	if got := value(t, b, "x"); got != 20 {
		t.Errorf("x is %d; want 20", got)
	}
	if _, err := AcceptInbox(context.Background(), world.server.Session("objects", worldPartitions), "test"); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return value(t, b, "x") == 520 })
}

// TestTheSameMessagesAtTheSamePlacesAreOthers: an inbox that went back has messages again that say the same.
func TestTheSameMessagesAtTheSamePlacesAreOthers(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	a := world.worker("a")
	last := journal.Seq(0)
	for range 20 {
		last = world.send("x", "add", "1")
	}
	answered(t, a, last)
	a.Stop() // with a checkpoint
	world.server.Truncate(wire.DefaultNamespace.Inbox(), 5)
	for range 5 {
		world.send("x", "add", "1")
	}
	b := world.worker("a")
	until(t, func() bool {
		return slices.ContainsFunc(b.Status().Owned, func(p PartitionStatus) bool { return p.Inbox.Alarm != "" })
	})
	if _, err := AcceptInbox(context.Background(), world.server.Session("objects", worldPartitions), "test"); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return value(t, b, "x") == 25 })
}

// TestALostDeadLetterIsAnAlarm: of a message to a class that nobody has, it is all that is left. One that somebody took away
// is none.
func TestALostDeadLetterIsAnAlarm(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		what  string
		lose  int // messages of the inbox's end
		more  int // that come instead
		take  bool
		alarm bool
	}{
		{"it is there", 0, 0, false, false},
		{"somebody took it away", 0, 0, true, false},
		{"it is lost", 1, 0, false, true},
		{"it is lost, and another message came to its place", 1, 1, false, true},
		{"it is lost, and more came", 1, 3, false, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			world := newServer(t)
			inbox, session := wire.DefaultNamespace.Inbox(), world.server.Session("objects", worldPartitions)
			a := world.worker("a", quickly)
			first := world.server.Send(wire.DefaultNamespace, "nobody", "x", "add", nil, []byte("1"))
			letter := wire.DefaultNamespace.Dead("nobody", "x", uint64(first))
			until(t, func() bool {
				return slices.ContainsFunc(world.server.Messages(inbox), func(m journal.Message) bool { return m.Subject == letter })
			})
			p := wire.Partition(wire.Slot("nobody", "x"), worldPartitions)
			until(t, func() bool { s := a.Status().Owned[p].Inbox; return s.Cursor == first && s.Held == 0 })
			a.Stop() // with a checkpoint
			if test.take {
				if err := session.Inbox().Purge(context.Background(), letter, first+2); err != nil {
					t.Fatal(err)
				}
			}
			world.server.Truncate(inbox, test.lose)
			for range test.more {
				world.send("x", "add", "1")
			}
			b := world.worker("b")
			until(t, func() bool { s := b.Status().Owned[p]; return s.Owned && (s.Inbox.Alarm != "" || s.Inbox.Following) })
			alarm := b.Status().Owned[p].Inbox.Alarm
			if (alarm != "") != test.alarm || test.alarm && !strings.Contains(alarm, "a dead letter was kept at 2") {
				t.Fatalf("the alarm is %q; want one: %v", alarm, test.alarm)
			}
			if !test.alarm {
				return
			}
			if _, err := AcceptInbox(context.Background(), session, "test"); err != nil {
				t.Fatal(err)
			}
			until(t, func() bool { return b.Status().Owned[p].Inbox.Following })
		})
	}
}

// TestADeadLetterThatIsSentAgainIsTriedAgain: under the id that it had.
func TestADeadLetterThatIsSentAgainIsTriedAgain(t *testing.T) {
	world := newServer(t)
	w := world.worker("a", quickly)
	world.ready(w)
	failing.Store(3)
	world.send("x", "add", "-5", wire.HeaderRequestID, "order-1")
	until(t, func() bool { return fmt.Sprint(world.sents("x")) == "[1dead]" })
	last := world.send("x", "add", "-5", wire.HeaderRequestID, "order-1")
	answered(t, w, last)
	until(t, func() bool { return value(t, w, "x") == -5 })
}

// TestAPublisherThatConfirmsNothingDoesNotStopItsObject: what an object cannot take any more becomes a dead letter, since
// nothing but a later message makes it forget.
func TestAPublisherThatConfirmsNothingDoesNotStopItsObject(t *testing.T) {
	world := newServer(t)
	w := world.worker("a", quickly)
	client, late := "0123456789abcdef0123456789abcdef", time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)
	for n := range unansweredMax + 1 {
		world.send("x", "add", "1", wire.HeaderSession, fmt.Sprint(client, " ", n+1, " 1"), wire.HeaderDeadline, late)
	}
	world.send("x", "add", "1000000")
	until(t, func() bool { return value(t, w, "x") == 1000000+unansweredMax })
}

// shaky is a class whose objects do not wake up for a while.
type shaky struct{}

var asleep atomic.Bool

func (*shaky) OnWake(View) error {
	if asleep.Load() {
		return errors.New("not awake")
	}
	return nil
}

func (*shaky) Add(ctx *Ctx, by int64) (int64, error) {
	total.Put(ctx, total.Get(ctx)*10+by)
	return by, nil
}

func (*shaky) Value(v View, _ None) (int64, error) { return total.Get(v), nil }

// TestACallThatCannotWakeItsObjectLetsNoMessagePass: a message that waits is the next one, whatever comes between.
func TestACallThatCannotWakeItsObjectLetsNoMessagePass(t *testing.T) {
	world := newServer(t)
	w := world.worker("a", quickly, func(c *Config) {
		c.Classes = []AnyClass{Class[shaky]{Name: "register", Limits: Limits{Tries: 1 << 20}}}
	})
	world.ready(w)
	asleep.Store(true)
	o, err := w.epochs[partitionOf("register", "x")].Load().object(w.classes["register"], "x", "x", false)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 3)
	o.mu.Lock() // all three are in the mailbox before the first runs
	o.running = true
	o.mu.Unlock()
	post := func(r *Request) {
		if err := o.post(&task{req: r, ctx: t.Context(), at: w.awake(), reply: func(_ Reply, err error) { told <- err }}); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now().UTC()
	post(&Request{Class: "register", Name: "x", Method: "add", Body: []byte("1"), letter: &letter{seq: 1, at: at, resume: true}})
	post(&Request{Class: "register", Name: "x", Method: "value", Deadline: time.Now().Add(time.Minute)})
	o.chore(func() {}) // chores come first
	post(&Request{Class: "register", Name: "x", Method: "add", Body: []byte("2"), letter: &letter{seq: 2, at: at}})
	o.take(o.run, true) // the chore
	_, first := o.take(o.run, true)
	o.serve(o.run, first)
	_, call := o.take(o.run, true)
	o.serve(o.run, call)
	asleep.Store(false)
	_, second := o.take(o.run, true)
	o.serve(o.run, second)
	for i, want := range []bool{false, false, true} {
		if err := <-told; err == nil || errors.Is(err, errHeldBack) != want {
			t.Errorf("the answer to request %d is %v", i+1, err)
		}
	}
}

func TestALongBacklogTakesBoundedMemory(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	last := journal.Seq(0)
	for range 5000 { // to one object, more than it is handed at a time
		last = world.send("x", "add", "1")
	}
	w := world.worker("a")
	answered(t, w, last)
	until(t, func() bool { return value(t, w, "x") == 5000 })
	until(t, func() bool { // on a slow machine it may have been held meanwhile
		return !slices.ContainsFunc(w.Status().Owned, func(p PartitionStatus) bool { return p.Inbox.Held > 0 })
	})
}

func TestAMisplacedMessageIsADeadLetter(t *testing.T) {
	t.Parallel()
	world := newServer(t)
	w := world.worker("a")
	ns := wire.DefaultNamespace
	slot := wire.Slot("register", "x")
	other := (slot + worldPartitions) % wire.Slots // of the same partition
	world.server.Publish(ns.Inbox(), journal.Message{Subject: fmt.Sprintf("%s.inbox.%d.register.x.add", ns, other), Data: []byte("100")})
	last := world.send("x", "add", "1")
	answered(t, w, last)
	until(t, func() bool { return value(t, w, "x") == 1 })
	for _, m := range world.server.Messages(ns.Inbox()) {
		if m.Subject == ns.Dead("register", "x", 1) {
			return
		}
	}
	t.Error("there is no dead letter")
}
