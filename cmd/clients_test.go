package cmd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTheProgramsOfOtherClients runs docs/clients.md: each program against a `perdure dev` of its own. A language that is
// not here, or its NATS client, is left out; for Node it is looked for in NODE_PATH.
func TestTheProgramsOfOtherClients(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/clients.md")
	must(t, err)
	promised := regexp.MustCompile(`(?s)print the same:\n\n(.*?)\n\n\[`).FindSubmatch(text)
	if promised == nil {
		t.Fatal("the page does not say what they print")
	}
	var want strings.Builder
	for line := range strings.Lines(string(promised[1]) + "\n") {
		want.WriteString(strings.TrimPrefix(line, "    "))
	}
	for _, c := range []struct {
		language, file string
		there          func(t *testing.T, dir string) bool
		run            []string
	}{
		{"go", "main.go", func(*testing.T, string) bool { return true }, []string{"go", "run"}},
		{"js", "main.mjs", nodeClient, []string{"node"}},
		{"python", "main.py", func(*testing.T, string) bool { return exec.Command("python3", "-c", "import nats").Run() == nil }, []string{"python3"}},
	} {
		t.Run(c.language, func(t *testing.T) {
			t.Parallel()
			program := regexp.MustCompile("(?s)```" + c.language + "\n(.*?)```").FindSubmatch(text)
			if program == nil {
				t.Fatal("no program")
			}
			file := filepath.Join(t.TempDir(), c.file)
			if !c.there(t, filepath.Dir(file)) {
				t.Skip("the language or its NATS client is not here")
			}
			must(t, os.WriteFile(file, program[1], 0o600))
			p := newDev(t).begin()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			run := exec.CommandContext(ctx, c.run[0], append(c.run[1:], file)...)
			run.WaitDelay = time.Second // go run has a child
			run.Env = append(os.Environ(), "NATS_URL=nats://"+p.nats)
			out, err := run.CombinedOutput()
			if err != nil || string(out) != want.String() {
				t.Errorf("%v: prints\n%s\nwant\n%s", err, out, want.String())
			}
		})
	}
}

// nodeClient puts the first folder of NODE_PATH that has the client where imports look for it.
func nodeClient(t *testing.T, dir string) bool {
	if _, err := exec.LookPath("node"); err != nil {
		return false
	}
	for _, modules := range filepath.SplitList(os.Getenv("NODE_PATH")) {
		if _, err := os.Stat(filepath.Join(modules, "@nats-io", "jetstream")); err == nil {
			must(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
			return true
		}
	}
	return false
}
