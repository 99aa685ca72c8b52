package engine

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is a transport that fails with one error after the other, then with the last for ever.
type scripted struct {
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
