package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// Config is what a [Worker] is made of. Fields without a default are required.
type Config struct {
	// ID names the worker. It is kept in the data folder, and whoever has it holds the lock on that folder: a worker
	// takes over from its own former life without waiting.
	ID string
	// Namespace is the first token of all subjects. Default "objects".
	Namespace wire.Subjects
	// Partitions is how many streams the namespace has.
	Partitions int
	// Classes are what the worker runs.
	Classes []AnyClass
	// Connect makes a journal session. It is called again whenever one has ended.
	Connect func(ctx context.Context) (journal.Session, error)
	// Store keeps states. It is a cache and may be empty.
	Store snapshot.Store

	// Listen takes requests for a partition from elsewhere, once the worker owns it: serve may be called from any
	// goroutine and does not block; stop ends it. Default: requests come through [Worker.Do] alone.
	Listen func(js journal.Session, partition int, serve func(Request, func(Reply, error))) (stop func(), err error)
	// ListenReads takes reads that a copy may answer ([Request.Eventual]) for a partition that the worker follows: serve is as that of Listen,
	// and its error is [ErrNoCopy] when the owner is to be asked. It needs Standby. Default: such reads come through [Worker.Nearest] alone.
	ListenReads func(js journal.Session, partition int, serve func(Request, func(Reply, error))) (stop func(), err error)
	// Peers makes the way to the other workers of the namespace, which ends with js; life is what they probe. hear takes what another one
	// tells, from any goroutine, and does not block. Default: workers look at each other's leases each quarter of a term, and no sooner.
	Peers func(js journal.Session, life journal.Token, hear func(Word)) (Peers, error)
	// Standby has the worker follow the partitions that it would own next, so that it has their objects' states when it takes one over,
	// and answers reads that do not ask for the latest ([Request.Eventual]).
	Standby bool
	// OnlyNATS says that callers are answered through the connection that Peers and Listen use, and in no other way: not by [Worker.Do], nor
	// by a gateway in this process. Then the others need not wait for the lease of a worker whose connection is gone.
	OnlyNATS bool
	// Others reaches objects whose partition another worker owns, for what turns call. Default: they are not reached.
	Others Transport
	// Post stores a message to an object in the inbox, for [Worker.Post]. Default: there is no way to.
	Post func(ctx context.Context, r Request) (journal.Seq, error)
	// Durable runs open when all that a stream has up to an acknowledged position is durable as well. It does not block,
	// and the opens of a stream run one at a time, in the order of the calls. Default: the acknowledgement is all it takes.
	Durable func(stream string, seq journal.Seq, open func())
	// MayWrite is asked each second: while it returns an error commits are refused as Full, reads go on.
	MayWrite func() error
	// Observe is told what happens, for metrics.
	Observe Observer

	// CheckFold is for test kits: after every commit the object's events are folded anew, and it is told if the state
	// differs from the one in memory. It costs as much as a replay.
	CheckFold func(error)

	LeaseTerm   time.Duration // how long the worker is trusted without a sign of life; default 2 s, at least 1 s
	SendRetry   time.Duration // after a message failed for the first time, twice that after the second, …; default 2 s
	AckTimeout  time.Duration // an append that has no answer for so long ends its epoch; default 10 s
	MemoryBytes int64         // objects in memory are evicted above it; default 256 MiB, at least 1 MiB
	QueueBytes  int64         // requests waiting for all objects; default 64 MiB, at least 1 MiB
	Clock       Clock         // default: the machine's
	Log         *slog.Logger  // default: none
	Version     string        // of the software, in epoch records; default "dev"
}

// Clock is where time comes from. Safe for concurrent use.
type Clock interface {
	Now() time.Time      // of the day; what turns see
	Boot() time.Duration // for leases; it goes on while the machine sleeps
}

// withDefaults fills in what is zero and returns every problem at once.
func (c Config) withDefaults() (Config, error) {
	c.Namespace = cmp.Or(c.Namespace, wire.DefaultNamespace)
	c.LeaseTerm = cmp.Or(c.LeaseTerm, 2*time.Second)
	c.SendRetry = cmp.Or(c.SendRetry, 2*time.Second)
	c.AckTimeout = cmp.Or(c.AckTimeout, 10*time.Second)
	c.MemoryBytes = cmp.Or(c.MemoryBytes, 256<<20)
	c.QueueBytes = cmp.Or(c.QueueBytes, 64<<20)
	c.Version = cmp.Or(c.Version, "dev")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = machineClock{}
	}
	if c.MayWrite == nil {
		c.MayWrite = func() error { return nil }
	}
	var problems []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	bad(wire.CheckIdentifier(c.ID) != nil, "ID: %w", wire.CheckIdentifier(c.ID))
	bad(c.Namespace.Check() != nil, "Namespace: %w", c.Namespace.Check())
	bad(c.Partitions < 1 || c.Partitions > wire.Slots, "Partitions is %d; want 1 to %d", c.Partitions, wire.Slots)
	bad(c.Connect == nil, "Connect is required")
	bad(c.Store == nil, "Store is required")
	bad(c.LeaseTerm < time.Second, "LeaseTerm is %v; want at least 1s", c.LeaseTerm)
	bad(c.SendRetry < 0, "SendRetry is %v; want more than 0", c.SendRetry)
	bad(c.AckTimeout < 0, "AckTimeout is %v; want more than 0", c.AckTimeout)
	bad(c.MemoryBytes < 1<<20, "MemoryBytes is %d; want at least 1 MiB", c.MemoryBytes)
	bad(c.QueueBytes < 1<<20, "QueueBytes is %d; want at least 1 MiB", c.QueueBytes)
	return c, errors.Join(problems...)
}

// triesMax is how often a message is tried unless its class says otherwise: with 2, 4, … 64 s between, two minutes.
const triesMax = 7

// class is a class as the engine runs it: bound, with all limits filled in.
type class struct{ Behavior }

func bindAll(classes []AnyClass) (map[string]*class, error) {
	bound := map[string]*class{}
	var problems []error
	for _, ac := range classes {
		b, err := ac.Bind()
		problems = append(problems, err)
		if b == nil {
			continue
		}
		if bound[b.Name] != nil {
			problems = append(problems, fmt.Errorf("class %q is registered twice", b.Name))
		}
		for name, m := range b.Methods {
			if m.In != nil && !json.Valid(m.In) || m.Out != nil && !json.Valid(m.Out) {
				problems = append(problems, fmt.Errorf("class %q: a schema of %q is not JSON", b.Name, name))
			}
		}
		c := &class{*b}
		c.Limits, err = c.Limits.withDefaults(b.Name)
		problems = append(problems, err)
		bound[b.Name] = c
	}
	return bound, errors.Join(problems...)
}

// CheckClasses tells what is wrong with classes: all problems of all of them.
func CheckClasses(classes ...AnyClass) error {
	_, err := bindAll(classes)
	return err
}

func (l Limits) withDefaults(name string) (Limits, error) {
	l.Idle = cmp.Or(l.Idle, 10*time.Second)
	l.Turn = cmp.Or(l.Turn, 30*time.Second)
	l.Queue = cmp.Or(l.Queue, 1000)
	l.QueueBytes = cmp.Or(l.QueueBytes, 8<<20)
	l.QueueAge = cmp.Or(l.QueueAge, 10*time.Second)
	l.KeepIDs = cmp.Or(l.KeepIDs, 24*time.Hour)
	l.KeepIDsMax = cmp.Or(l.KeepIDsMax, 10000)
	l.Tries = cmp.Or(l.Tries, triesMax)
	if l.Tries < 0 || l.Idle < 0 || l.Turn < 0 || l.Queue < 0 || l.QueueBytes < 0 || l.QueueAge < 0 || l.KeepIDs < 0 || l.KeepIDsMax < 0 {
		return l, fmt.Errorf("class %q: Limits: %+v has a negative one; 0 is the default", name, l)
	}
	return l, nil
}
