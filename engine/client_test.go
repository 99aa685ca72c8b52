package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/journal"
)

// scripted is a transport that fails with one error after the other, then with the last for ever.
type scripted struct {
	noPost
	n    atomic.Int64
	errs []error
}

func (s *scripted) Do(context.Context, Request) (Reply, error) {
	n := int(s.n.Add(1)) - 1
	return Reply{}, s.errs[min(n, len(s.errs)-1)]
}

// TestAClientRemembersThatATryHadAnUnknownOutcome: what it says after its last try covers the tries before.
func TestAClientRemembersThatATryHadAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, later := range []error{unavailable(errEpochOver), Errorf(Timeout, "not begun by its deadline"), Errorf(Overloaded, "x"), Errorf(Full, "x")} {
		c := NewClient(&scripted{errs: []error{Errorf(UnknownOutcome, "sent"), later}})
		_, err := c.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Limit: 100 * time.Millisecond})
		if !errors.Is(err, UnknownOutcome) {
			t.Errorf("then %v: the caller is told %v", later, err)
		}
	}
}

// lossy is a transport that loses the first requests, as a server does whose worker's connection broke. One that is lost
// is waited for until its context ends.
type lossy struct {
	noPost
	lost    int
	numbers []SessionNumber
}

func (l *lossy) Do(ctx context.Context, r Request) (Reply, error) {
	l.numbers = append(l.numbers, *r.Session)
	if len(l.numbers) > l.lost {
		return Reply{Version: 1}, nil
	}
	<-ctx.Done()
	return Reply{}, Errorf(UnknownOutcome, "no answer: %w", ctx.Err())
}

// TestARequestThatIsLostIsRepeatedBeforeItsDeadline: nobody tells that it was lost, so a client that waited for the
// answer as long as it may would never ask again.
func TestARequestThatIsLostIsRepeatedBeforeItsDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lossy{lost: 2}
		began := time.Now()
		reply, err := NewClient(l).Do(t.Context(), Request{Class: "register", Name: "a", Method: "add"})
		if err != nil || reply.Version != 1 {
			t.Errorf("after %v: %+v, %v", time.Since(began), reply, err)
		}
		if took, want := time.Since(began), 3*answerFirst+time.Second; took < 3*answerFirst || took > want {
			t.Errorf("took %v; want at most %v", took, want)
		}
		if len(l.numbers) != 3 || l.numbers[0] != l.numbers[2] {
			t.Errorf("sent as %+v", l.numbers)
		}
	})
}

// TestAnOwnerThatIsLateDoesNotMakeALostRequestWaitLonger: what was refused at once says nothing about how long an answer takes.
func TestAnOwnerThatIsLateDoesNotMakeALostRequestWaitLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &lateOwner{refused: 5, lossy: lossy{lost: 1}}
		began := time.Now()
		_, err := NewClient(l).Do(t.Context(), Request{Class: "register", Name: "a", Method: "add"})
		if took := time.Since(began); err != nil || took > answerFirst+3*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// lateOwner refuses before it loses.
type lateOwner struct {
	refused int
	lossy
}

func (l *lateOwner) Do(ctx context.Context, r Request) (Reply, error) {
	if l.refused--; l.refused >= 0 {
		return Reply{}, Errorf(Unavailable, "no owner")
	}
	return l.lossy.Do(ctx, r)
}

// TestATransportThatIsClosedIsNotAskedAgain, and a request that may have been applied before stays one.
func TestATransportThatIsClosedIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	closed := Errorf(Unavailable, "not sent: %w", ErrClosed)
	for _, tt := range []struct {
		before error
		want   Code
	}{{Errorf(Unavailable, "no owner"), Unavailable}, {Errorf(UnknownOutcome, "sent"), UnknownOutcome}} {
		s := &scripted{errs: []error{tt.before, closed}}
		_, err := NewClient(s).Do(t.Context(), Request{Class: "register", Name: "a", Method: "add"})
		if n := s.n.Load(); !errors.Is(err, tt.want) || n != 2 {
			t.Errorf("got %v after %d tries, want %s after 2", err, n, tt.want)
		}
	}
}

// noPost is the part of a transport that is not asked for.
type noPost struct{}

func (noPost) Post(context.Context, Request) (journal.Seq, error) {
	return 0, Errorf(Unavailable, "no inbox")
}
