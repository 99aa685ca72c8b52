package engine

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// TestARepeatGetsTheSameBytes repeats requests wherever the first run's reply may be by then.
func TestARepeatGetsTheSameBytes(t *testing.T) {
	t.Parallel()
	idle := registers
	idle.Limits.Idle = time.Millisecond
	long := Request{Class: "register", Name: "a", Method: "long", Body: []byte("5000"), ID: "long"}
	short := Request{Class: "register", Name: "a", Method: "add", Body: []byte("5"), ID: "short"}
	numbered := Request{Class: "register", Name: "a", Method: "long", Body: []byte("300"),
		Session: &SessionNumber{Sender: strings.Repeat("0f", 16), N: 9, M: 9, Deadline: time.Now().Add(time.Hour)}}
	requests := []Request{long, short, numbered}

	for name, between := range map[string]func(w *world, worker *Worker, store **snapshot.Memory) *Worker{
		"at once": func(_ *world, worker *Worker, _ **snapshot.Memory) *Worker { return worker },
		"after eviction": func(w *world, worker *Worker, _ **snapshot.Memory) *Worker {
			eventually(w.t, "evicted", func() bool { return worker.Status().Resident == 0 })
			return worker
		},
		"after a kill": func(w *world, worker *Worker, store **snapshot.Memory) *Worker {
			worker.Kill()
			return nil
		},
		"after eviction, a kill and a wipe": func(w *world, worker *Worker, store **snapshot.Memory) *Worker {
			eventually(w.t, "evicted", func() bool { return worker.Status().Resident == 0 })
			worker.Kill()
			*store = snapshot.NewMemory()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newServer(t)
			store := snapshot.NewMemory()
			start := func() *Worker {
				worker := w.worker("w", func(c *Config) { c.Classes, c.Store = []AnyClass{idle}, store })
				w.ready(worker)
				return worker
			}
			worker := start()
			var first []Reply
			for _, r := range requests {
				first = append(first, must(worker.Do(t.Context(), r))(t))
			}
			for round := range 3 {
				if worker = between(w, worker, &store); worker == nil {
					worker = start()
				}
				for i, r := range requests {
					again := must(worker.Do(t.Context(), r))(t)
					if !bytes.Equal(again.Body, first[i].Body) || again.Version != first[i].Version || !again.Replayed {
						t.Errorf("round %d, %s: version %d, replayed %v, %d bytes", round, r.requestID(), again.Version, again.Replayed, len(again.Body))
					}
					other := r
					other.Body = []byte("6")
					_, err := worker.Do(t.Context(), other)
					wantCode(t, err, IDReused, "was used for another request")
				}
			}
			if r := must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "value"}))(t); string(r.Body) != "7" || r.Version != 3 {
				t.Errorf("%s at %d", r.Body, r.Version)
			}
		})
	}
}

func TestARepeatInFlightJoinsTheFirst(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	began, release := block(t, "join")
	results := make(chan Reply, 3)
	for range 3 {
		go func() {
			r, err := worker.Do(t.Context(), Request{Class: "register", Name: "join", Method: "block", Body: []byte("7"), ID: "x"})
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	<-began
	close(release)
	replayed := 0
	for range 3 {
		r := <-results
		if string(r.Body) != "7" || r.Version != 1 {
			t.Errorf("%s at %d", r.Body, r.Version)
		}
		if r.Replayed {
			replayed++
		}
	}
	if replayed != 2 {
		t.Errorf("%d of 3 are repeats", replayed)
	}
}

func TestTurnsWithoutChangesRunAgain(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	peek := Request{Class: "register", Name: "a", Method: "peek", ID: "same"}
	for want := range 3 {
		if r := must(worker.Do(t.Context(), peek))(t); string(r.Body) != fmt.Sprint(want) || r.Replayed {
			t.Errorf("%s, replayed %v", r.Body, r.Replayed)
		}
		must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t)
	}
}

func TestNumbersBelowTheMarkAreNotRun(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	call := func(n, m uint64) (Reply, error) {
		return worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"),
			Session: &SessionNumber{Sender: strings.Repeat("ab", 16), N: n, M: m, Deadline: time.Now().Add(time.Hour)}})
	}
	must(call(3, 1))(t)
	must(call(1, 1))(t) // in any order
	must(call(5, 4))(t) // 3 and 1 are settled
	_, err := call(2, 1)
	wantCode(t, err, Conflict, "below its mark 4")
	_, err = call(3, 1) // a late mark counts for nothing
	wantCode(t, err, Conflict, "below its mark 4")
	must(call(4, 4))(t)
	if r := must(call(5, 4))(t); !r.Replayed || string(r.Body) != "3" {
		t.Errorf("%s", r.Body)
	}
}

func TestUnconfirmedRepliesAreBounded(t *testing.T) {
	t.Parallel()
	o := newOnce(Limits{KeepIDs: time.Hour, KeepIDsMax: 10})
	store, now := snapshot.NewMemory(), time.Now()
	for n := range uint64(unansweredMax + 1) {
		r := &Request{Session: &SessionNumber{Sender: "s", N: n + 1, M: 1, Deadline: now.Add(time.Minute)}}
		a, err := o.find(store, "r.a", r, journal.Hash{}, now, now)
		if n == unansweredMax {
			wantCode(t, err, Limited, "1024 unconfirmed requests")
			break
		}
		if a != nil || err != nil {
			t.Fatal(n, a, err)
		}
		o.add(&commit{version: journal.Version(n + 1), Commit: journal.Commit{Session: r.Session}})
	}
	// The mark lets go of them, and so does the latest deadline.
	o.add(&commit{version: 5000, Commit: journal.Commit{Session: &SessionNumber{Sender: "s", N: 2000, M: 1990, Deadline: now.Add(time.Minute)}}})
	if o.kept != 1 {
		t.Errorf("%d kept", o.kept)
	}
	o.expire(now.Add(2*time.Minute), time.Time{})
	if o.kept != 0 || len(o.senders) != 0 {
		t.Errorf("%d kept", o.kept)
	}
}

func TestOwnIDsAreForgottenByNumberAndAge(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	few := registers
	few.Limits.KeepIDsMax, few.Limits.KeepIDs, few.Limits.Idle = 3, time.Hour, time.Millisecond
	clock := &testClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	store := snapshot.NewMemory()
	worker := w.worker("w", func(c *Config) { c.Classes, c.Clock, c.Store = []AnyClass{few}, clock, store })
	w.ready(worker)
	add := func(id string) bool {
		return must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), ID: id}))(t).Replayed
	}
	for _, evict := range []bool{false, true} {
		settle := func() {
			if evict {
				eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
			}
		}
		id := func(i int) string { return fmt.Sprint(evict, i) }
		for i := range 4 {
			add(id(i))
		}
		settle()
		if !add(id(1)) || !add(id(3)) {
			t.Error("one of the last three is forgotten")
		}
		settle()
		if add(id(0)) { // the fourth last: runs again, and is the newest now
			t.Error("more than three are kept")
		}
		settle()
		clock.advance(2 * time.Hour)
		add("") // the time counts that is recorded
		settle()
		if add(id(3)) {
			t.Error("kept for more than its time")
		}
	}
	eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
	n := 0
	for range store.Scan("register.a", snapshot.Window, "i/", "i0", false) {
		n++
	}
	if n > 4 { // the three, and what the next flush removes
		t.Errorf("%d ids are in the store", n)
	}
}

// TestAClockThatGoesAheadAndBackForgetsNothing: a sender is forgotten by the recorded time alone.
func TestAClockThatGoesAheadAndBackForgetsNothing(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := &testClock{now: start}
	worker := w.worker("w", func(c *Config) { c.Clock = clock })
	w.ready(worker)
	numbered := func(method string, n uint64, deadline time.Duration) Request {
		return Request{Class: "register", Name: "a", Method: method, Body: []byte("1"), Deadline: start.Add(deadline),
			Session: &SessionNumber{Sender: strings.Repeat("ab", 16), N: n, M: 1, Deadline: start.Add(deadline)}}
	}
	must(worker.Do(t.Context(), numbered("add", 1, 30*time.Second)))(t)
	clock.advance(time.Minute)
	peek := numbered("peek", 2, 2*time.Minute)
	peek.Body = nil
	must(worker.Do(t.Context(), peek))(t)
	clock.advance(-59 * time.Second)
	if r := must(worker.Do(t.Context(), numbered("add", 1, 30*time.Second)))(t); !r.Replayed || string(r.Body) != "1" {
		t.Errorf("the repeat: %s, replayed %v", r.Body, r.Replayed)
	}
}

func TestAMarkOfTheRequestItselfCounts(t *testing.T) {
	t.Parallel()
	o := newOnce(Limits{KeepIDs: time.Hour, KeepIDsMax: 10})
	store, now := snapshot.NewMemory(), time.Now()
	for n := range uint64(unansweredMax) {
		o.add(&commit{version: journal.Version(n + 1), Commit: journal.Commit{At: now, Session: &SessionNumber{Sender: "s", N: n + 1, M: 1, Deadline: now.Add(time.Minute)}}})
	}
	r := &Request{Session: &SessionNumber{Sender: "s", N: unansweredMax + 1, M: unansweredMax + 1, Deadline: now.Add(time.Minute)}}
	if _, err := o.find(store, "r.a", r, journal.Hash{}, now, now); err != nil {
		t.Errorf("it confirms all answers, and is refused: %v", err)
	}
}

func TestAFullWindowEmptiesWithTime(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	clock := &testClock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	worker := w.worker("w", func(c *Config) { c.Clock = clock })
	w.ready(worker)
	w.add(worker, "a")
	o := residentObject(worker, "register", "a")
	done := make(chan struct{})
	o.chore(func() {
		for n := range keptMax { // as many one-shot clients
			name := fmt.Sprintf("%032x", n)
			put(&o.state.once.senders, name, &sender{M: 1, Deadline: clock.Now().Add(30 * time.Second), Answers: map[uint64]*answer{1: {}}})
			o.state.once.kept++
		}
		close(done)
	})
	<-done
	clock.advance(24 * time.Hour) // all of them are long gone
	dl := clock.Now().Add(time.Minute)
	for i := range 3 {
		_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), Deadline: dl,
			Session: &SessionNumber{Sender: strings.Repeat("f0", 16), N: 1, M: 1, Deadline: dl}})
		if err != nil {
			t.Errorf("try %d, a day after the last deadline: %v", i, err)
		}
	}
}

// setBack is a time whose wall clock reads d earlier, in whole seconds, and whose monotonic reading does not: what time.Now
// returns after the machine's clock was set back. There is no way to make one but to reach into it.
func setBack(t time.Time, d time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall -= uint64(d/time.Second) << 30
	return t
}

// stepClock is the machine's clock, set back at some time.
type stepClock struct {
	machineClock
	back atomic.Int64
}

func (c *stepClock) Now() time.Time { return setBack(time.Now(), time.Duration(c.back.Load())) }

// TestAWallClockThatIsSetBack: recorded times do not decrease, and a request that was forgotten by them does not run again.
func TestAWallClockThatIsSetBack(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	clock := &stepClock{}
	worker := w.worker("w", func(c *Config) { c.Clock = clock })
	w.ready(worker)
	start := time.Now().Round(0)
	numbered := func(n uint64, sender, method string, deadline time.Duration) Request {
		r := Request{Class: "register", Name: "a", Method: method, Body: []byte("1"), Deadline: start.Add(deadline),
			Session: &SessionNumber{Sender: strings.Repeat(sender, 16), N: n, M: 1, Deadline: start.Add(deadline)}}
		if method == "peek" {
			r.Body = nil
		}
		return r
	}
	const soon = 2 * time.Second
	must(worker.Do(t.Context(), numbered(1, "ab", "add", soon)))(t)
	eventually(t, "its deadline has passed", func() bool { return time.Since(start) > soon+soon/4 })
	must(worker.Do(t.Context(), numbered(1, "cd", "add", time.Minute)))(t) // recorded behind that deadline
	<-flushNow(residentObject(worker, "register", "a"))                    // so its sender is forgotten
	clock.back.Store(int64(soon))
	must(worker.Do(t.Context(), numbered(2, "cd", "add", time.Minute)))(t)
	_, err := worker.Do(t.Context(), numbered(1, "ab", "add", soon))
	wantCode(t, err, Timeout, "not begun by its deadline")
	entries, _, err := worker.Journal(t.Context(), "register", "a", 0, 0)
	if err != nil || len(entries) != 3 {
		t.Fatal(entries, err)
	}
	for i := range entries[1:] {
		if entries[i+1].At.Before(entries[i].At) {
			t.Errorf("version %d is at %v, and the one before it at %v", entries[i+1].Version, entries[i+1].At, entries[i].At)
		}
	}
}

func TestANumberedRequestWithoutADeadlineHasItsSenders(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w")
	w.ready(worker)
	_, err := worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"),
		Session: &SessionNumber{Sender: strings.Repeat("ab", 16), N: 1, M: 1, Deadline: time.Now().Add(-time.Second)}})
	wantCode(t, err, Timeout, "not begun by its deadline")
}

// TestAMarkForgetsWhatIsBelow moves a mark by little and by much.
func TestAMarkForgetsWhatIsBelow(t *testing.T) {
	t.Parallel()
	for _, m := range []uint64{11, 12, 30, 39, 40, 41, 1 << 40} {
		s := &sender{M: 10, Answers: map[uint64]*answer{}}
		for n := uint64(10); n < 40; n += 3 {
			s.Answers[n] = &answer{}
		}
		want := s.above(m)
		if forgotten := s.advance(m); s.M != m || len(s.Answers) != want || s.above(m) != want || forgotten != 10-want {
			t.Errorf("mark %d: %d forgotten, %d left, %d of them above; want %d", m, forgotten, len(s.Answers), s.above(m), want)
		}
	}
}

// TestADeadLetterForgetsNobody: a dead letter has the id that its message had, and counts for nothing; when it waits behind what is
// written into the store, no other id is forgotten for it.
func TestADeadLetterForgetsNobody(t *testing.T) {
	store, id := snapshot.NewMemory(), snapshot.ID("register.a")
	o := newOnce(Limits{KeepIDs: time.Hour, KeepIDsMax: 8})
	at := time.Unix(1e9, 0)
	answered := &commit{version: 1, Commit: journal.Commit{At: at, ID: "mine"}}
	o.add(answered)
	write(t, &o, store, id, []*commit{answered}, nil)
	var waiting []*commit
	for i := range 2 {
		dead := &commit{version: journal.Version(2 + i), Commit: journal.Commit{At: at, ID: fmt.Sprint("dead-", i),
			Inbox: &journal.Sent{Seq: journal.Seq(7 + i), Outcome: journal.SentDead}}}
		o.add(dead)
		waiting = append(waiting, dead)
	}
	entries, err := o.prune(store, id, o.ids-ownIDs(waiting), at, 100)
	if err != nil || len(entries) > 0 {
		t.Errorf("%d entries are to be removed (error %v): %v", len(entries), err, entries)
	}
}

// write brings a store to where some commits are.
func write(t *testing.T, o *once, store *snapshot.Memory, id snapshot.ID, tail, later []*commit) {
	t.Helper()
	entries, err := o.flush(nil, store, id, tail, later, tail[len(tail)-1].At)
	if err == nil {
		err = store.Apply(id, snapshot.Batch{Entries: entries})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAMarkThatIsLostForgetsNoMessage: what a message moves its publisher's mark over may be run again, when that message's commit is lost
// with its epoch; so the store has the mark, and the answers, of the commits that it has.
func TestAMarkThatIsLostForgetsNoMessage(t *testing.T) {
	store, id := snapshot.NewMemory(), snapshot.ID("register.a")
	o := newOnce(Limits{})
	at := time.Unix(1e9, 0)
	numbered := func(n, m uint64) *Request {
		return &Request{Session: &SessionNumber{Sender: "p", N: n, M: m, Deadline: at.Add(time.Minute)}, letter: &letter{at: at}}
	}
	var commits []*commit
	for i, m := range []uint64{1, 1, 3, 4} { // of numbers 1 to 4
		c := &commit{version: journal.Version(1 + i), Commit: journal.Commit{At: at, Session: numbered(uint64(1+i), m).Session, Inbox: &journal.Sent{Seq: journal.Seq(1 + i), At: at}}}
		o.add(c)
		commits = append(commits, c)
	}
	knows := func(what string, n uint64, want bool) {
		t.Helper()
		again := newOnce(Limits{})
		if err := again.load(store, id); err != nil {
			t.Fatal(err)
		}
		a, err := again.find(store, id, numbered(n, 1), journal.Hash{}, at, at)
		if err != nil || (a != nil) != want {
			t.Errorf("%s, number %d: %+v, %v; want it known: %v", what, n, a, err, want)
		}
	}
	write(t, &o, store, id, commits[:1], commits[1:])
	knows("the store has the first", 1, true)
	knows("the store has the first", 2, false)
	write(t, &o, store, id, commits[1:2], commits[2:])
	knows("the store has two", 1, true)
	knows("the store has two", 3, false)
	write(t, &o, store, id, commits[2:], nil)
	knows("the store has all", 4, true)
	again := newOnce(Limits{})
	if err := again.load(store, id); err != nil {
		t.Fatal(err)
	}
	_, err := again.find(store, id, numbered(2, 1), journal.Hash{}, at, at)
	wantCode(t, err, Conflict, "below its mark 4")
}
