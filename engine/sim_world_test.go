package engine

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// The simulation runs whole workers, as they are, in a testing/synctest bubble, over a simulated network, journal, store,
// clock and callers. One goroutine, the driver, does one thing at a time: it lets one message arrive, one question be
// answered, one caller call, one process die, some time pass, and waits until all goroutines wait. So what one thing
// causes is short, and the same seed gives the same story.
//
//	sim_world_test.go    a world, and what is the same in all of them
//	sim_step_test.go     the steps of a story, and how each is done
//	sim_end_test.go      when the faults have ended: everything is served again, and is as the journal says
//	sim_net_test.go      connections and the journal behind them
//	sim_life_test.go     workers, their clocks and stores
//	sim_request_test.go  callers
//	sim_inbox_test.go    publishers, the inbox, and what must be so of messages
//	sim_thing_test.go    the class, and a model of it
//	sim_audit_test.go    the properties
//	sim_shrink_test.go   the shortest story that still fails
//	sim_test.go          seeds
type sim struct {
	profile
	ns      wire.Subjects
	mem     *journaltest.Memory
	direct  *journaltest.MemorySession
	clocks  map[string]*simClock
	clients []*Client
	ctx     context.Context // of the callers
	cancel  context.CancelFunc
	full    atomic.Bool // the disk is
	voice   voice
	failure atomic.Pointer[failure]

	// mu guards what follows. Workers take it for a moment when they ask or answer; nothing of a worker that may wait is
	// called with it held.
	mu        sync.Mutex
	lives     []*life
	disks     map[string]*[]*snapshot.Memory
	ops       []*simOp
	ghosts    []*simOp // changes that are under way although whoever sent them has given up
	writers   []*simWriter
	follows   []*simFollow
	words     []simWord
	sending   []*delivery
	events    []event // room for what is possible
	delivered []*delivery
	requests  []*simRequest // by number, from 1
	histories map[snapshot.ID]*history
	copies    map[simCopyOf]*simCopy // that were asked
	parts     []simPartition
	synced    []journal.Seq // by partition: durable up to there

	letters     []*simLetter  // that are, or were, in the inbox, by position, from 1
	mails       []*simRequest // of publishers
	publishers  [2]simPublisher
	inboxLife   uint64
	stopped     map[snapshot.ID]bool // objects whose journal lost so much that nothing can be answered
	acceptedAt  time.Time
	syncedInbox journal.Seq
	counts      map[string]int
	story       []string
	logs        []string
	restored    time.Duration // how long it took until everything was served again
	answering   time.Duration // and until every message was answered
	rested      time.Duration // when all rested last, by the machine's clock
	disturbed   bool          // the machine took the core away for so long that another goroutine may have come first
}

// profile is what a seed chooses once.
type profile struct {
	partitions, objects int
	purge, durable      bool
	lossy               bool // the journal may lose its end
	slowLease           bool // a change of a lease is done at once, and its answer takes nearly as long as it may
	standby             bool // workers follow what they would own next
	daring              bool // some calls are refused now and then
	probes              bool // callers come through connections only, and workers probe each other
	planted             bool // a property fails that no worker breaks, for the test of shrinking
	immediate           [opKinds]bool
	recordMax           int
	when                thresholds
	bounds              bounds
	leasesEach          int
	memory              int64
	ackTimeout          time.Duration
	weights             [stepKinds]int
}

// Timers that fire at one instant come in an order that nothing decides. So the periods have no common multiple that
// matters, and each step takes a moment.
const (
	simTerm       = 2037 * time.Millisecond
	simAckTimeout = 3101 * time.Millisecond
	simTurn       = 5003 * time.Millisecond
	simSendRetry  = 409 * time.Millisecond
	simProbe      = 211 * time.Millisecond
	simMoment     = 1009 * time.Nanosecond
	simSlow       = 930 * time.Millisecond
)

// simUndisturbed is how long the machine lets a goroutine run before it interrupts it (forcePreemptNS of package runtime),
// less what clocks may differ.
const simUndisturbed = 9 * time.Millisecond

// profileOf draws a profile: in each some faults are frequent and others do not happen, so that all kinds of their
// combinations come together.
func profileOf(r *rand.Rand) profile {
	p := profile{partitions: 1 + r.IntN(2), objects: 1 + r.IntN(4), purge: r.IntN(3) == 0, durable: r.IntN(5) == 0,
		lossy: r.IntN(5) == 0, recordMax: 1 << 20, memory: 1 << 20, ackTimeout: simAckTimeout,
		when: thresholds{flushBytes: 64 << 10, flushCommits: 2 + r.IntN(6), snapRecords: 2 + r.IntN(12), snapQuiet: 2 + r.IntN(6), rest: time.Second}}
	switch r.IntN(3) {
	case 0:
		p.when.flushBytes = 500 << r.IntN(4) // commits are of about 500 bytes
	case 1:
		p.memory = 3000 // always too much
	}
	if r.IntN(3) == 0 {
		p.recordMax = 2 << 10 // snapshot records of several parts
	}
	for k, w := range stepWeights[:stepRead] {
		p.weights[k] = w
		if k > lastUsualStep {
			p.weights[k] = w * []int{0, 0, 1, 1, 3}[r.IntN(5)]
		}
	}
	if p.lossy {
		p.weights[stepSend] = max(p.weights[stepSend], stepWeights[stepSend])
		p.weights[stepPower] = max(p.weights[stepPower], 1)
	}
	for k := range p.immediate {
		p.immediate[k] = r.IntN(3) > 0
	}
	p.immediate[opRead] = p.immediate[opRead] && p.weights[stepBehind] == 0
	if r.IntN(6) == 0 {
		p.ackTimeout = 2*drainFor + simAckTimeout
	}
	if p.standby, p.probes = r.IntN(4) == 0, r.IntN(5) == 0; p.standby {
		p.weights[stepRead] = stepWeights[stepRead]
	}
	if r.IntN(6) == 0 {
		p.slowLease, p.immediate[opLease] = true, false
	}
	p.bounds = bounds{perObject: 1 + r.IntN(4), held: 1 + r.IntN(4), open: 2 + r.IntN(12), tryAtOnce: 1 + r.IntN(4)}
	p.leasesEach = []int{1, leasesEach}[r.IntN(2)]
	return p
}

// voice is how much of a story is told: to tell all takes longer than some of what is told.
type voice uint8

const (
	silent voice = iota // only whether it fails
	spoken              // each event
	logged              // and what the workers log
)

func newSim(p profile) *sim {
	s := &sim{profile: p, ns: wire.DefaultNamespace, mem: journaltest.NewMemory(), disks: map[string]*[]*snapshot.Memory{},
		clocks: map[string]*simClock{}, stopped: map[snapshot.ID]bool{}, histories: map[snapshot.ID]*history{}, copies: map[simCopyOf]*simCopy{}, parts: make([]simPartition, p.partitions),
		synced: make([]journal.Seq, p.partitions), counts: map[string]int{}}
	s.direct = s.mem.Session(s.ns, p.partitions)
	for _, id := range simWorkers {
		s.clocks[id] = &simClock{began: time.Now()}
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for range 2 {
		c := NewClient(simRouter{s: s})
		c.now = func() time.Time { return time.Now().Add(-simMoment / 3) } // or it would give up when the turn's context ends
		s.clients = append(s.clients, c)
	}
	return s
}

// simWorkers are the names of the workers: one process of each at a time, as the lock on its folder sees to.
var simWorkers = []string{"ann", "bob", "cal"}

// count counts how often something interesting was seen. Called with mu held.
func (s *sim) count(what string) { s.counts[what]++ }

// partitionOf is the partition of an object.
func (s *sim) partitionOf(name string) int {
	return wire.Partition(wire.Slot("thing", wire.Escape(name)), s.partitions)
}

// say adds a line to the story.
func (s *sim) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(format, args...)
}

// line is say with mu held.
func (s *sim) line(format string, args ...any) {
	if s.voice == silent {
		return
	}
	s.story = append(s.story, fmt.Sprintf(format, args...))
}

// rest waits until nothing goes on any more, and looks whether all is as it must be.
func (s *sim) rest() {
	s.handOver()
	synctest.Wait()
	runtime.Gosched() // nobody else wants the core; so a new slice of it begins, and only beyond its end is anybody interrupted
	s.mu.Lock()
	defer s.mu.Unlock()
	var machine syscall.Timeval // its clock: that of package time is the bubble's
	_ = syscall.Gettimeofday(&machine)
	now := time.Duration(machine.Nano())
	s.disturbed = s.disturbed || s.rested > 0 && now-s.rested > simUndisturbed
	s.rested = now
	slices.SortFunc(s.ops, compareOps)
	slices.SortFunc(s.ghosts, compareOps)
	slices.SortFunc(s.writers, compareWriters)
	slices.SortFunc(s.follows, compareFollows)
	slices.SortFunc(s.sending, compareDeliveries)
	slices.SortFunc(s.delivered, compareDeliveries)
	s.writers = slices.DeleteFunc(s.writers, func(w *simWriter) bool { return (w.closed || w.c.closed) && len(w.sent) == 0 })
	for p := range s.parts {
		s.oneOwner(p, &s.parts[p])
	}
	if s.planted && s.counts["appends lost"] > 0 && s.counts["kills"] > 0 {
		s.failed("I0", "an append was lost, and a process was killed")
	}
	for _, l := range s.lives {
		if !l.dead && l.ended() {
			l.dead = true
		}
	}
	if s.voice == logged {
		s.story = append(s.story, s.logs...)
		s.logs = nil
	}
}

// pass lets time pass. Nothing arrives meanwhile.
func (s *sim) pass(d time.Duration) {
	s.handOver()
	time.Sleep(d) // sleeps: in the bubble, whose time passes when all wait
	s.rest()
}

// handOver ends the driver's turn. While everything rests it touches the world without the lock; whoever takes the lock from
// here on comes after that.
func (s *sim) handOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
}

// run lets time pass while everything arrives at once.
func (s *sim) run(d time.Duration) { s.runBut(d, func(event) bool { return false }) }

// runBut is run without some of what is under way.
func (s *sim) runBut(d time.Duration, not func(event) bool) {
	const slice = 99991 * time.Microsecond // no part of a second: what ticks each second does not tick when it ends
	for s.settleBut(not); d > 0 && s.failure.Load() == nil; d -= slice {
		s.pass(min(d, slice))
		s.settleBut(not)
	}
}

// settle lets everything arrive that is under way, the oldest first.
func (s *sim) settle() { s.settleBut(func(event) bool { return false }) }

func (s *sim) settleBut(not func(event) bool) {
	for range 2000 {
		events := slices.DeleteFunc(s.possible(), not)
		if len(events) == 0 || s.failure.Load() != nil {
			return
		}
		s.happen(events[0], false)
		s.pass(simMoment)
	}
	s.failed("I9", "2000 messages and no time passes")
}

// alive are the workers that run, by name.
func (s *sim) alive() (lives []*life) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lives {
		if !l.dead {
			lives = append(lives, l)
		}
	}
	return lives
}

// hash is the story in short.
func (s *sim) hash() uint64 {
	h := fnv.New64a()
	for _, line := range s.story {
		fmt.Fprintln(h, line)
	}
	return h.Sum64()
}

func without[T comparable](list []T, e T) []T {
	return slices.DeleteFunc(list, func(other T) bool { return other == e })
}
