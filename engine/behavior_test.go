package engine_test

import (
	"encoding/json"
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

// script stands for a class in another language: all it knows is bytes.
type script struct{ sum int }

type scripts string

func (name scripts) Bind() (*engine.Behavior, error) {
	return &engine.Behavior{
		Name:    string(name),
		Methods: map[string]engine.Method{"add": {}, "sum": {Read: true}},
		Events:  []string{"added"},
		Activate: func(state []byte) (engine.Activation, error) {
			s := &script{}
			if state == nil {
				return s, nil
			}
			return s, json.Unmarshal(state, &s.sum)
		},
	}, nil
}

func (s *script) Invoke(ctx *engine.Ctx, method string, in []byte) ([]byte, error) {
	if method == "add" {
		ctx.Raw().Put("last", in)
		ctx.Raw().Emit("added", in)
	}
	return s.State()
}

func (s *script) Apply(_ string, data []byte) error {
	var by int
	err := json.Unmarshal(data, &by)
	s.sum += by
	return err
}
func (s *script) State() ([]byte, error) { return json.Marshal(s.sum) }
func (s *script) Hooks() any             { return nil }

// contract is how Go calls it.
type contract interface {
	Add(ctx *engine.Ctx, by int) (int, error)
	Sum(v engine.View, _ engine.None) (int, error)
}

func TestClassInAnotherLanguage(t *testing.T) {
	w, a := enginetest.New(t, scripts("script")), engine.Remote[contract]("script").Get("a")
	enginetest.Call(w, a, contract.Add, 2)
	w.Crash()
	enginetest.Call(w, a, contract.Add, 3)
	if n := enginetest.Read(w, a, contract.Sum, nil); n != 5 {
		t.Fatal(n)
	}
}
