package engine

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// passage is how far the messages to a partition's objects are answered. It decides and waits for nothing.
//
// Messages are handed to their objects in the order of the inbox. One that an object cannot answer now holds back that
// object alone: the cursor passes it, and the object's messages from that one on are read again by their own subject.
//
// Invariant: every message up to cursor is answered, durably, or is of a held object and not before its first.
type passage struct {
	cursor   journal.Seq
	hash     journal.Hash // of the message there
	at       time.Time    // the latest time at which one up to it was stored
	dead     *journal.DeadMark
	position journal.Seq // the last message that was taken from the stream
	open     []passing   // taken and not passed, in order
	busy     map[snapshot.ID]int
	held     map[snapshot.ID]*heldObject
	openMax  int // how many are open before an object that takes long is held, which the others pass
}

// passing is a message that was taken.
type passing struct {
	id   snapshot.ID
	seq  journal.Seq
	hash journal.Hash
	at   time.Time
	done bool
}

// heldObject is an object whose messages from first on wait.
type heldObject struct {
	id     snapshot.ID
	first  journal.Seq
	seen   journal.Seq // the last of its messages that was taken from the stream
	passed journal.Seq // and the last one that the cursor has passed
	tries  int         // how often the first one failed
	waits  int         // how often it could not be tried since
	cause  *Error
	due    time.Duration // when it is tried again, by Worker.awake
	trying bool
	buried journal.Seq // the message of which a copy is kept as a dead letter
}

// take notes a message of an object that is handed to it, or that it holds.
func (p *passage) take(m journal.Message, id snapshot.ID) {
	p.position = m.Seq
	e := passing{id: id, seq: m.Seq, hash: journal.MessageHash(m), at: m.Time}
	if h := p.held[id]; h != nil {
		h.seen, e.done = m.Seq, true
	} else {
		p.busy[id]++
	}
	p.open = append(p.open, e)
	if len(p.open) > p.openMax && !p.open[0].done {
		p.hold(p.open[0].id, p.open[0].seq)
		p.open[0].done = true
	}
	p.advance()
}

// settle notes that an object answered a message that was handed to it, or holds it.
func (p *passage) settle(id snapshot.ID, seq journal.Seq) {
	if i, ok := slices.BinarySearchFunc(p.open, seq, func(e passing, seq journal.Seq) int { return cmp.Compare(e.seq, seq) }); ok {
		p.open[i].done = true
	}
	if p.busy[id]--; p.busy[id] <= 0 {
		delete(p.busy, id)
	}
	p.advance()
}

func (p *passage) advance() {
	n := 0
	for n < len(p.open) && p.open[n].done {
		p.cursor, p.hash = p.open[n].seq, p.open[n].hash
		if p.open[n].at.After(p.at) {
			p.at = p.open[n].at
		}
		if h := p.held[p.open[n].id]; h != nil {
			h.passed = p.cursor
		}
		n++
	}
	if p.open = p.open[n:]; len(p.open) == 0 {
		p.open = nil
	}
}

// hold makes an object wait from a message on.
func (p *passage) hold(id snapshot.ID, seq journal.Seq) *heldObject {
	h := p.held[id]
	if h == nil {
		h = &heldObject{id: id, first: seq, seen: seq}
		p.held[id] = h
	}
	h.first, h.seen = min(h.first, seq), max(h.seen, seq)
	if seq <= p.cursor {
		h.passed = max(h.passed, seq)
	}
	return h
}

// due are the held objects that may be tried now, the longest due first, and when the next one is due; 0: none.
func (p *passage) due(now time.Duration) (ready []*heldObject, next time.Duration) {
	for _, h := range p.held {
		switch {
		case h.trying || p.busy[h.id] > 0: // its end is told
		case h.due <= now:
			ready = append(ready, h)
		case next == 0 || h.due < next:
			next = h.due
		}
	}
	slices.SortFunc(ready, func(a, b *heldObject) int { return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.first, b.first)) })
	return ready, next
}

// mark is what a checkpoint says of it. now is the time of the day, and awake that of [heldObject].
func (p *passage) mark(life uint64, now time.Time, awake time.Duration) journal.InboxMark {
	m := journal.InboxMark{Life: life, Cursor: p.cursor, Hash: p.hash, At: p.at, Dead: p.dead}
	for _, h := range p.held {
		if h.first > p.cursor {
			continue // it is taken again from the stream
		}
		class, token, _ := strings.Cut(string(h.id), ".")
		k := journal.Held{Class: class, Token: token, First: h.first, Last: h.passed, Tries: h.tries, Due: now.Add(h.due - awake).UTC()}
		if h.cause != nil {
			k.Error = h.cause.Error()
		}
		m.Held = append(m.Held, k)
	}
	slices.SortFunc(m.Held, func(a, b journal.Held) int { return cmp.Compare(a.First, b.First) })
	return m
}

// bury notes a dead letter that is kept.
func (p *passage) bury(d journal.DeadMark) {
	if p.dead == nil || p.dead.Seq < d.Seq {
		p.dead = &d
	}
}

// restored is the passage that a checkpoint tells of.
func restored(m journal.InboxMark, now time.Time, awake time.Duration) *passage {
	p := &passage{cursor: m.Cursor, hash: m.Hash, at: m.At, dead: m.Dead, position: m.Cursor, busy: map[snapshot.ID]int{}, held: map[snapshot.ID]*heldObject{}}
	for _, k := range m.Held {
		id := snapshot.ID(k.Class + "." + k.Token)
		p.held[id] = &heldObject{id: id, first: k.First, seen: k.Last, passed: k.Last, tries: k.Tries, due: awake + max(0, k.Due.Sub(now))}
	}
	return p
}
