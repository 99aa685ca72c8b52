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
	for _, later := range []error{unavailable(errEpochOver), Errorf(Timeout, "not begun by its deadline"), Errorf(Overloaded, "x")} {
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

// noPost is the part of a transport that is not asked for.
type noPost struct{}

func (noPost) Post(context.Context, Request) (journal.Seq, error) {
	return 0, Errorf(Unavailable, "no inbox")
}
