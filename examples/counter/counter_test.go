package counter

import (
	"testing"

	"github.com/perdure/perdure/engine/enginetest"
	"github.com/perdure/perdure/examples/counter/counterapi"
)

func TestCountSurvivesCrashAndRestart(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Counters)
	cart := Counters.Get("checkout-cart-99")
	enginetest.Call(w, cart, (*Counter).Increment, By{})
	enginetest.Call(w, cart, (*Counter).Increment, By{By: 4})
	for _, again := range []func(){w.Restart, w.Crash} {
		again()
		if n := enginetest.Read(w, cart, (*Counter).Value, nil); n != 5 {
			t.Fatal(n)
		}
	}
}

func TestPostAddsOneAndGetReads(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Counters)
	for _, want := range []string{`{"count":1}`, `{"count":2}`} {
		if code, body := enginetest.HTTP(w, Counters.Get("a"), "POST", "/counter/a"); code != 200 || body != want {
			t.Fatal(code, body)
		}
	}
	if _, body := enginetest.HTTP(w, Counters.Get("a"), "GET", "/counter/a"); body != `{"count":2}` {
		t.Fatal(body)
	}
}

func TestTheContractReachesTheClass(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Counters)
	n := enginetest.Call(w, counterapi.Counters.Get("a"), counterapi.Counter.Increment, counterapi.By{By: 2})
	if n != 2 {
		t.Fatal(n)
	}
}

func TestMessagesCount(t *testing.T) {
	w := enginetest.New(t, Counters)
	cart := Counters.Get("cart-99")
	for range 3 {
		enginetest.Post(w, cart, (*Counter).Increment, By{2})
	}
	w.Crash()
	w.Settle()
	if n := enginetest.Read(w, cart, (*Counter).Value, nil); n != 6 || len(w.Dead()) != 0 {
		t.Errorf("the counter is %d, and %d messages are dead", n, len(w.Dead()))
	}
}
