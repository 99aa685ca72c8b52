package drill

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/internal/cluster"
)

// Cluster is NATS servers, workers and gateways that the drill starts itself, each a process of this machine.
type Cluster struct {
	cluster *cluster.Cluster
	targets []Target
}

// NewCluster prepares a cluster, of which processes of these kinds may be disturbed.
func NewCluster(cfg cluster.Config, disturbed map[Kind]bool) (*Cluster, error) {
	c, err := cluster.New(cfg)
	if err != nil {
		return nil, err
	}
	s := &Cluster{cluster: c}
	for _, p := range c.All() {
		if t := (Target{Kind(p.Kind), p.Name}); disturbed[t.Kind] {
			s.targets = append(s.targets, t)
		}
	}
	return s, nil
}

// Start starts everything, and returns when servers and gateways are ready. Workers share the partitions, which takes them a
// while longer.
func (c *Cluster) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for _, stage := range []struct {
		list []*cluster.Process
		wait func(context.Context, []*cluster.Process) error
	}{{c.cluster.Servers, all}, {c.cluster.Workers, none}, {c.cluster.Gateways, all}} { // a gateway waits for a worker's namespace
		for _, p := range stage.list {
			if err := p.Start(); err != nil {
				return err
			}
		}
		if err := stage.wait(ctx, stage.list); err != nil {
			return err
		}
	}
	return nil
}

// none waits for nobody.
func none(context.Context, []*cluster.Process) error { return nil }

// all waits until all processes are ready.
func all(ctx context.Context, list []*cluster.Process) error {
	for _, p := range list {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends everything at once.
func (c *Cluster) Stop() error { return c.cluster.Close() }

// NATS is where its servers listen.
func (c *Cluster) NATS() string { return c.cluster.NATS() }

// HTTP is where its gateways listen.
func (c *Cluster) HTTP() (urls []string) {
	for _, p := range c.cluster.Gateways {
		urls = append(urls, p.URL)
	}
	return urls
}

// Targets implements [System].
func (c *Cluster) Targets() []Target { return c.targets }

// Do implements [System].
func (c *Cluster) Do(ctx context.Context, act Act, t Target) error {
	for _, p := range c.cluster.All() {
		if p.Name != t.Name {
			continue
		}
		switch act {
		case Kill:
			return p.Kill()
		case Pause:
			return p.Pause()
		case Continue:
			return p.Continue()
		}
		if err := p.Start(); err != nil || p.Kind == cluster.Worker {
			return err // a worker is ready when it owns something, and the ledger tells whether all is served
		}
		return p.Ready(ctx)
	}
	return fmt.Errorf("there is no %s", t)
}
