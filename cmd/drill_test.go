package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/drill"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// few are enough objects, callers and calls for a test.
var few = []string{"--objects", "20", "--callers", "20", "--rate", "400", "--json"}

// drilled runs a drill of the binary, which must end with this code and leave no temporary files.
func drilled(t *testing.T, code int, args ...string) (r drill.Result, stderr string) {
	t.Helper()
	path, err := binary()
	must(t, err)
	c := exec.CommandContext(t.Context(), path, append(append([]string{"drill"}, few...), args...)...)
	tmp := t.TempDir()
	c.Env = append(os.Environ(), "TMPDIR="+tmp)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run() // its exit code says more
	checkRaces(t, errs.String())
	if got := c.ProcessState.ExitCode(); got != code {
		t.Fatalf("exit code %d; want %d: %s%s", got, code, out.String(), errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "*")); err != nil || left != nil {
		t.Errorf("it leaves %v", left)
	}
	return r, errs.String()
}

// TestADrillOfASystemOfItsOwn kills the real one, and finds nothing.
func TestADrillOfASystemOfItsOwn(t *testing.T) {
	t.Parallel()
	report := filepath.Join(t.TempDir(), "report.html")
	r, _ := drilled(t, exitOK, "--local", "1", "--for", "6s", "--every", "2s", "--down", "100ms", "--seed", "7", "--report", report)
	switch {
	case r.Verdict != drill.Passed || r.Faulty() != 0:
		t.Errorf("%+v", r)
	case r.Acknowledged == 0 || r.Acknowledged+r.Refused+r.Unknown != r.Calls:
		t.Errorf("%d calls; %d acknowledged, %d refused, %d unknown", r.Calls, r.Acknowledged, r.Refused, r.Unknown)
	case r.Read.Commits != r.Acknowledged+r.Applied:
		t.Errorf("%d commits; %d acknowledged, %d unknown ones applied", r.Read.Commits, r.Acknowledged, r.Applied)
	case r.Read.Looked != 20 || len(r.Owners) == 0:
		t.Errorf("%d objects looked at, owners %v", r.Read.Looked, r.Owners)
	case len(r.Disturbances) == 0:
		t.Error("nothing was killed")
	}
	for i, d := range r.Disturbances {
		// The process was down for so long at least, and somebody asked: each object has a caller of its own.
		if d.Act != drill.Kill || d.Partitions == 0 || d.Unanswered.Max < d.Long || d.Unanswered.Of == 0 {
			t.Errorf("disturbance %d: %+v", i, d)
		}
	}
	page, err := os.ReadFile(report)
	must(t, err)
	for _, says := range []string{"✓ Passed", "<svg", "worker/dev", r.Run, "--sync always"} {
		if !strings.Contains(string(page), says) {
			t.Errorf("the report does not say %q", says)
		}
	}
}

// TestADrillOfAClusterOfItsOwn kills its workers, one of which has everything or both a share.
func TestADrillOfAClusterOfItsOwn(t *testing.T) {
	t.Parallel()
	r, _ := drilled(t, exitOK, "--local", "2", "--gateways", "1", "--for", "8s", "--every", "2s", "--down", "100ms", "--seed", "7", "--kill", "workers")
	if r.Verdict != drill.Passed || r.Acknowledged == 0 || r.Partitions != clusterPartitions || len(r.Owners) < r.Partitions {
		t.Errorf("%+v", r)
	}
	if len(r.Disturbances) == 0 {
		t.Error("nothing was killed")
	}
	for i, d := range r.Disturbances {
		if d.Target.Kind != drill.Worker || d.Unanswered.Of == 0 {
			t.Errorf("disturbance %d: %+v", i, d)
		}
	}
}

// TestADrillDisturbsByCommandsThatItIsGiven a system that runs, through its gateway.
func TestADrillDisturbsByCommandsThatItIsGiven(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	r, _ := drilled(t, exitOK, "--server", "nats://"+p.nats, "--url", "http://"+p.http, "--target", fmt.Sprintf("worker/%d,server/none", p.cmd.Process.Pid), "--kill", "workers",
		"--pause-only", "--pause", "500ms", "--pause-command", "kill -STOP {}", "--continue-command", "kill -CONT {}", "--for", "4s", "--every", "1s")
	if r.Verdict != drill.Passed || r.Acknowledged == 0 || r.Partitions != 4 {
		t.Errorf("%+v", r)
	}
	if len(r.Disturbances) == 0 {
		t.Error("nothing was paused")
	}
	for i, d := range r.Disturbances {
		if d.Act != drill.Pause || d.Unanswered.Max < d.Long/2 { // half of it, since who is called seldom is asked late
			t.Errorf("disturbance %d: %+v", i, d)
		}
	}
}

// TestADrillFailsWhereAnswersAreInvented: a gateway that now and then answers without having done anything.
func TestADrillFailsWhereAnswersAreInvented(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	target, err := url.Parse("http://" + p.http)
	must(t, err)
	honest := httputil.NewSingleHostReverseProxy(target)
	var mu sync.Mutex
	counts, invented := map[string]int{}, 0
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		increments := strings.HasSuffix(r.URL.Path, "/call/increment")
		mu.Lock()
		if increments {
			counts[r.URL.Path]++
		}
		n := counts[r.URL.Path]
		lies := increments && n%5 == 0
		if lies {
			invented++
		}
		mu.Unlock()
		if !lies {
			honest.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n))
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintln(w, n)
	}))
	defer liar.Close()
	report := filepath.Join(t.TempDir(), "report.html")
	r, stderr := drilled(t, exitFailed, "--server", "nats://"+p.nats, "--url", liar.URL, "--for", "3s", "--report", report)
	if r.Verdict != drill.Failed || r.Lost != invented || len(r.Findings) == 0 || !strings.Contains(stderr, "the drill failed") {
		t.Errorf("%d answers were invented: %+v: %s", invented, r, stderr)
	}
	page, err := os.ReadFile(report)
	must(t, err)
	if !strings.Contains(string(page), "✗ Failed") || !strings.Contains(string(page), r.Findings[0].Object) {
		t.Error("the report does not say it")
	}
}

// putBack is a `perdure dev` whose whole folder is put back to an older copy whenever it is killed. Nothing in the folder
// knows that there was more.
type putBack struct {
	p     *process
	older string
}

func (b *putBack) Targets() []drill.Target { return []drill.Target{{Kind: drill.Worker, Name: "dev"}} }

func (b *putBack) Do(_ context.Context, act drill.Act, _ drill.Target) error {
	if act != drill.Kill {
		b.p.start()
		return nil
	}
	b.p.kill()
	if err := os.RemoveAll(b.p.dir); err != nil {
		return err
	}
	return os.CopyFS(b.p.dir, os.DirFS(b.older))
}

// TestADrillSeesThatTheJournalWasPutBack, which nobody else can.
func TestADrillSeesThatTheJournalWasPutBack(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--sync", "100ms").begin()
	p.stop()
	older := filepath.Join(t.TempDir(), "older")
	must(t, os.CopyFS(older, os.DirFS(p.dir)))
	p.begin()
	nc, err := nats.Connect("nats://"+p.nats, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	must(t, err)
	defer nc.Close()
	system := &putBack{p, older}
	r, err := drill.Run(t.Context(), drill.Config{Run: "back", Namespace: wire.DefaultNamespace, Partitions: 4, Transport: natsbus.NewClient(nc, wire.DefaultNamespace),
		Journal: func(ctx context.Context) (journal.Session, error) {
			return jetstream.Dial(ctx, jetstream.Config{Dial: func(o ...nats.Option) (*nats.Conn, error) { return nats.Connect("nats://"+p.nats, o...) }})
		},
		System: system, Plan: []drill.Step{{At: time.Second, Target: system.Targets()[0], Act: drill.Kill}},
		Class: "counter", Method: "increment", Value: "value", Prefix: "back-", Objects: 8, Callers: 8, Rate: 200, For: 4 * time.Second})
	must(t, err)
	if r.Verdict != drill.Failed || r.Lost == 0 || r.OutOfOrder == 0 || len(r.Disturbances) != 1 {
		t.Errorf("%+v", r)
	}
	if r.Lost+r.Read.Commits < r.Acknowledged || r.Read.Commits == 0 { // what came after it is there
		t.Errorf("%d acknowledged, %d lost, %d commits", r.Acknowledged, r.Lost, r.Read.Commits)
	}
}

// TestADrillOfAClassOfOnesOwn drives it, and asks whether all is well with its objects; a count is not "true".
func TestADrillOfAClassOfOnesOwn(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	args := []string{"--server", "nats://" + p.nats, "--for", "1s", "--class", "tally", "--method", "add", "--body", `{"by":3}`}
	if r, _ := drilled(t, exitOK, args...); r.Acknowledged == 0 || r.Read.Commits != r.Acknowledged || r.Read.Looked != 0 {
		t.Errorf("%+v", r)
	}
	r, _ := drilled(t, exitFailed, append(args, "--invariant", "value")...)
	if r.State != 20 || r.Faulty() != 20 || !strings.Contains(r.Findings[0].What, "value answered ") {
		t.Errorf("%+v", r)
	}
}

// TestASignalEndsADrillWithAVerdict over what was done.
func TestASignalEndsADrillWithAVerdict(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	path, err := binary()
	must(t, err)
	c := exec.CommandContext(t.Context(), path, append([]string{"drill", "--server", "nats://" + p.nats, "--for", "1h"}, few...)...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	must(t, c.Start())
	for deadline := time.Now().Add(time.Minute); !strings.Contains(p.want(200, "GET", "/v1/objects/counter", ""), "drill-"); <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no object was called: %s", errs.String())
		}
	}
	must(t, c.Process.Signal(os.Interrupt))
	_ = c.Wait() // its exit code says more
	var r drill.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || c.ProcessState.ExitCode() != exitOK || r.Verdict != drill.Passed || r.Acknowledged == 0 || r.Seconds > 600 {
		t.Errorf("exit code %d, %v: %s%s", c.ProcessState.ExitCode(), err, out.String(), errs.String())
	}
}

func TestADrillSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	commands := []string{"--kill-command", "false", "--restart-command", "true"}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--local", "99"}, exitUsage, "--local is 99"},
		{[]string{"--local", "1", "--servers", "3"}, exitUsage, "--servers, --gateways and --standby are for a cluster"},
		{[]string{"--standby"}, exitUsage, "--servers, --gateways and --standby are for a cluster"},
		{[]string{"--local", "2", "--servers", "2"}, exitUsage, "--servers is 2"},
		{[]string{"--local", "2", "--sync", "1s"}, exitUsage, "--sync is for --local 1"},
		{[]string{"--local", "1", "--url", "http://a"}, exitUsage, "--local starts a system of its own"},
		{[]string{"--sync", "always"}, exitUsage, "--sync is for a system that --local starts"},
		{[]string{"--objects", "0"}, exitUsage, "--objects is 0"},
		{[]string{"--callers", "-1"}, exitUsage, "--callers is -1"},
		{[]string{"--for", "0s"}, exitUsage, "--for is 0s"},
		{[]string{"--every", "1us"}, exitUsage, "--every is 1µs"},
		{[]string{"--pause-only"}, exitUsage, "--pause-only needs --pause"},
		{[]string{"--objects", "100000", "--for", "24h"}, exitUsage, "too many to keep"},
		{[]string{"--body", "{}"}, exitUsage, "--body is for other methods"},
		{[]string{"--class", "tally", "--method", "add", "--body", "{"}, exitUsage, "--body is no JSON"},
		{[]string{"--url", "gateway"}, exitUsage, `--url is "gateway"`},
		{[]string{"--kill", "cats"}, exitUsage, `--kill is "cats"`},
		{[]string{"--target", "w1"}, exitUsage, `"w1" is no target`},
		{[]string{"--target", "worker/w1"}, exitUsage, "takes --kill-command and --restart-command"},
		{append([]string{"--target", "worker/w1", "--pause", "1s"}, commands...), exitUsage, "takes --pause-command and --continue-command"},
		{append([]string{"--target", "worker/w1", "--kill", "servers"}, commands...), exitUsage, "no --target is one of --kill servers"},
		{commands, exitUsage, "nothing that they may be done to"},
		{append([]string{"--target", "worker/w1", "--for", "2s", "--every", "200ms", "--down", "0s"}, commands...), exitUnavailable, "kill worker/w1: false"},
		{[]string{"--class", "cats"}, exitNotFound, "no class"},
		{[]string{"--namespace", "nobody"}, exitNotFound, "nobody"},
		{[]string{"--server", "nats://127.0.0.1:1"}, exitUnavailable, "no connection to NATS"},
	} {
		if out, stderr, code := p.run(append([]string{"drill"}, c.args...)...); code != c.code || !strings.Contains(stderr, c.says) || code == exitUsage && out != "" {
			t.Errorf("%v: code %d, want %d, and %q: %s%s", c.args, code, c.code, c.says, out, stderr)
		}
	}
}
