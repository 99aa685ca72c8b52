package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// twin has one number three times: stored under two keys, and folded.
type twin struct{ N int64 }

const left, right = Key[int64]("left"), Key[int64]("right")

type stepped struct{}

func (stepped) Apply(t *twin) { t.N++ }

var twins = Class[twin]{Name: "twin", Events: Events[twin]{"stepped": stepped{}}, Limits: Limits{Idle: time.Hour}}

func (t *twin) Add(ctx *Ctx, _ int64) (int64, error) {
	left.Put(ctx, left.Get(ctx)+1)
	right.Put(ctx, right.Get(ctx)+1)
	Emit(ctx, t, stepped{})
	return t.N, nil
}

func (t *twin) Value(v View, _ None) ([3]int64, error) {
	return [3]int64{left.Get(v), t.N, right.Get(v)}, nil
}

// Meet reads, lets somebody do something, and reads again.
func (t *twin) Meet(v View, _ None) ([3]int64, error) {
	first := left.Get(v)
	g, _ := gates.Load(v.Name())
	pair := g.([2]chan struct{})
	pair[0] <- struct{}{}
	<-pair[1]
	return [3]int64{first, t.N, right.Get(v)}, nil
}

// readers counts by whom reads were answered, and can hold back what a follower gets.
type readers struct {
	*pair
	answered, passed atomic.Int64 // by b's copies, and not
	owner            atomic.Int64 // turns of a's
	hold             sync.RWMutex // locked: b's follower gets nothing
}

type heldSession struct {
	journal.Session
	hold *sync.RWMutex
}

func (s heldSession) Log(p int) journal.Log { return heldLog{s.Session.Log(p), s.hold} }

type heldLog struct {
	journal.Log
	hold *sync.RWMutex
}

func (l heldLog) wait() {
	l.hold.RLock()
	defer l.hold.RUnlock()
}

func (l heldLog) Follow(ctx context.Context, from journal.Seq, patterns ...string) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		for m, err := range l.Log.Follow(ctx, from, patterns...) {
			l.wait()
			if !yield(m, err) {
				return
			}
		}
	}
}

// newReaders is a pair whose b answers reads of a's objects.
func newReaders(t *testing.T, how ...func(*Config)) *readers {
	rd := &readers{}
	rd.pair = newPair(t, append(how, func(c *Config) {
		c.Classes = append(c.Classes, twins)
		if c.ID == "a" {
			c.Observe.Turn = func(_, method string, _ Code, _, _ time.Duration) {
				if method == "value" {
					rd.owner.Add(1)
				}
			}
			return
		}
		c.Observe.CopyRead = func(answered bool) {
			if answered {
				rd.answered.Add(1)
			} else {
				rd.passed.Add(1)
			}
		}
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return heldSession{s, &rd.hold}, err
		}
	})...)
	rd.reading()
	return rd
}

func (rd *readers) reading() {
	rd.t.Helper()
	eventually(rd.t, "b reads", func() bool { return rd.b.copies[rd.p].Load() != nil })
}

// told is what was answered by b's copies, passed on, and answered by a since the last time.
func (rd *readers) told() [3]int64 {
	return [3]int64{rd.answered.Swap(0), rd.passed.Swap(0), rd.owner.Swap(0)}
}

func (rd *readers) env() Env { return NewClient(rd.b.Nearest()).With(rd.t.Context()) }

// TestACopyAnswersWhoAsksForIt, and nobody else: the owner has no turn of it.
func TestACopyAnswersWhoAsksForIt(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	for _, class := range []string{"register", "ledger"} {
		name := rd.object(class, 0)
		for n := range 3 { // the copy goes on with its object
			addTo(t, rd.a, class, name, 2)
			rd.followed()
			r := must(NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: class, Name: name, Method: "value", Eventual: true}))(t)
			if want := 2 * (n + 1); string(r.Body) != fmt.Sprint(want) || r.Version != journal.Version(want) {
				t.Errorf("%s is %s at version %d; want %d at %[4]d", class, r.Body, r.Version, want)
			}
		}
		if got, want := rd.told(), [3]int64{3, 0, 0}; got != want {
			t.Errorf("%s: answered, passed on, by the owner: %v; want %v", class, got, want)
		}
		var v journal.Version
		if n := must(Read(rd.env(), registers.Get(name), (*register).Value, nil, TellVersion{&v}))(t); class == "register" && (n != 6 || v != 6) {
			t.Errorf("a strong read gives %d at version %d", n, v)
		}
		if got, want := rd.told(), [3]int64{0, 0, 1}; got != want {
			t.Errorf("strong read of %s: answered, passed on, by the owner: %v; want %v", class, got, want)
		}
	}
	r := must(NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: "register", Name: rd.object("register", 7), Method: "value", Eventual: true}))(t)
	if string(r.Body) != "0" || r.Version != 0 {
		t.Errorf("an object that is not there is %s at version %d", r.Body, r.Version)
	}
	if r, err := rd.b.readCopy(t.Context(), Request{Class: "register", Name: rd.object("register", 0), Method: "value"}); !errors.Is(err, ErrNoCopy) {
		t.Errorf("a strong read that comes to a copy gets %s, %v", r.Body, err)
	}
	_, err := rd.b.Do(t.Context(), Request{Class: "register", Name: rd.object("register", 0), Method: "value"})
	wantCode(t, err, Unavailable, "not owned")
}

// TestACopyTellsOnlyWhatWas: while the object grows a copy answers what it was at the version that it names, never behind what
// it has said before, and never ahead of the owner.
func TestACopyTellsOnlyWhatWas(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	name := rd.object("twin", 0)
	const last = 2500 // the copy is made anew after some
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		client := NewClient(rd.a)
		for range last {
			if _, err := client.Do(t.Context(), Request{Class: "twin", Name: name, Method: "add", Body: []byte("1")}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for before := journal.Version(0); before < last && !t.Failed(); {
				r, err := rd.b.readCopy(t.Context(), Request{Class: "twin", Name: name, Method: "value", Eventual: true})
				if errors.Is(err, ErrNoCopy) { // the object is slow to take what comes, and was dropped
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if want := fmt.Sprintf("[%d,%[1]d,%[1]d]", r.Version); string(r.Body) != want || r.Version < before {
					t.Errorf("%s at version %d, after version %d; want %s", r.Body, r.Version, before, want)
					return
				}
				before = r.Version
				now, err := rd.a.Do(t.Context(), Request{Class: "twin", Name: name, Method: "value"})
				if err != nil || now.Version < before {
					t.Errorf("a copy was at version %d before the owner was at %d: %v", before, now.Version, err)
					return
				}
			}
		})
	}
	readers.Wait()
	if n := rd.answered.Load(); n < 100 {
		t.Errorf("copies answered %d reads", n)
	}
	if n := rd.passed.Load(); n > rd.answered.Load() {
		t.Errorf("%d reads were passed on, %d answered", n, rd.answered.Load())
	}
}

// TestAReadOfACopyIsNotTorn: what is written into the store during a read is not in it, and the read after it has that.
func TestAReadOfACopyIsNotTorn(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	name := rd.object("twin", 0)
	pair := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	gates.Store(name, pair)
	addTo(t, rd.a, "twin", name, 2)
	rd.followed()
	got := make(chan Reply, 1)
	go func() {
		r, err := NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: "twin", Name: name, Method: "meet", Eventual: true})
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	<-pair[0]
	addTo(t, rd.a, "twin", name, 1)
	rd.copiedAs("twin", snapshot.ID("twin."+name), 3)
	close(pair[1])
	if r := <-got; string(r.Body) != "[2,2,2]" || r.Version != 2 {
		t.Errorf("%s at version %d", r.Body, r.Version)
	}
	if r := must(NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: "twin", Name: name, Method: "value", Eventual: true}))(t); string(r.Body) != "[3,3,3]" || r.Version != 3 {
		t.Errorf("after it %s at version %d", r.Body, r.Version)
	}
}

// TestACopyOfWhatTheJournalDoesNotHaveAnswersNothing: the store may be all that knows of what was lost.
func TestACopyOfWhatTheJournalDoesNotHaveAnswersNothing(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	name := rd.object("register", 0)
	id := snapshot.ID("register." + name)
	addTo(t, rd.a, "register", name, 2)
	rd.copiedAs("register", id, 2)
	at := rd.stored(id)
	at.Version, at.Hash = at.Version+1, journal.HashOf([]byte("lost"))
	raw := must(json.Marshal(at))(t)
	if err := rd.store.Apply(id, snapshot.Batch{Entries: []snapshot.Entry{{Space: snapshot.Meta, Value: raw}}}); err != nil {
		t.Fatal(err)
	}
	r := must(NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: "register", Name: name, Method: "value", Eventual: true}))(t)
	if string(r.Body) != "2" || r.Version != 2 {
		t.Errorf("%s at version %d", r.Body, r.Version)
	}
	if got, want := rd.told(), [3]int64{0, 1, 1}; got != want {
		t.Errorf("answered, passed on, by the owner: %v; want %v", got, want)
	}
}

// TestAPartitionWithAnAlarmIsNotRead: until the loss is accepted its copies answer as little as an owner does.
func TestAPartitionWithAnAlarmIsNotRead(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	rd.server.Publish(wire.DefaultNamespace.Stream(rd.p), journal.Message{Subject: wire.DefaultNamespace.Fence(rd.p)}) // what is accepted is a warning
	name := rd.object("register", 0)
	addTo(t, rd.a, "register", name, 1)
	rd.followed()
	read := func() error {
		_, err := rd.b.readCopy(t.Context(), Request{Class: "register", Name: name, Method: "value", Eventual: true})
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	session := rd.server.Session("objects", worldPartitions)
	if err := Recall(t.Context(), session, rd.p, "a test", 1e6); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no copy answers", func() bool { return errors.Is(read(), ErrNoCopy) })
	if ok, err := AcceptJournal(t.Context(), session, wire.DefaultNamespace, rd.p, func(Loss) bool { return true }); !ok || err != nil {
		t.Fatalf("accepted: %v, %v", ok, err)
	}
	eventually(t, "copies answer", func() bool { return read() == nil })
}

// copiedAs is copied for any class.
func (rd *readers) copiedAs(class string, id snapshot.ID, v journal.Version) {
	rd.t.Helper()
	eventually(rd.t, fmt.Sprintf("b has %s at version %d", id, v), func() bool {
		s := newState(rd.store, id, rd.b.classes[class])
		return s.load() == nil && s.base.Version >= v
	})
}

// TestAReadWaitsForTheVersionThatItWants, and goes to the owner when that takes long.
func TestAReadWaitsForTheVersionThatItWants(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	name := rd.object("register", 0)
	addTo(t, rd.a, "register", name, 1)
	rd.followed()
	rd.hold.Lock()
	var v journal.Version
	must(Call(NewClient(rd.a).With(t.Context()), registers.Get(name), (*register).Add, 1, TellVersion{&v}))(t)
	if v != 2 {
		t.Fatalf("the call was told version %d", v)
	}
	if n := must(Read(rd.env(), registers.Get(name), (*register).Value, nil, Eventual{}))(t); n != 1 {
		t.Errorf("the copy has %d", n)
	}
	answered := make(chan int64)
	go func() { // it waits, and is passed on
		answered <- must(Read(rd.env(), registers.Get(name), (*register).Value, nil, Eventual{AtLeast: v}))(t)
	}()
	if n := <-answered; n != 2 {
		t.Errorf("%d at version %d", n, v)
	}
	if got, want := rd.told(), [3]int64{1, 1, 1}; got != want {
		t.Errorf("answered, passed on, by the owner: %v; want %v", got, want)
	}
	f := rd.b.copies[rd.p].Load()
	done := make(chan Reply, 1)
	go func() {
		for { // one that came too late for a copy that is held back is repeated
			r, err := rd.b.readCopy(t.Context(), Request{Class: "register", Name: name, Method: "value", Eventual: true, MinVersion: v})
			if err == nil {
				done <- r
				return
			}
		}
	}()
	eventually(t, "it waits", func() bool {
		n := make(chan int, 1)
		return f.ask(func() { n <- len(f.waiting) }) && <-n == 1
	})
	rd.hold.Unlock()
	if r := <-done; string(r.Body) != "2" || r.Version != 2 {
		t.Errorf("%s at version %d", r.Body, r.Version)
	}
	eventually(t, "nobody waits", func() bool {
		n := make(chan int, 1)
		return f.ask(func() { n <- len(f.waiting) + f.waits }) && <-n == 0
	})
	_, err := Read(rd.env(), registers.Get(name), (*register).Value, nil, Eventual{AtLeast: 3})
	wantCode(t, err, Conflict, "at version 2; at least 3")
}

// TestOnlyReadsMayBeEventual.
func TestOnlyReadsMayBeEventual(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	name := rd.object("register", 0)
	client := NewClient(rd.b.Nearest())
	_, err := client.Do(t.Context(), Request{Class: "register", Name: name, Method: "add", Body: []byte("1"), Eventual: true})
	wantCode(t, err, Invalid, "add is no read")
	_, err = client.Do(t.Context(), Request{Class: "register", Name: name, Method: "add", Body: []byte("1"), MinVersion: 1})
	wantCode(t, err, Invalid, "add is no read")
	_, err = client.Do(t.Context(), Request{Class: "register", Name: name, HTTP: &HTTPRequest{Method: "GET", URL: "/"}, Eventual: true})
	wantCode(t, err, Invalid, "/v1/objects/register/<name>/call/<method>")
	_, err = client.Do(t.Context(), Request{Class: "register", Name: name, Method: "valeu", Eventual: true})
	wantCode(t, err, NotFound, "valeu")
}

// TestWhatIsLargeIsReadAtItsOwner: copies are in memory, and their memory is bounded.
func TestWhatIsLargeIsReadAtItsOwner(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	large := rd.object("register", 0)
	for i := range 3 {
		body := fmt.Sprintf(`{"From":%d,"N":40,"Bytes":10000}`, 40*i)
		must(NewClient(rd.a).Do(t.Context(), Request{Class: "register", Name: large, Method: "fill", Body: []byte(body)}))(t)
		rd.followed()
		r := must(NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: "register", Name: large, Method: "countItems", Eventual: true}))(t)
		if string(r.Body) != fmt.Sprint(40*(i+1)) {
			t.Errorf("%s items; want %d", r.Body, 40*(i+1))
		}
	}
	if n := rd.passed.Load(); n != 1 {
		t.Errorf("%d reads were passed on; want the last one", n)
	}
}

// TestCopiesLeaveMemory, when nobody reads them.
func TestCopiesLeaveMemory(t *testing.T) {
	t.Parallel()
	rd := newReaders(t, func(c *Config) {
		c.Classes = []AnyClass{Class[register]{Name: "register", Limits: Limits{Idle: time.Millisecond}}, ledgers}
	})
	name := rd.object("register", 0)
	addTo(t, rd.a, "register", name, 1)
	rd.followed()
	read := func() {
		r := must(NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: "register", Name: name, Method: "value", Eventual: true}))(t)
		if string(r.Body) != "1" {
			t.Errorf("it is %s", r.Body)
		}
	}
	read()
	ep := rd.b.copies[rd.p].Load().ep
	eventually(t, "the copy leaves", func() bool { return len(ep.members()) == 0 && rd.b.Status().Memory == 0 })
	read()
	if got, want := rd.told(), [3]int64{2, 0, 0}; got != want {
		t.Errorf("answered, passed on, by the owner: %v; want %v", got, want)
	}
}

// TestACopyThatAReadHoldsUpIsDropped: what it has not taken is bounded, and who waits for it is answered by the owner.
func TestACopyThatAReadHoldsUpIsDropped(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	name := rd.object("twin", 0)
	pair := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	gates.Store(name, pair)
	addTo(t, rd.a, "twin", name, 1)
	rd.followed()
	held := make(chan error, 1)
	go func() {
		_, err := rd.b.readCopy(t.Context(), Request{Class: "twin", Name: name, Method: "meet", Eventual: true})
		held <- err
	}()
	<-pair[0]
	behind := make(chan Reply, 1)
	go func() {
		r, err := NewClient(rd.b.Nearest()).Do(t.Context(), Request{Class: "twin", Name: name, Method: "value", Eventual: true})
		if err != nil {
			t.Error(err)
		}
		behind <- r
	}()
	f := rd.b.copies[rd.p].Load()
	eventually(t, "one waits", func() bool {
		for _, o := range f.ep.members() {
			o.mu.Lock()
			n := len(o.queue)
			o.mu.Unlock()
			return n == 1
		}
		return false
	})
	addTo(t, rd.a, "twin", name, copyMovesMax+2)
	if r := <-behind; !strings.HasPrefix(string(r.Body), "[") || r.Version < 2 {
		t.Errorf("behind it: %s at version %d", r.Body, r.Version)
	}
	close(pair[1])
	if err := <-held; err == nil {
		t.Error("the read that held it up was answered")
	}
}

// TestReadsGoOnThroughATakeOver: they are answered by the copy as long as it is there, and then by the new owner.
func TestReadsGoOnThroughATakeOver(t *testing.T) {
	t.Parallel()
	rd := newReaders(t)
	name := rd.object("register", 0)
	addTo(t, rd.a, "register", name, 3)
	rd.followed()
	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() {
		for ctx.Err() == nil {
			n, err := Read(rd.env(), registers.Get(name), (*register).Value, nil, Eventual{})
			if err != nil || n != 3 {
				t.Errorf("%d, %v", n, err)
				return
			}
		}
	})
	rd.takeOver()
	eventually(t, "the copies are gone", func() bool { return rd.b.copies[rd.p].Load() == nil })
	stop()
	reading.Wait()
	addTo(t, rd.b, "register", name, 1)
	if n := must(Read(rd.env(), registers.Get(name), (*register).Value, nil, Eventual{AtLeast: 4}))(t); n != 4 {
		t.Errorf("it is %d", n)
	}
}
