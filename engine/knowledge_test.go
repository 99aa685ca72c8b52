package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// loseUnseen takes away what a partition has behind an epoch's fence, and has the key of the partition know no more than that.
func (w *world) loseUnseen(p int, ep *epoch) {
	w.t.Helper()
	w.server.Truncate(ep.ns.Stream(p), int(w.end(p)-ep.seq)-journal.Window)
	meta := w.server.Session("objects", worldPartitions).Meta()
	wit, rev, err := journal.ReadWitness(w.t.Context(), meta, p)
	if err != nil {
		w.t.Fatal(err)
	}
	wit.Acked = ep.seq + journal.Window
	must(meta.Put(w.t.Context(), journal.WitnessKey(p), wit.Encode(), rev))(w.t)
}

// end is where a partition's stream ends.
func (w *world) end(p int) journal.Seq {
	w.t.Helper()
	_, end, err := w.server.Session("objects", worldPartitions).Log(p).Range(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return end
}

// increment increments the object a of a worker that owns it.
func increment(t testing.TB, w *Worker) {
	t.Helper()
	must(NewClient(w).Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
}

// TestAFormerOwnerTellsOfALoss that the present owner does not know of, whose epoch has lifted the stream: when it connects again, and after
// a restart.
func TestAFormerOwnerTellsOfALoss(t *testing.T) {
	t.Parallel()
	for name, restarts := range map[string]bool{"it connects again": false, "it starts again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newServer(t)
			all := &crew{}
			stores := map[string]snapshot.Store{"a": snapshot.NewMemory(), "b": snapshot.NewMemory()}
			var away atomic.Bool // a cannot connect
			start := func(id string) *Worker {
				worker := w.worker(id, func(c *Config) {
					c.Store, c.Others, c.LeaseTerm = stores[id], all, 3*time.Second
					connect := c.Connect
					c.Connect = func(ctx context.Context) (journal.Session, error) {
						if id == "a" && away.Load() {
							return nil, errors.New("not now")
						}
						return connect(ctx)
					}
				})
				all.join(worker)
				return worker
			}
			meta := w.server.Session("objects", worldPartitions).Meta()
			p := partitionOf("register", "a")
			place := func(id string) {
				t.Helper()
				if err := ChangePlacement(t.Context(), meta, func(pl *Placement) { pl.Moved[p] = id }); err != nil {
					t.Fatal(err)
				}
			}
			place("a")
			a, b := start("a"), start("b")
			eventually(t, "a has it", func() bool { return a.epochs[p].Load() != nil && len(owned(a)) == 1 && len(owned(b)) == 1 })
			for range 5 {
				increment(t, a)
			}
			ep := a.epochs[p].Load()
			eventually(t, "the store is told", func() bool {
				value, err := stores["a"].Get(knownOf(p), snapshot.Meta, "")
				return err == nil && value != nil && a.known(p, 0).Seq > ep.seq+journal.Window
			})
			away.Store(true)
			if restarts {
				a.Kill()
			} else {
				a.ses.Load().js.Close()
			}
			place("b")
			w.loseUnseen(p, ep)
			eventually(t, "b has both", func() bool { return len(owned(b)) == 2 })
			if end := w.end(p); end <= a.known(p, 0).Seq {
				t.Fatalf("the stream ends at %d, and a knows of %d", end, a.known(p, 0).Seq)
			}

			away.Store(false)
			if restarts {
				a = start("a")
			}
			eventually(t, "b tells", func() bool { return b.Status().Owned[p].Alarm != "" })
			if err := b.Ready(); err == nil || !strings.Contains(err.Error(), "journal went back: worker a knows") {
				t.Errorf("b is ready: %v", err)
			}
			_, err := all.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
			wantCode(t, err, Unavailable)
			loss := accept(t, w, p)
			eventually(t, "b goes on", func() bool { return b.Ready() == nil && a.Ready() == nil && b.Status().Owned[p].Owned })
			for _, m := range w.server.Messages(ep.ns.Stream(p)) {
				if m.Seq > loss.Known && m.Seq <= loss.Known+journal.Window && m.Subject != ep.ns.Fence(p) {
					t.Errorf("position %d is %s", m.Seq, m.Subject)
				}
			}
			increment(t, b)
			place("a")
			eventually(t, "a has it again, without an alarm", func() bool { return a.Ready() == nil && a.Status().Owned[p].Owned })
			increment(t, a)
		})
	}
}

// hesitant is a session of which the streams' leader says for a while that they are shorter than they are.
type hesitant struct {
	journal.Session
	until func() bool // it is over
}

// Log implements journal.Session.
func (h hesitant) Log(p int) journal.Log { return hesitantLog{h.Session.Log(p), h.until} }

type hesitantLog struct {
	journal.Log
	until func() bool
}

// Range implements journal.Log.
func (l hesitantLog) Range(ctx context.Context) (first, last journal.Seq, err error) {
	first, last, err = l.Log.Range(ctx)
	if !l.until() {
		last -= 2
	}
	return first, last, err
}

// TestAStreamThatIsShorterInSomeAnswersIsNoLoss: a server that was stopped may say what it had as the leader that it is no more.
func TestAStreamThatIsShorterInSomeAnswersIsNoLoss(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	var behind atomic.Int64 // so many answers are
	a := w.worker("a", func(c *Config) {
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return hesitant{s, func() bool { return behind.Add(-1) < 0 }}, err
		}
	})
	increment(t, a)
	p := partitionOf("register", "a")
	eventually(t, "a remembers", func() bool { return a.known(p, 0).Seq == w.end(p) })
	behind.Store(3)
	a.ses.Load().js.Close()
	eventually(t, "a was told wrongly, and owns all again", func() bool { return behind.Load() < 0 && len(owned(a)) == worldPartitions })
	if err := a.Ready(); err != nil {
		t.Error(err)
	}
	increment(t, a)
}

// lookedAt is a session of which something is done after a look at the last epoch of a partition, before it is told.
type lookedAt struct {
	journal.Session
	p    int
	then func()
}

// Log implements journal.Session.
func (l lookedAt) Log(p int) journal.Log {
	if log := l.Session.Log(p); p != l.p {
		return log
	}
	return lookedAtLog{l.Session.Log(p), l.then}
}

type lookedAtLog struct {
	journal.Log
	then func()
}

// Last implements journal.Log.
func (l lookedAtLog) Last(ctx context.Context, subject string) (journal.Message, error) {
	m, err := l.Log.Last(ctx, subject)
	if strings.Contains(subject, ".epoch.") {
		l.then()
	}
	return m, err
}

// TestAnEpochThatBeginsDuringALookIsNoLoss: a worker that is stopped in the middle of it finds a witness that knows more than it saw.
func TestAnEpochThatBeginsDuringALookIsNoLoss(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	all := &crew{}
	p := partitionOf("register", "a")
	looked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stop := sync.OnceFunc(func() { close(goOn) })
	defer stop()
	var said bytes.Buffer
	a := w.worker("a", func(c *Config) {
		c.Others, c.Log = all, slog.New(slog.NewTextHandler(&said, nil))
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return lookedAt{s, p, func() { once.Do(func() { close(looked); <-goOn }) }}, err
		}
	})
	all.join(a)
	<-looked
	meta := w.server.Session("objects", worldPartitions).Meta()
	if err := ChangePlacement(t.Context(), meta, func(pl *Placement) { pl.Moved[p] = "b" }); err != nil {
		t.Fatal(err)
	}
	b := w.worker("b", func(c *Config) { c.Others = all })
	all.join(b)
	eventually(t, "b has it", func() bool { return b.epochs[p].Load() != nil })
	increment(t, b)
	stop()
	if err := ChangePlacement(t.Context(), meta, func(pl *Placement) { pl.Moved[p] = "a" }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a has it", func() bool { return a.epochs[p].Load() != nil && b.epochs[p].Load() == nil })
	increment(t, a)
	a.Stop()
	if strings.Contains(said.String(), "went back") {
		t.Error(said.String())
	}
}

// TestAnAlarmIsToldByWhoeverHasTheShare, and by nobody else: who gave the partition away is ready.
func TestAnAlarmIsToldByWhoeverHasTheShare(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	a := w.worker("a")
	w.add(a, "a")
	p := partitionOf("register", "a")
	a.Stop()
	w.server.Truncate(wire.DefaultNamespace.Stream(p), 2) // the release, of which the witness knows, and the record
	a = w.worker("a")
	eventually(t, "a tells", func() bool { return a.Status().Owned[p].Alarm != "" })
	b := w.worker("b")
	meta := w.server.Session("objects", worldPartitions).Meta()
	if err := ChangePlacement(t.Context(), meta, func(pl *Placement) { pl.Moved[p] = "b" }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b tells and a does not", func() bool {
		return b.Status().Owned[p].Alarm != "" && a.Status().Owned[p].Alarm == "" && a.Ready() == nil
	})
	if owned := a.Status().Owned[p].Owned || b.Status().Owned[p].Owned; owned {
		t.Error("it is served")
	}
	accept(t, w, p)
	eventually(t, "b has it", func() bool { return b.Ready() == nil && b.Status().Owned[p].Owned })
	increment(t, b)
}

// TestABucketThatLostAnAcceptedLoss is older than what a worker knows: that is no accepted loss, and the next one is.
func TestABucketThatLostAnAcceptedLoss(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	p := partitionOf("register", "a")
	for life := range uint64(2) {
		w.add(worker, "a")
		ep := worker.epochs[p].Load()
		if ep.life != life {
			t.Fatalf("life %d, want %d", ep.life, life)
		}
		if err := worker.know(ep); err != nil {
			t.Fatal(err)
		}
		w.loseUnseen(p, ep)
		if life == 1 { // and the bucket goes back to the first
			meta := w.server.Session("objects", worldPartitions).Meta()
			wit, rev, err := journal.ReadWitness(t.Context(), meta, p)
			if err != nil {
				t.Fatal(err)
			}
			wit.Life, wit.Accepted = 0, nil
			must(meta.Put(t.Context(), journal.WitnessKey(p), wit.Encode(), rev))(t)
		}
		ep.end(errStopped)
		eventually(t, "alarm", func() bool { return worker.Status().Owned[p].Alarm != "" })
		accept(t, w, p)
		w.ready(worker)
	}
	if life := worker.epochs[p].Load().life; life != 2 {
		t.Errorf("life %d, want 2", life)
	}
	w.add(worker, "a")
}

// TestAnIdleOwnerSeesThatItsStreamIsGone: one that appends is told by what is refused.
func TestAnIdleOwnerSeesThatItsStreamIsGone(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.add(worker, "a")
	p := partitionOf("register", "a")
	w.server.Truncate(wire.DefaultNamespace.Stream(p), int(w.end(p)))
	eventually(t, "alarm", func() bool { return strings.Contains(worker.Status().Owned[p].Alarm, "journal went back") })
	_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"})
	wantCode(t, err, Unavailable)
	accept(t, w, p)
	w.ready(worker)
	w.add(worker, "a")
}

// TestANewEpochLeavesAnAlarmInTheWitness: a former owner that notes how far it went is overwritten, one that knows of a loss is not.
func TestANewEpochLeavesAnAlarmInTheWitness(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.add(worker, "a")
	p := partitionOf("register", "a")
	s, former := worker.ses.Load(), worker.epochs[p].Load()
	next := &epoch{p: p, log: former.log, seq: former.committer.high() + 1, id: journal.EpochID{Number: former.id.Number + 1, Token: 7}}
	next.history = append(slices.Clone(former.history), mark{next.seq, next.id})
	read := func() (journal.Witness, journal.Seq) {
		wit, rev, err := journal.ReadWitness(t.Context(), s.js.Meta(), p)
		if err != nil {
			t.Fatal(err)
		}
		return wit, rev
	}
	wit, rev := read()
	noted := wit
	noted.Acked = next.seq - 1
	must(s.js.Meta().Put(t.Context(), journal.WitnessKey(p), noted.Encode(), rev))(t)
	alarm := &journal.WentBackError{Partition: p, Known: 9, Witness: "somebody"}
	if err := s.raise(alarm); err != nil {
		t.Fatal(err)
	}
	if err := s.takeWitness(t.Context(), next, wit, rev, next.seq); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("an alarm stands, and the witness was taken: %v", err)
	}
	kept, rev := read()
	if kept.Alarm == nil || kept.Alarm.Witness != "somebody" || kept.Epoch == next.id {
		t.Errorf("the witness is %+v", kept)
	}
	kept.Alarm = nil
	must(s.js.Meta().Put(t.Context(), journal.WitnessKey(p), kept.Encode(), rev))(t)
	if err := s.takeWitness(t.Context(), next, wit, rev, next.seq); err != nil {
		t.Error(err)
	}
	if kept, _ = read(); kept.Epoch != next.id {
		t.Errorf("the witness is %+v", kept)
	}
	w.server.Truncate(wire.DefaultNamespace.Stream(p), 0) // of that epoch it has nothing: it is not to be checked
}

// TestWhatIsHandedOverTakesNothingNew, from callers in the process either: they do not come through what was stopped.
func TestWhatIsHandedOverTakesNothingNew(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	a := w.worker("a")
	w.ready(a)
	pair := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	const blocked = "handed-over"
	gates.Store(blocked, pair)
	answered := make(chan error, 1)
	a.submit(t.Context(), Request{Class: "register", Name: blocked, Method: "block", Body: []byte("1")}, func(_ Reply, err error) { answered <- err })
	<-pair[0]
	p := partitionOf("register", blocked)
	ep := a.epochs[p].Load()
	b := w.worker("b")
	eventually(t, "b is there", func() bool { return b.ses.Load() != nil })
	meta := w.server.Session("objects", worldPartitions).Meta()
	if err := ChangePlacement(t.Context(), meta, func(pl *Placement) { pl.Moved[p] = "b" }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is being handed over", ep.closing.Load)
	other := namesIn(p, 1)[0]
	_, err := a.Do(t.Context(), Request{Class: "register", Name: other, Method: "add", Body: []byte("1")})
	wantCode(t, err, Unavailable, "handed over")
	close(pair[1])
	if err := <-answered; err != nil {
		t.Errorf("what had begun: %v", err)
	}
	eventually(t, "b has it", func() bool { return b.Status().Owned[p].Owned })
}
