package cmd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/cluster"
	"github.com/perdure/perdure/internal/wire"
)

// TestFaultsOfAClusterLoseNothingAcknowledged kills and stops workers, gateways and NATS servers, each a process, one or two at a time, under the
// load of [TestKillNineLosesNothingAcknowledged]. DISTURB=10m is how long, SEED=n draws the same faults.
func TestFaultsOfAClusterLoseNothingAcknowledged(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) {
		t.Parallel()
		d := newDisturbed(t, "one-server", cluster.Config{Servers: 1, Workers: 2, Gateways: 1, WorkerArgs: []string{"--standby"}})
		heard := d.listen()
		d.disturb()
		d.check()
		d.checkWire(heard())
	})
	t.Run("three servers", func(t *testing.T) {
		t.Parallel()
		d := newDisturbed(t, "three-servers", cluster.Config{Servers: 3, Workers: 2, Gateways: 2})
		d.disturb()
		d.check()
	})
}

// disturbed is a cluster whose processes are killed and stopped.
type disturbed struct {
	*faulty
	c       *cluster.Cluster
	js      natsjs.JetStream
	targets []*cluster.Process
}

func newDisturbed(t *testing.T, name string, cfg cluster.Config) *disturbed {
	t.Helper()
	var err error
	cfg.Program, err = binary()
	must(t, err)
	cfg.Dir = t.ArtifactDir()
	cfg.WorkerArgs = append(cfg.WorkerArgs, "--partitions", fmt.Sprint(clusterParts), "--lease-term", clusterTerm.String())
	d := &disturbed{faulty: newFaulty(t, name)}
	d.c, err = cluster.New(cfg)
	must(t, err)
	t.Cleanup(d.close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must(t, d.c.Start(ctx))
	d.servers, d.ready, d.draw = d.c.NATS(), d.well, d.fault
	for _, g := range d.c.Gateways {
		d.gates = append(d.gates, &process{t: t, path: cfg.Program, http: strings.TrimPrefix(g.URL, "http://"), nats: strings.TrimPrefix(d.servers, "nats://")})
	}
	d.p = d.gates[0]
	nc, err := nats.Connect(d.servers, nats.MaxReconnects(-1))
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

// well waits until all processes are ready. Nothing that is done to them loses what a disk has, so no alarm may say so.
func (d *disturbed) well(ctx context.Context) error {
	for _, w := range d.c.Workers {
		log, err := os.ReadFile(w.Log())
		if err != nil {
			return err
		}
		if i := bytes.Index(log, []byte("went back")); i >= 0 {
			return fmt.Errorf("%s: %.1000s", w.Name, log[bytes.LastIndexByte(log[:i], '\n')+1:])
		}
	}
	return d.c.Ready(ctx)
}

// fault draws one. The longer stops are for others to take over, and elections of servers take longer than leases.
func (d *disturbed) fault() fault {
	p, what, choice := d.target(), "stop", d.random.IntN(3)
	long := d.between(clusterTerm, 4*clusterTerm)
	if p.Kind == cluster.Server {
		long *= 2
	}
	switch choice {
	case 0:
		return fault{p.Name, "kill", p.Kill, p.Start, d.between(0, long)}
	case 1:
		what, long = "stop for a moment", d.between(clusterTerm/10, clusterTerm/2)
	}
	return fault{p.Name, what, p.Pause, p.Continue, long}
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
