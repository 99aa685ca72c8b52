package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// TestAssignNext: the next owner of a partition is the one that the share gives it to when its owner is not there.
func TestAssignNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(1, 32).Draw(t, "partitions")
		workers := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}`), 0, 6, rapid.ID).Draw(t, "workers")
		moved := rapid.MapOfN(rapid.IntRange(0, partitions-1), rapid.SampledFrom(append(workers, "nobody")), 0, 3).Draw(t, "moved")
		owners := assign(partitions, workers, moved)
		for p, next := range assignNext(owners, workers, moved) {
			var rest []string
			for _, w := range workers {
				if w != owners[p] {
					rest = append(rest, w)
				}
			}
			if want := assign(partitions, rest, moved)[p]; next != want || len(rest) > 0 && !slices.Contains(rest, next) {
				t.Fatalf("partition %d is %q's, and %q's next; want %q", p, owners[p], next, want)
			}
		}
	})
}

// reads counts how often records of objects are read back.
type reads struct{ n atomic.Int64 }

type readSession struct {
	journal.Session
	reads *reads
}

func (s readSession) Log(p int) journal.Log { return readLog{s.Session.Log(p), s.reads} }

type readLog struct {
	journal.Log
	reads *reads
}

func (l readLog) Read(ctx context.Context, subject string, from journal.Seq) iter.Seq2[journal.Message, error] {
	if strings.Contains(subject, ".journal.") {
		l.reads.n.Add(1)
	}
	return l.Log.Read(ctx, subject, from)
}

// pair is a worker a that owns a partition p, and b, which is told to own only the other one and follows p.
type pair struct {
	*world
	a, b  *Worker
	p     int
	all   *crew
	store *snapshot.Memory // b's
	reads reads            // b's
}

// object is a name whose object of a class is in the pair's partition.
func (pr *pair) object(class string, i int) string {
	for n := 0; ; n++ {
		if name := fmt.Sprintf("o%d", n); partitionOf(class, name) == pr.p {
			if i--; i < 0 {
				return name
			}
		}
	}
}

func newPair(t *testing.T, how ...func(*Config)) *pair {
	pr := &pair{world: newServer(t), p: 0, all: &crew{}, store: snapshot.NewMemory()}
	pr.place(func(pl *Placement) { pl.Moved[0], pl.Moved[1] = "a", "b" })
	pr.a = pr.start("a", how...)
	pr.ready(pr.a)
	pr.b = pr.startB(how...)
	eventually(t, "each has one", func() bool { return len(owned(pr.a)) == 1 && len(owned(pr.b)) == 1 })
	return pr
}

func (pr *pair) start(id string, how ...func(*Config)) *Worker {
	w := pr.worker(id, append([]func(*Config){func(c *Config) { c.LeaseTerm, c.Others = 4e9, pr.all }}, how...)...)
	pr.all.join(w)
	return w
}

// startB starts b, over the store that it had.
func (pr *pair) startB(how ...func(*Config)) *Worker {
	pr.b = pr.start("b", append(how, func(c *Config) {
		c.Standby, c.Store = true, pr.store
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return readSession{s, &pr.reads}, err
		}
	})...)
	return pr.b
}

func (pr *pair) place(change func(*Placement)) {
	pr.t.Helper()
	if err := ChangePlacement(context.Background(), pr.server.Session("objects", worldPartitions).Meta(), change); err != nil {
		pr.t.Fatal(err)
	}
}

// followed waits until b has read all that there is.
func (pr *pair) followed() {
	pr.t.Helper()
	end := journal.Seq(0)
	for _, m := range pr.server.Messages(fmt.Sprintf("objects-%d", pr.p)) {
		if strings.Contains(m.Subject, ".journal.") {
			end = m.Seq
		}
	}
	eventually(pr.t, "b has followed", func() bool { return pr.b.Status().Owned[pr.p].Copied >= end })
}

// copied waits until b's store has an object at a version.
func (pr *pair) copied(id snapshot.ID, v journal.Version) {
	pr.t.Helper()
	eventually(pr.t, fmt.Sprintf("b has %s at version %d", id, v), func() bool { return pr.stored(id).Version >= v })
}

func (pr *pair) stored(id snapshot.ID) base {
	pr.t.Helper()
	s := newState(pr.store, id, pr.b.classes["register"])
	if err := s.load(); err != nil {
		pr.t.Fatal(err)
	}
	return s.base
}

// takeOver kills a and waits until b owns its partition.
func (pr *pair) takeOver() {
	pr.t.Helper()
	pr.a.Kill()
	eventually(pr.t, "b has all", func() bool { return len(owned(pr.b)) == worldPartitions })
}

func (pr *pair) value(class, name, want string) {
	pr.t.Helper()
	r := must(NewClient(pr.b).Do(pr.t.Context(), Request{Class: class, Name: name, Method: "value"}))(pr.t)
	if string(r.Body) != want {
		pr.t.Errorf("%s/%s is %s; want %s", class, name, r.Body, want)
	}
}

func addTo(t testing.TB, w *Worker, class, name string, n int) {
	t.Helper()
	for range n {
		must(NewClient(w).Do(t.Context(), Request{Class: class, Name: name, Method: "add", Body: []byte("1")}))(t)
	}
}

// TestATakeOverFindsTheStandbysStates: nothing is replayed, and what was answered is answered again.
func TestATakeOverFindsTheStandbysStates(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	for i := range 20 {
		addTo(t, pr.a, "register", pr.object("register", i), 1+i%3)
		addTo(t, pr.a, "ledger", pr.object("ledger", i), 1+i%4)
	}
	once := Request{Class: "register", Name: pr.object("register", 0), Method: "add", Body: []byte("10"), ID: "order-1"}
	must(pr.a.Do(t.Context(), once))(t)
	pr.followed()
	pr.takeOver()
	before := pr.reads.n.Load()
	for i := range 20 {
		want := 1 + i%3
		if i == 0 {
			want += 10
		}
		pr.value("register", pr.object("register", i), fmt.Sprint(want))
		pr.value("ledger", pr.object("ledger", i), fmt.Sprint(1+i%4))
	}
	if r := must(NewClient(pr.b).Do(t.Context(), once))(t); string(r.Body) != "11" || !r.Replayed {
		t.Errorf("the repeat gave %s, replayed %v", r.Body, r.Replayed)
	}
	if n := pr.reads.n.Load() - before; n != 0 {
		t.Errorf("%d journals were read", n)
	}
	pr.check(t)
}

// TestAHandOverToAStandbyReplaysNothing, however short it is: what was followed last is in the store before the next epoch serves.
func TestAHandOverToAStandbyReplaysNothing(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	eventually(t, "b follows", func() bool { return pr.b.Status().Owned[pr.p].Copied > 0 })
	before := pr.reads.n.Load()
	for i := range 20 {
		addTo(t, pr.a, "register", pr.object("register", i), 1+i%3)
	}
	pr.place(func(pl *Placement) { pl.Moved[0] = "b" })
	eventually(t, "b has all", func() bool { return len(owned(pr.b)) == worldPartitions })
	for i := range 20 {
		pr.value("register", pr.object("register", i), fmt.Sprint(1+i%3))
	}
	if n := pr.reads.n.Load() - before; n != 0 {
		t.Errorf("%d journals were read", n)
	}
}

// TestAStandbyFollowsAnyLog: it is the same over a server as over a journal in memory.
func TestAStandbyFollowsAnyLog(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, pl place) {
		s := must(pl.session(t.Context()))(t)
		defer s.Close()
		place := func(change func(*Placement)) {
			t.Helper()
			if err := ChangePlacement(t.Context(), s.Meta(), change); err != nil {
				t.Fatal(err)
			}
		}
		place(func(pl *Placement) { pl.Moved[0], pl.Moved[1] = "a", "b" })
		a := pl.worker(t, "a", nil)
		var n reads
		b := pl.worker(t, "b", nil, func(c *Config) {
			c.Standby = true
			connect := c.Connect
			c.Connect = func(ctx context.Context) (journal.Session, error) {
				s, err := connect(ctx)
				return readSession{s, &n}, err
			}
		})
		eventually(t, "each has one, and b follows", func() bool {
			return len(owned(a)) == 1 && len(owned(b)) == 1 && b.Status().Owned[0].Copied > 0
		})
		names := namesIn(0, 20)
		for i, name := range names {
			addTo(t, a, "register", name, 1+i%3)
		}
		place(func(pl *Placement) { pl.Moved[0] = "b" })
		eventually(t, "b has all", func() bool { return len(owned(b)) == worldPartitions })
		for i, name := range names {
			r := must(NewClient(b).Do(t.Context(), Request{Class: "register", Name: name, Method: "value"}))(t)
			if string(r.Body) != fmt.Sprint(1+i%3) {
				t.Errorf("%s is %s; want %d", name, r.Body, 1+i%3)
			}
		}
		if n := n.n.Load(); n != 0 {
			t.Errorf("%d journals were read", n)
		}
		pl.check(t)
	})
}

// TestWithoutAStandbyATakeOverReplays: or the test above could not fail.
func TestWithoutAStandbyATakeOverReplays(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	pr.b.Stop()
	addTo(t, pr.a, "register", pr.object("register", 0), 3)
	eventually(t, "a has all", func() bool { return len(owned(pr.a)) == worldPartitions })
	pr.b = pr.start("b", func(c *Config) {
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return readSession{s, &pr.reads}, err
		}
	})
	pr.takeOver()
	before := pr.reads.n.Load()
	pr.value("register", pr.object("register", 0), "3")
	if pr.reads.n.Load() == before {
		t.Error("no journal was read")
	}
}

// TestAFollowerGoesOnWhereItWas, when its worker starts again, and through a's next epoch.
func TestAFollowerGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	name := pr.object("register", 0)
	addTo(t, pr.a, "register", name, 3)
	pr.copied(snapshot.ID("register."+name), 3)
	pr.b.Stop()
	var at followed
	raw := must(pr.store.Get(followedID(pr.p), snapshot.Meta, ""))(t)
	if err := json.Unmarshal(raw, &at); err != nil || at.Seq == 0 {
		t.Fatalf("position %s: %v", raw, err)
	}
	pr.a.Stop()
	pr.a = pr.start("a") // another epoch
	eventually(t, "a has all", func() bool { return len(owned(pr.a)) == worldPartitions })
	addTo(t, pr.a, "register", name, 2)
	pr.startB()
	pr.copied(snapshot.ID("register."+name), 5)
	pr.takeOver()
	before := pr.reads.n.Load()
	pr.value("register", name, "5")
	if n := pr.reads.n.Load() - before; n != 0 {
		t.Errorf("%d journals were read", n)
	}
}

// TestAFollowerCountsAsReadersDo: a record of a former epoch is in the stream, and is no part of the copy.
func TestAFollowerCountsAsReadersDo(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	name := pr.object("register", 0)
	addTo(t, pr.a, "register", name, 1)
	zombie := last(t, pr.world, name)
	pr.place(func(pl *Placement) { pl.Moved[0] = "b" })
	eventually(t, "b has all", func() bool { return len(owned(pr.b)) == worldPartitions })
	pr.place(func(pl *Placement) { pl.Moved[0] = "a" })
	eventually(t, "each has one", func() bool { return len(owned(pr.a)) == 1 && len(owned(pr.b)) == 1 })
	rec := must(journal.DecodeRecord(zombie.Data))(t)
	commits := []journal.Encoded{{JSON: journal.AppendCommit(nil, &rec.Commits[0]), At: rec.Commits[0].At}}
	pr.a.Stop() // or the stray takes the place of its next record
	pr.server.Publish(stream(registers.Get(name)), journal.Message{Subject: zombie.Subject, Header: zombie.Header,
		Data: journal.AppendRecord(nil, 2, journal.HashOf(zombie.Data), commits)})
	eventually(t, "b has all", func() bool { return len(owned(pr.b)) == worldPartitions })
	pr.a = pr.start("a")
	eventually(t, "each has one", func() bool { return len(owned(pr.a)) == 1 && len(owned(pr.b)) == 1 })
	addTo(t, pr.a, "register", name, 1)
	pr.followed()
	pr.takeOver()
	before := pr.reads.n.Load()
	pr.value("register", name, "2")
	if n := pr.reads.n.Load() - before; n != 0 {
		t.Errorf("%d journals were read", n)
	}
}

// TestACopyIsMadeFromASnapshotRecord, when the records before it are purged.
func TestACopyIsMadeFromASnapshotRecord(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	pr.b.Stop()
	eventually(t, "a has all", func() bool { return len(owned(pr.a)) == worldPartitions })
	name := pr.object("register", 0)
	o := func() *object {
		ep := pr.a.epochs[pr.p].Load()
		ep.mu.Lock()
		defer ep.mu.Unlock()
		return ep.objects[snapshot.ID("register."+name)]
	}
	var covered journal.Message // by both snapshot records
	for want := range 2 {
		for range 150 {
			must(pr.a.Do(t.Context(), Request{Class: "register", Name: name, Method: "add", Body: []byte("1")}))(t)
		}
		if want == 0 {
			covered = last(t, pr.world, name)
		}
		eventually(t, "a snapshot record", func() bool {
			if o := o(); o != nil {
				o.chore(o.rest)
			}
			n := 0
			for _, m := range pr.server.Messages(stream(registers.Get(name))) {
				if strings.Contains(m.Subject, ".snap.") {
					n++
				}
			}
			return n > want
		})
	}
	addTo(t, pr.a, "register", name, 2)
	if err := pr.server.Session("objects", worldPartitions).Log(pr.p).Purge(t.Context(), covered.Subject, covered.Seq); err != nil {
		t.Fatal(err)
	}
	pr.store = snapshot.NewMemory()
	pr.startB()
	pr.copied(snapshot.ID("register."+name), 302)
	pr.takeOver()
	before := pr.reads.n.Load()
	pr.value("register", name, "302")
	if n := pr.reads.n.Load() - before; n != 0 {
		t.Errorf("%d journals were read", n)
	}
}

// TestACopyThatIsAheadIsTold: the journal lost what a standby has. Nobody else knows, and its owner may have been told.
func TestACopyThatIsAheadIsTold(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	name := pr.object("register", 0)
	addTo(t, pr.a, "register", name, 5)
	pr.copied(snapshot.ID("register."+name), 5)
	pr.a.Kill()
	pr.b.Kill()
	meta := pr.server.Session("objects", worldPartitions).Meta()
	_, rev, err := meta.Get(t.Context(), journal.WitnessKey(pr.p))
	if err != nil {
		t.Fatal(err)
	}
	messages := pr.server.Messages(stream(registers.Get(name)))
	pr.server.Truncate(stream(registers.Get(name)), int(messages[len(messages)-1].Seq-last(t, pr.world, name).Seq)+1)
	if _, err := meta.Put(t.Context(), journal.WitnessKey(pr.p), journal.Witness{}.Encode(), rev); err != nil {
		t.Fatal(err)
	}
	pr.place(func(pl *Placement) { pl.Moved[0] = "b" })
	pr.startB()
	eventually(t, "b has all", func() bool { return len(owned(pr.b)) == worldPartitions })
	_, err = pr.b.Do(t.Context(), Request{Class: "register", Name: name, Method: "value"})
	wantCode(t, err, Unavailable, "journal went back", "the standby's copy of register."+name+" at version 5")
}

// TestWhatIsNotNextIsNotFollowed: a third worker comes, and is the next.
func TestWhatIsNotNextIsNotFollowed(t *testing.T) {
	t.Parallel()
	pr := newPair(t)
	pr.followed()
	eventually(t, "b follows", func() bool { return pr.b.Status().Owned[pr.p].Copied > 0 })
	c := pr.start("c", func(c *Config) { c.Standby = true })
	pr.place(func(pl *Placement) { pl.Drained = []string{"b"}; clear(pl.Moved); pl.Moved[pr.p] = "a" })
	eventually(t, "c follows, and b does not", func() bool {
		return c.Status().Owned[pr.p].Copied > 0 && pr.b.Status().Owned[pr.p].Copied == 0
	})
	name := pr.object("register", 0)
	addTo(t, pr.a, "register", name, 1)
	eventually(t, "c has it", func() bool { return c.Status().Owned[pr.p].Copied >= last(t, pr.world, name).Seq })
	if v := pr.stored(snapshot.ID("register." + name)).Version; v != 0 {
		t.Errorf("b has it at version %d", v)
	}
}
