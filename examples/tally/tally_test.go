package tally

import (
	"slices"
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

func TestTally(t *testing.T) {
	w := enginetest.New(t, Tallies)
	votes := Tallies.Get("votes")
	enginetest.Call(w, votes, (*Tally).Add, Added{3})
	enginetest.Call(w, votes, (*Tally).Add, Added{4})
	enginetest.Fails(w, engine.Refused, votes, (*Tally).Add, Added{-1})
	w.Crash()
	if n := enginetest.Read(w, votes, (*Tally).Value, nil); n != 7 {
		t.Fatal(n)
	}
	enginetest.Call(w, votes, (*Tally).Clear, nil)
	want := []string{`event added.v2 {"by":3}`, `event added.v2 {"by":4}`, `event cleared {}`}
	if have := enginetest.Journal(w, votes); !slices.Equal(have, want) {
		t.Fatal(have)
	}
}

func TestReadsFormerEvents(t *testing.T) {
	b, err := Tallies.Bind()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := b.Activate([]byte(`{"count":41}`))
	if err := a.Apply("added.v1", []byte(`{}`)); err != nil || a.Hooks().(*Tally).Count != 42 {
		t.Fatal(err)
	}
}
