package feed

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Where a listener may begin, besides the id of an event.
const (
	Now   = "now"   // with what is committed from now on
	Start = "start" // with what the journal still has
)

// Want is what somebody listens to: one object, or all whose names begin with a prefix, of one class or of all.
type Want struct {
	Class  string // empty: all
	Name   string // one object; empty: all
	Prefix string
	From   string // [Now] if empty, [Start] (or 0), or the id of the event behind which it begins
}

func (w *Want) takes(r *record) bool {
	return (w.Class == "" || w.Class == r.class) && (w.Name == "" || w.Name == r.name) && strings.HasPrefix(r.name, w.Prefix)
}

// pattern is what the streams are asked for.
func (w *Want) pattern(ns wire.Subjects) string {
	switch {
	case w.Name != "":
		return ns.Journal(w.Class, wire.Escape(w.Name))
	case w.Class != "":
		return ns.JournalOf(w.Class)
	}
	return ns.JournalOf("*")
}

// Event is a commit. Its fields are shared among listeners and are not changed.
type Event struct {
	ID    string               // the place behind it
	Entry *engine.JournalEntry // with its reply
	JSON  []byte               // the entry without its reply
}

// Listener is one who listens. Its methods are called by one goroutine.
type Listener struct {
	hub     *Hub
	tail    *tail
	want    Want
	ps      []int // the partitions that it listens to
	wake    chan struct{}
	reading bool // it holds one of the hub's readers
	closed  bool

	from  []spot       // where it began, by partition
	told  []spot       // what was passed on
	since []completion // what must be found complete

	// Guarded by tail.mu.
	joined bool          // everything behind at is in memory
	some   bool          // there may be something for it behind at
	at     []journal.Seq // how far memory is looked through
	turn   int           // which partition is looked through first
}

// Listen begins to listen. It returns when nothing that is committed from now on will be missed. Errors are of type
// [*engine.Error]. Whoever listens calls Run, or Close.
func (h *Hub) Listen(ctx context.Context, want Want) (*Listener, error) {
	if want.Name != "" {
		if err := errors.Join(wire.CheckClass(want.Class), wire.CheckName(want.Name)); err != nil {
			return nil, engine.Errorf(engine.Invalid, "%w", err)
		}
	}
	switch want.From {
	case "":
		want.From = Now
	case "0":
		want.From = Start
	}
	t, err := h.enter()
	if err != nil {
		return nil, err
	}
	n := h.cfg.Partitions
	l := &Listener{hub: h, tail: t, want: want, wake: make(chan struct{}, 1), from: make([]spot, n), since: make([]completion, n), at: make([]journal.Seq, n)}
	if err := l.begin(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close ends the listening. It may be called again.
func (l *Listener) Close() {
	if l.closed {
		return
	}
	l.closed = true
	l.tail.mu.Lock()
	delete(l.tail.listeners, l)
	l.tail.mu.Unlock()
	l.read(false)
	l.hub.leave(l.tail, 1)
}

// begin finds the partitions and the place.
func (l *Listener) begin(ctx context.Context) error {
	t := l.tail
	select {
	case <-t.ready:
	case <-t.ctx.Done():
		return t.over()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for p := range t.parts {
		if l.want.Name == "" || p == wire.Partition(wire.Slot(l.want.Class, wire.Escape(l.want.Name)), len(t.parts)) {
			l.ps = append(l.ps, p)
		}
	}
	if err := l.place(); err != nil {
		return err
	}
	l.told = slices.Clone(l.from)
	behind := false
	t.mu.Lock()
	for _, p := range l.ps {
		if l.want.From == Now {
			l.told[p].seq = t.parts[p].high
		}
		l.at[p] = l.told[p].whole()
		behind = behind || l.at[p] < t.parts[p].low
	}
	if !behind {
		l.join()
	}
	t.mu.Unlock()
	if behind && !l.read(true) {
		return engine.Errorf(engine.Overloaded, "%d listeners read the past; at most %d may", cap(l.hub.readers), cap(l.hub.readers)).RetryIn(retryListen)
	}
	return l.check(ctx)
}

// place reads where to begin.
func (l *Listener) place() (err error) {
	switch cfg := l.tail.cfg; {
	case l.want.From == Now || l.want.From == Start:
	case l.want.Name != "":
		l.from[l.ps[0]], err = parseSpot(l.want.From)
	default:
		l.from, err = parsePlace(l.want.From, cfg.Life, cfg.Partitions)
	}
	return err
}

// check refuses a place that no stream has reached.
func (l *Listener) check(ctx context.Context) error {
	for _, p := range l.ps {
		log := l.tail.js.Log(p)
		l.tail.mu.Lock()
		ahead := l.at[p] > l.tail.parts[p].high
		l.tail.mu.Unlock()
		if !ahead {
			continue
		}
		_, end, err := log.Range(ctx)
		if err != nil {
			return engine.Errorf(engine.Unavailable, "%w", err)
		}
		if l.at[p] > end {
			return engine.Errorf(engine.Conflict, "the place is sequence %d of stream %s, which ends at %d: it is of another journal, or this one came back shorter; begin from now or start", l.at[p], log.Stream(), end)
		}
	}
	return nil
}

// read takes or gives back one of the hub's readers.
func (l *Listener) read(begin bool) bool {
	switch {
	case begin == l.reading:
		return true
	case begin:
		select {
		case l.hub.readers <- struct{}{}:
		default:
			return false
		}
	default:
		<-l.hub.readers
	}
	l.reading = begin
	return true
}

// join has the listener woken from now on. Called with tail.mu held, and everything behind at in memory.
func (l *Listener) join() {
	l.joined, l.some = true, true
	l.tail.listeners[l] = true
}

// notice is called before a record is put into memory, with tail.mu held.
func (l *Listener) notice(p int, r *record) {
	if l.some || !slices.Contains(l.ps, p) || !l.want.takes(r) {
		return
	}
	l.pass()
	l.some = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// pass moves over what is in memory: none of it is for this listener. Called with tail.mu held.
func (l *Listener) pass() {
	for _, p := range l.ps {
		l.at[p] = max(l.at[p], l.tail.parts[p].high)
	}
}

// Place is the place behind everything that was passed on.
func (l *Listener) Place() string {
	if l.want.Name != "" {
		return string(l.told[l.ps[0]].append(nil))
	}
	return formatPlace(l.tail.cfg.Life, l.told)
}

// Run passes events on, some at a time, until ctx ends, tell returns an error, or the listening cannot go on; it returns
// why, of type [*engine.Error] in the last case: Overloaded if the listener was too slow, Conflict if the journal does not
// have any more what is next, else Unavailable. When there was nothing for a while, it passes none on. It closes the listener.
func (l *Listener) Run(ctx context.Context, tell func([]Event) error) error {
	defer l.Close()
	quiet := time.NewTimer(l.hub.cfg.Heartbeat)
	defer quiet.Stop()
	o := &out{quiet: quiet, tell: func(events []Event) error {
		quiet.Reset(l.hub.cfg.Heartbeat)
		return tell(events)
	}}
	if err := l.catchUp(ctx, o); err != nil {
		return err
	}
	for beat := false; ; {
		found, err := l.look()
		if err == nil && (beat || len(found) > 0) {
			beat, err = false, l.deliver(ctx, found, o)
			if err == nil && len(found) < tellRecords {
				l.rest(ctx)
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		select {
		case <-l.wake:
		case <-quiet.C:
			beat = true
		case <-l.tail.ctx.Done():
			return l.tail.over()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// restEach is how long a listener lets more come before it looks again, for each one that there is: however many there are,
// together they write no more than 20,000 times a second, and the owners keep their processor.
const restEach = 50 * time.Microsecond

func (l *Listener) rest(ctx context.Context) {
	t := time.NewTimer(time.Duration(l.hub.Listeners()) * restEach)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.tail.ctx.Done():
	case <-ctx.Done():
	}
}

// out is where events go, and when something must have gone there.
type out struct {
	quiet *time.Timer
	tell  func([]Event) error
}

// found is a record that a listener is to be told.
type found struct {
	p int
	r *record
}

// What is passed on at a time, about.
const (
	tellRecords = 256
	tellBytes   = 256 << 10
)

// look finds what is next in memory. If there is nothing, all up to where memory ends is told.
func (l *Listener) look() (next []found, err error) {
	l.tail.mu.Lock()
	defer l.tail.mu.Unlock()
	if l.tail.ctx.Err() != nil {
		return nil, l.tail.over()
	}
	if l.some {
		if next, l.some, err = l.scan(); err != nil || len(next) > 0 {
			return next, err
		}
	}
	l.pass()
	for _, p := range l.ps {
		l.reach(p)
	}
	return nil, nil
}

// scan looks through the memory of the partitions, each time of another one first, and tells whether there may be more.
func (l *Listener) scan() (next []found, more bool, err error) {
	l.turn++
	for i, size := 0, 0; i < len(l.ps); i++ {
		p := l.ps[(i+l.turn)%len(l.ps)]
		part := &l.tail.parts[p]
		if l.at[p] < part.low {
			return nil, true, engine.Errorf(engine.Overloaded, "too slow: what is next is not in memory any more; go on from the last id")
		}
		for _, r := range part.behind(l.at[p]) {
			if len(next) == tellRecords || size > tellBytes {
				return next, true, nil
			}
			l.at[p] = r.m.Seq
			if l.want.takes(r) {
				next = append(next, found{p, r})
				size += r.size()
			}
		}
	}
	return next, false, nil
}

// reach takes what is looked through as told, when all of it that is to be told is.
func (l *Listener) reach(p int) {
	if l.at[p] > l.told[p].whole() {
		l.told[p] = spot{seq: l.at[p]}
	}
}

// deliver passes records on, commit by commit.
func (l *Listener) deliver(ctx context.Context, next []found, o *out) error {
	events := make([]Event, 0, len(next))
	var incomplete error
	for _, f := range next {
		if c := &l.since[f.p]; f.r.m.Seq <= c.until {
			if incomplete = c.check(ctx, l.tail.js.Log(f.p), f.r); incomplete != nil {
				break
			}
		}
		f.r.decode()
		first := 0
		if f.r.m.Seq == l.from[f.p].seq {
			first = l.from[f.p].part
		}
		for i := first; i < len(f.r.entries); i++ {
			l.told[f.p] = spot{seq: f.r.m.Seq}
			if i+1 < len(f.r.entries) {
				l.told[f.p].part = i + 1
			}
			events = append(events, Event{ID: l.Place(), Entry: &f.r.entries[i], JSON: f.r.json[i]})
		}
	}
	if err := o.tell(events); err != nil {
		return err
	}
	return incomplete
}
