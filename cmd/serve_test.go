package cmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

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

	server *embed.Server
}

// newFleet prepares a server; begin starts it.
func newFleet(t testing.TB) *fleet {
	t.Helper()
	path, err := binary()
	must(t, err)
	return &fleet{t: t, path: path, nats: freePort(t), dir: t.TempDir()}
}

// begin starts the server, as somebody has it who minds docs/nats.conf: it maps calls, and nothing else.
func (f *fleet) begin() *fleet { return f.beginFor(wire.DefaultNamespace) }

// beginFor starts it with the mappings of some namespaces.
func (f *fleet) beginFor(mapped ...wire.Subjects) *fleet {
	f.t.Helper()
	s, err := embed.Start(embed.Options{Dir: filepath.Join(f.dir, "nats"), Listen: f.nats, SyncInterval: time.Minute,
		Namespaces: mapped, Logger: slog.New(slog.DiscardHandler)})
	must(f.t, err)
	f.t.Cleanup(s.Shutdown)
	f.server = s
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

const countedObjects = 12

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
			outside.more(10)
			for range 2 { // whoever has partitions: in two rounds each of them ends once
				first := workers[0]
				workers = append(workers[1:], first)
				if said, err := first.end(signal); signal == syscall.SIGTERM && err != nil {
					t.Errorf("ends with %v: %s", err, said)
				}
				outside.more(10)
				first.start()
				outside.more(10)
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

// numbered is the id of a request that a gateway numbered.
var numbered = regexp.MustCompile(`[0-9a-f]{32}-\d+`)

// TestARemoteGatewayAnswersAsTheOneBesideTheWorker: what goes over NATS comes back as it would have without.
func TestARemoteGatewayAnswersAsTheOneBesideTheWorker(t *testing.T) {
	t.Parallel()
	f := newFleet(t).begin()
	near, far := f.start("serve"), f.start("gateway")
	near.ready()
	far.ready()
	large := strings.Repeat("x", 1<<20-100)
	for _, r := range [][]string{
		{"POST", "/v1/objects/counter/OBJECT/call/increment", `{"by":3}`, "Idempotency-Key", "a"},
		{"POST", "/v1/objects/counter/OBJECT/call/increment", `{"by":3}`, "Idempotency-Key", "a"},
		{"POST", "/v1/objects/counter/OBJECT/call/increment", `{"by":4}`, "Idempotency-Key", "a"},
		{"POST", "/counter/OBJECT", "", "Idempotency-Key", "b"},
		{"POST", "/counter/OBJECT", "", "Idempotency-Key", "b"},
		{"POST", "/counter/OBJECT", large},
		{"POST", "/counter/OBJECT", large + large},
		{"GET", "/counter/OBJECT/below?x=%zz", ""},
		{"HEAD", "/counter/OBJECT", ""},
		{"PUT", "/counter/OBJECT", "x"},
		{"GET", "/account/OBJECT", ""},
		{"GET", "/nothing/OBJECT", ""},
		{"GET", "/cart/OBJECT", ""},
		{"GET", "/v1/objects/counter/OBJECT/call/increment", ""},
		{"GET", "/v1/classes", ""},
	} {
		answer := func(p *process, object string) string {
			status, h, body, err := p.send(t.Context(), r[0], strings.ReplaceAll(r[1], "OBJECT", object), r[2], r[3:]...)
			must(t, err)
			h.Del("Date")
			return numbered.ReplaceAllString(strings.ReplaceAll(fmt.Sprintf("%d\n%v\n%s", status, h, body), object, "OBJECT"), "NUMBERED")
		}
		if diff := cmp.Diff(answer(near, "near"), answer(far, "away")); diff != "" {
			t.Errorf("%s %s (-near +far):\n%s", r[0], r[1], diff)
		}
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

// clustered is a server of a cluster of three, which need not be complete.
func clustered(t *testing.T, i int, dir, listen string, routes []string) *server.Server {
	t.Helper()
	opts := &server.Options{ServerName: fmt.Sprint("s", i), JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
		Cluster: server.ClusterOpts{Name: "c"}, Routes: server.RoutesFromStr("nats://" + strings.Join(routes, ",nats://"))}
	for address, to := range map[string][2]any{listen: {&opts.Host, &opts.Port}, routes[i]: {&opts.Cluster.Host, &opts.Cluster.Port}} {
		host, port, err := net.SplitHostPort(address)
		must(t, err)
		*to[0].(*string) = host
		*to[1].(*int), err = strconv.Atoi(port)
		must(t, err)
	}
	s, err := server.NewServer(opts)
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// TestWorkersWaitForThreeServers that --replicas 3 needs: nothing is made with fewer.
func TestWorkersWaitForThreeServers(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	routes := []string{freePort(t), freePort(t), freePort(t)}
	clustered(t, 0, t.TempDir(), f.nats, routes)
	worker := f.prepare("serve", "--replicas", "3", "--partitions", "2", "--timeout", "2s")
	worker.start()
	clustered(t, 1, t.TempDir(), freePort(t), routes)
	two, err := nats.Connect("nats://"+f.nats, nats.RetryOnFailedConnect(true))
	must(t, err)
	defer two.Close()
	js, err := natsjs.New(two)
	must(t, err)
	patience := time.Now().Add(time.Minute)
	for { // until the two answer; what they say is that they are too few
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := js.CreateStream(ctx, natsjs.StreamConfig{Name: "probe", Replicas: 3})
		cancel()
		if refused, ok := errors.AsType[natsjs.JetStreamError](err); ok && refused.APIError() != nil {
			break
		}
		if err == nil || time.Now().After(patience) {
			t.Fatalf("two of three servers: %v", err)
		}
	}
	clustered(t, 2, t.TempDir(), freePort(t), routes)
	for patience = time.Now().Add(2 * time.Minute); ; <-time.After(100 * time.Millisecond) {
		if status, _, _, err := worker.send(t.Context(), "GET", "/readyz", ""); err == nil && status == 200 {
			break
		}
		if time.Now().After(patience) {
			t.Fatal("not ready with three servers")
		}
	}
	if got := worker.want(200, "POST", "/counter/a", ""); got != `{"count":1}` {
		t.Error(got)
	}
	info, err := js.Stream(t.Context(), "objects-1")
	must(t, err)
	if n := info.CachedInfo().Config.Replicas; n != 3 {
		t.Errorf("%d replicas", n)
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
