package cmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/freeport"
)

// binaryDir has the program that [binary] builds; empty if no test asked for it.
var binaryDir string

// TestMain removes the program when all tests have ended. Under another name the test's program is a command of pages.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == natsCommand {
		if err := natsReq(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if err := os.RemoveAll(binaryDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// binary builds the real program once for all tests.
var binary = sync.OnceValues(func() (path string, err error) {
	if binaryDir, err = os.MkdirTemp("", "perdure-bin"); err != nil {
		return "", err
	}
	path = filepath.Join(binaryDir, "perdure")
	args := []string{"build", "-o", path, "./perdure"}
	if raceDetector() {
		args = slices.Insert(args, 1, "-race")
	}
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// raceDetector tells whether this test was built with it; the program is built as the test is.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// process is a `perdure dev` of a test, which ends with the test.
type process struct {
	t      testing.TB
	path   string
	args   []string
	dir    string
	http   string
	nats   string
	cmd    *exec.Cmd
	stderr *lockedBuffer
	mu     sync.Mutex
}

// lockedBuffer may be read while a process writes to it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// freePort is a port that was free a moment ago.
func freePort(t testing.TB) string {
	t.Helper()
	free, err := freeport.Addresses(1)
	if err != nil {
		t.Fatal(err)
	}
	return free[0]
}

// newDev prepares a `perdure dev` with ports of its own, and several partitions if args do not say how many; start starts it.
func newDev(t testing.TB, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, path: path, dir: filepath.Join(t.TempDir(), "data"), http: freePort(t), nats: freePort(t)}
	p.args = append([]string{"dev", "--data", p.dir, "--listen", p.http, "--nats-listen", p.nats, "--partitions", "4"}, args...)
	t.Cleanup(p.kill)
	return p
}

func (p *process) start() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stderr = new(lockedBuffer)
	p.cmd = exec.Command(p.path, p.args...)
	p.cmd.Stderr = p.stderr
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// kill is SIGKILL, and waits until the process is gone.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// stop is SIGTERM; it returns what the process wrote to standard error and how it ended.
func (p *process) stop() (string, error) { return p.end(syscall.SIGTERM) }

func (p *process) end(sig syscall.Signal) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return "", nil
	}
	_ = p.cmd.Process.Signal(sig) // it may have ended by itself
	err := p.cmd.Wait()
	p.cmd = nil
	return p.said(), err
}

// said is what the process wrote to standard error. A race in it fails the test, however it ended.
func (p *process) said() string {
	text := p.stderr.String()
	checkRaces(p.t, text)
	return text
}

// checkRaces fails a test whose programs wrote of a race.
func checkRaces(t testing.TB, text string) {
	t.Helper()
	for _, report := range strings.Split(text, "WARNING: DATA RACE")[1:] {
		if !strings.Contains(report, knownRace) {
			t.Errorf("the program has a race:\n%s", text)
		}
	}
}

// knownRace is nats-server's own (2.15.2): with a short sync interval the timer of a stream that is being recovered may
// fire before the field that holds it is written. At worst there are two timers for a while.
const knownRace = "server.(*fileStore).setSyncTimer()"

// wait returns what a process that ends by itself wrote to standard error, and its exit code.
func (p *process) wait() (string, int) {
	err := p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	if err != nil && code < 0 {
		p.t.Fatal(err)
	}
	return p.said(), code
}

// ready waits until it serves.
func (p *process) ready() {
	p.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		resp, err := http.Get("http://" + p.http + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("not ready: %v\n%s", err, p.stderr)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (p *process) begin() *process {
	p.t.Helper()
	p.start()
	p.ready()
	return p
}

// post sends one HTTP request and returns status, headers and body.
func (p *process) send(ctx context.Context, method, path, body string, header ...string) (int, http.Header, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+p.http+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

// want sends a request that must be answered so.
func (p *process) want(status int, method, path, body string, header ...string) string {
	p.t.Helper()
	got, _, b, err := p.send(p.t.Context(), method, path, body, header...)
	if err != nil || got != status {
		p.t.Fatalf("%s %s: %d %s, %v; want %d", method, path, got, b, err, status)
	}
	return strings.TrimSpace(b)
}

// soon sends a request until it is answered with 200, as it must be within three minutes: there may be no owner yet.
func (p *process) soon(method, path, body string, header ...string) string {
	p.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; <-time.After(10 * time.Millisecond) {
		ctx, leave := context.WithTimeout(p.t.Context(), 10*time.Second)
		got, _, b, err := p.send(ctx, method, path, body, header...)
		leave()
		if err == nil && got == http.StatusOK {
			return strings.TrimSpace(b)
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s %s: %d %s, %v; want 200", method, path, got, b, err)
		}
	}
}

// entries are an object's journal, by HTTP.
func (p *process) entries(object string) (entries []engine.JournalEntry) {
	p.t.Helper()
	body := p.want(200, "GET", "/v1/objects/"+object+"/journal", "")
	lines := bufio.NewScanner(strings.NewReader(body))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e engine.JournalEntry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			p.t.Fatalf("%s: %v", lines.Text(), err)
		}
		if e.Problem != "" {
			p.t.Errorf("%s: sequence %d: %s", object, e.Seq, e.Problem)
		}
		entries = append(entries, e)
	}
	return entries
}

// verify wants nothing to be wrong with the journal.
func (p *process) verify() {
	p.t.Helper()
	if stdout, stderr, code := p.run("verify", "--json"); code != 0 || !strings.HasPrefix(stdout, `{"summary":`) {
		p.t.Errorf("perdure verify: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// run runs a command of the binary against the process's NATS server.
func (p *process) run(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	c := exec.Command(p.path, args...)
	c.Env = append(os.Environ(), "NATS_URL=nats://"+p.nats)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		p.t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}
