package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// testClock stands until it is moved; its durations are real.
type testClock struct {
	machineClock
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (w *world) add(worker *Worker, name string) Reply {
	w.t.Helper()
	w.ready(worker)
	return must(worker.Do(w.t.Context(), Request{Class: "register", Name: name, Method: "add", Body: []byte("1")}))(w.t)
}

func last(t *testing.T, w *world, name string) journal.Message {
	var found journal.Message
	subject := wire.DefaultNamespace.Journal("register", wire.Escape(name))
	for _, m := range w.server.Messages(stream(registers.Get(name))) {
		if m.Subject == subject {
			found = m
		}
	}
	if found.Subject == "" {
		t.Fatalf("no record of %s", name)
	}
	return found
}

func TestOnlyTheObjectWithABrokenRecordStops(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(data []byte) []byte{
		"garbage":   func([]byte) []byte { return []byte("garbage") },
		"truncated": func(d []byte) []byte { return d[:len(d)/2] },
		"a record of a newer version": func(d []byte) []byte {
			var m map[string]any
			_ = json.Unmarshal(d, &m)
			m["min_reader"] = 2
			d, _ = json.Marshal(m)
			return d
		},
		"a record of another history": func(d []byte) []byte {
			var m map[string]any
			_ = json.Unmarshal(d, &m)
			m["prev"] = strings.Repeat("ab", 16)
			d, _ = json.Marshal(m)
			return d
		},
		"another record": func(d []byte) []byte {
			var m map[string]any
			_ = json.Unmarshal(d, &m)
			m["first"] = 7
			d, _ = json.Marshal(m)
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newServer(t)
			worker := w.worker("w")
			w.add(worker, "bad")
			w.add(worker, "good")
			w.add(worker, "bad")
			m := last(t, w, "bad")
			w.add(worker, "bad") // the broken one is in the middle
			worker.Kill()
			w.server.Overwrite(stream(registers.Get("bad")), m.Seq, damage(m.Data))
			worker = w.worker("w")
			w.add(worker, "good")
			_, err := worker.Do(t.Context(), Request{Class: "register", Name: "bad", Method: "value"})
			wantCode(t, err, Internal, "the object is stopped", fmt.Sprintf("stream %s, sequence", stream(registers.Get("bad"))))
			w.add(worker, "good")
			if _, err := worker.State(t.Context(), "register", "bad"); err == nil {
				t.Error("its state is shown")
			}
			entries, _, err := worker.Journal(t.Context(), "register", "bad", 0, 0)
			if err != nil || len(entries) != 3 {
				t.Errorf("%d entries, %v", len(entries), err)
			}
		})
	}
}

func TestAForeignMessageCostsAnEpochAndNoMore(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	env := NewClient(worker).With(t.Context())
	a := registers.Get("a")
	must(Call(env, a, (*register).Add, 1))(t)
	epoch := worker.epochs[partitionOf(a.Class, a.Name)].Load().id
	foreign := journal.Message{Subject: wire.DefaultNamespace.Journal("register", "a"), Data: []byte(`{"hello":"world"}`)}
	at := w.server.Publish(stream(a), foreign)
	for want := range int64(3) { // the client repeats by itself
		if n := must(Call(env, a, (*register).Add, 1))(t); n != want+2 {
			t.Errorf("%d", n)
		}
	}
	if now := worker.epochs[partitionOf(a.Class, a.Name)].Load().id; now.Number != epoch.Number+1 {
		t.Errorf("epoch %s, then %s", epoch, now)
	}
	entries, _, err := worker.Journal(t.Context(), "register", "a", 0, 0)
	if err != nil || len(entries) != 5 || entries[1].Seq != at || entries[1].Problem == "" {
		t.Errorf("%+v, %v", entries, err)
	}
	worker.Kill()
	env = NewClient(w.worker("w")).With(t.Context())
	if n := must(Read(env, a, (*register).Value, nil))(t); n != 4 {
		t.Errorf("%d", n)
	}
}

func TestSnapshotRecordsShortenReplay(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.purging()
	snaps := func() (n int) {
		for _, m := range w.server.Messages(stream(registers.Get("a"))) {
			if m.Subject == wire.DefaultNamespace.Snap("register", "a") {
				n++
			}
		}
		return n
	}
	records := func() (n int) {
		for _, m := range w.server.Messages(stream(registers.Get("a"))) {
			if m.Subject == wire.DefaultNamespace.Journal("register", "a") {
				n++
			}
		}
		return n
	}
	long := Request{Class: "register", Name: "a", Method: "long", Body: []byte("1000"), ID: "kept"}
	reply := must(worker.Do(t.Context(), long))(t)
	for range 3 {
		before := snaps()
		for range 60 {
			must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
		}
		eventually(t, "a snapshot record", func() bool { return snaps() > before || before == 2 })
		eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
	}
	all := records()
	// Purging spares the record that a kept reply is read back from, and with it all behind it: so nothing is purged.
	if all != 181 {
		t.Errorf("%d records; the kept reply's is the first of 181", all)
	}
	worker.Kill()
	worker = w.purging()
	again := must(worker.Do(t.Context(), long))(t)
	if string(again.Body) != string(reply.Body) || !again.Replayed {
		t.Errorf("%d bytes, replayed %v", len(again.Body), again.Replayed)
	}
	if r := must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t); string(r.Body) != "181" || r.Version != 181 {
		t.Errorf("%s at %d", r.Body, r.Version)
	}
}

// purging starts a worker with an empty store, whose registers leave memory at once and purge what snapshot records cover.
func (w *world) purging() *Worker {
	purged := registers
	purged.Limits.Purge, purged.Limits.Idle = true, time.Millisecond
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{purged, ledgers} })
	w.ready(worker)
	return worker
}

func TestPurgedRecordsAreCoveredByTwoSnapshots(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.purging()
	s := stream(registers.Get("a"))
	count := func(subject string) (n int) {
		for _, m := range w.server.Messages(s) {
			if m.Subject == subject {
				n++
			}
		}
		return n
	}
	total := 0
	for count(wire.DefaultNamespace.Journal("register", "a")) >= total {
		for range 50 {
			must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
			total++
		}
		eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
		if total > 2000 {
			t.Fatal("nothing is purged")
		}
	}
	worker.Kill()
	for range 2 { // from the snapshot records alone, with an empty store
		worker = w.purging()
		if r := must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t); string(r.Body) != fmt.Sprint(total) {
			t.Errorf("%s, want %d", r.Body, total)
		}
		st := must(worker.State(t.Context(), "register", "a"))(t)
		if st.Version != journal.Version(total) || string(st.Storage["total"]) != fmt.Sprint(total) {
			t.Errorf("%+v", st)
		}
		worker.Kill()
	}
}

func TestTheStoreKnowsWhenTheJournalWentBack(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := snapshot.NewMemory()
	keep := func(c *Config) { c.Store = store }
	worker := w.worker("w", keep)
	for range 5 {
		w.add(worker, "a")
	}
	worker.Stop()
	p := partitionOf("register", "a")
	// The journal loses its end, and the bucket with it, and what the worker knew: only the snapshot knows.
	if err := store.Apply(knownOf(p), snapshot.Batch{Clear: true}); err != nil {
		t.Fatal(err)
	}
	session := w.server.Session("objects", worldPartitions)
	_, rev, err := session.Meta().Get(t.Context(), journal.WitnessKey(p))
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	for _, m := range w.server.Messages(stream(registers.Get("a"))) {
		if m.Seq >= last(t, w, "a").Seq {
			lost++
		}
	}
	w.server.Truncate(stream(registers.Get("a")), lost)
	if _, err := session.Meta().Put(t.Context(), journal.WitnessKey(p), journal.Witness{}.Encode(), rev); err != nil {
		t.Fatal(err)
	}
	worker = w.worker("w", keep)
	w.ready(worker)
	_, err = worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
	wantCode(t, err, Unavailable, "journal went back", "the snapshot of register.a at version 5")
	eventually(t, "alarm", func() bool { return worker.Ready() != nil })
	accept(t, w, p)
	w.ready(worker)
	r := must(NewClient(worker).Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t)
	if string(r.Body) != "4" {
		t.Errorf("%s", r.Body)
	}
}

// TestASnapshotFromBeforeALossIsNotABase, however far the journal has come since: later records go on from other ones.
func TestASnapshotFromBeforeALossIsNotABase(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := snapshot.NewMemory()
	keep := func(c *Config) { c.Store = store }
	worker := w.worker("w", keep)
	for range 5 {
		w.add(worker, "a")
	}
	p := partitionOf("register", "a")
	first := w.server.Messages(stream(registers.Get("a")))
	worker.Stop()
	w.server.Truncate(stream(registers.Get("a")), len(w.server.Messages(stream(registers.Get("a"))))-len(first)+3)
	other := w.worker("other")
	eventually(t, "alarm", func() bool { return other.Status().Owned[p].Alarm != "" })
	accept(t, w, p)
	w.ready(other)
	for range 9 {
		w.add(other, "a")
	}
	want := must(NewClient(other).Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t)
	other.Stop()
	worker = w.worker("w", keep)
	w.ready(worker)
	got := must(NewClient(worker).Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t)
	if string(got.Body) != string(want.Body) || len(want.Body) == 0 || string(want.Body) == "14" {
		t.Errorf("it is %s, and was %s", got.Body, want.Body)
	}
}

// TestAStoreOfALostJournalAnswersNoRepeat: an id that a commit had which was lost is not known any more, although the store
// has it still.
func TestAStoreOfALostJournalAnswersNoRepeat(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := snapshot.NewMemory()
	keep := func(c *Config) { c.Store = store }
	worker := w.worker("w", keep)
	w.add(worker, "a")
	once := Request{Class: "register", Name: "a", Method: "add", Body: []byte("10"), ID: "order-1"}
	must(worker.Do(t.Context(), once))(t)
	p := partitionOf("register", "a")
	ep := worker.epochs[p].Load()
	eventually(t, "the witness is told", func() bool {
		wit, _, err := journal.ReadWitness(t.Context(), ep.ses.js.Meta(), p)
		return err == nil && wit.Acked >= last(t, w, "a").Seq
	})
	worker.Stop() // which writes the state
	messages := w.server.Messages(stream(registers.Get("a")))
	w.server.Truncate(stream(registers.Get("a")), int(messages[len(messages)-1].Seq-last(t, w, "a").Seq)+1)
	worker = w.worker("w", keep)
	eventually(t, "alarm", func() bool { return worker.Status().Owned[p].Alarm != "" })
	accept(t, w, p)
	w.ready(worker)
	r := must(NewClient(worker).Do(t.Context(), once))(t)
	if string(r.Body) != "11" || r.Replayed {
		t.Errorf("%s, replayed %v", r.Body, r.Replayed)
	}
}

func accept(t *testing.T, w *world, p int) Loss {
	t.Helper()
	var loss Loss
	ok, err := AcceptJournal(t.Context(), w.server.Session("objects", worldPartitions), wire.DefaultNamespace, p, func(l Loss) bool { loss = l; return true })
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	return loss
}

func TestAJournalThatWentBackIsNotServedUntilAccepted(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(*Worker){"after a clean stop": (*Worker).Stop, "after a kill": (*Worker).Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newServer(t)
			worker := w.worker("w")
			for range 5 {
				w.add(worker, "a")
			}
			p := partitionOf("register", "a")
			ep := worker.epochs[p].Load()
			eventually(t, "the witness is told", func() bool {
				wit, _, err := journal.ReadWitness(t.Context(), ep.ses.js.Meta(), p)
				return err == nil && wit.Acked >= last(t, w, "a").Seq
			})
			kill(worker)
			known := len(w.server.Messages(stream(registers.Get("a"))))
			w.server.Truncate(stream(registers.Get("a")), 3)
			worker = w.worker("w")
			eventually(t, "alarm", func() bool { return worker.Status().Owned[p].Alarm != "" })
			_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
			wantCode(t, err, Unavailable)
			other := 1 - p
			eventually(t, "the other partition is served", func() bool { return worker.Status().Owned[other].Owned })
			loss := accept(t, w, p)
			if loss.Known <= loss.Have || loss.Why == "" || known == 0 {
				t.Errorf("%+v", loss)
			}
			w.ready(worker)
			for _, m := range w.server.Messages(stream(registers.Get("a"))) {
				if m.Seq > loss.Have && m.Seq <= loss.Known && m.Subject != wire.DefaultNamespace.Fence(p) {
					t.Errorf("position %d is used again by %s", m.Seq, m.Subject)
				}
			}
			must(NewClient(worker).Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
			if ok, err := AcceptJournal(context.Background(), w.server.Session("objects", worldPartitions), wire.DefaultNamespace, p, func(Loss) bool { return true }); ok || err != nil {
				t.Errorf("accepted again: %v %v", ok, err)
			}
		})
	}
}

func TestListsAreCompleteAfterAWipe(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	names := []string{"a", "b/c", "b d", "bé", "b*", "z"}
	for _, n := range names {
		w.add(worker, n)
	}
	list := func(prefix, cursor string, limit int) ([]ObjectInfo, string) {
		t.Helper()
		var out []ObjectInfo
		var next string
		eventually(t, "complete", func() (ok bool) {
			var err error
			out, next, err = worker.Objects(t.Context(), "register", prefix, cursor, limit)
			return err == nil
		})
		return out, next
	}
	if all, _ := list("", "", 0); len(all) != len(names) {
		t.Errorf("%d names right after they came", len(all))
	}
	worker.Kill()
	worker = w.worker("w") // with an empty store
	all, next := list("b", "", 3)
	more, end := list("b", next, 3)
	if len(all) != 3 || len(more) != 1 || end != "" {
		t.Errorf("%v, then %v", all, more)
	}
	for _, o := range append(all, more...) {
		if o.Name[0] != 'b' || o.Version != 1 || o.Seq == 0 {
			t.Errorf("%+v", o)
		}
	}
	parts := 0
	for p := range worldPartitions {
		list, ids, more, err := worker.ObjectsOf(t.Context(), p, "", "", "", 0)
		if err != nil || more || len(ids) != len(list) {
			t.Errorf("partition %d: %v of %v, more %v, %v", p, ids, list, more, err)
		}
		for i, o := range list {
			if partitionOf(o.Class, o.Name) != p || ids[i] != o.Class+"."+wire.Escape(o.Name) {
				t.Errorf("partition %d has %+v, at %q", p, o, ids[i])
			}
		}
		parts += len(list)
	}
	if parts != len(names) {
		t.Errorf("the partitions have %d objects, want %d", parts, len(names))
	}
}

func TestLookingAtALongJournalShowsAllOfIt(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	store := snapshot.NewMemory()
	worker := w.worker("w", func(c *Config) { c.Store = store })
	env := NewClient(worker).With(t.Context())
	for i := range 10 { // each of them more than what a replay keeps in memory
		must(Call(env, registers.Get("big"), (*register).Fill, fill{i * 300, 300, 300}))(t)
		if i == 4 {
			o := residentObject(worker, "register", "big")
			o.chore(o.evict)
		}
	}
	look := func(worker *Worker) {
		t.Helper()
		st := must(worker.State(t.Context(), "register", "big"))(t)
		if len(st.Storage) != 3000 || st.Version != 10 {
			t.Errorf("%d keys at version %d", len(st.Storage), st.Version)
		}
	}
	look(worker)
	worker.Kill()
	worker = w.worker("w", func(c *Config) { c.Store = store }) // the store has a part
	w.ready(worker)
	look(worker)
	worker.Kill()
	worker = w.worker("w") // the store has nothing
	w.ready(worker)
	look(worker)
}

func TestLookingWakesNothing(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.add(worker, "a")
	env := NewClient(worker).With(t.Context())
	must(Call(env, ledgers.Get("l"), (*ledger).Add, 5))(t)
	worker.Kill()
	worker = w.worker("w")
	w.ready(worker)
	st := must(worker.State(t.Context(), "ledger", "l"))(t)
	if string(st.State) != `{"Sum":5}` || st.Version != 1 || st.Storage != nil {
		t.Errorf("%+v", st)
	}
	st = must(worker.State(t.Context(), "register", "a"))(t)
	if string(st.Storage["total"]) != "1" || st.State != nil {
		t.Errorf("%+v", st)
	}
	if st = must(worker.State(t.Context(), "register", "never"))(t); st.Version != 0 {
		t.Errorf("%+v", st)
	}
	if entries, _, err := worker.Journal(t.Context(), "register", "a", 0, 0); err != nil || len(entries) != 1 {
		t.Error(entries, err)
	}
	if n := worker.Status().Resident; n != 0 {
		t.Errorf("%d are awake", n)
	}
}

// TestWhatOnlyTheWorkerRemembersIsNotForgotten: the key of the partition is told each second; what was acknowledged since
// and is gone is an alarm all the same, one that can be accepted and that a restart keeps.
func TestWhatOnlyTheWorkerRemembersIsNotForgotten(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	for range 5 {
		w.add(worker, "a")
	}
	p := partitionOf("register", "a")
	s := stream(registers.Get("a"))
	if err := worker.know(worker.epochs[p].Load()); err != nil {
		t.Fatal(err)
	}
	w.server.Truncate(s, 2)
	// The key knows no more than the stream has now.
	session := w.server.Session("objects", worldPartitions)
	wit, rev, err := journal.ReadWitness(t.Context(), session.Meta(), p)
	if err != nil {
		t.Fatal(err)
	}
	wit.Acked = journal.Seq(len(w.server.Messages(s)))
	if _, err := session.Meta().Put(t.Context(), journal.WitnessKey(p), wit.Encode(), rev); err != nil {
		t.Fatal(err)
	}
	worker.epochs[p].Load().end(errStopped)
	eventually(t, "alarm", func() bool { return strings.Contains(worker.Status().Owned[p].Alarm, "worker w knows") })
	worker.Kill()
	worker = w.worker("w") // which remembers nothing itself
	eventually(t, "alarm after a restart", func() bool { return strings.Contains(worker.Status().Owned[p].Alarm, "worker w knows") })
	if loss := accept(t, w, p); loss.Known <= loss.Have {
		t.Errorf("%+v", loss)
	}
	w.ready(worker)
}

// TestALostFormerEpochRecordIsDamage: without it the records of its epoch would not count, and old state be served.
func TestALostFormerEpochRecordIsDamage(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	for range 2 {
		worker := w.worker("w")
		w.add(worker, "a")
		worker.Stop()
	}
	worker := w.worker("w") // a third epoch; nothing of "a" in it
	w.ready(worker)
	worker.Stop()
	s := stream(registers.Get("a"))
	p := partitionOf("register", "a")
	n := 0
	for _, m := range w.server.Messages(s) {
		r, err := journal.DecodeEpoch(m.Data)
		if m.Subject == wire.DefaultNamespace.Epoch(p) && err == nil && !r.Release {
			if n++; n == 2 {
				w.server.Remove(s, m.Seq)
			}
		}
	}
	worker = w.worker("w")
	w.ready(worker)
	_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
	wantCode(t, err, Internal, "the object is stopped", "whose record is not there")
}

func TestASnapshotWithoutItsRecordIsDamage(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	idle := registers
	idle.Limits.Idle = time.Millisecond
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{idle} })
	w.ready(worker)
	s := stream(registers.Get("a"))
	snaps := func() (n int) {
		for _, m := range w.server.Messages(s) {
			if m.Subject == wire.DefaultNamespace.Snap("register", "a") {
				n++
			}
		}
		return n
	}
	for range 30 {
		must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
	}
	eventually(t, "snap", func() bool { return snaps() > 0 })
	worker.Stop()
	for _, m := range w.server.Messages(s) {
		if m.Subject == wire.DefaultNamespace.Journal("register", "a") {
			w.server.Remove(s, m.Seq)
		}
	}
	worker = w.worker("w", func(c *Config) { c.Classes = []AnyClass{idle} })
	w.ready(worker)
	for _, r := range []Request{{Method: "value"}, {Method: "add", Body: []byte("1")}} {
		r.Class, r.Name = "register", "a"
		_, err := worker.Do(t.Context(), r)
		wantCode(t, err, Internal, "the object is stopped", "the snapshot record at")
	}
}

func TestASecondSnapshotRecordIsUsedWhenTheLastIsNot(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.purging()
	s := stream(registers.Get("a"))
	var snaps []journal.Seq
	count := func() int {
		snaps = nil
		n := 0
		for _, m := range w.server.Messages(s) {
			switch m.Subject {
			case wire.DefaultNamespace.Snap("register", "a"):
				snaps = append(snaps, m.Seq)
			case wire.DefaultNamespace.Journal("register", "a"):
				n++
			}
		}
		return n
	}
	sum := 0
	for round := 0; round < 20; round++ {
		for range 60 {
			sum++
			must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
		}
		eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
		if count() < sum && len(snaps) == 2 {
			break
		}
	}
	if count() >= sum || len(snaps) != 2 {
		t.Fatalf("%d of %d records and %d snapshot records; want some purged, and two", count(), sum, len(snaps))
	}
	worker.Kill()
	w.server.Overwrite(s, snaps[1], []byte("garbage"))
	worker = w.purging()
	if r := must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t); string(r.Body) != fmt.Sprint(sum) {
		t.Errorf("%s; want %d", r.Body, sum)
	}
}
