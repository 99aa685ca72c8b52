package cmd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
)

// fleet is a NATS server in the test's process, and processes that work on it.
type fleet struct {
	t    testing.TB
	path string
	nats string
	dir  string
	n    int
}

// newFleet prepares a server; begin starts it.
func newFleet(t testing.TB) *fleet {
	t.Helper()
	path, err := binary()
	must(t, err)
	return &fleet{t: t, path: path, nats: freePort(t), dir: t.TempDir()}
}

// begin starts the server, as somebody has it who minds docs/nats.conf: it maps calls, and nothing else.
func (f *fleet) begin() *fleet {
	f.t.Helper()
	s, err := embed.Start(embed.Options{Dir: filepath.Join(f.dir, "nats"), Listen: f.nats, SyncInterval: time.Minute,
		Namespaces: []wire.Subjects{wire.DefaultNamespace}, Logger: slog.New(slog.DiscardHandler)})
	must(f.t, err)
	f.t.Cleanup(s.Shutdown)
	return f
}

// prepare is a process of the fleet, with an HTTP address and, if it takes one, a data folder of its own.
func (f *fleet) prepare(command string, args ...string) *process {
	f.t.Helper()
	f.n++
	p := &process{t: f.t, path: f.path, http: freePort(f.t), nats: f.nats, dir: filepath.Join(f.dir, fmt.Sprint(f.n))}
	p.args = append([]string{command, "--server", "nats://" + f.nats, "--listen", p.http}, args...)
	if command != "gateway" {
		p.args = append(p.args, "--data", p.dir)
	}
	f.t.Cleanup(p.kill)
	return p
}

// start starts a process of the fleet, and returns when it answers.
func (f *fleet) start(command string, args ...string) *process {
	f.t.Helper()
	p := f.prepare(command, args...)
	p.start()
	eventually(f.t, func() bool {
		status, _, _, err := p.send(f.t.Context(), "GET", "/livez", "")
		return err == nil && status == 200
	})
	return p
}

// counting increments counters through a gateway until stop, and wants no increment to fail.
type counting struct {
	t       *testing.T
	p       *process
	acked   [countedObjects]atomic.Int64
	longest atomic.Int64 // nanoseconds that an increment took
	ctx     context.Context
	end     context.CancelFunc
	callers sync.WaitGroup
}

const countedObjects = 24

func count(t *testing.T, p *process) *counting {
	c := &counting{t: t, p: p}
	c.ctx, c.end = context.WithCancel(t.Context())
	for i := range c.acked {
		c.callers.Go(func() {
			for c.ctx.Err() == nil {
				// Not the load's context: what has begun is waited for, so that each increment has an outcome.
				began := time.Now()
				status, _, body, err := p.send(t.Context(), "POST", fmt.Sprintf("/v1/objects/counter/c%d/call/increment", i), "")
				if err != nil || status != 200 || strings.TrimSpace(body) != fmt.Sprint(c.acked[i].Add(1)) {
					t.Errorf("increment %d of c%d: %d %s, %v", c.acked[i].Load(), i, status, body, err)
					return
				}
				for took := int64(time.Since(began)); took > c.longest.Load(); {
					c.longest.CompareAndSwap(c.longest.Load(), took)
				}
			}
		})
	}
	return c
}

// more waits until every counter has been incremented so many times more.
func (c *counting) more(n int64) {
	c.t.Helper()
	for i := range c.acked {
		for want, deadline := c.acked[i].Load()+n, time.Now().Add(time.Minute); c.acked[i].Load() < want; <-time.After(10 * time.Millisecond) {
			if c.t.Failed() || time.Now().After(deadline) {
				c.t.Fatalf("c%d stays at %d", i, c.acked[i].Load())
			}
		}
	}
}

// check ends the load; every increment that was answered is there once, and no other.
func (c *counting) check() {
	c.t.Helper()
	c.end()
	c.callers.Wait()
	for i := range c.acked {
		c.p.want(200, "GET", fmt.Sprintf("/counter/c%d", i), "")
		if got := c.p.want(200, "POST", fmt.Sprintf("/v1/objects/counter/c%d/call/value", i), ""); got != fmt.Sprint(c.acked[i].Load()) {
			c.t.Errorf("c%d is %s after %d increments", i, got, c.acked[i].Load())
		}
	}
	c.p.verify()
}

// TestCallersSeeNoErrorWhenAWorkerEnds: through a gateway in a process of its own, and through the one of a worker that stays.
func TestCallersSeeNoErrorWhenAWorkerEnds(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t).begin()
			workers := []*process{f.start("worker", "--lease-term", "1s")}
			gateway := f.start("gateway")
			gateway.ready()
			workers = append(workers, f.start("serve", "--lease-term", "1s"))
			outside, inside := count(t, gateway), workers[1]
			outside.more(20)
			for range 2 { // whoever has partitions: in two rounds each of them ends once
				first := workers[0]
				workers = append(workers[1:], first)
				if said, err := first.end(signal); signal == syscall.SIGTERM && err != nil {
					t.Errorf("ends with %v: %s", err, said)
				}
				outside.more(20)
				first.start()
				outside.more(20)
			}
			inside.ready()
			outside.check()
			t.Logf("no increment took longer than %v", time.Duration(outside.longest.Load()).Round(time.Millisecond))
			if got := inside.want(200, "POST", "/v1/objects/counter/c0/call/value", ""); got != fmt.Sprint(outside.acked[0].Load()) {
				t.Errorf("through the gateway beside a worker c0 is %s after %d", got, outside.acked[0].Load())
			}
		})
	}
}

func TestWorkersWaitForTheirServer(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	early := f.prepare("serve")
	nobody, err := net.Listen("tcp", f.nats)
	must(t, err)
	early.start()
	for range 2 { // the second time it has tried once
		c, err := nobody.Accept()
		must(t, err)
		must(t, c.Close())
	}
	must(t, nobody.Close())
	gateway := f.start("gateway")
	if status, _, body, err := gateway.send(t.Context(), "GET", "/readyz", ""); err != nil || status != 503 {
		t.Errorf("a gateway without a server is ready: %d %s, %v", status, body, err)
	}
	f.begin()
	early.ready()
	gateway.ready()
	if got := gateway.want(200, "POST", "/counter/a", ""); got != `{"count":1}` {
		t.Error(got)
	}
	said, err := early.stop()
	if err != nil || !strings.Contains(said, "not ready yet") || !strings.Contains(said, "16 partitions with 1 replicas") {
		t.Errorf("ends with %v: %s", err, said)
	}
	if said, err := gateway.stop(); err != nil {
		t.Errorf("ends with %v: %s", err, said)
	}
}

func TestWhatStaysWrongEndsAWorker(t *testing.T) {
	t.Parallel()
	f := newFleet(t).begin()
	f.start("serve", "--partitions", "3").ready()
	f.prepare("worker", "--partitions", "4", "--replicas", "3").fails(exitConflict, "made with 3 partitions, which is for ever; 4 were asked for",
		"made with 1 replicas, which is for ever; 3 were asked for", "leave --partitions and --replicas out")
	f.prepare("worker", "--namespace", "shop", "--replicas", "3").fails(exitFailed, "non-clustered", "use --replicas 1")
	f.prepare("worker", "--replicas", "2").fails(exitUsage, "want 1, 3 or 5")
	f.prepare("worker", "--lease-term", "10ms").fails(exitUsage, "--lease-term is 10ms; want at least 1s")
	f.prepare("worker", "--creds", "nowhere.creds").fails(exitFailed, "nowhere.creds")
}

func TestAWorkerIsRefusedBesideDev(t *testing.T) {
	t.Parallel()
	dev := newDev(t).begin()
	f := newFleet(t)
	f.nats = dev.nats
	for _, command := range []string{"serve", "worker"} {
		f.prepare(command).fails(exitConflict, "`perdure dev` has the namespace", "stop it")
	}
	if got := dev.want(200, "POST", "/counter/a", ""); got != `{"count":1}` {
		t.Error(got)
	}
}
