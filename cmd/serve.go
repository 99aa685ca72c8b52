package cmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/journal/jetstream"
)

// serveFlags are what `perdure serve` and `perdure worker` take besides.
type serveFlags struct {
	replicas  int
	leaseTerm time.Duration
	standby   bool
}

// clusterPartitions are those of a namespace for many workers: what each of them owns is some of these.
const clusterPartitions = 16

func (a *app) serve() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a worker with the classes, and a gateway, on NATS servers of your own",
		Long: `Run a worker with the classes of this program, and the HTTP gateway, on NATS servers that run elsewhere: a single one, or a
cluster with JetStream. Any number of them may run: objects go to another worker when one ends, and each gateway reaches all
of them. --server, --context and the like say where NATS is; it may come up later. The first SIGINT or SIGTERM ends it in good
order.

What an answer means is the servers' business: with sync_interval: always a record is on disk. A worker gives up what it has
when it cannot renew its lease; so others take over within --lease-term and a little.`,
		Example: "  perdure serve --server nats://a,nats://b,nats://c --replicas 3\n  perdure serve --context prod --listen :8080 --data /var/lib/perdure",
	}
	return a.onServers(c, "127.0.0.1:8080", "where the gateway listens for HTTP", false)
}

func (a *app) workerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "worker",
		Short: "Run a worker with the classes on NATS servers of your own, without a gateway",
		Long: `Run a worker with the classes of this program on NATS servers that run elsewhere, as perdure serve does, without the HTTP
gateway: callers come over NATS, or through perdure gateway.`,
		Example: "  perdure worker --server nats://a,nats://b,nats://c --replicas 3\n  perdure worker --context prod --data /var/lib/perdure --listen 127.0.0.1:8081",
	}
	return a.onServers(c, "", "where /livez, /readyz and /metrics are served; default: nowhere", true)
}

// onServers makes c the command that runs a worker on servers that run elsewhere.
func (a *app) onServers(c *cobra.Command, listen, serves string, probes bool) *cobra.Command {
	var common nodeFlags
	var f serveFlags
	common.add(c, listen, serves, clusterPartitions)
	c.Flags().IntVar(&f.replicas, "replicas", 0, "copies of each stream of a new namespace, for ever: 1, 3 or 5; default 1")
	c.Flags().DurationVar(&f.leaseTerm, "lease-term", 2*time.Second, "how long a worker is trusted without a sign of life; at least 1s")
	c.Flags().BoolVar(&f.standby, "standby", false, "follow the partitions that this worker would own next, so that it has their objects when it takes over")
	c.Args = cobra.NoArgs
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch f.replicas {
		case 0, 1, 3, 5:
		default:
			return usage(c, "--replicas is %d; want 1, 3 or 5", f.replicas)
		}
		if f.leaseTerm < time.Second {
			return usage(c, "--lease-term is %v; want at least 1s", f.leaseTerm)
		}
		n, err := a.newNode(c, common)
		if err != nil {
			return err
		}
		n.probes, n.leaseTerm, n.standby, n.dial, n.joined = probes, f.leaseTerm, f.standby, a.nats.dial, n.besideDev
		n.want.Replicas, n.want.PartitionsOfNew = f.replicas, clusterPartitions
		return a.runServe(c.Context(), &n)
	}
	return c
}

func (a *app) runServe(ctx context.Context, n *node) (err error) {
	// Ports first, then the folder's lock: nothing is touched by a second one.
	if n.listen != "" {
		if n.http, err = listen(n.listen); err != nil {
			return err
		}
		defer n.http.Close()
	}
	lock, err := lockFolder(n.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := patiently(ctx, n.log, n.openNamespace, jetstream.Passing); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it began
		}
		return adviseServers(err)
	}
	where := ""
	if n.http != nil {
		where = "; HTTP on http://" + reachable(n.http.Addr().String())
	}
	fmt.Fprintf(a.err, "perdure %s: %s of namespace %s, %d partitions with %d replicas%s\n", Version, strings.Join(classNames(n.classes), " "), n.ns,
		n.kept.Partitions, n.kept.Replicas, where)
	return n.run(ctx, func() { n.log.Info("all partitions are owned") })
}

// Waits between tries to begin.
const (
	beginFirst = 100 * time.Millisecond
	beginLast  = 5 * time.Second
)

// patiently tries until it succeeds, or its error is not one that passes.
func patiently(ctx context.Context, log *slog.Logger, try func(context.Context) error, passes func(error) bool) error {
	for wait := beginFirst; ; wait = min(2*wait, beginLast) {
		err := try(ctx)
		if err == nil || ctx.Err() != nil || !passes(err) {
			return err
		}
		log.Warn("not ready yet", "err", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// adviseServers says what to do about an error of the servers that stays.
func adviseServers(err error) error {
	if _, other := errors.AsType[*jetstream.NamespaceError](err); other {
		return advise(engine.Errorf(engine.Conflict, "%w", err), "leave --partitions and --replicas out, or use another --namespace")
	}
	if errors.Is(err, nats.ErrPermissionViolation) {
		return advise(engine.Errorf(engine.Denied, "%w", err), "docs/nats.conf has what a worker and a gateway must be allowed")
	}
	if jetstream.NotClustered(err) {
		return advise(err, "use --replicas 1, or servers that are a cluster")
	}
	return err
}

// besideDev refuses to work beside a `perdure dev`: its records are on disk when its own process says so, and nobody else
// would wait for that.
func (n *node) besideDev(ctx context.Context, s *jetstream.Session) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	c := natsbus.NewClient(s.Conn(), n.ns)
	defer c.Close()
	system, err := doctor.ReadSystem(ctx, c)
	if err != nil || !slices.ContainsFunc(system.Workers, func(r doctor.Report) bool { return r.Host != nil && r.Host.Sync != "" }) {
		return nil // nobody answers, as always in the first moment: a `perdure dev` would; or others of ours
	}
	return advise(engine.Errorf(engine.Conflict, "a `perdure dev` has the namespace %q on this server, and syncs the log to disk in its own process", n.ns),
		"stop it, and run a nats-server on its data; or choose another --namespace")
}
