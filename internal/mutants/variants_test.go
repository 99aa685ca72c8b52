package main

import (
	"os"
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
