package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/counter"
	"github.com/perdure/perdure/internal/embed"
)

// silent is a NATS server with somebody on the calls who never answers; asked has a value for each of them.
func silent(t *testing.T) (url string, asked <-chan struct{}) {
	t.Helper()
	s, err := embed.Start(embed.Options{Dir: filepath.Join(t.TempDir(), "nats"), Listen: "127.0.0.1:0"})
	must(t, err)
	t.Cleanup(s.Shutdown)
	nc, err := nats.Connect(s.URL())
	must(t, err)
	t.Cleanup(nc.Close)
	calls := make(chan struct{}, 100)
	_, err = nc.Subscribe("objects.part.>", func(*nats.Msg) { calls <- struct{}{} })
	must(t, err)
	must(t, nc.Flush())
	return s.URL(), calls
}

// command starts the binary; the caller waits for it.
func command(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	path, err := binary()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // rather than for ever, if it does not end
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, path, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	return c, &stderr
}

func TestAnInterruptedCallSaysThatItMayHaveBeenApplied(t *testing.T) {
	t.Parallel()
	url, asked := silent(t)
	for args, says := range map[string]string{
		"":              "perdure journal counter/a",
		"--id order-17": "--id order-17",
	} {
		c, stderr := command(t, append([]string{"call", "counter/a", "increment", "-s", url}, strings.Fields(args)...)...)
		must(t, c.Start())
		<-asked
		must(t, c.Process.Signal(os.Interrupt))
		_ = c.Wait()
		if code := c.ProcessState.ExitCode(); code != exitInterrupted {
			t.Errorf("%s: exit code %d", args, code)
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "interrupted") || !strings.Contains(lines[2], says) {
			t.Errorf("%s: %s", args, stderr)
		}
	}
}

func TestNoCommandHangs(t *testing.T) {
	t.Parallel()
	url, _ := silent(t)
	for _, args := range []string{"call counter/a increment", "journal counter/a", "state counter/a", "objects", "classes", "status", "workers", "partitions", "drain w", "partitions move 0 w", "accept-journal 0", "verify", "journal counter/a --raw"} {
		c, stderr := command(t, append(strings.Fields(args), "-s", url, "--timeout", "300ms")...)
		began := time.Now()
		_ = c.Run()
		want := exitUnavailable
		switch command, _, _ := strings.Cut(args, " "); {
		case slices.Contains([]string{"accept-journal", "verify", "workers", "partitions", "drain"}, command), strings.HasSuffix(args, "--raw"):
			want = exitNotFound // they need no worker, and there is no namespace
		}
		if code := c.ProcessState.ExitCode(); code != want {
			t.Errorf("%s: exit code %d: %s", args, code, stderr)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: took %v", args, took)
		}
		if lines := strings.Count(stderr.String(), "\n"); lines != 3 {
			t.Errorf("%s: what, why, and what to do are three lines:\n%s", args, stderr)
		}
	}
}

func TestCtrlCIsNotLostWhileStandardInputIsRead(t *testing.T) {
	t.Parallel()
	c, stderr := command(t, "call", "counter/a", "increment", "-", "-s", "nats://"+freePort(t))
	in, err := c.StdinPipe()
	must(t, err)
	defer in.Close()
	must(t, c.Start())
	// A pipe takes what it has room for; what is more is taken when the command reads.
	_, err = in.Write(bytes.Repeat([]byte(" "), 1<<20))
	must(t, err)
	must(t, c.Process.Signal(os.Interrupt))
	_ = c.Wait()
	if code := c.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestErrorsAreThreeLinesOrAProblem(t *testing.T) {
	t.Parallel()
	nobody := "nats://" + freePort(t)
	for _, test := range []struct {
		args string
		code int
		kind engine.Code
		says []string // by line
	}{
		{"call counter/a", exitUsage, engine.Invalid, []string{"perdure call", "CLASS/NAME METHOD [JSON|-]", "perdure call --help"}},
		{"call counter m", exitUsage, engine.Invalid, []string{"perdure call", "want CLASS/NAME", "perdure call --help"}},
		{"journal counter/a --from x", exitUsage, engine.Invalid, []string{"perdure journal", "--from", "perdure journal --help"}},
		{"frobnicate", exitUsage, engine.Invalid, []string{"perdure", "unknown command", "perdure --help"}},
		{"classes --timeout 0s", exitUsage, engine.Invalid, []string{"perdure classes", "--timeout is 0s", "perdure classes --help"}},
		{"classes --server a --context b", exitUsage, engine.Invalid, []string{"perdure classes", "--server and --context", "--help"}},
		{"classes --creds no-such-file", exitFailed, engine.Internal, []string{"connection", "no-such-file", "--server"}},
		{"classes", exitUnavailable, engine.Unavailable, []string{nobody, "no servers available", "perdure dev"}},
	} {
		c, stderr := command(t, strings.Fields(test.args)...)
		c.Env = append(os.Environ(), "NATS_URL="+nobody)
		_ = c.Run()
		if code := c.ProcessState.ExitCode(); code != test.code {
			t.Errorf("%s: exit code %d, want %d", test.args, code, test.code)
		}
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		for i, want := range test.says {
			if len(lines) != len(test.says) || !strings.Contains(lines[i], want) {
				t.Errorf("%s: line %d wants %q:\n%s", test.args, i+1, want, stderr)
				break
			}
		}
		c, stderr = command(t, append(strings.Fields(test.args), "--json")...)
		c.Env = append(os.Environ(), "NATS_URL="+nobody)
		_ = c.Run()
		var problem map[string]any
		if err := json.Unmarshal(stderr.Bytes(), &problem); err != nil || problem["code"] != string(test.kind) || problem["detail"] == "" {
			t.Errorf("%s --json: %v: %s", test.args, err, stderr)
		}
	}
}

func TestAVariableThatCannotBeReadIsNotIgnored(t *testing.T) {
	t.Parallel()
	c, stderr := command(t, "classes")
	c.Env = append(os.Environ(), "NATS_TIMEOUT=soon")
	_ = c.Run()
	if code := c.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(stderr.String(), "NATS_TIMEOUT") {
		t.Errorf("%d %s", code, stderr)
	}
}

// TestWhatIsWrongWithTheClassesIsToldAtOnce: all problems, and nothing runs.
func TestWhatIsWrongWithTheClassesIsToldAtOnce(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	nameless := counter.Counters
	nameless.Name = "no name"
	code := Run([]string{"version"}, nil, &stdout, &stderr, counter.Counters, counter.Counters, nameless)
	if code != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), `"counter" is registered twice`) || !strings.Contains(stderr.String(), `"no name"`) {
		t.Errorf("%d %s", code, &stderr)
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	t.Parallel()
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if !strings.Contains(c.Example, c.CommandPath()) && c.Name() != "help" {
			t.Errorf("%s: no example with it: %q", c.CommandPath(), c.Example)
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check((&app{}).root())
}

func TestAKillWhileTheWorkersNameIsWrittenIsSurvived(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// What a crash leaves of a file that was being written.
	must(t, os.WriteFile(filepath.Join(dir, "worker.id.new"), nil, 0o600))
	first, err := workerID(dir)
	must(t, err)
	again, err := workerID(dir)
	if err != nil || again != first || first == "" {
		t.Errorf("%q, then %q, %v", first, again, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "worker.id"), nil, 0o600))
	if _, err := workerID(dir); err == nil || !strings.Contains(err.Error(), "worker.id") {
		t.Errorf("of an empty file: %v", err)
	}
}
