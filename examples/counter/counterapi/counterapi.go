// Package counterapi is the counter's contract: what another service imports instead of its code.
package counterapi

import "github.com/perdure/perdure/engine"

// Counters addresses the objects of the class, wherever they run.
const Counters = engine.Remote[Counter]("counter")

// Counter is what a caller may ask of a counter.
type Counter interface {
	// Increment counts, and tells the count.
	Increment(ctx *engine.Ctx, in By) (int64, error)
	// Value is the count.
	Value(v engine.View, _ engine.None) (int64, error)
}

// By is the argument of Increment.
type By struct {
	By int64 `json:"by"` // 1 if left out
}
