package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// A place is a journal that these tests run over: in memory, and on a real server.
type place struct {
	ns       wire.Subjects
	session  func(ctx context.Context) (journal.Session, error)
	messages func(p int) []journal.Message // all of a partition's stream
}

var realServer = sync.OnceValues(func() (*embed.Server, error) {
	dir, err := tempDir()
	if err != nil {
		return nil, err
	}
	return embed.Start(embed.Options{Dir: dir, SyncInterval: time.Second})
})

var placeNumber atomic.Int64

// places runs a test over a journal in memory and over a real server.
func places(t *testing.T, test func(t *testing.T, pl place)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		m := journaltest.NewMemory()
		test(t, place{wire.DefaultNamespace,
			func(context.Context) (journal.Session, error) {
				return m.Session(wire.DefaultNamespace, worldPartitions), nil
			},
			func(p int) []journal.Message { return m.Messages(wire.DefaultNamespace.Stream(p)) }})
	})
	t.Run("jetstream", func(t *testing.T) {
		t.Parallel()
		test(t, realPlace(t))
	})
}

// realPlace is a namespace of the test's own on a real server.
func realPlace(t *testing.T) place {
	t.Helper()
	srv, err := realServer()
	if err != nil {
		t.Fatal(err)
	}
	ns := wire.Subjects(fmt.Sprintf("t%d", placeNumber.Add(1)))
	dial := func(ctx context.Context) (journal.Session, error) {
		return jetstream.Dial(ctx, jetstream.Config{Options: []nats.Option{srv.InProcess()}, Namespace: ns})
	}
	s, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if _, err := s.(*jetstream.Session).Open(t.Context(), jetstream.Settings{Partitions: worldPartitions}); err != nil {
		t.Fatal(err)
	}
	return place{ns, dial, func(p int) (all []journal.Message) {
		for m, err := range s.Log(p).Read(t.Context(), ">", 1) {
			if err != nil {
				t.Error(err)
			}
			all = append(all, m)
		}
		return all
	}}
}

// worker starts a worker at a place, through faults if there is a plan. Its store is empty.
func (pl place) worker(t *testing.T, id string, plan *journaltest.Plan, how ...func(*Config)) *Worker {
	t.Helper()
	w := &world{t: t}
	worker := w.worker(id, append([]func(*Config){func(c *Config) {
		c.Namespace, c.Store = pl.ns, snapshot.NewMemory()
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := pl.session(ctx)
			if err == nil && plan != nil {
				s = journaltest.Faulty(s, plan)
			}
			return s, err
		}
	}}, how...)...)
	return worker
}

// check reads all streams as a stranger does: nothing may be wrong with them.
func (pl place) check(t *testing.T) {
	t.Helper()
	s, err := pl.session(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	checkStreams(t, s, pl.ns, nil)
}

// versions are the versions that requests made, by their ids, in partition p, when nothing is wrong with it.
func (pl place) versions(t *testing.T, p int) map[string]journal.Version {
	t.Helper()
	pl.check(t)
	versions := map[string]journal.Version{}
	for _, m := range pl.messages(p) {
		if class, token, _ := pl.ns.Object(m.Subject); m.Subject != pl.ns.Journal(class, token) {
			continue
		}
		rec := must(journal.DecodeRecord(m.Data))(t)
		for i, c := range rec.Commits {
			versions[c.ID] = rec.First + journal.Version(i)
		}
	}
	return versions
}

// namesIn are names of objects in partition p.
func namesIn(p, n int) (names []string) {
	for i := 0; len(names) < n; i++ {
		if name := fmt.Sprint("o", i); partitionOf("register", name) == p {
			names = append(names, name)
		}
	}
	return names
}

// TestFaultsInAFullWindow lets one append of a full window fail in every way, at its first, a middle and its last place.
// Whatever callers were told must be so, and repeats must apply once, in this worker and in one that knows nothing.
func TestFaultsInAFullWindow(t *testing.T) {
	for _, fault := range []struct {
		name  string
		fault journaltest.Fault
		ends  bool // the epoch
	}{
		{"refused", journaltest.Refuse, true},
		{"lost before it arrived", journaltest.Lose, true},
		{"stored but the answer was lost", journaltest.LoseAnswer, true},
		{"slow", journaltest.Hold, false},
	} {
		for where, at := range map[string]int{"first": 0, "middle": journal.Window / 2, "last": journal.Window - 1} {
			t.Run(fault.name+"/"+where, func(t *testing.T) {
				t.Parallel()
				places(t, func(t *testing.T, pl place) { testFault(t, pl, fault.fault, at, fault.ends) })
			})
		}
	}
}

func testFault(t *testing.T, pl place, fault journaltest.Fault, at int, ends bool) {
	var armed atomic.Bool
	armed.Store(true)
	var sent atomic.Int64
	plan := &journaltest.Plan{Append: func(p, i int) journaltest.Fault {
		switch {
		case p != 0 || !armed.Load():
			return journaltest.None
		case sent.Add(1) == int64(at)+1:
			return fault
		}
		return journaltest.Hold
	}}
	worker := pl.worker(t, "w", plan, func(c *Config) { c.AckTimeout = 2 * time.Second })
	(&world{t: t}).ready(worker)
	before := worker.epochs[0].Load()

	names := namesIn(0, journal.Window)
	type told struct {
		reply Reply
		err   error
	}
	results := make([]chan told, len(names))
	request := func(name string) Request {
		return Request{Class: "register", Name: name, Method: "add", Body: []byte("1"), ID: "id-" + name}
	}
	for i, name := range names {
		c := make(chan told, 1)
		results[i] = c
		worker.submit(t.Context(), request(name), func(r Reply, err error) { c <- told{r, err} })
	}
	expected := journal.Window
	if fault == journaltest.Lose || fault == journaltest.LoseAnswer {
		expected-- // it has no answer to hold
	}
	eventually(t, "a full window is in flight", func() bool { return sent.Load() == journal.Window && plan.Held() == expected })
	armed.Store(false)
	plan.Release()

	answered := map[string]bool{}
	for i, name := range names {
		r := <-results[i]
		switch e, failed := errors.AsType[*Error](r.err); {
		case !failed:
			if string(r.reply.Body) != "1" {
				t.Errorf("%s is told %s", name, r.reply.Body)
			}
			answered["id-"+name] = true
		case !ends:
			t.Errorf("%s is told %v", name, r.err)
		case !e.Retryable():
			t.Errorf("%s is told %v, which it would not repeat", name, r.err)
		}
	}
	if over := before.over.Load(); over != ends {
		t.Errorf("the epoch is over: %v", over)
	}
	versions := pl.versions(t, 0)
	for id := range answered {
		if versions[id] != 1 {
			t.Errorf("%s was acknowledged and is at version %d in the journal", id, versions[id])
		}
	}
	if len(versions) < len(answered) {
		t.Errorf("%d are acknowledged, %d stored", len(answered), len(versions))
	}
	repeatAll(t, worker, names, request)
	worker.Kill()
	pl.check(t)
	repeatAll(t, pl.worker(t, "w", nil), names, request)
	if n := len(pl.versions(t, 0)); n != len(names) {
		t.Errorf("%d requests are in the journal; want %d", n, len(names))
	}
}

// repeatAll repeats requests that each add one, and wants each to have been applied once.
func repeatAll(t *testing.T, worker *Worker, names []string, request func(string) Request) {
	t.Helper()
	client := NewClient(worker)
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			r, err := client.Do(t.Context(), request(name))
			if err != nil || string(r.Body) != "1" || r.Version != 1 {
				t.Errorf("%s: %s at %d, %v", name, r.Body, r.Version, err)
			}
		})
	}
	wg.Wait()
}

// sleeper is a worker that can be stopped with a full window in flight: from then on it sends nothing and renews
// nothing, and no answer reaches it.
type sleeper struct {
	*Worker
	plan    *journaltest.Plan
	asleep  atomic.Bool
	wake    chan struct{}
	through atomic.Int64 // so many appends of partition 0 are sent before it sleeps
}

// shortLease lets a test wait for a lease to run out.
func shortLease(c *Config) { c.LeaseTerm = time.Second }

func newSleeper(t *testing.T, pl place) *sleeper {
	s := &sleeper{wake: make(chan struct{})}
	s.through.Store(journal.Window / 2)
	sleep := func() {
		if s.asleep.Load() {
			<-s.wake
		}
	}
	s.plan = &journaltest.Plan{
		Append: func(p, i int) journaltest.Fault {
			if p != 0 {
				return journaltest.None
			}
			if int64(i) == s.through.Load() {
				s.asleep.Store(true)
			}
			sleep()
			return journaltest.Hold
		},
		Meta: func(string) error { sleep(); return nil },
	}
	s.Worker = pl.worker(t, "sleeper", s.plan, shortLease)
	(&world{t: t}).ready(s.Worker)
	return s
}

func (s *sleeper) wakeUp() {
	s.asleep.Store(false)
	close(s.wake)
	s.plan.Release()
}

// TestAWorkerThatSleptBeyondItsTermStoresAndAnswersNothing stops one of two workers with a full window in flight, half
// of it sent. When it goes on, the other has taken over.
func TestAWorkerThatSleptBeyondItsTermStoresAndAnswersNothing(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, pl place) {
		sleeper := newSleeper(t, pl)
		names := namesIn(0, 300)
		awake := names[298] // in memory, with nothing unacknowledged: a read of it needs no journal
		if r, err := sleeper.Do(t.Context(), Request{Class: "register", Name: awake, Method: "value"}); err != nil || string(r.Body) != "0" {
			t.Fatal(r, err)
		}
		add := func(name string) Request {
			return Request{Class: "register", Name: name, Method: "add", Body: []byte("1"), ID: "id-" + name}
		}
		type told struct {
			name  string
			reply Reply
			err   error
		}
		replies := make(chan told, 1000)
		submit := func(r Request) {
			sleeper.submit(t.Context(), r, func(reply Reply, err error) { replies <- told{r.Name, reply, err} })
		}
		for _, name := range names[:journal.Window] {
			submit(add(name))
		}
		eventually(t, "asleep with half a window in flight", func() bool { return sleeper.asleep.Load() && sleeper.plan.Held() == journal.Window/2 })

		taker := pl.worker(t, "taker", nil, shortLease)
		for _, name := range []string{names[299], awake} {
			if r, err := NewClient(taker).Do(t.Context(), add(name)); err != nil || string(r.Body) != "1" {
				t.Fatal(r, err)
			}
		}
		for _, method := range []string{"value", "peek"} {
			r, err := sleeper.Do(t.Context(), Request{Class: "register", Name: awake, Method: method})
			if !errors.Is(err, Unavailable) {
				t.Errorf("its lease has run out and it answers %s with %s, %v", method, r.Body, err)
			}
		}
		end, stored := len(pl.messages(0)), pl.versions(t, 0)

		// It wakes up: reads, more writes, the rest of the window, and all the answers that come in.
		submit(Request{Class: "register", Name: names[0], Method: "value"})
		submit(Request{Class: "register", Name: names[299], Method: "value"})
		submit(Request{Class: "register", Name: names[290], Method: "peek"})
		submit(add(names[280]))
		sleeper.wakeUp()
		for range journal.Window + 4 {
			r := <-replies
			if r.err == nil && stored["id-"+r.name] == 0 {
				t.Errorf("%s is answered %s at version %d, and the journal has nothing of it", r.name, r.reply.Body, r.reply.Version)
			}
			if r.err == nil && string(r.reply.Body) == "0" {
				t.Errorf("%s reads %s after another worker took over", r.name, r.reply.Body)
			}
		}
		eventually(t, "its epoch is over", func() bool { ep := sleeper.epochs[0].Load(); return ep == nil || ep.over.Load() })
		if now := len(pl.messages(0)); now != end {
			t.Errorf("it stored %d messages after the other took over", now-end)
		}
		sleeper.Kill()
		repeatAll(t, taker, names[:journal.Window], add)
		if n := len(pl.versions(t, 0)); n != journal.Window+2 {
			t.Errorf("%d requests are in the journal; want %d", n, journal.Window+2)
		}
	})
}

// TestACleanStopHandsOverAtOnce: with a term of a minute, whoever follows would wait longer than this test does, unless
// the one who left released its partitions.
func TestACleanStopHandsOverAtOnce(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, pl place) {
		long := func(c *Config) { c.LeaseTerm = time.Minute }
		first := pl.worker(t, "first", nil, long)
		client := NewClient(first)
		for _, name := range append(namesIn(0, 3), namesIn(1, 3)...) {
			if _, err := client.Do(t.Context(), Request{Class: "register", Name: name, Method: "add", Body: []byte("1")}); err != nil {
				t.Fatal(err)
			}
		}
		first.Stop()
		if _, err := first.Do(t.Context(), Request{Class: "register", Name: "o1", Method: "value"}); !errors.Is(err, Unavailable) {
			t.Errorf("it still answers: %v", err)
		}
		second := pl.worker(t, "second", nil, long)
		client = NewClient(second)
		for _, name := range append(namesIn(0, 3), namesIn(1, 3)...) {
			if r, err := client.Do(t.Context(), Request{Class: "register", Name: name, Method: "value"}); err != nil || string(r.Body) != "1" {
				t.Errorf("%s: %s, %v", name, r.Body, err)
			}
		}
		pl.check(t)
	})
}

// TestAWorkerFollowsItsOwnFormerLifeAtOnce: it holds the lock on its folder, so the one that was killed is gone.
func TestAWorkerFollowsItsOwnFormerLifeAtOnce(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, pl place) {
		long := func(c *Config) { c.LeaseTerm = time.Minute }
		for n := range 3 {
			w := pl.worker(t, "same", nil, long)
			r, err := NewClient(w).Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")})
			if err != nil || string(r.Body) != fmt.Sprint(n+1) {
				t.Errorf("life %d: %s, %v", n, r.Body, err)
			}
			w.Kill()
		}
	})
}

// staleSession answers Tails as a replica does that lost a race: for some objects, without their last record.
type staleSession struct {
	journal.Session
	hide func(subject string) bool
}

func (s staleSession) Log(p int) journal.Log { return staleLog{s.Session.Log(p), s.hide} }

type staleLog struct {
	journal.Log
	hide func(subject string) bool
}

func (l staleLog) Tails(ctx context.Context, atLeast journal.Seq, subjects ...string) ([]journal.Message, journal.Seq, error) {
	tails, upTo, err := l.Log.Tails(ctx, atLeast, subjects...)
	return slices.DeleteFunc(tails, func(m journal.Message) bool { return l.hide(m.Subject) }), upTo, err
}

// TestACommitOnAnOutdatedCopyIsRefused: should a replay ever be incomplete, the first record of the activation is not
// stored, since it names the position of the object's last one.
func TestACommitOnAnOutdatedCopyIsRefused(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, pl place) {
		add := Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}
		first := pl.worker(t, "w", nil)
		for range 3 {
			if _, err := NewClient(first).Do(t.Context(), add); err != nil {
				t.Fatal(err)
			}
		}
		first.Kill()
		var lies atomic.Int64
		lies.Store(1)
		second := pl.worker(t, "w", nil, func(c *Config) {
			connect := c.Connect
			c.Connect = func(ctx context.Context) (journal.Session, error) {
				s, err := connect(ctx)
				return staleSession{s, func(subject string) bool { return subject == pl.ns.Journal("register", "a") && lies.Add(-1) >= 0 }}, err
			}
		})
		if r, err := NewClient(second).Do(t.Context(), add); err != nil || string(r.Body) != "4" {
			t.Errorf("%s, %v", r.Body, err)
		}
		if lies.Load() >= 0 {
			t.Error("nothing was hidden")
		}
		pl.check(t)
	})
}

// releaseSession holds releases up: they are sent, and nobody knows what became of them.
type releaseSession struct {
	journal.Session
	sent chan struct{}
	hold chan struct{}
}

func (s releaseSession) Log(p int) journal.Log { return releaseLog{s.Session.Log(p), s} }

type releaseLog struct {
	journal.Log
	s releaseSession
}

func (l releaseLog) Begin(ctx context.Context, last journal.Seq, messages ...journal.Message) (journal.Seq, error) {
	if len(messages) == 1 { // an epoch has its fillers
		l.s.sent <- struct{}{}
		<-l.s.hold
	}
	return l.Log.Begin(ctx, last, messages...)
}

// TestNothingIsAnsweredFromTheSendingOfAReleaseOn, whatever its outcome: whoever follows may have written already.
func TestNothingIsAnsweredFromTheSendingOfAReleaseOn(t *testing.T) {
	t.Parallel()
	places(t, func(t *testing.T, pl place) {
		sent, hold := make(chan struct{}, worldPartitions), make(chan struct{})
		worker := pl.worker(t, "w", nil, func(c *Config) {
			connect := c.Connect
			c.Connect = func(ctx context.Context) (journal.Session, error) {
				s, err := connect(ctx)
				return releaseSession{s, sent, hold}, err
			}
		})
		names := []string{namesIn(0, 1)[0], namesIn(1, 1)[0]}
		for _, name := range names {
			if _, err := NewClient(worker).Do(t.Context(), Request{Class: "register", Name: name, Method: "add", Body: []byte("1")}); err != nil {
				t.Fatal(err)
			}
		}
		stopped := make(chan struct{})
		go func() { worker.Stop(); close(stopped) }()
		for range worldPartitions {
			<-sent
		}
		for _, name := range names {
			for _, method := range []string{"value", "peek", "add"} {
				if r, err := worker.Do(t.Context(), Request{Class: "register", Name: name, Method: method, Body: nil}); !errors.Is(err, Unavailable) {
					t.Errorf("%s of %s is answered %s, %v", method, name, r.Body, err)
				}
			}
		}
		close(hold)
		<-stopped
	})
}
