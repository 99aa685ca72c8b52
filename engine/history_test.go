package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	histories "github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// Take takes what is there, or refuses.
func (*register) Take(ctx *Ctx, n int64) (int64, error) {
	left := total.Get(ctx) - n
	if left < 0 {
		return 0, Errorf(Refused, "%d are missing", -left)
	}
	total.Put(ctx, left)
	return left, nil
}

// TestHistoriesAreThoseOfOneObject lets concurrent callers add, take and read while appends are refused, lost or slow and
// their answers are lost, requests and replies get lost or come twice, workers are killed, stopped, and sleep beyond their
// lease while another takes over. What callers were told must be the history of one object that does one thing after the
// other. HISTORIES=n plays n of them, SEED=n begins with that one: its faults are the same, the order of goroutines is not.
func TestHistoriesAreThoseOfOneObject(t *testing.T) {
	t.Parallel()
	first, n := uint64(time.Now().UnixNano()), 300
	if s := os.Getenv("SEED"); s != "" {
		first = must(strconv.ParseUint(s, 10, 64))(t)
	}
	if s := os.Getenv("HISTORIES"); s != "" {
		n = must(strconv.Atoi(s))(t)
	}
	told, unknown := 0, 0
	for i := range n {
		seed := first + uint64(i)
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("SEED=%d HISTORIES=1 plays it again, with its log", seed)
				}
			})
			e := newEpisode(t, seed, n == 1)
			e.play()
			a, b := e.h.Count()
			told, unknown = told+a, unknown+b
		})
	}
	t.Logf("%d histories from SEED=%d: %d operations were answered, the outcome of %d is unknown", n, first, told, unknown)
	if n >= 100 && (unknown == 0 || told < 10*unknown) {
		t.Error("too few operations were answered, or all: the histories say nothing")
	}
}

// episode is one short history.
type episode struct {
	noPost
	t       *testing.T
	w       *world
	h       histories.History
	how     []func(*Config)
	odds    [4]float64 // of Refuse, Lose, LoseAnswer and Hold, for each append
	workers [2]player
	others  sync.WaitGroup // what goes on beside the callers

	mu     sync.Mutex
	random *rand.Rand
	calm   bool // no more faults
	plans  []*journaltest.Plan
}

// player is a worker in its lives.
type player struct {
	id    string
	store snapshot.Store
	now   atomic.Pointer[Worker]

	mu     sync.Mutex
	asleep chan struct{} // while it is not nil no key is written: the lease runs out
	sound  bool          // nor does an append leave
}

// bubbleClock is the bubble's time.
type bubbleClock struct{ since time.Time }

func (bubbleClock) Now() time.Time        { return time.Now() }
func (c bubbleClock) Boot() time.Duration { return time.Since(c.since) }

func newEpisode(t *testing.T, seed uint64, loud bool) *episode {
	e := &episode{t: t, w: newServer(t), random: rand.New(rand.NewPCG(seed, 0))}
	for i := range e.odds {
		if e.chance(0.5) {
			e.odds[i] = []float64{0.05, 0.05, 0.1, 0.5}[i] * e.random.Float64()
		}
	}
	idle := registers
	idle.Limits.Idle = 30 * time.Millisecond
	clock := bubbleClock{time.Now()}
	e.how = append(e.how, func(c *Config) {
		c.Classes, c.Clock, c.AckTimeout, c.LeaseTerm = []AnyClass{idle, ledgers}, clock, 200*time.Millisecond, time.Second
		if !loud {
			c.Log = slog.New(slog.DiscardHandler)
		}
	})
	for i := range e.workers {
		e.workers[i].id, e.workers[i].store = fmt.Sprint("w", i), snapshot.NewMemory()
	}
	return e
}

func (e *episode) chance(p float64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.random.Float64() < p
}

func (e *episode) below(n int) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.random.IntN(n)
}

// pause lasts a moment, sometimes a long one.
func (e *episode) pause(most time.Duration) {
	if e.chance(0.1) {
		most *= 50
	}
	<-time.After(time.Duration(e.below(int(most))))
}

func (e *episode) isCalm() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calm
}

// play is the whole episode. Its streams are read as by a stranger when the test has ended.
func (e *episode) play() {
	e.start(&e.workers[0])
	if e.chance(0.7) {
		e.start(&e.workers[1])
	}
	over, end := context.WithCancel(context.Background())
	var callers sync.WaitGroup
	e.others.Go(func() { e.pass(over) })
	shared := NewClient(e)
	for n := range 5 {
		callers.Go(func() {
			for range 10 {
				e.pause(5 * time.Millisecond)
				e.ask(n, shared)
			}
		})
	}
	for range e.below(8) {
		e.pause(20 * time.Millisecond)
		e.happen()
	}
	e.mu.Lock()
	e.calm = true
	e.mu.Unlock()
	callers.Wait()
	for _, object := range []string{"register/a", "register/b", "ledger/a"} {
		class, name, _ := strings.Cut(object, "/")
		p := e.h.Begin(5, histories.Op{Object: object, Kind: histories.Read})
		reply, err := shared.Do(context.Background(), Request{Class: class, Name: name, Method: "value"})
		if err != nil {
			e.t.Errorf("nothing is wrong any more, and %s cannot be read: %v", object, err)
		}
		e.note(p, reply, err)
	}
	end()
	e.others.Wait()
	if err := e.h.Check(); err != nil {
		e.t.Error(err)
	}
}

// start begins a life of a worker, each of whose sessions has a plan of its own.
func (e *episode) start(p *player) {
	p.now.Store(e.w.worker(p.id, append(e.how, func(c *Config) {
		connect := c.Connect
		c.Store = p.store
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			plan := &journaltest.Plan{
				Meta:   func(string) error { p.wait(false); return nil },
				Append: func(int, int) journaltest.Fault { p.wait(true); return e.fault() },
			}
			e.mu.Lock()
			e.plans = append(e.plans, plan)
			e.mu.Unlock()
			return journaltest.Faulty(s, plan), err
		}
	})...))
}

func (e *episode) fault() journaltest.Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.random.Float64()
	for i, odds := range e.odds {
		if x -= odds; x < 0 && !e.calm {
			return []journaltest.Fault{journaltest.Refuse, journaltest.Lose, journaltest.LoseAnswer, journaltest.Hold}[i]
		}
	}
	return journaltest.None
}

// pass lets the answers that are held go, now and then.
func (e *episode) pass(over context.Context) {
	for over.Err() == nil {
		e.pause(5 * time.Millisecond)
		e.mu.Lock()
		plans := e.plans
		e.mu.Unlock()
		for _, p := range plans {
			p.Pass()
		}
	}
}

// wait holds up the change of a key while the player sleeps, and an append while it sleeps sound.
func (p *player) wait(appending bool) {
	p.mu.Lock()
	asleep, sound := p.asleep, p.sound
	p.mu.Unlock()
	if asleep != nil && (sound || !appending) {
		<-asleep
	}
}

func (p *player) sleep(sound bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asleep, p.sound = make(chan struct{}), sound
}

func (p *player) wakeUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.asleep)
	p.asleep, p.sound = nil, false
}

// happen is what happens to one of the workers.
func (e *episode) happen() {
	p := &e.workers[e.below(2)]
	w := p.now.Load()
	if w == nil {
		e.start(p)
		return
	}
	switch e.below(6) {
	case 0:
		w.Stop()
		e.start(p)
	case 1:
		w.Kill()
		p.store = snapshot.NewMemory()
		e.start(p)
	case 2:
		for _, name := range []string{"a", "b"} {
			if o := residentObject(w, "register", name); o != nil {
				o.chore(o.evict)
			}
		}
	case 3:
		p.sleep(e.chance(0.5))
		<-time.After(time.Second + time.Duration(e.below(int(2*time.Second))))
		p.wakeUp()
	default:
		w.Kill()
		e.start(p)
	}
}

var errAstray = Errorf(UnknownOutcome, "lost on the way")

// Do carries a request to one of the workers, whoever has the object, as a bad network does: it or its reply may get lost,
// and what can be repeated may come twice, or again when it was answered.
func (e *episode) Do(ctx context.Context, r Request) (Reply, error) {
	w := e.workers[e.below(2)].now.Load()
	again := func() { w.submit(context.Background(), r, func(Reply, error) {}) }
	repeatable := r.ID != "" || r.Session != nil
	switch {
	case w == nil:
		return Reply{}, Errorf(Unavailable, "nobody is there")
	case e.isCalm():
		return w.Do(ctx, r)
	case e.chance(0.02):
		return Reply{}, errAstray
	}
	twice := repeatable && e.chance(0.05)
	if twice {
		again()
	}
	reply, err := w.Do(ctx, r)
	if repeatable && err == nil && e.chance(0.1) {
		e.others.Go(func() {
			e.pause(10 * time.Millisecond)
			again()
		})
	}
	if e.chance(0.05) || twice && errors.Is(err, Unavailable) { // of the other one nothing is known
		return Reply{}, errAstray
	}
	return reply, err
}

// ask sends one request of caller n: with an id or numbered, until its outcome is known, or bare, once. Now and then its
// caller leaves early.
func (e *episode) ask(n int, client *Client) {
	op := histories.Op{Object: "register/" + []string{"a", "b"}[e.below(2)], Kind: histories.Add, N: int64(1 + e.below(9))}
	method := "add"
	switch e.below(8) {
	case 0, 1:
		op.Kind, op.N, method = histories.Read, 0, "value"
	case 2:
		op.Kind, op.N, method = histories.Read, 0, "peek"
	case 3, 4:
		op.Kind, method = histories.Take, "take"
	case 5:
		op.Object = "ledger/a"
	}
	class, name, _ := strings.Cut(op.Object, "/")
	r := Request{Class: class, Name: name, Method: method}
	if op.N != 0 {
		r.Body = strconv.AppendInt(nil, op.N, 10)
	}
	ctx := context.Background()
	if e.chance(0.1) {
		var leave context.CancelFunc
		ctx, leave = context.WithTimeout(ctx, time.Duration(e.below(int(50*time.Millisecond))))
		defer leave()
	}
	transport := Transport(client)
	switch e.below(8) {
	case 0:
		transport = e
	case 1, 2, 3:
		r.ID = fmt.Sprintf("id-%d-%d", n, e.below(1<<60))
	}
	p := e.h.Begin(n, op)
	reply, err := transport.Do(ctx, r)
	e.note(p, reply, err)
}

// note says what an operation's caller was told.
func (e *episode) note(p *histories.Pending, reply Reply, err error) {
	var told histories.Told
	failed, _ := errors.AsType[*Error](err)
	switch {
	case failed == nil:
		if err := json.Unmarshal(reply.Body, &told.Value); err != nil {
			e.t.Error(err)
		}
		p.Told(told)
	case failed.Code == Refused && failed.Remote:
		p.Told(histories.Told{Short: true})
	case failed.Code == Unavailable || failed.Code == Timeout:
		p.Never()
	case failed.Code != UnknownOutcome:
		e.t.Error(err)
	}
}
