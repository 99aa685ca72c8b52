// Package tally is the counter in event style: the state is the fold of what happened.
package tally

import "github.com/perdure/perdure/engine"

type Tally struct {
	Count int64 `json:"count"`
}

type Added struct {
	By int64 `json:"by"`
}

type Cleared struct{}

func (e Added) Apply(t *Tally) { t.Count += e.By }
func (Cleared) Apply(t *Tally) { t.Count = 0 }

// addedV1 is what Added was: a counter that knew only one step.
type addedV1 struct{}

var Tallies = engine.Class[Tally]{
	Name: "tally",
	Events: engine.Events[Tally]{
		"added.v1": engine.Upcast(func(addedV1) engine.Event[Tally] { return Added{1} }),
		"added.v2": Added{},
		"cleared":  Cleared{},
	},
}

func (t *Tally) Add(ctx *engine.Ctx, in Added) (int64, error) {
	if in.By <= 0 {
		return 0, engine.Errorf(engine.Refused, "by must be positive, not %d", in.By)
	}
	engine.Emit(ctx, t, in)
	return t.Count, nil
}

func (t *Tally) Clear(ctx *engine.Ctx, _ engine.None) (engine.None, error) {
	engine.Emit(ctx, t, Cleared{})
	return nil, nil
}

func (t *Tally) Value(engine.View, engine.None) (int64, error) { return t.Count, nil }
