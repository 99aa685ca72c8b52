package cmd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/perdure/perdure/engine"
)

// running is a command of the binary that goes on until it is interrupted.
type running struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	lines []string
	ended chan struct{}
	errs  strings.Builder
}

func (p *process) follow(args ...string) *running {
	p.t.Helper()
	c := &running{cmd: exec.Command(p.path, args...), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), "NATS_URL=nats://"+p.nats)
	c.cmd.Stderr = &c.errs
	out, err := c.cmd.StdoutPipe()
	must(p.t, err)
	must(p.t, c.cmd.Start())
	p.t.Cleanup(func() { _ = c.cmd.Process.Kill() }) // it has ended, if all went well
	go func() {
		defer close(c.ended)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			c.mu.Lock()
			c.lines = append(c.lines, lines.Text())
			c.mu.Unlock()
		}
	}()
	return c
}

// printed are the lines so far.
func (c *running) printed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines
}

// interrupt ends it, and returns its exit code and what it wrote to standard error.
func (c *running) interrupt(t *testing.T) (int, string) {
	t.Helper()
	must(t, c.cmd.Process.Signal(syscall.SIGINT))
	<-c.ended
	_ = c.cmd.Wait() // the exit code tells
	return c.cmd.ProcessState.ExitCode(), c.errs.String()
}

// follower follows over HTTP, and comes back when the connection ends.
func (p *process) follower(ctx context.Context, path string, each func(id, data string)) error {
	last := "start"
	for ctx.Err() == nil {
		r, err := http.NewRequestWithContext(ctx, "GET", "http://"+p.http+path, nil)
		if err != nil {
			return err
		}
		r.Header.Set("Accept", "text/event-stream")
		r.Header.Set("Last-Event-ID", last)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			continue // it is being started again
		}
		if resp.StatusCode != 200 {
			b, _ := io.ReadAll(resp.Body)
			if e := engine.ParseProblem(b); e.Code != engine.Unavailable {
				return e
			}
		}
		id, lines := "", bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				id = value
			case "data":
				each(id, value)
				last = id
			}
		}
		_ = resp.Body.Close()
	}
	return nil
}

// versions counts what it is told of each object, and fails if it is not the next.
type versions struct {
	t    testing.TB
	who  string
	mu   sync.Mutex
	last map[string]int
	all  int
}

func (v *versions) tell(data string) {
	var e engine.JournalEntry
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		v.t.Errorf("%s: %s: %v", v.who, data, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	id := e.Class + "/" + e.Name
	if v.last[id]++; int(e.Version) != v.last[id] {
		v.t.Errorf("%s: %s: version %d behind %d", v.who, id, e.Version, v.last[id]-1)
		v.last[id] = int(e.Version)
	}
	v.all++
}

func (v *versions) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.all
}

// TestListenersGoOnThroughKills kills the server under listeners over HTTP and over NATS. Each is told every commit, once and
// in order.
func TestListenersGoOnThroughKills(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	ctx, stop := context.WithCancel(t.Context())
	newVersions := func(who string) *versions { return &versions{t: t, who: who, last: map[string]int{}} }
	sse, object := newVersions("changes over HTTP"), newVersions("the journal over HTTP")
	var following sync.WaitGroup
	for path, v := range map[string]*versions{"/v1/changes": sse, "/v1/objects/counter/a/journal": object} {
		following.Go(func() {
			if err := p.follower(ctx, path, func(_, data string) { v.tell(data) }); err != nil {
				t.Error(err)
			}
		})
	}
	changes := p.follow("changes", "--from", "start", "--json", "--timeout", "60s")
	journal := p.follow("journal", "counter/a", "--follow", "--json", "--timeout", "60s")
	const each = 30
	total := 0
	for round := range 4 {
		for i := range each {
			for _, name := range []string{"a", fmt.Sprint("b", i%3)} {
				p.want(200, "POST", "/counter/"+name, "")
				total++
			}
		}
		switch round {
		case 0, 1:
			p.kill()
			p.begin()
		case 2:
			_, err := p.stop() // which ends the streams at once
			must(t, err)
			p.begin()
		}
	}
	eventually(t, func() bool {
		return sse.count() >= total && object.count() >= total/2 && len(changes.printed()) >= total && len(journal.printed()) >= total/2
	})
	stop()
	following.Wait()
	printed := newVersions("perdure changes")
	var line struct{ Data json.RawMessage }
	for _, text := range changes.printed() {
		must(t, json.Unmarshal([]byte(text), &line))
		printed.tell(string(line.Data))
	}
	entries := newVersions("perdure journal --follow")
	for _, text := range journal.printed() {
		entries.tell(text)
	}
	if sse.count() != total || printed.count() != total || object.count() != total/2 || entries.count() != total/2 {
		t.Errorf("%d commits, %d of them of counter/a: told %d, %d, %d, %d", total, total/2, sse.count(), printed.count(), object.count(), entries.count())
	}
	for _, c := range []*running{changes, journal} {
		if code, says := c.interrupt(t); code != exitInterrupted {
			t.Errorf("%d: %s", code, says)
		}
	}
}

func TestChangesAreRows(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--sync", "100ms").begin()
	p.want(200, "POST", "/v1/objects/counter/early/call/increment", "")
	c := p.follow("changes", "counter", "--prefix", "cart", "--from", "start")
	p.want(200, "POST", "/v1/objects/account/cart-1/call/open", "")
	p.want(200, "POST", "/v1/objects/counter/cart-1/call/increment", "", "Idempotency-Key", "order-17", "Perdure-Caller", "shop")
	eventually(t, func() bool { return len(c.printed()) > 0 })
	if lines := c.printed(); len(lines) != 1 || !strings.HasSuffix(lines[0], "\tcounter/cart-1\t1\tincrement\tput count 1\torder-17\tshop") {
		t.Errorf("%q", lines)
	}
	if code, says := c.interrupt(t); code != exitInterrupted || !strings.Contains(says, "go on with --from ") {
		t.Errorf("%d: %s", code, says)
	}
	for _, c := range [][]string{
		{"2", "--from", "changes", "--from", "x.1"},
		{"2", "another namespace", "changes", "--from", "12345678.1.1.1.1"},
		{"2", "cannot be a class", "changes", "v1"},
		{"2", "has no end", "journal", "counter/a", "--follow", "--limit", "3"},
	} {
		if _, stderr, code := p.run(c[2:]...); fmt.Sprint(code) != c[0] || c[1] != "--from" && !strings.Contains(stderr, c[1]) {
			t.Errorf("%v: %d %s", c[2:], code, stderr)
		}
	}
	p.kill()
	if _, stderr, code := p.run("changes", "--timeout", "300ms"); code != exitUnavailable {
		t.Errorf("without a server: %d %s", code, stderr)
	}
}
