package stock

import (
	"slices"
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

func TestPiecesAreReservedOnceAndComeBack(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Stocks)
	pears := Stocks.Get("pear-1")
	enginetest.Call(w, pears, (*Stock).Receive, Amount{10})
	if left := enginetest.Call(w, pears, (*Stock).Reserve, Reservation{"17", 7}); left.Count != 3 {
		t.Fatal(left)
	}
	enginetest.Fails(w, engine.Refused, pears, (*Stock).Reserve, Reservation{"18", 4})
	enginetest.Fails(w, engine.Conflict, pears, (*Stock).Reserve, Reservation{"17", 1})
	enginetest.Fails(w, engine.NotFound, pears, (*Stock).Release, "18")
	for _, in := range []Reservation{{"", 1}, {"19", 0}, {"19", -1}, {"19", countMax + 1}} {
		enginetest.Fails(w, engine.Invalid, pears, (*Stock).Reserve, in)
	}
	for _, n := range []int64{0, -1, countMax + 1} {
		enginetest.Fails(w, engine.Invalid, pears, (*Stock).Receive, Amount{n})
	}
	for _, again := range []func(){func() {}, w.Restart, w.Crash} {
		again()
		if n := enginetest.Read(w, pears, (*Stock).Free, nil); n.Count != 3 {
			t.Fatal(n)
		}
	}
	if n := enginetest.Call(w, pears, (*Stock).Release, "17"); n.Count != 10 {
		t.Fatal(n)
	}
	want := []string{"put free 10", "put free 3", "put reserved/17 7", "put free 10", "delete reserved/17"}
	if have := enginetest.Journal(w, pears); !slices.Equal(have, want) {
		t.Errorf("%q", have)
	}
}

// TestARefusalIsTheOutcomeOfAMessage: nobody waits for the answer, and it is neither tried again nor a dead letter.
func TestARefusalIsTheOutcomeOfAMessage(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Stocks)
	pears := Stocks.Get("pear-1")
	enginetest.Post(w, pears, (*Stock).Reserve, Reservation{"17", 1})
	enginetest.Post(w, pears, (*Stock).Receive, Amount{1})
	enginetest.Post(w, pears, (*Stock).Reserve, Reservation{"18", 1})
	w.Settle()
	if dead := w.Dead(); len(dead) > 0 {
		t.Error(dead)
	}
	if s := enginetest.State(w, pears); s.Version != 3 || string(s.Storage["free"]) != "0" || string(s.Storage["reserved/18"]) != "1" || len(s.Storage) != 2 {
		t.Errorf("%+v", s)
	}
}
