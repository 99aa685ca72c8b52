package engine

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the stories tell into their files")

// tell runs the stories under testdata/dir: commands, each followed by what it must answer, indented. begin starts a
// story and returns what answers a command.
func tell(t *testing.T, dir string, begin func() func(command string, args []string) string) {
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in testdata/%s: %v", dir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			story, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			answer := begin()
			var told strings.Builder
			for line := range strings.Lines(string(story)) {
				if strings.HasPrefix(line, "\t") {
					continue // an earlier answer
				}
				told.WriteString(line)
				words := strings.Fields(line)
				if len(words) == 0 || words[0] == "#" {
					continue
				}
				for got := range strings.Lines(answer(words[0], words[1:])) {
					fmt.Fprintf(&told, "\t%s\n", strings.TrimSuffix(got, "\n"))
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(told.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(story), told.String()); diff != "" && !*update {
				t.Errorf("%s (-want +got; -update writes it):\n%s", file, diff)
			}
		})
	}
}
