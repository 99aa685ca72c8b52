package cmd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheTourOfTheReadme pastes the README's tour into a shell, line by line, against a fresh `perdure dev`, which is
// killed where the README says so.
func TestTheTourOfTheReadme(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	must(t, err)
	p := newDev(t).begin()
	bin := filepath.Join(t.TempDir(), "bin")
	must(t, os.Mkdir(bin, 0o755))
	must(t, os.Symlink(p.path, filepath.Join(bin, "perdure")))

	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatchIndex(string(readme), -1)
	if len(blocks) < 5 {
		t.Fatalf("%d blocks", len(blocks))
	}
	before := 0
	for _, b := range blocks {
		if strings.Contains(string(readme[before:b[0]]), "kill -9") && strings.Contains(string(readme[before:b[0]]), "start it again") {
			p.kill()
			p.begin()
		}
		before = b[1]
		lines := strings.Split(strings.TrimSpace(string(readme[b[2]:b[3]])), "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "go build") {
				continue
			}
			line = strings.NewReplacer("localhost:8080", p.http, "bin/perdure", filepath.Join(bin, "perdure")).Replace(line)
			c := exec.Command("sh", "-c", line)
			c.Env = append(os.Environ(), "NATS_URL=nats://"+p.nats)
			out, err := c.Output()
			if err != nil {
				t.Fatalf("%s: %v: %s", line, err, out)
			}
			if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "# => ") {
				if want := strings.TrimPrefix(lines[i+1], "# => "); !strings.Contains(string(out), want) {
					t.Errorf("%s\nprints %s\nwant   %s", line, out, want)
				}
			} else if len(out) == 0 {
				t.Errorf("%s prints nothing", line)
			}
		}
	}
}

// TestTheCounterOfTheReadmeIsTheExample: the code that is shown is the code that runs.
func TestTheCounterOfTheReadmeIsTheExample(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	must(t, err)
	example, err := os.ReadFile("../examples/counter/counter.go")
	must(t, err)
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(readme)
	for line := range strings.Lines(string(block[1])) {
		if strings.TrimSpace(line) != "" && !strings.Contains(string(example), strings.TrimRight(line, "\n")) {
			t.Errorf("the example does not have: %s", line)
		}
	}
}
