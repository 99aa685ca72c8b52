package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Config says what a drill does. All but System, Body, Invariant, Rate, Event and Progress are required.
type Config struct {
	Run       string // names the drill: begins its requests' ids
	Namespace wire.Subjects
	// Partitions of the namespace.
	Partitions int
	// Journal connects to the streams.
	Journal func(ctx context.Context) (journal.Session, error)
	// Transport carries calls; it does not repeat them.
	Transport engine.Transport
	// System is disturbed as Plan says.
	System System
	Plan   []Step

	Class, Method string
	Body          []byte
	// Value is a method that tells the count, of a class whose Method adds one and tells it; empty: it is another class.
	Value string
	// Invariant is a method that says whether all is well with an object: true, or {"ok":true}.
	Invariant string
	Prefix    string // of the objects' names, before a number
	Objects   int
	Callers   int
	Rate      float64 // calls per second, at most; 0: as many as there can be
	For       time.Duration

	Event    func(Event)    // something was done to the system
	Progress func(Progress) // every second
}

// Event is something that was done to the system.
type Event struct {
	At     time.Duration
	Act    Act
	Target Target
}

// Progress is how far a drill is.
type Progress struct {
	At           time.Duration
	Acknowledged int
	Refused      int
	Unknown      int
	Waiting      int // calls under way
	Disturbances int
	Rate         float64 // answers per second, since the last one
	Failures     int     // tries without an answer, since the last one
}

// servedWithin is how long the system may take to serve again, and an object to be read.
const servedWithin = 2 * time.Minute

// drill is one that runs.
type drill struct {
	Config
	names   []string
	order   []int // objects by partition: what stops one partition stops few callers
	began   time.Time
	client  *engine.Client
	from    []journal.Seq // where each stream ended at the begin
	ended   time.Duration // of the load
	result  *Result
	subject func(object int) string
	fail    func(error) // ends the load

	mu     sync.Mutex // guards what follows
	ledger *Ledger
}

// Run drills and returns what came of it. An error means that it could not be run or checked to its end; the result tells of
// what was. When ctx ends, the load does, and what was done is checked.
func Run(ctx context.Context, cfg Config) (*Result, error) {
	d := &drill{Config: cfg, result: newResult(cfg)}
	for i := range cfg.Objects {
		d.names = append(d.names, fmt.Sprint(cfg.Prefix, i))
		d.order = append(d.order, i)
	}
	d.subject = func(i int) string { return cfg.Namespace.Journal(cfg.Class, wire.Escape(d.names[i])) }
	slices.SortStableFunc(d.order, func(a, b int) int { return d.partitionOf(a) - d.partitionOf(b) })
	addresses := make([]string, cfg.Objects)
	for i, name := range d.names {
		addresses[i] = cfg.Class + "/" + name
	}
	d.ledger = NewLedger(cfg.Run, cfg.Value != "", addresses, d.partitionOf)
	if err := d.mark(ctx); err != nil {
		return d.result, err
	}
	d.client = engine.NewClient(tries{cfg.Transport, d.failed})
	d.began = time.Now()
	err := d.load(ctx)
	d.result.load(d.ledger, d.began, d.ended)
	if err != nil {
		return d.result, err
	}
	// What was done is checked also if nobody waits for more.
	return d.result, d.check(context.WithoutCancel(ctx))
}

func (d *drill) partitionOf(object int) int {
	return wire.Partition(wire.Slot(d.Class, wire.Escape(d.names[object])), d.Partitions)
}

// now is the time since the begin. Only under mu do times not decrease.
func (d *drill) now() time.Duration { return time.Since(d.began) }

// mark notes where the streams end.
func (d *drill) mark(ctx context.Context) error {
	s, err := d.Journal(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	for p := range d.Partitions {
		_, last, err := s.Log(p).Range(ctx)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p, err)
		}
		d.from = append(d.from, last)
	}
	return nil
}

// load runs callers and disturbances side by side. It returns when all callers know what came of their calls, and
// everything that was killed or paused runs again.
func (d *drill) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.For)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	d.fail = func(err error) { fail(&brokenError{err}) }
	var wg, disturbing sync.WaitGroup
	for i := range d.Callers {
		wg.Go(func() { d.call(ctx, i) })
	}
	disturbing.Go(func() {
		if err := d.disturb(ctx); err != nil {
			d.fail(err)
		}
	})
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	disturbing.Go(func() { d.watch(watching) })
	wg.Wait()
	d.ended = d.now()
	cancel() // callers may have ended by themselves
	unwatch()
	disturbing.Wait()
	d.locked(func(now time.Duration) { d.ledger.Cut(now) })
	if broken, ok := errors.AsType[*brokenError](context.Cause(ctx)); ok {
		return broken.error
	}
	return nil
}

// brokenError ends a load that cannot go on.
type brokenError struct{ error }

func (d *drill) locked(f func(now time.Duration)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.now())
}

// disturb goes through the plan. What it has begun it ends, also when ctx does.
func (d *drill) disturb(ctx context.Context) error {
	for _, step := range d.Plan {
		if !until(ctx, d.began.Add(step.At)) {
			return nil
		}
		counterpart := Restart
		if step.Act == Pause {
			counterpart = Continue
		}
		lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), step.Long+servedWithin)
		back, err := d.one(ctx, lasting, step, counterpart)
		cancel()
		if err != nil {
			return err
		}
		if !d.served(ctx, back) {
			return nil
		}
	}
	return nil
}

// one is one disturbance and its end.
func (d *drill) one(ctx, lasting context.Context, step Step, counterpart Act) (back time.Duration, err error) {
	// Before it happens: what is told behind this line was told in its time.
	d.locked(func(now time.Duration) {
		d.ledger.Cut(now)
		d.result.disturbed(now, step)
	})
	err = d.do(lasting, step.Act, step.Target)
	if from := d.now(); err == nil {
		d.locked(d.ledger.Done)
		until(ctx, time.Now().Add(step.Long))
		d.result.lasted(d.now() - from)
	}
	// Also if it failed: it may have been done all the same.
	if err2 := d.do(lasting, counterpart, step.Target); err == nil {
		err = err2
	}
	return d.now(), err
}

func (d *drill) do(ctx context.Context, act Act, t Target) error {
	if d.Event != nil {
		d.Event(Event{d.now(), act, t})
	}
	return d.System.Do(ctx, act, t)
}

// served waits until all partitions answer calls that were sent after the restart: one thing is disturbed at a time.
func (d *drill) served(ctx context.Context, after time.Duration) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		served := false
		d.locked(func(time.Duration) { served = d.ledger.Served(after) })
		if served {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// until waits for a time, and tells whether ctx lasted so long.
func until(ctx context.Context, t time.Time) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch tells of the progress.
func (d *drill) watch(ctx context.Context) {
	if d.Progress == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last Progress
	answers, failures := 0, 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var p Progress
		d.locked(func(now time.Duration) { p = d.ledger.progress(now) })
		told, failed := p.Acknowledged+p.Refused, p.Failures
		p.Rate = float64(told-answers) / (p.At - last.At).Seconds()
		p.Failures -= failures
		answers, failures, last = told, failed, p
		d.Progress(p)
	}
}

// tries counts tries that had no answer.
type tries struct {
	engine.Transport
	failed func()
}

func (t tries) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	reply, err := t.Transport.Do(ctx, r)
	if e, ok := errors.AsType[*engine.Error](err); ok && !e.Remote && (e.Retryable() || e.Overloaded() || e.Code == engine.Timeout) {
		t.failed()
	}
	return reply, err
}

func (d *drill) failed() { d.locked(func(now time.Duration) { d.ledger.Failed(now) }) }
