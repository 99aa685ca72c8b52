package natsbus

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// RelayCalls passes what comes on the public subjects of methods on to the slots of the objects, and the answers back: for servers
// without the mapping ([wire.Subjects.Mapping]). With it nothing comes here. The order of one publisher's calls to an object is kept
// only while one worker alone relays. When nobody owns the slot the caller is told Unavailable: the server's "no responders"
// reaches only who published to the slot.
//
// stop ends it: what the server had handed over is passed on, and answers are waited for, for 2 s.
func RelayCalls(nc *nats.Conn, ns wire.Subjects, log *slog.Logger) (stop func(), err error) {
	r := &relay{answers{nc, ns, log}, newReplies()}
	calls := &drained{nc: nc}
	back, err := nc.Subscribe(r.all(), r.answered)
	if err != nil {
		return nil, fmt.Errorf("subscribe to answers: %w", err)
	}
	stop = func() {
		calls.stop()
		tick := time.NewTicker(relayPoll)
		defer tick.Stop()
		for limit := time.Now().Add(drainWithin); !r.none() && time.Now().Before(limit); {
			<-tick.C
		}
		_ = back.Unsubscribe() // it is gone with a closed connection, the only thing that can be wrong
	}
	err = back.SetPendingLimits(pendingMessagesMax, pendingBytesMax)
	for _, public := range []string{ns.Calls(), ns.Reads()} {
		if err == nil {
			err = calls.queue(public, r.take)
		}
	}
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("subscribe to %s and %s: %w", ns.Calls(), ns.Reads(), err)
	}
	return stop, nil
}

// relayed counts the calls that came on public subjects.
var relayed atomic.Uint64

// Relayed is how many calls this process passed on from public subjects to slots: none if the server maps them.
func Relayed() uint64 { return relayed.Load() }

const relayPoll = 5 * time.Millisecond

type relay struct {
	answers
	*replies
}

// take passes a call on. It is called for one at a time, so they leave in the order in which they came; for reads that a copy
// may answer, beside.
func (r *relay) take(m *nats.Msg) {
	read, class, token, method, ok := r.ns.SplitPublic(m.Subject)
	to := r.replyTo(m)
	if !ok || wire.CheckClass(class) != nil { // perdure doctor calls such a class to see whether the server maps calls
		r.fail(to, engine.Errorf(engine.NotFound, "no class %q", class))
		return
	}
	at := r.ns.CallAt
	if read {
		at = r.ns.ReadAt
	}
	on := &nats.Msg{Subject: at(class, token, method), Header: m.Header, Data: m.Data}
	if to != "" {
		if on.Reply, ok = r.wait(to); !ok {
			r.fail(to, engine.Errorf(engine.Overloaded, "%d calls are being passed on; at most so many may be", waitingMax).RetryIn(time.Second))
			return
		}
	}
	relayed.Add(1)
	if err := r.nc.PublishMsg(on); err != nil {
		r.replies.take(on.Reply)
		r.fail(to, engine.Errorf(engine.Invalid, "pass the call on to %s: %w", on.Subject, err))
	}
}

// noResponders is the status with which the server says that nobody listens; nats.go keeps its header's name to itself.
const noResponders = "503"

// answered passes an answer back.
func (r *relay) answered(m *nats.Msg) {
	to, ok := r.replies.take(m.Subject)
	switch {
	case !ok:
	case len(m.Data) == 0 && m.Header.Get("Status") == noResponders:
		r.fail(to, engine.Errorf(engine.Unavailable, "the object's partition has no owner just now"))
	default:
		r.publish(&nats.Msg{Subject: to, Header: m.Header, Data: m.Data}, "what was done stays done")
	}
}
