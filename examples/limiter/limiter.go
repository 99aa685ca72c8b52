// Package limiter is a rate limiter: one object, and so one token bucket, per API key.
package limiter

import (
	"net/http"
	"time"

	"github.com/perdure/perdure/engine"
)

// Limiter is the bucket of one API key.
type Limiter struct{}

const (
	burst = 10          // tokens in a full bucket
	every = time.Second // a token comes back
)

// Limiters is the class.
var Limiters = engine.Class[Limiter]{Name: "limiter"}

// full is when the bucket is full again: all there is to know. Absent, or past, it is full.
const full = engine.Key[time.Time]("full")

// Take takes n tokens and tells how many are left. A refusal writes nothing, so a flood of them costs no record.
func (*Limiter) Take(ctx *engine.Ctx, n int) (left int, err error) {
	if n < 1 || n > burst {
		return 0, engine.Errorf(engine.Invalid, "take 1 to %d tokens, not %d", burst, n)
	}
	at := full.Get(ctx)
	if at.Before(ctx.Now()) {
		at = ctx.Now()
	}
	at = at.Add(time.Duration(n) * every)
	if over := at.Sub(ctx.Now()) - burst*every; over > 0 {
		return 0, engine.Errorf(engine.Limited, "one request per %v, %d at once", every, burst).RetryIn(over)
	}
	full.Put(ctx, at)
	return int((burst*every - at.Sub(ctx.Now())) / every), nil
}

// OnHTTP takes one token: 204, or 429 with Retry-After.
func (l *Limiter) OnHTTP(ctx *engine.Ctx, w http.ResponseWriter, _ *http.Request) error {
	if _, err := l.Take(ctx, 1); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
