package cart

import (
	"slices"
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

func TestLinesComeAndGo(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Carts)
	mine := Carts.Get("99")
	for _, line := range []Line{{"pear-1", 2}, {"apple-2", 1}, {"apple-1", 3}, {"pear-1", 1}} {
		enginetest.Call(w, mine, (*Cart).Add, line)
	}
	if was := enginetest.Call(w, mine, (*Cart).Remove, Line{SKU: "pear-1"}); was != (Line{"pear-1", 3}) {
		t.Fatal(was)
	}
	enginetest.Fails(w, engine.NotFound, mine, (*Cart).Remove, Line{SKU: "pear-1"})
	enginetest.Fails(w, engine.Invalid, mine, (*Cart).Add, Line{"pear-1", 0})
	for _, again := range []func(){func() {}, w.Restart, w.Crash} {
		again()
		if have := enginetest.Read(w, mine, (*Cart).Lines, Page{}); !slices.Equal(have, []Line{{"apple-1", 3}, {"apple-2", 1}}) {
			t.Fatal(have)
		}
		if have := enginetest.Read(w, mine, (*Cart).Lines, Page{"apple", 1}); !slices.Equal(have, []Line{{"apple-1", 3}}) {
			t.Fatal(have)
		}
	}
	want := []string{`put lines/pear-1 {"sku":"pear-1","count":2}`, `put lines/apple-2 {"sku":"apple-2","count":1}`,
		`put lines/apple-1 {"sku":"apple-1","count":3}`, `put lines/pear-1 {"sku":"pear-1","count":3}`, `delete lines/pear-1`}
	if have := enginetest.Journal(w, mine); !slices.Equal(have, want) {
		t.Errorf("%q", have)
	}
}

func TestACartShowsItself(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Carts)
	mine := Carts.Get("99")
	if code, body := enginetest.HTTP(w, mine, "GET", "/cart/99"); code != 200 || body != `{"lines":[]}` {
		t.Fatal(code, body)
	}
	enginetest.Call(w, mine, (*Cart).Add, Line{"pear-1", 2})
	if code, body := enginetest.HTTP(w, mine, "GET", "/cart/99"); code != 200 || body != `{"lines":[{"sku":"pear-1","count":2}]}` {
		t.Fatal(code, body)
	}
	if code, _ := enginetest.HTTP(w, mine, "DELETE", "/cart/99"); code != 400 {
		t.Fatal(code)
	}
}

func TestACartIsBounded(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Carts)
	mine := Carts.Get("big")
	for i := range linesMax {
		enginetest.Call(w, mine, (*Cart).Add, Line{string(rune('a' + i)), 1})
	}
	enginetest.Fails(w, engine.Refused, mine, (*Cart).Add, Line{"one more", 1})
	enginetest.Call(w, mine, (*Cart).Add, Line{"a", countMax - 1}) // a line that is there may still grow
	enginetest.Fails(w, engine.Refused, mine, (*Cart).Add, Line{"a", 1})
	enginetest.Call(w, mine, (*Cart).Remove, Line{SKU: "a"})
	enginetest.Call(w, mine, (*Cart).Add, Line{"one more", 1})
}
