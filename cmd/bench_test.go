package cmd

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/bench"
)

// measure runs a bench of the binary with a folder for temporary files of its own, which must be empty afterwards.
func measure(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	path, err := binary()
	must(t, err)
	c := exec.CommandContext(t.Context(), path, append([]string{"bench"}, args...)...)
	tmp := t.TempDir()
	c.Env = append(os.Environ(), "TMPDIR="+tmp)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || left != nil {
		t.Errorf("it leaves %v", left)
	}
	return out.String(), errs.String()
}

func decodeRows(t *testing.T, lines string) (rows []bench.Row) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var r bench.Row
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows = append(rows, r)
	}
	return rows
}

// TestBenchMeasures runs each kind of row for a moment. What the figures are is nobody's business here, only that they
// are figures, that one follows from the other, and that the system had what it acknowledged.
func TestBenchMeasures(t *testing.T) {
	t.Parallel()
	const rounds = 2
	want := []string{"hot-relaxed", "many-relaxed", "many-always-relaxed", "reads", "single-always", "http-hot-relaxed", "http-many-relaxed", "send-hot-relaxed", "send-many-relaxed", "send-lag-relaxed", "inside", "wake-cold", "start", "restart"}
	out, _ := measure(t, "--json", "--only", strings.Join(want, ","), "--for", "50ms", "--rounds", strconv.Itoa(rounds), "--callers", "16", "--http-callers", "4",
		"--connections", "2", "--objects", "20", "--restart-objects", "100")
	rows := decodeRows(t, out)
	names := make([]string, len(rows))
	for i, r := range rows {
		names[i] = r.Name
		var measured, ratios []float64
		for _, round := range r.Rounds {
			measured = append(measured, round.Measured)
			ratios = append(ratios, round.Measured/round.Yardstick)
		}
		switch {
		case r.Name != "wake-cold" && r.Name != "send-lag-relaxed" && len(r.Rounds) != rounds:
			t.Errorf("%s has %d rounds; want %d", r.Name, len(r.Rounds), rounds)
		case !(r.Measured > 0) || r.Measured != bench.Median(measured):
			t.Errorf("%s is %v, and its rounds %v", r.Name, r.Measured, measured)
		case r.Against != "" && (!(r.Ratio > 0) || math.IsInf(r.Ratio, 0) || math.Abs(r.Ratio-bench.Median(ratios)) > 1e-9):
			t.Errorf("%s has the ratio %v; those of its rounds are %v", r.Name, r.Ratio, ratios)
		case r.Calls == 0:
			t.Errorf("%s is of no call", r.Name)
		// The objects' first increments and the round that does not count are beyond the figure's calls.
		case !slices.Contains([]string{"reads", "wake-cold", "start", "restart"}, r.Name) && r.Checked <= r.Calls:
			t.Errorf("%s: %d calls, and the objects have %d increments", r.Name, r.Calls, r.Checked)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("rows %v; want %v", names, want)
	}
}

func TestBenchPrintsATableAndProfiles(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("each profile takes seconds")
	}
	dir := filepath.Join(t.TempDir(), "profiles")
	out, stderr := measure(t, "--only", "reads", "--for", "50ms", "--rounds", "1", "--callers", "4", "--profile", dir)
	cells := strings.Split(strings.TrimSuffix(out, "\n"), "\t")
	if len(cells) != 9 || cells[0] != "reads of one object, 4 callers" || !strings.HasSuffix(cells[1], " calls/s") || cells[2] != "request and reply" ||
		!strings.HasSuffix(cells[3], " calls/s") || !strings.HasSuffix(cells[4], " x") || !strings.HasSuffix(cells[5], " µs") || cells[6] != "0.7 x" || cells[7] != "0.9 x" {
		t.Errorf("row %q", cells)
	}
	if !strings.Contains(stderr, "measuring: reads of one object") {
		t.Errorf("no progress: %s", stderr)
	}
	for _, name := range []string{"figure.cpu", "figure.block", "figure.mutex", "figure.allocs", "yardstick.cpu"} {
		if info, err := os.Stat(filepath.Join(dir, "reads."+name+".pb.gz")); err != nil || info.Size() == 0 {
			t.Errorf("profile %s: %v", name, err)
		}
	}
}

func TestBenchOfARunningSystem(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--sync", "100ms").begin()
	out, _ := measure(t, "counter", "increment", `{"by":2}`, "--server", "nats://"+p.nats, "--json", "--objects", "5", "--callers", "8", "--rounds", "2", "--for", "50ms", "--stream")
	calls := map[string]int{}
	for _, r := range decodeRows(t, out) {
		if len(r.Rounds) != 2 || !(r.Measured > 0) || !(r.Yardstick > 0) {
			t.Errorf("row %+v", r)
		}
		calls[r.Against] += r.Calls
	}
	if len(calls) != 2 || calls["request and reply"] == 0 || calls["pipe"] == 0 {
		t.Errorf("calls %v", calls)
	}
	sum := 0
	for i := range 5 {
		n, err := strconv.Atoi(p.want(200, "POST", "/v1/objects/counter/bench-"+strconv.Itoa(i)+"/call/value", ""))
		must(t, err)
		sum += n
	}
	if least := 2 * (calls["request and reply"] + calls["pipe"]) / 3; sum <= least { // three rows tell of the same calls
		t.Errorf("the objects come to %d; at least %d were acknowledged", sum, least)
	}
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	must(t, err)
	for name := range js.StreamNames(t.Context()).Name() {
		if strings.Contains(name, "bench") {
			t.Errorf("stream %s is left", name)
		}
	}
}

// TestBenchCleansUpBehindASignal: its system ends, its folder goes.
func TestBenchCleansUpBehindASignal(t *testing.T) {
	t.Parallel()
	path, err := binary()
	must(t, err)
	c := exec.Command(path, "bench", "--only", "hot-relaxed", "--for", "1h")
	tmp := t.TempDir()
	c.Env = append(os.Environ(), "TMPDIR="+tmp)
	must(t, c.Start())
	lock := filepath.Join(tmp, "perdure-bench-*", "100ms", "lock")
	eventually(t, func() bool {
		found, err := filepath.Glob(lock)
		return err == nil && len(found) == 1
	})
	must(t, c.Process.Signal(os.Interrupt))
	_ = c.Wait() // its exit code says more
	if code := c.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d; want %d", code, exitInterrupted)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || left != nil {
		t.Errorf("it leaves %v", left)
	}
}

// TestAMeasuredSystemEndsWithItsMeasurer: what measures holds the other end of its standard input. Here nobody does.
func TestAMeasuredSystemEndsWithItsMeasurer(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--yardsticks", freePort(t))
	p.start()
	if stderr, code := p.wait(); code != exitOK {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestBenchSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := newDev(t)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--only", "nonsense"}, exitFailed, "there are: hot-relaxed"},
		{[]string{"--rounds", "0"}, exitUsage, "--rounds is 0"},
		{[]string{"--partitions", "257"}, exitUsage, "--partitions is 257"},
		{[]string{"--for", "1us"}, exitUsage, "--for is 1µs"},
		{[]string{"counter"}, exitUsage, "want CLASS METHOD"},
		{[]string{"coun.ter", "increment"}, exitUsage, "coun.ter"},
		{[]string{"counter", "increment", "--only", "hot"}, exitUsage, "--only is for the table"},
		{[]string{"--server", "nats://127.0.0.1:1"}, exitUsage, "--server is for a running system"},
		{[]string{"counter", "increment", "--server", "nats://" + p.nats}, exitUnavailable, "no connection to NATS"},
	} {
		if out, stderr, code := p.run(append([]string{"bench"}, c.args...)...); code != c.code || !strings.Contains(stderr, c.says) || out != "" {
			t.Errorf("%v: code %d, want %d: %s%s", c.args, code, c.code, out, stderr)
		}
	}
}
