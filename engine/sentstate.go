package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// SentState is what became of a message to an object.
type SentState struct {
	Class   string          `json:"class"`
	Name    string          `json:"name"`
	Seq     journal.Seq     `json:"seq"`   // its position in the inbox
	State   string          `json:"state"` // waiting, applied, or an outcome of [journal.Sent]
	Method  string          `json:"method"`
	Stored  time.Time       `json:"stored"`
	Version journal.Version `json:"version,omitempty"` // of the object, that answered it
	Tries   int             `json:"tries,omitempty"`   // how often it failed
	Error   string          `json:"error,omitempty"`   // how it failed last, if it waits for that
	Again   time.Time       `json:"again,omitzero"`    // when it is tried again, then
	Reply   *journal.Reply  `json:"reply,omitempty"`
}

// States of a message beside the outcomes of [journal.Sent].
const (
	SentWaiting = "waiting"
	SentApplied = "applied"
)

// Sent implements [Inspector].
func (w *Worker) Sent(ctx context.Context, class, name string, seq journal.Seq) (SentState, error) {
	_, ep, token, err := w.owner(class, name)
	if err != nil {
		return SentState{}, err
	}
	s := SentState{Class: class, Name: name, Seq: seq}
	found, err := ep.findSent(ctx, &s, token)
	if err == nil && !found {
		err = ep.findWaiting(ctx, &s, token)
	}
	if err != nil {
		return SentState{}, err
	}
	if err := ep.mayAnswer(); err != nil { // a deposed owner must not show what is no longer so
		return SentState{}, unavailable(err)
	}
	return s, nil
}

// findSent looks for the commit that answers the message. Positions in the inbox are used again after a loss was accepted:
// the last such commit counts.
func (ep *epoch) findSent(ctx context.Context, s *SentState, token string) (found bool, err error) {
	last := journal.Seq(0)
	for m, err := range ep.log.Read(ctx, ep.ns.Journal(s.Class, token), 1) {
		if err != nil {
			return false, unavailable(fmt.Errorf("read the journal: %w", err))
		}
		rec, err := journal.DecodeRecord(m.Data)
		if err != nil {
			continue // of no effect here: whoever wakes the object tells
		}
		last = m.Seq
		for i, c := range rec.Commits {
			if c.Inbox == nil || c.Inbox.Seq != s.Seq {
				continue
			}
			found = true
			s.State, s.Method, s.Stored, s.Tries = c.Inbox.Outcome, c.Method, c.Inbox.At, c.Inbox.Tries
			s.Version, s.Reply = rec.First+journal.Version(i), c.Reply
			if s.State == "" {
				s.State = SentApplied
			}
		}
	}
	return found, ep.settle(ctx, last)
}

// findWaiting looks for the message itself.
func (ep *epoch) findWaiting(ctx context.Context, s *SentState, token string) error {
	m, err := ep.ses.js.Inbox().At(ctx, s.Seq)
	_, class, of, method, _ := ep.ns.SplitInbox(m.Subject)
	switch {
	case errors.Is(err, journal.ErrNotFound) || err == nil && (class != s.Class || of != token):
		return Errorf(NotFound, "message %d is not one to %s/%s, or it was answered and its record is purged", s.Seq, s.Class, s.Name)
	case err != nil:
		return unavailable(fmt.Errorf("read the inbox: %w", err))
	}
	s.State, s.Method, s.Stored = SentWaiting, method, m.Time.UTC()
	if in := ep.inbox.Load(); in != nil {
		in.tell(s, snapshot.ID(class+"."+of))
	}
	return nil
}

// tell says why a message waits.
func (in *inbox) tell(s *SentState, id snapshot.ID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	h := in.p.held[id]
	if h == nil || h.cause == nil {
		return
	}
	s.Error = h.cause.Error()
	if h.first != s.Seq {
		s.Error = fmt.Sprintf("message %d waits: %s", h.first, s.Error)
		return
	}
	s.Tries, s.Again = h.tries, in.ep.w.clock.Now().Add(h.due-in.ep.w.awake()).UTC()
}
