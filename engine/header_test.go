package engine

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/perdure/perdure/internal/wire"
)

const senderHex = "0123456789abcdef0123456789abcdef"

var untilTime = time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.UTC)

func FuzzSession(f *testing.F) {
	for _, s := range []string{"", senderHex + " 7 5", senderHex + " 0 0", senderHex + " 18446744073709551615 1", senderHex + " 007 5", "x 1 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSession(s, untilTime)
		if err != nil {
			return
		}
		if n.M > n.N || len(n.Sender) != senderDigits {
			t.Fatalf("%q is taken as %+v", s, n)
		}
		again, err := parseSession(formatSession(n), untilTime)
		if err != nil || *again != *n {
			t.Fatalf("%q: got %+v, and after a round trip %+v", s, n, again)
		}
	})
}

func FuzzChain(f *testing.F) {
	for _, s := range [][2]string{{"a", "b"}, {"a,b", "%2C"}, {"a/b,c/d", "%252C,"}, {"ä €", "."}, {"cart/a%2Cb,account/x", ""}, {"cart/%2c", "\xff"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if chain, err := parseChain(a); err == nil && formatChain(chain) != a {
			t.Fatalf("%q has another spelling: %q is %q", a, chain, formatChain(chain))
		}
		if wire.CheckName(a) != nil || wire.CheckName(b) != nil {
			return
		}
		want := []string{"one/" + a, "two/" + b}
		s := formatChain(want)
		if strings.ContainsAny(s, "\r\n") || !utf8.ValidString(s) {
			t.Fatalf("%q is no header", s)
		}
		got, err := parseChain(s)
		if err != nil || !slices.Equal(want, got) {
			t.Fatalf("%q: %v, %v", s, got, err)
		}
	})
}
