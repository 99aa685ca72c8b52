package engine

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// tidy has objects rest that were idle for a while, and evicts those that were for long enough, while the worker lives.
//
// It takes a fifth of one core at most, and a fifth of what the journal takes for the snapshot records that are written then. Without that bound
// whatever slows callers down (a take-over, a disk) makes all objects idle at once, and what is then written for them keeps the worker
// from those that are called: it would stay slow for as long as they call.
func (w *Worker) tidy(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for p := range w.epochs {
			if ep := w.epochs[p].Load(); ep != nil {
				ep.tidy(ctx)
			}
			if f := w.copies[p].Load(); f != nil {
				f.ep.tidy(ctx)
			}
		}
	}
}

const (
	pauseRatio = 4                      // how long tidy pauses for each time that it has worked
	pauseLeast = time.Millisecond       // shorter ones are put together
	tidyWait   = 500 * time.Millisecond // for one object: it may be in the middle of a method
)

// tidy does it for the objects of one epoch, for a while: there are others.
func (ep *epoch) tidy(ctx context.Context) {
	began, owed := ep.w.awake(), time.Duration(0)
	evicted := func(idle time.Duration, l *Limits) bool { return idle >= l.Idle }
	for _, c := range ep.idle(func(idle time.Duration, worn bool, l *Limits) bool {
		return evicted(idle, l) || worn && idle >= ep.w.when.rest
	}) {
		now := ep.w.awake()
		if now-began > lookEvery || ep.closing.Load() {
			return
		}
		if since, _, still := c.o.idle(); !still || since != c.since {
			continue
		}
		do := c.o.rest
		if evicted(now-c.since, &c.o.class.Limits) {
			do = c.o.evict
		}
		ep.do(ctx, c.o, do)
		owed += pauseRatio * (ep.w.awake() - now)
		if owed >= pauseLeast {
			if sleep(ctx, owed) != nil {
				return
			}
			owed = 0
		}
	}
}

// do has an object do something, and waits for it and for the snapshot record that comes of it.
func (ep *epoch) do(ctx context.Context, o *object, what func()) {
	limit := time.NewTimer(tidyWait)
	defer limit.Stop()
	done := make(chan (<-chan struct{}), 1)
	if !o.chore(func() { what(); done <- o.snapping }) {
		return
	}
	for wait := (<-chan struct{})(nil); ; {
		select {
		case wait = <-done:
			if wait == nil {
				return
			}
		case <-wait:
			return
		case <-limit.C:
			return
		case <-ep.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// relieve evicts what is idle, that which is idle for longest first, while the worker holds more than its budget.
func (ep *epoch) relieve() {
	over := ep.w.memory.Load() - ep.w.cfg.MemoryBytes
	if over <= 0 {
		return
	}
	over += ep.w.cfg.MemoryBytes / 10
	for _, c := range ep.idle(func(time.Duration, bool, *Limits) bool { return true }) {
		if over <= 0 {
			return
		}
		c.o.mu.Lock()
		over -= int64(c.o.memory)
		c.o.mu.Unlock()
		if !ep.apart(c.o, c.o.evict) {
			return
		}
	}
}

// idler is an object that does nothing since a time by Worker.awake.
type idler struct {
	o     *object
	since time.Duration
}

// idle are the objects that do nothing and are chosen by for how long, and whether they are worn: that which is idle for longest first.
func (ep *epoch) idle(chosen func(idle time.Duration, worn bool, l *Limits) bool) []idler {
	var idle []idler
	now := ep.w.awake()
	ep.mu.Lock()
	for _, o := range ep.objects {
		if since, worn, ok := o.idle(); ok && chosen(now-since, worn, &o.class.Limits) {
			idle = append(idle, idler{o, since})
		}
	}
	ep.mu.Unlock()
	slices.SortFunc(idle, func(a, b idler) int { // by name too, so that a simulation repeats
		return cmp.Or(cmp.Compare(a.since, b.since), cmp.Compare(a.o.id, b.o.id))
	})
	return idle
}

// apart has an object do something while others do, too; false if the epoch is over.
func (ep *epoch) apart(o *object, do func()) bool {
	select {
	case ep.evicting <- struct{}{}:
	case <-ep.done:
		return false
	}
	if !o.chore(func() { do(); <-ep.evicting }) {
		<-ep.evicting
	}
	return true
}

// evictingMax is how many objects leave memory, or go to rest, at a time: each has a goroutine meanwhile.
const evictingMax = 64
