package engine

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/perdure/perdure/journal"
)

// A letter is answered like a call, by one commit, whatever comes of it: so the last one that an object answered says which
// are, and the journal what became of each. Only what may come right by itself has no commit, and is tried again.

// beforeLetter answers a letter that does not run, and tells whether it was one.
func (o *object) beforeLetter(tk *task, now time.Time) bool {
	l, last := tk.req.letter, o.state.once.inbox
	switch {
	case l.seq <= last.Seq && !l.at.After(last.At): // it is answered
		o.answer(tk, o.state.version, nil, true)
		return true
	case l.seq <= last.Seq && l.life <= last.Life: // another one had its place
		l.failed = false
		o.holdBack(tk, &journal.InboxWentBackError{Stream: o.ep.ns.Inbox(), Partition: o.ep.p, Seq: last.Seq, Witness: o.String()})
		return true
	case l.dead != nil:
		o.endLetter(tk, now, journal.Hash{}, journal.SentDead, l.dead)
		return true
	case l.refused != nil:
		l.failed = asError(l.refused).Code != Denied // a class that serves reads only just now will take it later
		o.holdBack(tk, l.refused)
		return true
	}
	if d := tk.req.Deadline; !d.IsZero() && d.Before(o.letterTime(l)) {
		o.endLetter(tk, now, journal.Hash{}, journal.SentNotRun, Errorf(Timeout, "it was stored at %s, after its deadline %s", l.at.Format(time.RFC3339Nano), d.UTC().Format(time.RFC3339Nano)))
		return true
	}
	return false
}

// letterTime is when the letter was stored, but never before an earlier one: what is expired and forgotten follows it, so
// that nothing depends on when a letter is answered.
func (o *object) letterTime(l *letter) time.Time {
	if at := o.state.once.inbox.At; l.at.Before(at) {
		return at
	}
	return l.at
}

// letterMark is what a commit says of the letter that it answers.
func (o *object) letterMark(l *letter, outcome string) *journal.Sent {
	return &journal.Sent{Life: l.life, Seq: l.seq, At: o.letterTime(l), Outcome: outcome, Tries: l.tries}
}

// endLetter answers a letter by a commit that changes nothing.
func (o *object) endLetter(tk *task, now time.Time, hash journal.Hash, outcome string, why error) {
	t := &turn{o: o, act: o.act, req: tk.req, now: now, version: o.state.version}
	tk.req.letter.outcome = outcome
	var reply *journal.Reply
	if why != nil {
		e := o.named(tk, why)
		body, err := json.Marshal(ProblemOf(e))
		if err != nil {
			body = []byte(`{}`) // its fields always encode
		}
		reply = &journal.Reply{Status: e.Code.Status(), Body: body}
	}
	if err := o.commit(t, tk, hash, reply); err != nil {
		o.holdBack(tk, err)
	}
}

// holdBack leaves a letter, and those behind it, for later.
func (o *object) holdBack(tk *task, err error) {
	o.heldBack = true
	if errors.As(err, new(*journal.InboxWentBackError)) {
		tk.reply(Reply{}, err) // it tells of nothing that could be lost
		return
	}
	o.refuseAfter(tk, err)
}

// failLetter ends a letter whose method failed: the class may have refused it on purpose, which is an answer.
func (o *object) failLetter(t *turn, tk *task, hash journal.Hash, err error) {
	e := asError(err)
	if isRefusal(e) {
		o.endLetter(tk, t.now, hash, journal.SentRefused, e)
		return
	}
	switch e.Code {
	case Unavailable, UnknownOutcome, Overloaded, Full: // of what is around it
	default:
		tk.req.letter.failed = true
	}
	if e.cause != nil && e.Detail == faulty {
		t.log().Warn("method failed", "err", e.cause)
		e = Errorf(Internal, "%w", e.cause) // for people: a dead letter says why
	}
	o.holdBack(tk, e)
}

// isRefusal tells whether a class says no, and not "later".
func isRefusal(e *Error) bool {
	if !e.Remote || e.RetryAfter > 0 {
		return false
	}
	switch e.Code {
	case Invalid, Denied, NotFound, Conflict, TooLarge, Refused, IDReused:
		return true
	}
	return false
}

// repeatedLetter answers a letter whose id or number an object knows, or cannot take.
func (o *object) repeatedLetter(tk *task, now time.Time, err error) {
	switch e := asError(err); {
	case err == nil:
		o.endLetter(tk, now, journal.Hash{}, journal.SentRepeat, nil)
	case e.Code == IDReused || e.Code == Conflict:
		o.endLetter(tk, now, journal.Hash{}, journal.SentNotRun, err)
	default:
		tk.req.letter.failed = e.Code == Limited || e.Code == Overloaded // its clock stands still while it waits
		o.holdBack(tk, err)
	}
}
