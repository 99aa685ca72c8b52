package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/blocksync"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// devFlags are what `perdure dev` takes besides.
type devFlags struct{ natsListen, sync, yardsticks string }

func (a *app) dev() *cobra.Command {
	var f devFlags
	var common nodeFlags
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process: NATS server, worker, gateway and the classes",
		Long: `Run everything in one process: a NATS server with JetStream on disk, a worker with the classes of this program, and the
HTTP gateway. It may be killed at any time: what was answered is there when it starts again. The first SIGINT or SIGTERM
ends it in good order.

--sync always: an answer means that the record is on disk. --sync 100ms: the death of the process loses nothing, a power
cut at most about that much.`,
		Example: "  perdure dev\n  perdure dev --listen :8080 --data /var/lib/perdure\n  perdure dev --sync 100ms",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.runDev(c, common, f)
		},
	}
	flags := c.Flags()
	common.add(c, "127.0.0.1:8080", "where the gateway listens for HTTP", jetstream.DefaultPartitions)
	flags.StringVar(&f.natsListen, "nats-listen", "127.0.0.1:4222", "where the NATS server listens for clients")
	flags.StringVar(&f.sync, "sync", "always", "always, or how often the log is synced to disk, such as 100ms")
	flags.StringVar(&f.yardsticks, "yardsticks", "", "where the yardsticks of `perdure bench` listen for HTTP")
	_ = flags.MarkHidden("yardsticks") // for bench
	return c
}

// syncInterval reads --sync: 0 is always.
func syncInterval(s string) (time.Duration, error) {
	if s == "always" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Millisecond {
		return 0, fmt.Errorf("--sync is %q; want always, or a duration of at least 1ms, such as 100ms", s)
	}
	return d, nil
}

// dev is what runs: a node, and the server below it.
type dev struct {
	node
	devFlags
	every  time.Duration  // between syncs; 0: before each answer
	cut    *blocksync.Cut // what a power cut left; nil: there was none
	yard   net.Listener   // of the yardsticks; nil without
	server *embed.Server
	syncer *blocksync.Syncer
}

func (a *app) runDev(c *cobra.Command, common nodeFlags, f devFlags) (err error) {
	every, err := syncInterval(f.sync)
	if err != nil {
		return usage(c, "%v", err)
	}
	n, err := a.newNode(c, common)
	if err != nil {
		return err
	}
	d := &dev{node: n, devFlags: f, every: every}
	d.alone, d.syncs, d.dial = true, f.sync, d.inProcess
	// Ports first, then the folder's lock: nothing is touched by a second one.
	if d.http, err = listen(d.listen); err != nil {
		return err
	}
	defer d.http.Close()
	ctx := c.Context()
	if f.yardsticks != "" {
		if ctx, err = a.measured(ctx, d); err != nil {
			return err
		}
	}
	lock, err := lockFolder(d.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	defer func() { err = errors.Join(err, d.stopServer()) }()
	if d.cut, err = blocksync.Repair(d.natsDir(), d.log); err != nil {
		return err
	}
	if err := d.startServer(serverSyncInterval); err != nil {
		return err
	}
	return d.run(ctx, func() { d.banner(a.err) })
}

// inProcess connects to the server in this process, past the network.
func (d *dev) inProcess(options ...nats.Option) (*nats.Conn, error) {
	return nats.Connect("", append(options, d.server.InProcess())...)
}

// run opens the namespace and takes over the syncing, and serves until ctx is done.
func (d *dev) run(ctx context.Context, ready func()) error {
	if err := d.openNamespace(ctx); err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped before it began
		}
		return err
	}
	if err := d.startSync(ctx); err != nil {
		return err
	}
	d.waitForDisk()
	return d.node.run(ctx, ready)
}

// waitForDisk makes what is answered wait for the disk, if that is asked for and not done by the server.
func (d *dev) waitForDisk() {
	if d.syncer != nil && d.every == 0 {
		d.durable = func(stream string, _ journal.Seq, open func()) { d.syncer.Durable(stream, open) }
	}
}
