package cmd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/cart"
	"github.com/perdure/perdure/examples/counter"
	"github.com/perdure/perdure/examples/tally"
)

func TestAListIsATableOnATerminalAndPlainRowsInAPipe(t *testing.T) {
	t.Parallel()
	hourAgo := time.Now().Add(-time.Hour)
	for name, test := range map[string]struct {
		human, bold bool
		want        string
	}{
		"terminal":  {true, true, "\x1b[1mOBJECT      CHANGED\x1b[0m\ncounter/ab  1h ago\nc/d         -\n"},
		"no colour": {true, false, "OBJECT      CHANGED\ncounter/ab  1h ago\nc/d         -\n"},
		"pipe":      {false, false, "counter/ab\t" + hourAgo.UTC().Format(time.RFC3339Nano) + "\nc/d\t-\n"},
	} {
		var out bytes.Buffer
		r := newRows(&out, test.human, test.bold, []string{"object", "changed"})
		r.add("counter/ab", r.when(hourAgo))
		r.add("c/d", r.when(time.Time{}))
		must(t, r.end())
		if diff := cmp.Diff(test.want, out.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestANameCannotCommandTheTerminal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain äöü 日本語 👩‍🚀": "plain äöü 日本語 👩‍🚀",
		"a\tb\nc\r":         `a\tb\nc\r`,
		"\x1b[31mred\a\x7f": `\x1b[31mred\a\x7f`,
		"\u009b31m":         `\u009b31m`, // the same as escape and bracket, to some
	} {
		if got := printable(text); got != want {
			t.Errorf("%q is printed as %q, want %q", text, got, want)
		}
	}
}

func TestWhatTheBannerSuggestsFitsWhatIsServed(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		d    dev
		url  string
		want []string
	}{
		"the examples": {dev{node: node{ns: "objects", classes: []engine.AnyClass{tally.Tallies, counter.Counters}}}, "nats://127.0.0.1:4222", []string{
			"curl -X POST h:1/counter/checkout-cart-99",
			`nats req objects.call.counter.checkout-cart-99.increment '{"by":2}'`,
			"perdure journal counter/checkout-cart-99",
		}},
		"other places": {dev{node: node{ns: "shop", classes: []engine.AnyClass{counter.Counters}}}, "nats://127.0.0.1:5", []string{
			"curl -X POST h:1/counter/checkout-cart-99",
			`nats req -s nats://127.0.0.1:5 shop.call.counter.checkout-cart-99.increment '{"by":2}'`,
			"perdure journal -s nats://127.0.0.1:5 --namespace shop counter/checkout-cart-99",
		}},
		"other classes": {dev{node: node{ns: "objects", classes: []engine.AnyClass{cart.Carts}}}, "nats://127.0.0.1:4222", []string{"curl h:1/cart/checkout-cart-99", "perdure classes"}},
		"no class":      {dev{node: node{ns: "objects"}}, "nats://127.0.0.1:4222", nil},
	} {
		if diff := cmp.Diff(test.want, test.d.tryNext("h:1", test.url)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for address, want := range map[string]string{"[::]:80": "127.0.0.1:80", "0.0.0.0:4222": "127.0.0.1:4222", "10.0.0.1:1": "10.0.0.1:1", "[::1]:1": "[::1]:1"} {
		if got := reachable(address); got != want {
			t.Errorf("%s is reached at %s, want %s", address, got, want)
		}
	}
}

func TestWhatIsNoCommandIsCompared(t *testing.T) {
	t.Parallel()
	root := (&app{}).root()
	if got := didYouMean(root, "journl"); !strings.Contains(got, "journal") {
		t.Errorf("journl: %q", got)
	}
	if got := didYouMean(root, "frobnicate"); got != "" {
		t.Errorf("frobnicate: %q", got)
	}
}
