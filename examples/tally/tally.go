// Package tally is the lesson's counter in event style: the state is the fold of what happened.
package tally

import (
	"net/http"

	"github.com/perdure/perdure/engine"
)

// Tally is what its events add up to.
type Tally struct {
	Count int64 `json:"count"`
}

// Added is the event, and the argument of Add.
type Added struct {
	By int64 `json:"by"`
}

// Apply is the only place where Count changes: in a turn, at replay, and under a snapshot.
func (e Added) Apply(t *Tally) { t.Count += e.By }

// Tallies is the class.
var Tallies = engine.Class[Tally]{Name: "tally", Events: engine.Events[Tally]{"added.v1": oneMore, "added.v2": Added{}}}

// Add counts, and tells the count.
func (t *Tally) Add(ctx *engine.Ctx, in Added) (int64, error) {
	if in.By <= 0 {
		return 0, engine.Errorf(engine.Refused, "by must be positive, not %d", in.By)
	}
	engine.Emit(ctx, t, in)
	return t.Count, nil
}

// Value is the count.
func (t *Tally) Value(engine.View, engine.None) (int64, error) { return t.Count, nil }

// OnHTTP is the lesson's fetch: GET reads, POST adds one.
func (t *Tally) OnHTTP(ctx *engine.Ctx, w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		engine.Emit(ctx, t, Added{1})
	}
	return engine.WriteJSON(w, t)
}

// addedV1 is what Added was when a tally knew only one step. Records of it are read for ever.
type addedV1 struct{}

var oneMore = engine.Upcast(func(addedV1) engine.Event[Tally] { return Added{1} })
