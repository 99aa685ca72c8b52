package wiretap

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
)

// Tap hears the calls of a namespace and their answers. It needs a connection of its own to a server that all of them go through, and the
// permission to hear them; callers whose inboxes are called otherwise are not heard to be answered.
type Tap struct {
	ns    wire.Subjects
	said  chan *nats.Msg // one for all, so that the order is that of the server
	subs  []*nats.Subscription
	heard Heard
	asked map[string]bool
	done  sync.WaitGroup
}

// saidMax is how much may wait to be heard; what comes then would be lost, and [Tap.Stop] says so.
const saidMax = 1 << 18

// Listen begins to hear. [Tap.Stop] ends it.
func Listen(nc *nats.Conn, ns wire.Subjects) (*Tap, error) {
	t := &Tap{ns: ns, said: make(chan *nats.Msg, saidMax), asked: map[string]bool{}}
	for _, subject := range []string{string(ns) + ".part.*.call.>", nats.InboxPrefix + ">"} {
		s, err := nc.ChanSubscribe(subject, t.said)
		if err != nil {
			return nil, fmt.Errorf("tap %s: %w", subject, err)
		}
		t.subs = append(t.subs, s)
	}
	if err := nc.Flush(); err != nil {
		return nil, fmt.Errorf("tap: %w", err)
	}
	t.done.Go(func() {
		for m := range t.said {
			t.hear(m)
		}
	})
	return t, nil
}

// hear takes what was said. A call that nobody waits for is of no interest, nor is what answers anything else.
func (t *Tap) hear(m *nats.Msg) {
	if _, class, token, method, ok := t.ns.SplitCall(m.Subject); ok {
		if m.Reply != "" {
			t.asked[m.Reply] = true
			t.heard.Requests = append(t.heard.Requests,
				Request{Object: class + "/" + token, ID: requestID(m.Header), Reply: m.Reply, Method: method, After: len(t.heard.Answers)})
		}
		return
	}
	if !t.asked[m.Subject] {
		return
	}
	a := Answer{Reply: m.Subject, Failed: m.Header.Get(wire.HeaderErrorCode) != "", Replayed: m.Header.Get(wire.HeaderReplayed) == "true"}
	if !a.Failed {
		if _, err := fmt.Sscan(m.Header.Get(wire.HeaderVersion), &a.Version); err != nil {
			a.Failed = true // not of an owner, such as the server's "no responders"
		}
	}
	t.heard.Answers = append(t.heard.Answers, a)
}

// requestID is sender and number, or the caller's own id.
func requestID(h nats.Header) string {
	if s := strings.Fields(h.Get(wire.HeaderSession)); len(s) > 1 {
		return s[0] + " " + s[1]
	}
	return h.Get(wire.HeaderRequestID)
}

// Stop ends the hearing and returns what was heard. Its error says that something was not.
func (t *Tap) Stop() (Heard, error) {
	var errs []error
	for _, s := range t.subs {
		if n, err := s.Dropped(); err != nil || n > 0 {
			errs = append(errs, fmt.Errorf("tap %s: %d messages were not heard: %w", s.Subject, n, err))
		}
		errs = append(errs, s.Unsubscribe())
	}
	close(t.said)
	t.done.Wait()
	return t.heard, errors.Join(errs...)
}
