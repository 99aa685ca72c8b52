package tally

import (
	"slices"
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

func TestCountSurvivesCrashAndRestart(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Tallies)
	votes := Tallies.Get("votes")
	for i, again := range []func(){func() {}, w.Restart, w.Crash} {
		again()
		if n := enginetest.Call(w, votes, (*Tally).Add, Added{3}); n != 3*int64(i+1) {
			t.Fatal(n)
		}
	}
	w.Crash()
	if n := enginetest.Read(w, votes, (*Tally).Value, nil); n != 9 {
		t.Fatal(n)
	}
}

func TestARefusalIsNoEvent(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Tallies)
	votes := Tallies.Get("votes")
	enginetest.Call(w, votes, (*Tally).Add, Added{3})
	enginetest.Fails(w, engine.Refused, votes, (*Tally).Add, Added{-1})
	enginetest.Call(w, votes, (*Tally).Add, Added{4})
	want := []string{`event added.v2 {"by":3}`, `event added.v2 {"by":4}`}
	if have := enginetest.Journal(w, votes); !slices.Equal(have, want) {
		t.Fatal(have)
	}
}

func TestPostAddsOneAndGetReads(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Tallies)
	for _, want := range []string{`{"count":1}`, `{"count":2}`} {
		if code, body := enginetest.HTTP(w, Tallies.Get("a"), "POST", "/tally/a"); code != 200 || body != want {
			t.Fatal(code, body)
		}
	}
	w.Crash()
	if code, body := enginetest.HTTP(w, Tallies.Get("a"), "GET", "/tally/a"); code != 200 || body != `{"count":2}` {
		t.Fatal(code, body)
	}
}

func TestFormerEventsAreRead(t *testing.T) {
	t.Parallel()
	b, err := Tallies.Bind()
	if err != nil {
		t.Fatal(err)
	}
	a, err := b.Activate([]byte(`{"count":41}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Apply("added.v1", []byte(`{}`)); err != nil || a.Hooks().(*Tally).Count != 42 {
		t.Fatal(err, a.Hooks())
	}
}
