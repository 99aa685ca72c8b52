package cmd

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
)

func eventually(t testing.TB, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute")
		}
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	type result struct {
		args   []string
		code   int
		stdout string // whole, if it is not empty
		says   string // on standard error, or on standard output of a success
	}
	for _, c := range []result{
		{args: []string{"call", "counter/cart-1", "increment", `{"by":2}`, "--id", "order-17", "--caller", "shop"}, stdout: "2\n"},
		{args: []string{"call", "counter/cart-1", "increment", `{"by":2}`, "--id", "order-17"}, stdout: "2\n"},
		{args: []string{"call", "counter/cart-1", "increment", `{"by":3}`, "--id", "order-17"}, code: exitConflict, says: "idReused"},
		{args: []string{"call", "counter/a/b c", "increment"}, stdout: "1\n"},
		{args: []string{"call", "counter/cart-1", "value"}, stdout: "2\n"},
		{args: []string{"call", "counter/cart-1", "incr"}, code: exitNotFound, says: `has no method "incr"; it has: increment, value`},
		{args: []string{"call", "ctr/cart-1", "incr"}, code: exitNotFound, says: "perdure classes"},
		{args: []string{"call", "counter/cart-1", "increment", "{"}, code: exitUsage, says: "argument of increment"},
		{args: []string{"call", "counter", "increment"}, code: exitUsage, says: "want CLASS/NAME"},
		{args: []string{"call", "counter/x"}, code: exitUsage, says: `the arguments are ["counter/x"]; want: perdure call CLASS/NAME METHOD [JSON|-]`},
		{args: []string{"call", "account/ann", "withdraw", `{"cents":5}`}, code: exitFailed, says: "the account is not open"},
		{args: []string{"state", "counter/never"}, code: exitNotFound, says: "has never changed"},
		{args: []string{"state", "counter/cart-1"}, says: "storage count\t2"},
		{args: []string{"journal", "counter/cart-1"}, says: "put count 2\torder-17\tshop"},
		{args: []string{"journal", "counter/never"}, stdout: ""},
		{args: []string{"objects", "counter", "--prefix", "a"}, says: "counter/a/b c\t1\t"},
		{args: []string{"objects", "nothing"}, code: exitNotFound, says: `no class "nothing"`},
		{args: []string{"objects", "--limit", "-1"}, code: exitUsage, says: "--limit is -1"},
		{args: []string{"classes"}, says: "counter\tcall\tincrement\tcounter.By\tint64"},
		{args: []string{"classes", "counter"}, says: `"properties":{"by":{"type":"integer"`},
		{args: []string{"classes", "counter"}, says: "counter\tlimit\tIdle\t10s"},
		{args: []string{"classes", "nothing"}, code: exitNotFound, says: `no class "nothing"`},
		{args: []string{"call", "counter/cart-1", "increment", `{"by":"two"}`}, code: exitUsage, says: `by: want a whole number, have "two"`},
		{args: []string{"status"}, says: "\t1\t257\t"},
		{args: []string{"verify"}, says: "severe findings: 0, warnings: 0"},
		{args: []string{"verify", "counter"}, says: "of 2 objects"},
		{args: []string{"verify", "counter/cart-1"}, says: "1 records with 1 commits of 1 objects"},
		{args: []string{"verify", "counter/never"}, says: "0 records"},
		{args: []string{"verify", "v1"}, code: exitUsage, says: `"v1" cannot be a class`},
		{args: []string{"verify", "--partition", "4"}, code: exitUsage, says: "there is no partition 4; there are 4, from 0"},
		{args: []string{"verify", "--partition", "-1"}, code: exitUsage, says: "--partition is -1"},
		{args: []string{"verify", "counter/a", "--partition", "1"}, code: exitUsage, says: "want one of them"},
		{args: []string{"accept-journal", "x"}, code: exitUsage, says: `"x" is no partition`},
		{args: []string{"accept-journal", "0"}, says: ""},
		{args: []string{"frobnicate"}, code: exitUsage, says: "unknown command"},
		{args: []string{"version"}, says: "perdure 0."},
		{args: []string{"--help"}, says: "Exit codes: 0 ok"},
	} {
		stdout, stderr, code := p.run(c.args...)
		if code != c.code || c.stdout != "" && stdout != c.stdout || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("perdure %s: code %d, want %d\nstdout: %s\nstderr: %s", strings.Join(c.args, " "), code, c.code, stdout, stderr)
		}
		if code != 0 && stdout != "" {
			t.Errorf("perdure %s: fails and prints data: %s", strings.Join(c.args, " "), stdout)
		}
	}
}

func TestJSONIsForPrograms(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	for range 3 {
		p.want(200, "POST", "/counter/a", "")
	}
	out, _, _ := p.run("journal", "counter/a", "--json", "--limit", "2")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var e engine.JournalEntry
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &e); err != nil || len(lines) != 2 || e.Version != 2 || string(e.Changes[0].Data) != "2" {
		t.Errorf("%v: %s", err, out)
	}
	out, _, _ = p.run("journal", "counter/a", "--json", "--from", "259")
	if n := strings.Count(out, "\n"); n != 2 {
		t.Errorf("%d lines from 259 on:\n%s", n, out)
	}
	var s engine.ObjectState
	out, _, _ = p.run("state", "counter/a", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil || string(s.Storage["count"]) != "3" || s.Version != 3 {
		t.Errorf("%v: %s", err, out)
	}
	_, stderr, code := p.run("call", "counter/a", "nope", "--json")
	if problem := engine.ParseProblem([]byte(stderr)); problem.Code != engine.NotFound || problem.Object != "counter/a" || code != exitNotFound {
		t.Errorf("%d: %s", code, stderr)
	}
}

func TestCompletionKnowsWhatIsThere(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	p.want(200, "POST", "/counter/cart-1", "")
	p.want(200, "POST", "/counter/cart-2", "")
	for typed, want := range map[string][]string{
		"call ":                  {"account/", "counter/", "limiter/", "tally/"},
		"call counter/cart":      {"counter/cart-1", "counter/cart-2"},
		"state counter/cart-2":   {"counter/cart-2"},
		"journal counter/x":      nil,
		"call counter/cart-1 ":   {"increment", "value"},
		"objects ":               {"account", "counter", "limiter", "tally"},
		"call counter/cart-1 x ": nil,
	} {
		out, _, _ := p.run(append([]string{"__completeNoDesc"}, strings.Split(typed, " ")...)...)
		var got []string
		for _, line := range strings.Fields(out) {
			if !strings.HasPrefix(line, ":") {
				got = append(got, line)
			}
		}
		slices.Sort(got)
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("%q: %v; want %v", typed, got, want)
			}
		}
		if want == nil && got != nil {
			t.Errorf("%q: %v; want nothing", typed, got)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, _, code := p.run("completion", shell); code != 0 || !strings.Contains(out, "perdure") {
			t.Errorf("no completion for %s", shell)
		}
	}
}

func TestWithoutAServerTheErrorSaysWhatToDo(t *testing.T) {
	t.Parallel()
	p := newDev(t) // not started
	_, stderr, code := p.run("call", "counter/a", "value")
	if code != exitUnavailable || !strings.Contains(stderr, "no connection to NATS at nats://"+p.nats) || !strings.Contains(stderr, "perdure dev") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestAContextOfTheNatsCommandIsUsed(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	home := t.TempDir()
	dir := filepath.Join(home, "nats", "context")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "mine.json"), []byte(`{"url":"nats://`+p.nats+`"}`), 0o600))
	run := func(env string, args ...string) (string, int) {
		c := exec.Command(p.path, args...)
		c.Env = []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, env}
		out, _ := c.CombinedOutput() // the exit code tells
		return string(out), c.ProcessState.ExitCode()
	}
	for name, got := range map[string]func() (string, int){
		"flag": func() (string, int) { return run("X=", "call", "counter/a", "value", "--context", "mine") },
		"flag before NATS_URL": func() (string, int) {
			return run("NATS_URL=nats://"+freePort(t), "call", "counter/a", "value", "--context", "mine")
		},
		"variable": func() (string, int) { return run("NATS_CONTEXT=mine", "call", "counter/a", "value") },
		"selected": func() (string, int) {
			must(t, os.WriteFile(filepath.Join(home, "nats", "context.txt"), []byte("mine"), 0o600))
			return run("X=", "call", "counter/a", "value")
		},
	} {
		if out, code := got(); out != "0\n" || code != 0 {
			t.Errorf("%s: %d %s", name, code, out)
		}
	}
	if out, code := run("X=", "call", "counter/a", "value", "--context", "other"); code == 0 || !strings.Contains(out, "other") {
		t.Errorf("%d %s", code, out)
	}
}
