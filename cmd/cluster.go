package cmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/cluster"
)

// How long a cluster may take to come up, and to end in good order.
const (
	clusterStartTimeout = 2 * time.Minute
	clusterStopTimeout  = time.Minute
)

// natsServer is a NATS server, for clusters on one machine.
func (a *app) natsServer() *cobra.Command {
	return &cobra.Command{
		Use: cluster.ServerCommand + " -c FILE", Short: "A NATS server, with the arguments of the program of that name",
		Example: "  perdure nats-server -t -c internal/cluster/nats.conf",
		Hidden:  true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return cluster.RunServer(c.Context(), args, a.err) },
	}
}

// cluster is `make cluster` and `make cluster-stop`.
func (a *app) cluster() *cobra.Command {
	var cfg cluster.Config
	c := &cobra.Command{Use: "cluster", Short: "A cluster on this machine: what docker-compose.yml describes, as processes", Hidden: true, Args: cobra.NoArgs,
		Example: "  perdure cluster start\n  perdure cluster stop"}
	start := &cobra.Command{
		Use: "start", Short: "Start it, and return when it is ready", Args: cobra.NoArgs,
		Example: "  perdure cluster start --data ./data/cluster --workers 2 --gateways 2",
		RunE:    func(c *cobra.Command, _ []string) error { return a.startCluster(c, cfg) },
	}
	flags := start.Flags()
	flags.IntVar(&cfg.Servers, "servers", 3, "NATS servers")
	flags.IntVar(&cfg.Workers, "workers", 2, "workers")
	flags.IntVar(&cfg.Gateways, "gateways", 2, "gateways")
	flags.IntVar(&cfg.NATSPort, "nats-port", 4222, "port of the first server, 0 for any that are free")
	flags.IntVar(&cfg.HTTPPort, "http-port", 8080, "port of the first gateway, 0 for any that are free")
	stop := &cobra.Command{
		Use: "stop", Short: "Stop it in good order", Args: cobra.NoArgs, Example: "  perdure cluster stop --data ./data/cluster",
		RunE: func(c *cobra.Command, _ []string) error { return a.stopCluster(c, cfg.Dir) },
	}
	for _, c := range []*cobra.Command{start, stop} {
		c.Flags().StringVar(&cfg.Dir, "data", "./data/cluster", "folder for everything that is kept")
	}
	c.AddCommand(start, stop)
	return c
}

func (a *app) startCluster(c *cobra.Command, cfg cluster.Config) (err error) {
	if cfg.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cfg.Detached = true
	cl, err := cluster.New(cfg)
	if errors.Is(err, cluster.ErrRunning) {
		return advise(err, "stop it with `make cluster-stop` (perdure cluster stop --data %s), or choose another folder with --data", cfg.Dir)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), clusterStartTimeout)
	defer cancel()
	if err := cl.Start(ctx); err != nil {
		return errors.Join(err, cl.Close()) // half a cluster is of no use, and in the way of the next one
	}
	return a.tellCluster(cl)
}

func (a *app) stopCluster(c *cobra.Command, dir string) error {
	cl, err := cluster.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return advise(fmt.Errorf("no cluster in %s", dir), "start one with `make cluster`, or say where it is with --data")
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), clusterStopTimeout)
	defer cancel()
	if err := cl.Stop(ctx); err != nil {
		return errors.Join(fmt.Errorf("ended with SIGKILL: %w", err), cl.Close())
	}
	return nil
}

// tellCluster prints what can be connected to.
func (a *app) tellCluster(cl *cluster.Cluster) error {
	r := a.rows("name", "url", "pid", "log")
	for _, p := range cl.All() {
		pid, err := p.Pid()
		if err != nil {
			return err
		}
		if !a.json {
			r.add(p.Name, p.URL, fmt.Sprint(pid), p.Log())
			continue
		}
		if err := a.printJSON(map[string]any{"name": p.Name, "kind": p.Kind, "url": p.URL, "pid": pid, "log": p.Log()}); err != nil {
			return err
		}
	}
	if err := r.end(); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "commands find it with: export %s\n", strings.Join(cl.Env(), " "))
	return nil
}
