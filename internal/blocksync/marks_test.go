package blocksync

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestBlocksBehindAHoleArePutAside: a block whose predecessor lost its end, unless all was synced when it was told of.
func TestBlocksBehindAHoleArePutAside(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, test := range []struct {
		what   string
		cut    bool
		sealed int
		left   []int
	}{
		{"nothing is lost", false, 0, []int{1, 2}},
		{"the end of the first is lost", true, 0, []int{1}},
		{"behind a sealed block it is damage, which the server tells", true, 1, []int{1, 2}},
	} {
		t.Run(test.what, func(t *testing.T) {
			dir := t.TempDir()
			server, js := startServer(t, dir, "s", 1)
			for range 11 { // a block has 8 MiB
				publish(t, js, "s", strings.Repeat("x", 900<<10))
			}
			server.Shutdown()
			f := folder{globalAccount, "s", filepath.Join(dir, "jetstream", globalAccount, "streams", "s", "msgs")}
			if blocks, err := f.blocks(); err != nil || !slices.Equal(blocks, []int{1, 2}) {
				t.Fatalf("blocks %v, %v; want two", blocks, err)
			}
			if test.cut {
				stat, err := os.Stat(f.block(1))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(f.block(1), stat.Size()-100); err != nil {
					t.Fatal(err)
				}
			}
			if err := (marks{Boot: "another", Streams: map[string]mark{f.key(): {Sealed: test.sealed}}}).write(dir); err != nil {
				t.Fatal(err)
			}
			cut, err := Repair(dir, log)
			if err != nil || cut == nil {
				t.Fatalf("%+v, %v", cut, err)
			}
			if blocks, err := f.blocks(); err != nil || !slices.Equal(blocks, test.left) {
				t.Errorf("blocks %v are left, %v; want %v", blocks, err, test.left)
			}
			if want := 2 - len(test.left); len(cut.Aside) != want {
				t.Errorf("%v are aside; want %d", cut.Aside, want)
			}
		})
	}
}
