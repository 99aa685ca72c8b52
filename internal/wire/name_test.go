package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscapeHasOneSpelling(t *testing.T) {
	t.Parallel()
	for name, token := range map[string]string{
		"checkout-cart-99":                "checkout-cart-99",
		"a_b~!$&'()+,;=:@/?#[]{}|\\\"<^`": "a_b~!$&'()+,;=:@/?#[]{}|\\\"<^`",
		"a.b":                             "a%2Eb",
		"*":                               "%2A",
		">":                               "%3E",
		"%":                               "%25",
		"%2E":                             "%252E",
		" ":                               "%20",
		"\t\r\n":                          "%09%0D%0A",
		"\x00\x7f":                        "%00%7F",
		"ä":                               "%C3%A4",
		"\u65e5\u672c":                    "%E6%97%A5%E6%9C%AC",
	} {
		if got := Escape(name); got != token {
			t.Errorf("Escape(%q) is %q, want %q", name, got, token)
		}
		if got, err := Unescape(token); err != nil || got != name {
			t.Errorf("Unescape(%q) is %q, %v, want %q", token, got, err, name)
		}
	}
}

func TestEveryOtherSpellingIsRefused(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{
		"":               "empty",
		"%":              "two upper-case hex digits",
		"a%2":            "two upper-case hex digits",
		"%zz":            "two upper-case hex digits",
		"a%2e":           "two upper-case hex digits", // lower case
		"%61":            `want "a"`,                  // needs no escape
		"a.b":            `want "a%2Eb"`,              // needs one
		"\u00e4":         `want "%C3%A4"`,
		"%FF":            "not UTF-8",
		"%C3":            "not UTF-8",
		"%ED%A0%80":      "not UTF-8", // half of a surrogate pair
		"%C0%AE":         "not UTF-8", // an overlong dot
		longName + "x":   "at most 512",
		longName + "%2E": "at most 512",
	} {
		if got, err := Unescape(token); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Unescape(%.20q) is %q, %v, want an error with %q", token, got, err, want)
		}
	}
}

// longName is as long as a name can be.
var longName = strings.Repeat("n", NameBytesMax)

func TestAnyUTF8UpToTheLimitIsAName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"x", ".", "\x00", "v1", longName, strings.Repeat("ä", NameBytesMax/2)} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%.20q): %v", name, err)
		}
	}
	for name, want := range map[string]string{"": "empty", longName + "n": "513 bytes", "\xff": "not UTF-8"} {
		if err := CheckName(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckName(%.20q) returned %v, want an error with %q", name, err, want)
		}
	}
}

func TestIdentifiersAndReservedClasses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", IdentifierBytesMax)
	for _, s := range []string{"a", "Z", "addItem", "rate-limit_2", "v2", "V1", long} {
		if err := CheckClass(s); err != nil {
			t.Errorf("CheckClass(%q): %v", s, err)
		}
	}
	for _, s := range []string{"", "1a", "_a", "-a", "a.b", "a*", "a b", "ä", "a\u00e4", "a%20", "$a", long + "a"} {
		if CheckIdentifier(s) == nil || CheckClass(s) == nil {
			t.Errorf("%q passes for an identifier", s)
		}
	}
	for _, s := range []string{"v1", "livez", "readyz", "metrics"} {
		if err := CheckClass(s); err == nil || !strings.Contains(err.Error(), "gateway") {
			t.Errorf("CheckClass(%q) returned %v; the gateway's own paths begin with it", s, err)
		}
		if err := CheckIdentifier(s); err != nil {
			t.Errorf("%q is not allowed as a method: %v", s, err)
		}
	}
}

// plain tells whether a token holds only what a subject can: printable ASCII that NATS gives no meaning.
func plain(token string) bool {
	return !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(".*>", r) })
}

func FuzzEscape(f *testing.F) {
	for _, name := range []string{"x", "a.b", "%2E", "%", "*>", " \x00\x7f", "äöü", "\xff", "{{wildcard(1)}}", longName} {
		f.Add(name, uint(1))
	}
	f.Fuzz(func(t *testing.T, name string, cut uint) {
		token := Escape(name)
		if !plain(token) {
			t.Errorf("Escape(%q) is %q, which is no subject token", name, token)
		}
		if prefix := name[:cut%uint(len(name)+1)]; !strings.HasPrefix(token, Escape(prefix)) {
			t.Errorf("Escape(%q) is %q, no prefix of %q", prefix, Escape(prefix), token)
		}
		got, err := Unescape(token)
		if legal := CheckName(name) == nil; legal != (err == nil) {
			t.Errorf("name %q is legal: %v; its token %q: %v", name, legal, token, err)
		}
		if err == nil && got != name {
			t.Errorf("%q became %q by way of %q", name, got, token)
		}
	})
}

func FuzzUnescape(f *testing.F) {
	for _, token := range []string{"", "x", "%2E", "%2e", "%61", "%", "%2", "%FF", "%C3%A4", "%C0%AE", "a.b", "%25", longName} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		name, err := Unescape(token)
		if err != nil {
			if name != "" {
				t.Errorf("Unescape(%q) returned the name %q with the error %v", token, name, err)
			}
			return
		}
		if !utf8.ValidString(name) || name == "" || len(name) > NameBytesMax {
			t.Errorf("Unescape(%q) returned the illegal name %q", token, name)
		}
		if !plain(token) || Escape(name) != token {
			t.Errorf("%q is a second spelling of %q, which is %q", token, name, Escape(name))
		}
	})
}
