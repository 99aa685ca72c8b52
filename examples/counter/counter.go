// Package counter is the lesson's counter in storage style.
package counter

import (
	"cmp"
	"net/http"

	"github.com/perdure/perdure/engine"
)

// Counter is one count. All that it knows is stored.
type Counter struct{}

// By is the argument of Increment.
type By struct {
	By int64 `json:"by"` // 1 if left out
}

// Counters is the class.
var Counters = engine.Class[Counter]{Name: "counter"}

const count = engine.Key[int64]("count")

// Increment counts, and tells the count.
func (*Counter) Increment(ctx *engine.Ctx, in By) (int64, error) {
	n := count.Get(ctx) + cmp.Or(in.By, 1)
	count.Put(ctx, n)
	return n, nil
}

// Value is the count.
func (*Counter) Value(v engine.View, _ engine.None) (int64, error) {
	return count.Get(v), nil
}

// OnHTTP is the lesson's fetch: GET reads, POST adds one.
func (*Counter) OnHTTP(ctx *engine.Ctx, w http.ResponseWriter, r *http.Request) error {
	n := count.Get(ctx)
	if r.Method == http.MethodPost {
		n++
		count.Put(ctx, n)
	}
	return engine.WriteJSON(w, map[string]int64{"count": n})
}
