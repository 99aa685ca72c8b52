package cmd

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/cluster"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/internal/wiretap"
	"github.com/perdure/perdure/journal/jetstream"
)

const (
	clusterTerm  = time.Second // of the leases
	clusterParts = 4
)

// TestFaultsOfAClusterLoseNothingAcknowledged kills and stops workers, gateways and NATS servers, each a process, one or two at a time, under the
// load of [TestKillNineLosesNothingAcknowledged]. DISTURB=10m is how long, SEED=n draws the same faults.
func TestFaultsOfAClusterLoseNothingAcknowledged(t *testing.T) {
	t.Parallel()
	seed, long := given(t, "SEED", uint64(time.Now().UnixNano())), 15*time.Second
	if s := os.Getenv("DISTURB"); s != "" {
		var err error
		long, err = time.ParseDuration(s)
		must(t, err)
	}
	t.Logf("SEED=%d draws the same faults", seed)
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		d := newDisturbed(t, seed, cluster.Config{Servers: 1, Workers: 2, Gateways: 1, WorkerArgs: []string{"--standby"}})
		nc, err := nats.Connect(d.c.NATS())
		must(t, err)
		defer nc.Close()
		tap, err := wiretap.Listen(nc, wire.DefaultNamespace)
		must(t, err)
		d.disturb(long)
		heard, err := tap.Stop()
		must(t, err)
		d.check()
		d.checkWire(heard)
	})
	t.Run("three servers", func(t *testing.T) {
		t.Parallel()
		d := newDisturbed(t, seed, cluster.Config{Servers: 3, Workers: 2, Gateways: 2})
		d.disturb(long)
		d.check()
	})
}

// disturbed is a load on a cluster whose processes are killed and stopped.
type disturbed struct {
	*killing
	c       *cluster.Cluster
	js      natsjs.JetStream
	targets []*cluster.Process

	mu   sync.Mutex
	done map[string]int // faults, by what they are
}

func newDisturbed(t *testing.T, seed uint64, cfg cluster.Config) *disturbed {
	t.Helper()
	var err error
	cfg.Program, err = binary()
	must(t, err)
	cfg.Dir = t.ArtifactDir()
	cfg.WorkerArgs = append(cfg.WorkerArgs, "--partitions", fmt.Sprint(clusterParts), "--lease-term", clusterTerm.String())
	d := &disturbed{done: map[string]int{}, killing: &killing{t: t, random: rand.New(rand.NewPCG(seed, uint64(cfg.Servers)))}}
	d.history.Name = fmt.Sprintf("SEED=%d-servers=%d-", seed, cfg.Servers)
	d.c, err = cluster.New(cfg)
	must(t, err)
	t.Cleanup(d.close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must(t, d.c.Start(ctx))
	for _, g := range d.c.Gateways {
		d.gates = append(d.gates, &process{t: t, path: cfg.Program, http: strings.TrimPrefix(g.URL, "http://"), nats: strings.TrimPrefix(d.c.NATS(), "nats://")})
	}
	d.p = d.gates[0]
	nc, err := nats.Connect(d.c.NATS(), nats.MaxReconnects(-1))
	must(t, err)
	t.Cleanup(nc.Close)
	d.js, err = natsjs.New(nc)
	must(t, err)
	d.targets = slices.Concat(d.c.Workers, d.c.Gateways)
	if cfg.Servers > 1 {
		d.targets = append(d.targets, d.c.Servers...)
	}
	d.renew()
	return d
}

// close ends the cluster. No process of it may have had a race, nor ended by itself with a panic.
func (d *disturbed) close() {
	if err := d.c.Close(); err != nil {
		d.t.Error(err)
	}
	for _, p := range d.c.All() {
		log, err := os.ReadFile(p.Log())
		if err != nil {
			d.t.Error(err)
		}
		checkRaces(d.t, string(log))
		if i := strings.Index(string(log), "panic: "); i >= 0 {
			d.t.Errorf("%s: %.4000s", p.Name, log[i:])
		} else if d.t.Failed() {
			d.t.Logf("%s:\n%s", p.Name, log[max(0, len(log)-3000):])
		}
	}
}

// disturb has callers call while faults come, until they have come for so long and all is well again.
func (d *disturbed) disturb(long time.Duration) {
	d.t.Helper()
	ctx, stop := context.WithCancel(d.t.Context())
	defer stop()
	var callers sync.WaitGroup
	for _, c := range d.callers(12) {
		callers.Go(func() { c.run(ctx) })
	}
	for began := time.Now(); time.Since(began) < long && !d.t.Failed(); {
		d.round()
	}
	d.settle()
	stop()
	callers.Wait()
}

// settle wants all processes to be ready, and everything to be served.
func (d *disturbed) settle() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 3*time.Minute)
	defer cancel()
	must(d.t, d.c.Ready(ctx))
	for object := range killObjects {
		for _, gate := range d.gates {
			gate.soon("POST", fmt.Sprintf("/v1/objects/counter/k%d/call/value", object), "")
		}
	}
}

// fault is something that is done to a process, and ended after a while.
type fault struct {
	of    *cluster.Process
	what  string
	begin func() error
	end   func() error
	long  time.Duration
}

// round does something to one process or two. The histories' objects live through a few rounds.
func (d *disturbed) round() {
	faults := []fault{d.draw()}
	if other := d.draw(); d.random.IntN(2) == 0 && other.of != faults[0].of {
		faults = append(faults, other)
	}
	var all sync.WaitGroup
	for _, f := range faults {
		all.Go(func() { d.do(f) })
	}
	all.Wait()
	d.kills++
	<-time.After(time.Duration(d.random.Int64N(int64(clusterTerm))))
	if d.kills%killEach == 0 {
		d.settle()
		d.renew()
	}
}

func (d *disturbed) do(f fault) {
	began := time.Now()
	if err := f.begin(); err != nil {
		d.t.Errorf("%s %s: %v", f.what, f.of.Name, err)
	}
	<-time.After(f.long)
	if err := f.end(); err != nil {
		d.t.Errorf("the end of %s %s: %v", f.what, f.of.Name, err)
	}
	d.t.Logf("%s: %s %s for %v", began.Format(time.TimeOnly), f.what, f.of.Name, time.Since(began).Round(time.Millisecond))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done[f.what+" "+string(f.of.Kind)]++
}

// draw draws a fault.
func (d *disturbed) draw() fault {
	f := fault{of: d.target()}
	ms := func(from, to time.Duration) time.Duration {
		return from + time.Duration(d.random.Int64N(int64(to-from)))
	}
	switch d.random.IntN(3) {
	case 0:
		f.what, f.begin, f.end, f.long = "kill", f.of.Kill, f.of.Start, ms(0, 2*clusterTerm)
	case 1: // its lease holds
		f.what, f.begin, f.end, f.long = "stop for a moment", f.of.Pause, f.of.Continue, ms(0, clusterTerm/2)
	default: // others may take over
		f.what, f.begin, f.end, f.long = "stop", f.of.Pause, f.of.Continue, ms(clusterTerm, 3*clusterTerm)
	}
	if f.of.Kind == cluster.Server && f.what != "stop for a moment" {
		f.long *= 2 // elections take longer than leases
	}
	return f
}

// target draws a process; of servers half of the times the one that leads a stream or the bucket.
func (d *disturbed) target() *cluster.Process {
	p, led := d.targets[d.random.IntN(len(d.targets))], d.random.IntN(2*(clusterParts+1))
	if p.Kind != cluster.Server || led > clusterParts {
		return p
	}
	stream := "KV_" + string(wire.DefaultNamespace) + "-meta"
	if led < clusterParts {
		stream = wire.DefaultNamespace.Stream(led)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*time.Second)
	defer cancel()
	s, err := d.js.Stream(ctx, stream)
	if err != nil { // nobody leads just now
		return p
	}
	if i := slices.IndexFunc(d.c.Servers, func(p *cluster.Process) bool { return p.Name == s.CachedInfo().Cluster.Leader }); i >= 0 {
		return d.c.Servers[i]
	}
	return p
}

// check holds what callers were told against the journal, the objects, and each other.
func (d *disturbed) check() {
	d.t.Helper()
	d.verify()
	d.checkCounters()
	if err := d.history.Check(); err != nil {
		d.t.Error(err)
	}
	told, unknown := d.history.Count()
	d.t.Logf("%d rounds, %v; %d increments; histories of %d operations and %d whose outcome is unknown", d.kills, d.done, len(d.increments), told, unknown)
	if told < 100 || len(d.increments) < 100 || d.kills < 3 {
		d.t.Errorf("%d operations, %d increments and %d rounds are too few to show anything", told, len(d.increments), d.kills)
	}
}

// verify reads all journals: nothing severe may be in them. A replica that is behind may answer at first, and the command says so.
func (d *disturbed) verify() {
	d.t.Helper()
	for tries := 1; ; tries++ {
		out, stderr, code := d.p.run("verify", "--json", "--timeout", "30s")
		if code == exitOK {
			d.t.Logf("verify: %s", out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
			return
		}
		if strings.Contains(out, `"severity":"severe"`) || tries == 10 {
			d.t.Errorf("perdure verify: exit code %d\n%s%s", code, out, stderr)
			return
		}
		<-time.After(time.Second)
	}
}

// checkWire holds what was heard against the journal: no call has two answers, and nobody answers for an object after its next owner has.
func (d *disturbed) checkWire(heard wiretap.Heard) {
	d.t.Helper()
	heard.Stopped = true
	s, err := jetstream.Dial(d.t.Context(), jetstream.Config{Dial: func(o ...nats.Option) (*nats.Conn, error) { return nats.Connect(d.c.NATS(), o...) }})
	must(d.t, err)
	defer s.Close()
	commits, err := wiretap.ReadCommits(d.t.Context(), s, wire.DefaultNamespace, clusterParts)
	must(d.t, err)
	heard = heard.Without("value", "balance")
	for _, f := range wiretap.Check(heard, commits, 0) {
		d.t.Error(f)
	}
	workers := map[string]int{}
	for _, object := range commits {
		for _, c := range object {
			workers[c.Worker]++
		}
	}
	if len(workers) != 2 || len(heard.Answers) < 100 {
		d.t.Errorf("%d answers were heard, and of commits: %v; want those of two workers", len(heard.Answers), workers)
	}
	d.t.Logf("%d requests and %d answers heard; commits by worker: %v", len(heard.Requests), len(heard.Answers), slices.Sorted(maps.Values(workers)))
}
