package feed

import (
	"context"
	"math"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

// catchUp reads the past from the streams, until everything behind it is in memory. What a partition's memory lost
// meanwhile is read, too.
func (l *Listener) catchUp(ctx context.Context, o *out) error {
	for {
		p, low, on, behind := l.behind()
		if !behind {
			break
		}
		if err := l.readUp(ctx, o, p, low, on); err != nil {
			return err
		}
	}
	l.read(false)
	for _, p := range l.ps {
		if c := &l.since[p]; c.until != 0 {
			_, end, err := l.tail.js.Log(p).Range(ctx)
			if err != nil {
				return engine.Errorf(engine.Unavailable, "%w", err)
			}
			c.until = end // what is purged from now on is in memory
		}
	}
	return nil
}

// behind is a partition of which not everything behind at is in memory, with where its memory begins; if there is none,
// the listener is joined to memory.
func (l *Listener) behind() (p int, low journal.Seq, on string, is bool) {
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	if l.joined {
		return 0, 0, "", false
	}
	for _, p := range l.ps {
		if part := &l.tail.parts[p]; l.at[p] < part.low {
			return p, part.low, part.lowOn, true
		}
	}
	l.join()
	return 0, 0, "", false
}

// stuckAfter is how long a stream may deliver nothing although something is known to be there.
const stuckAfter = time.Minute

// readUp tells what a stream has up to position low, where there is a message on a known subject.
func (l *Listener) readUp(ctx context.Context, o *out, p int, low journal.Seq, on string) error {
	reading, stop := context.WithCancel(ctx)
	unlink := context.AfterFunc(l.tail.ctx, stop)
	records, failed := make(chan []found), make(chan error, 1)
	go func() { failed <- l.readRecords(reading, records, p, low, on) }()
	ended := false
	defer func() {
		unlink()
		stop()
		if !ended {
			<-failed //nolint:errcheck // nobody asks any more
		}
	}()
	c := &l.since[p]
	if c.until == 0 && l.want.From != Start { // which is wherever the journal begins
		*c = completion{since: l.at[p], until: math.MaxUint64}
	}
	stuck := time.NewTimer(stuckAfter)
	defer stuck.Stop()
	for {
		var next []found
		select {
		case next = <-records:
			stuck.Reset(stuckAfter)
		case <-o.quiet.C:
		case <-stuck.C:
			return engine.Errorf(engine.Unavailable, "stream %s does not deliver what it has up to %d", l.tail.js.Log(p).Stream(), low)
		case err := <-failed:
			ended = true
			if err == nil {
				l.at[p] = low
				l.reach(p)
			}
			return l.readError(ctx, err)
		}
		if err := l.deliver(ctx, next, o); err != nil {
			return err
		}
	}
}

// readError is why the past was not read to its end.
func (l *Listener) readError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case l.tail.ctx.Err() != nil:
		return l.tail.over()
	}
	return engine.Errorf(engine.Unavailable, "read the past: %w", err)
}

// readRecords passes on what the listener wants, up to position low: what is behind it may not be durable, and is found in
// memory when it is.
func (l *Listener) readRecords(ctx context.Context, to chan<- []found, p int, low journal.Seq, on string) error {
	ns := l.tail.cfg.Namespace
	patterns := []string{l.want.pattern(ns)}
	if _, _, class, _, ok := ns.SplitObject(on); l.want.Name != "" && on != patterns[0] || l.want.Class != "" && l.want.Name == "" && (!ok || class != l.want.Class) {
		patterns = append(patterns, on)
	}
	var ready []found
	size := 0
	for r, err := range follow(ctx, l.tail.js.Log(p), ns, p, l.at[p]+1, patterns...) {
		if err != nil {
			return err
		}
		if r.m.Seq > low {
			break
		}
		if r.counts && l.want.takes(r) {
			ready, size = append(ready, found{p, r}), size+r.size()
			if len(ready) >= tellRecords || size > tellBytes {
				if err := send(ctx, to, ready); err != nil {
					return err
				}
				ready, size = nil, 0
			}
		}
		if r.m.Seq == low {
			break
		}
	}
	if len(ready) == 0 {
		return nil
	}
	return send(ctx, to, ready)
}

func send(ctx context.Context, to chan<- []found, records []found) error {
	select {
	case to <- records:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// completion finds what a listener cannot be told because it was purged since the place where it left.
//
// A purge takes the first records of an object, and leaves its last. So if a record of an object is there that the
// listener was told of, nothing behind it is missing; and if the object's first record is not its first version, and is
// behind the listener's place, there was something before it, perhaps behind that place too.
type completion struct {
	since journal.Seq // the place
	until journal.Seq // nothing behind it was purged before it came into memory; 0: nothing at all
	seen  map[string]bool
}

// seenMax bounds what is remembered; an object that was forgotten is looked at again.
const seenMax = 1 << 16

// check is called with each record up to until before it is told.
func (c *completion) check(ctx context.Context, log journal.Log, r *record) error {
	if c.seen[r.m.Subject] {
		return nil
	}
	if c.seen == nil || len(c.seen) == seenMax {
		c.seen = map[string]bool{}
	}
	c.seen[r.m.Subject] = true
	if r.decode(); r.entries[0].Version <= 1 {
		return nil
	}
	for m, err := range log.Read(ctx, r.m.Subject, 1) {
		if err != nil {
			return engine.Errorf(engine.Unavailable, "read the past: %w", err)
		}
		if rec, err := journal.DecodeRecord(m.Data); m.Seq <= c.since || err != nil || rec.First == 1 {
			return nil
		}
		break
	}
	return engine.Errorf(engine.Conflict, "changes of %s/%s were purged before they were told: its journal begins at sequence %d; look at its state, and begin from now or start",
		r.class, r.name, r.m.Seq)
}
