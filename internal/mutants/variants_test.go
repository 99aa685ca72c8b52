package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryVariantIsOfALineThatIsThere, so that `make test` says so when a change of the code has left a variant behind.
func TestEveryVariantIsOfALineThatIsThere(t *testing.T) {
	for _, v := range variants {
		whole, err := os.ReadFile("../../" + v.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(whole), v.old); n != 1 || v.old == v.new {
			t.Errorf("%s: its line is in %s %d times; want once:\n%s", v.name, v.file, n, v.old)
		}
	}
}

// TestThePagesNameTestsAndVariantsThatThereAre: a promise rests on nothing if what is behind it was renamed.
func TestThePagesNameTestsAndVariantsThatThereAre(t *testing.T) {
	tests, declared := map[string]bool{}, regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	if err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	page := func(name string) string {
		text, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(text)), " ")
	}
	for _, name := range []string{"guarantees.md", "testing.md"} {
		named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w+)`").FindAllStringSubmatch(page(name), -1)
		if len(named) < 20 {
			t.Errorf("%s names %d tests", name, len(named))
		}
		for _, m := range named {
			if !tests[m[1]] {
				t.Errorf("%s names %s, which is nowhere", name, m[1])
			}
		}
	}
	broken := regexp.MustCompile(`variants? ("[^"]+"(?:,? (?:and )?"[^"]+")*)`)
	n := 0
	for _, m := range broken.FindAllStringSubmatch(strings.ReplaceAll(page("guarantees.md"), "Variant", "variant"), -1) {
		for _, q := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(m[1], -1) {
			n++
			if !slices.ContainsFunc(variants, func(v variant) bool { return strings.HasPrefix(v.name, q[1]) }) {
				t.Errorf("guarantees.md names the variant %q, which is not one", q[1])
			}
		}
	}
	if n < 20 {
		t.Errorf("guarantees.md names %d variants", n)
	}
}
