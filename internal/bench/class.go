package bench

import (
	"time"

	"github.com/perdure/perdure/engine"
)

// Counter is what the figures are measured with: the smallest object that changes. It is the counter of the examples.
type Counter struct{}

// By is the argument of Increment.
type By struct {
	By int64 `json:"by"`
}

const count = engine.Key[int64]("count")

// Increment counts, and tells the count.
func (*Counter) Increment(ctx *engine.Ctx, in By) (int64, error) {
	n := count.Get(ctx) + in.By
	count.Put(ctx, n)
	return n, nil
}

// Value is the count.
func (*Counter) Value(v engine.View, _ engine.None) (int64, error) { return count.Get(v), nil }

// The classes of the figures. They differ in how long an idle object stays in memory.
const (
	staying = "bench-staying" // for ever
	leaving = "bench-leaving" // not much longer than leavingIdle
	resting = "bench-resting" // not much longer than restingIdle
)

const (
	leavingIdle = 4 * time.Second
	restingIdle = 25 * time.Second
)

// Classes are what the system that is measured serves besides its own.
func Classes() []engine.AnyClass {
	return []engine.AnyClass{
		engine.Class[Counter]{Name: staying, Limits: engine.Limits{Idle: 24 * time.Hour}},
		engine.Class[Counter]{Name: leaving, Limits: engine.Limits{Idle: leavingIdle}},
		engine.Class[Counter]{Name: resting, Limits: engine.Limits{Idle: restingIdle}},
	}
}

// The methods, as they are called.
const (
	incrementMethod = "increment"
	valueMethod     = "value"
)

var incrementBody = []byte(`{"by":1}`)
