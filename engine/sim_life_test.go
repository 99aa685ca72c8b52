package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// life is one run of a worker: a process, from its start until it is killed, stops or gives up.
type life struct {
	s        *sim
	n        int // the simulation's; 0 is whoever accepts a loss
	id       string
	w        *Worker
	clock    *simClock
	store    *simStore
	sessions []*simSession
	dead     bool // nothing it does counts any more
	stopping bool
	renewals int  // of its lease, and what else changed one
	stalled  bool // nothing reaches it, and nothing it sends arrives
	serial   int
	opens    []func() // what waits for the next sync round
	marks    map[int]journal.Seq
	serve    map[int]simIntake // by partition: for requests that come through the network
	reads    map[int]simIntake // for reads that its copies may answer
	copies   map[int]int       // how many followers of a partition have answered reads
}

// simIntake is where requests to a partition come in.
type simIntake struct {
	c     *simSession
	serve func(Request, func(Reply, error))
}

func (l *life) String() string { return fmt.Sprintf("%s#%d", l.id, l.n) }

// simClock is a machine's: it can be set, and what measures durations goes on.
type simClock struct {
	began time.Time
	wall  atomic.Int64 // how far it is off
}

func (c *simClock) Now() time.Time      { return time.Now().Add(time.Duration(c.wall.Load())) }
func (c *simClock) Boot() time.Duration { return time.Hour + time.Since(c.began) }

// start starts a worker on what its disk has.
func (s *sim) start(id string, disk *snapshot.Memory) *life {
	l := &life{s: s, n: len(s.lives) + 1, id: id, clock: s.clocks[id], marks: map[int]journal.Seq{},
		serve: map[int]simIntake{}, reads: map[int]simIntake{}, copies: map[int]int{}}
	l.store = &simStore{l: l, Memory: disk}
	cfg := Config{ID: id, Partitions: s.partitions, Classes: []AnyClass{things(s.purge)}, Store: l.store, Clock: l.clock,
		LeaseTerm: simTerm, AckTimeout: s.ackTimeout, SendRetry: simSendRetry, Namespace: s.ns, Version: "simulation",
		Connect: func(context.Context) (journal.Session, error) { return s.connect(l) },
		MayWrite: func() error {
			if s.full.Load() {
				return errors.New("the disk is full")
			}
			return nil
		},
		Standby: s.standby,
		Listen: func(js journal.Session, p int, serve func(Request, func(Reply, error))) (func(), error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			l.serve[p] = simIntake{js.(*simSession), serve}
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(l.serve, p)
			}, nil
		},
		ListenReads: func(js journal.Session, p int, serve func(Request, func(Reply, error))) (func(), error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			l.copies[p]++
			l.reads[p] = simIntake{js.(*simSession), serve}
			n := l.copies[p]
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				if n == l.copies[p] {
					delete(l.reads, p)
				}
			}, nil
		},
		CheckFold: func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !l.dead { // its store swallows what it writes
				s.failed("I6", "%v", err)
			}
		},
		Log: slog.New(slog.NewTextHandler(simLogger{l}, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: withoutTime})),
	}
	if s.durable {
		cfg.Durable = func(stream string, seq journal.Seq, open func()) { s.awaitSync(l, stream, seq, open) }
	}
	if s.probes {
		cfg.OnlyNATS = true
		cfg.Peers = func(js journal.Session, life journal.Token, hear func(Word)) (Peers, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			c := js.(*simSession)
			c.nonce, c.hear = life, hear
			return simPeers{c}, nil
		}
	}
	w, err := New(cfg)
	if err != nil {
		panic(err) // the simulation's own fault
	}
	w.when, w.bounds, w.probeEvery, w.leasesEach = s.when, s.bounds, simProbe, s.leasesEach
	w.cfg.MemoryBytes = s.memory
	l.w = w
	s.mu.Lock()
	s.lives = append(s.lives, l)
	s.disks[id] = &l.store.disks
	l.store.keep()
	s.mu.Unlock()
	go func() { _ = w.Run(context.Background()) }() // ends with the process
	return l
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
		return slog.Attr{}
	}
	return a
}

// simLogger tells what a worker logs, where a story is told.
type simLogger struct{ l *life }

func (w simLogger) Write(b []byte) (int, error) {
	if w.l.s.voice == logged {
		w.l.s.mu.Lock()
		defer w.l.s.mu.Unlock()
		if !w.l.dead {
			w.l.s.logs = append(w.l.s.logs, fmt.Sprintf("      | %s: %s", w.l, b[:len(b)-1]))
		}
	}
	return len(b), nil
}

// die ends the process. What it sent is under way; whoever waits for its answers gets none.
func (s *sim) die(l *life) {
	s.mu.Lock()
	l.dead = true
	for _, c := range l.sessions {
		c.cut()
	}
	for _, o := range slices.Clone(s.ops) {
		if o.life == l && o.session == nil {
			s.finish(o, nil) // a write that a crash swallows
		}
	}
	l.opens = nil
	s.mu.Unlock()
	l.w.kill(errKilled)
}

// ended tells whether nothing of the process runs any more.
func (l *life) ended() bool {
	select {
	case <-l.w.ended:
		return true
	default:
		return false
	}
}

// unheard tells whether nobody hears what it says. Called with mu held.
func (l *life) unheard() bool {
	return slices.ContainsFunc(l.sessions, func(c *simSession) bool { return c.ended && !c.closed })
}

// awaitSync keeps what the next sync round opens.
func (s *sim) awaitSync(l *life, stream string, seq journal.Seq, open func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.partitions {
		if s.ns.Stream(p) == stream {
			l.marks[p] = max(l.marks[p], seq)
		}
	}
	if stream == s.ns.Inbox() {
		l.marks[theInbox] = max(l.marks[theInbox], seq)
	}
	if !l.dead {
		l.opens = append(l.opens, open)
	}
}

// sync is a round: all that was acknowledged is durable.
func (s *sim) sync(l *life) {
	s.mu.Lock()
	opens := l.opens
	l.opens = nil
	for p, seq := range l.marks {
		if p == theInbox {
			s.syncedInbox = max(s.syncedInbox, seq)
		} else {
			s.synced[p] = max(s.synced[p], seq)
		}
	}
	s.mu.Unlock()
	for i, open := range opens {
		if i > 0 {
			s.pass(simMoment) // or the epochs of two partitions would begin, and tick, at one instant
		}
		open()
	}
}

// simStore is a worker's snapshot store. It notes what it was at each write, so that an older one can come back.
type simStore struct {
	*snapshot.Memory
	l       *life
	disks   []*snapshot.Memory // former states, the latest last
	failing bool
}

const disksKept = 40

// keep notes the state. Called with mu held.
func (st *simStore) keep() {
	st.disks = append(st.disks, st.Memory.Clone())
	if len(st.disks) > disksKept {
		st.disks = st.disks[1:]
	}
}

var errDisk = errors.New("simulated failure of the disk")

func (st *simStore) Apply(id snapshot.ID, b snapshot.Batch) error {
	s := st.l.s
	return s.wait(context.Background(), &simOp{life: st.l, kind: opStore, key: "store " + string(id), apply: func(int) error {
		switch {
		case st.l.dead:
			return nil
		case st.failing:
			st.failing = false
			s.count("failures of the store")
			return errDisk
		}
		if err := st.Memory.Apply(id, b); err != nil {
			return err
		}
		st.keep()
		if strings.HasPrefix(string(id), "thing.") { // else it is what the worker knows of a stream
			s.written(st, id, b)
		}
		return nil
	}})
}

func (st *simStore) Index(ids ...snapshot.ID) error {
	st.l.s.mu.Lock()
	defer st.l.s.mu.Unlock()
	if st.l.dead {
		return nil
	}
	return st.Memory.Index(ids...)
}

func (st *simStore) Get(id snapshot.ID, space snapshot.Space, key string) ([]byte, error) {
	v, err := st.Memory.Get(id, space, key)
	if space == snapshot.Window && key[0] == 'i' && v != nil {
		st.l.s.mu.Lock()
		st.l.s.count("own ids found in the store")
		st.l.s.mu.Unlock()
	}
	return v, err
}
