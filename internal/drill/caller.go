package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/engine"
)

// call is one caller: it calls one object after the other, each with one call under way, until ctx ends. If there are as many
// callers as objects, each has one.
func (d *drill) call(ctx context.Context, caller int) {
	from, to := caller*d.Objects/d.Callers, (caller+1)*d.Objects/d.Callers
	mine := d.order[from:max(to, from+1)]
	var interval time.Duration
	if d.Rate > 0 {
		interval = time.Duration(float64(time.Second) * float64(d.Callers) / d.Rate)
	}
	next := d.began.Add(interval * time.Duration(caller) / time.Duration(d.Callers)) // not all at once
	for i := 0; until(ctx, next) && d.ask(ctx, mine[i%len(mine)]); i++ {
		next = next.Add(interval)
		if late := time.Since(next); late > interval && interval > 0 {
			next = next.Add(late.Truncate(interval)) // what was missed is not made up for, and callers stay apart
		}
	}
}

// ask makes one call, and waits until its outcome is known or its deadline has come, also if ctx ends. It tells whether there
// may be more.
func (d *drill) ask(ctx context.Context, object int) bool {
	var c Call
	more := true
	d.locked(func(now time.Duration) {
		if more = d.ledger.calls < CallsMax; more {
			c = d.ledger.Begin(object, now)
		}
	})
	if !more {
		return false
	}
	reply, err := d.client.Do(context.WithoutCancel(ctx), engine.Request{Class: d.Class, Name: d.names[object], Method: d.Method, Body: d.Body,
		ID: d.ledger.ID(c), Caller: engine.Caller{Claimed: "perdure drill"}})
	d.locked(func(now time.Duration) { d.ledger.settle(c, reply, err, now) })
	if useless(err) {
		d.fail(fmt.Errorf("call %s: %w", d.ledger.objects[object].name, err))
	}
	return true
}

// settle notes what came of a call.
func (l *Ledger) settle(c Call, reply engine.Reply, err error, now time.Duration) {
	e, failed := errors.AsType[*engine.Error](err)
	switch {
	case err == nil:
		l.Acknowledged(c, reply.Version, string(reply.Body), now)
	case !failed || e.Code == engine.UnknownOutcome || e.Code == engine.Internal: // the last one does not say
		l.Unknown(c)
	case !e.Remote && (e.Code == engine.Unavailable || e.Code == engine.Timeout):
		l.Abandoned(c)
	default:
		l.Refused(c, now)
	}
}

// useless is an error that every call would have.
func useless(err error) bool {
	e, ok := errors.AsType[*engine.Error](err)
	return ok && !e.Remote && (e.Code == engine.NotFound || e.Code == engine.Invalid || e.Code == engine.Denied)
}
