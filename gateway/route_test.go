package gateway

import (
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/perdure/perdure/engine"
)

// escape writes a name as a path's segment.
func escape(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}

func TestAnyNameIsItsOwnObject(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range []string{"x", "a/b", "/", "//", "50%", "%2F", ".", "..", "...", "a..b", "../x", "two words", " ", "größe", "カート",
		"a+b", "a;b?c#d", "a&b=c", "\x00", "\n", "call", "state", "https://x/y", strings.Repeat("ü", 256)} {
		f := answers(engine.Reply{Status: 200}, nil)
		g := newGateway(t, Config{Transport: f})
		send(t, g, "GET", "/counter/"+escape(name), "")
		send(t, g, "GET", "/counter/"+escape(name)+"/rest/of/it", "")
		send(t, g, "POST", "/v1/objects/counter/"+escape(name)+"/call/increment", "")
		got := f.requests()
		if len(got) != 3 {
			t.Errorf("name %q: %d of 3 requests reached it", name, len(got))
		}
		for _, r := range got {
			if r.Name != name || r.Class != "counter" {
				t.Errorf("name %q: reached %q/%q", name, r.Class, r.Name)
			}
		}
		if seen[name] {
			t.Errorf("name %q is there twice", name)
		}
		seen[name] = true
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "/", "//", "/counter/x", "/counter/%2E%2E/..", "/v1/objects/c/n/call/m", "/v1/objects/c/n/state", "/%zz/x", "/c/%ff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := parse("GET", s) // paths that no server lets through, too
		if err == nil && (parsed.route == nil || parsed.class == "" && strings.Contains(parsed.route.path, "{class}") ||
			parsed.name == "" && strings.Contains(parsed.route.path, "{name}")) {
			t.Errorf("parse(%q) = %+v", s, parsed)
		}
		if s == "" || len(s) > 512 || !utf8.ValidString(s) {
			return
		}
		for _, path := range []string{"/counter/" + escape(s), "/counter/" + escape(s) + "/rest", "/v1/objects/counter/" + escape(s) + "/state"} {
			u, err := url.ParseRequestURI(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := parse("GET", u.EscapedPath()); err != nil || got.name != s || got.class != "counter" {
				t.Errorf("%s: got %q/%q, %v", path, got.class, got.name, err)
			}
		}
	})
}
