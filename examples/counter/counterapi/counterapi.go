// Package counterapi is the counter's contract: what another service imports instead of its code.
package counterapi

import "github.com/perdure/perdure/engine"

const Counters = engine.Remote[Counter]("counter")

type Counter interface {
	Increment(ctx *engine.Ctx, in By) (int64, error)
	Value(v engine.View, _ engine.None) (int64, error)
}

type By struct {
	By int64 `json:"by"`
}
