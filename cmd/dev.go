package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway"
	"github.com/perdure/perdure/gateway/feed"
	"github.com/perdure/perdure/internal/blocksync"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot/pebblestore"
)

// devFlags are what `perdure dev` takes.
type devFlags struct {
	listen, natsListen, data, sync, republish, logLevel, logFormat, yardsticks string
	partitions, memoryMB                                                       int
	reserveMin                                                                 uint64
	sendRetry                                                                  time.Duration
}

func (a *app) dev() *cobra.Command {
	var f devFlags
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
			return a.runDev(c, f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "where the gateway listens for HTTP")
	flags.StringVar(&f.natsListen, "nats-listen", "127.0.0.1:4222", "where the NATS server listens for clients")
	flags.StringVar(&f.data, "data", "./data", "folder for everything that is kept")
	flags.IntVar(&f.partitions, "partitions", 0, fmt.Sprintf("streams of a new namespace, for ever; default %d", jetstream.DefaultPartitions))
	flags.StringVar(&f.sync, "sync", "always", "always, or how often the log is synced to disk, such as 100ms")
	flags.StringVar(&f.republish, "republish", "", "on or off: the server publishes each change on <namespace>.change.<class>.<name> as well, for a third of the rate; default: as it is, at first off")
	flags.IntVar(&f.memoryMB, "memory", 256, "MiB of objects in memory")
	flags.StringVar(&f.logLevel, "log-level", "warn", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "", "text or json; default: text on a terminal")
	flags.Uint64Var(&f.reserveMin, "reserve-min", reserveBytesMin, "bytes of disk that are kept free at least")
	_ = flags.MarkHidden("reserve-min") // for tests; it was just defined
	flags.DurationVar(&f.sendRetry, "send-retry", 0, "after a message failed for the first time")
	_ = flags.MarkHidden("send-retry") // for tests
	flags.StringVar(&f.yardsticks, "yardsticks", "", "where the yardsticks of `perdure bench` listen for HTTP")
	_ = flags.MarkHidden("yardsticks") // for bench
	return c
}

// gcPercent is half as much work for the garbage collector as Go's default, for half as much memory again.
const gcPercent = 200

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

func (a *app) logger(f devFlags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level is %q; want debug, info, warn or error", f.logLevel)
	}
	format := f.logFormat
	if format == "" && isTerminal(a.err) {
		format = "text"
	}
	switch format {
	case "text":
		return slog.New(tint.NewTextHandler(a.err, &tint.Options{Level: level, NoColor: !isColored(a.err)})), nil
	case "json", "":
		return slog.New(slog.NewJSONHandler(a.err, &slog.HandlerOptions{Level: level})), nil
	}
	return nil, fmt.Errorf("--log-format is %q; want text or json", f.logFormat)
}

// dev is what runs.
type dev struct {
	flags   devFlags
	classes []engine.AnyClass
	log     *slog.Logger
	ns      wire.Subjects
	every   time.Duration // between syncs; 0: before each answer
	failed  chan error    // what ends the worker from below: the disk, or the snapshot store
	http    net.Listener
	cut     *blocksync.Cut // what a power cut left; nil: there was none
	yard    net.Listener   // of the yardsticks; nil without
	server  *embed.Server
	syncer  *blocksync.Syncer
	kept    jetstream.Namespace
	store   *pebblestore.Store
	metrics *gateway.Metrics
	posts   *natsbus.Client // for messages to objects
	worker  *engine.Worker
	service *natsbus.Service // what NATS tools are told of the worker
}

func (a *app) runDev(c *cobra.Command, f devFlags) (err error) {
	every, err := syncInterval(f.sync)
	if err != nil {
		return usage(c, "%v", err)
	}
	log, err := a.logger(f)
	if err != nil {
		return usage(c, "%v", err)
	}
	if f.memoryMB < 1 || f.partitions < 0 || f.partitions > wire.Slots {
		return usage(c, "--memory is %d, want at least 1; --partitions is %d, want 1 to %d", f.memoryMB, f.partitions, wire.Slots)
	}
	if f.republish != "" && f.republish != "on" && f.republish != "off" {
		return usage(c, "--republish is %q; want on or off", f.republish)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	d := &dev{flags: f, every: every, classes: a.classes, log: log, ns: wire.Subjects(a.nats.namespace), failed: make(chan error, 1)}
	// Ports first, then the folder's lock: nothing is touched by a second one.
	if d.http, err = listen(f.listen); err != nil {
		return err
	}
	defer d.http.Close()
	ctx := c.Context()
	if f.yardsticks != "" {
		if ctx, err = a.measured(ctx, d); err != nil {
			return err
		}
	}
	lock, err := lockFolder(f.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	defer func() { err = errors.Join(err, d.stopServer()) }()
	if d.cut, err = blocksync.Repair(d.natsDir(), log); err != nil {
		return err
	}
	if err := d.startServer(serverSyncInterval); err != nil {
		return err
	}
	return d.run(ctx, func() { d.banner(a.err) })
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	advice := "choose an address of this machine with --listen, such as --listen 127.0.0.1:8080"
	if errors.Is(err, syscall.EADDRINUSE) {
		advice = "another program has the port: stop it, or choose one with --listen, such as --listen 127.0.0.1:8081"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err // the address is said already
	}
	return nil, advise(fmt.Errorf("listen for HTTP on %s: %w", address, err), "%s", advice)
}

// run opens the namespace and the store, and serves until ctx is done.
func (d *dev) run(ctx context.Context, ready func()) error {
	if err := d.openNamespace(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped before it began
		}
		return err
	}
	id, err := workerID(d.flags.data)
	if err != nil {
		return err
	}
	if err := d.startSync(ctx); err != nil {
		return err
	}
	d.store, err = pebblestore.Open(filepath.Join(d.flags.data, "snapshots"), pebblestore.Options{Namespace: d.kept.ID, Logger: d.log, OnFatal: d.fail})
	if errors.Is(err, pebblestore.ErrNamespace) {
		return advise(err, "the folder snapshots is of another namespace: it is a cache, and may be moved away")
	}
	if err != nil {
		return err
	}
	defer d.store.Close()
	posts, err := nats.Connect("", d.server.InProcess(), nats.Name("perdure posts"))
	if err != nil {
		return fmt.Errorf("connect to the inbox: %w", err)
	}
	defer posts.Close()
	d.posts = natsbus.NewClient(posts, d.ns)
	d.metrics = gateway.NewMetrics(Version)
	if d.worker, err = engine.New(d.config(id)); err != nil {
		return err
	}
	d.metrics.Watch(d.worker.Status)
	classes, err := d.worker.Classes(ctx)
	if err != nil {
		return err
	}
	d.service = natsbus.NewService(d.ns, id, Version, d.kept.Partitions, classes)
	return d.serve(ctx, ready)
}

// fail keeps the first failure from below.
func (d *dev) fail(err error) {
	select {
	case d.failed <- err:
	default:
	}
}

func (d *dev) openNamespace(ctx context.Context) error {
	s, err := d.dial(ctx, d.ns)
	if err != nil {
		return err
	}
	defer s.Close()
	want := jetstream.Settings{Partitions: d.flags.partitions}
	if d.flags.republish != "" {
		on := d.flags.republish == "on"
		want.Republish = &on
	}
	d.kept, err = s.Open(ctx, want)
	return err
}

func (d *dev) dial(ctx context.Context, ns wire.Subjects) (*jetstream.Session, error) {
	return jetstream.Dial(ctx, jetstream.Config{Options: []nats.Option{d.server.InProcess()}, Namespace: ns, Name: "perdure worker", Log: d.log})
}

func (d *dev) config(id string) engine.Config {
	c := engine.Config{
		ID: id, Namespace: d.ns, Partitions: d.kept.Partitions, Store: d.store, Classes: d.classes,
		Connect: func(ctx context.Context) (journal.Session, error) { return d.dial(ctx, d.ns) },
		Listen: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			return natsbus.Listen(js.(*jetstream.Session).Conn(), d.ns, p, d.kept.Partitions, d.log, serve)
		},
		Post:        d.posts.Post,
		SendRetry:   d.flags.sendRetry,
		MayWrite:    func() error { return mayWrite(d.flags.data, d.flags.reserveMin) },
		Observe:     d.observer(),
		MemoryBytes: int64(d.flags.memoryMB) << 20,
		Log:         d.log,
		Version:     Version,
	}
	c.Durable = d.durable()
	return c
}

// durable is what waits for the disk; nil if an acknowledgement is all it takes.
func (d *dev) durable() func(stream string, seq journal.Seq, open func()) {
	if d.syncer == nil || d.every != 0 {
		return nil
	}
	return func(stream string, _ journal.Seq, open func()) { d.syncer.Durable(stream, open) }
}

// changes is the feed of what changes.
func (d *dev) changes() (*feed.Hub, error) {
	return feed.New(feed.Config{Namespace: d.ns, Life: d.kept.ID, Partitions: d.kept.Partitions, Durable: d.durable(), Log: d.log,
		Connect: func(ctx context.Context) (journal.Session, error) { return d.dial(ctx, d.ns) }})
}

// observer counts for metrics and service, which is there before the worker runs.
func (d *dev) observer() engine.Observer {
	o := d.metrics.Observer()
	metrics := o.Turn
	o.Turn = func(class, method string, code engine.Code, waited, ran time.Duration) {
		metrics(class, method, code, waited, ran)
		d.service.Ran(class, method, code, waited, ran)
	}
	return o
}

// serve runs worker, admin service and gateway, and ends them in the order in which callers notice least.
func (d *dev) serve(ctx context.Context, ready func()) error {
	admin, err := nats.Connect("", d.server.InProcess(), nats.Name("perdure admin"))
	if err != nil {
		return fmt.Errorf("connect the admin service: %w", err)
	}
	defer admin.Close()
	stop, err := natsbus.ServeAdmin(admin, d.ns, d.worker, func() any { return d.report() }, d.log)
	if err != nil {
		return err
	}
	defer stop()
	hide, err := d.service.Serve(admin, d.ns, d.log)
	if err != nil {
		return err
	}
	defer hide()
	if d.durable() != nil {
		stop, err := natsbus.StorePosts(admin, d.ns, d.durable(), func() error { return mayWrite(d.flags.data, d.flags.reserveMin) }, d.log)
		if err != nil {
			return err
		}
		defer stop()
	}
	changes, err := d.changes()
	if err != nil {
		return err
	}
	defer changes.Close()
	front, err := gateway.New(gateway.Config{Transport: engine.NewClient(d.worker), Inspector: d.worker, Feed: changes, Ready: d.worker.Ready, Metrics: d.metrics, Log: d.log})
	if err != nil {
		return err
	}
	serving, end := context.WithCancelCause(ctx)
	defer end(nil)
	working, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorker()
	var wg, gate sync.WaitGroup
	var cutOff, broken error // of gateway and worker; read when they have ended
	gate.Go(func() { cutOff = gateway.Serve(serving, d.http, front); end(cutOff) })
	wg.Go(func() { broken = d.worker.Run(working); end(cmp.Or(broken, errWorkerEnded)) })
	wg.Go(func() { d.announce(serving, ready) })
	wg.Go(func() { d.watch(serving) })
	if d.yard != nil {
		wg.Go(func() { end(d.serveYardsticks(serving)) })
	}
	<-serving.Done()
	gate.Wait() // the worker outlives it: requests that are under way get their answers
	stopWorker()
	wg.Wait()
	if ctx.Err() == nil {
		return context.Cause(serving)
	}
	if cutOff != nil {
		d.log.Warn("a request was not waited for any longer", "err", cutOff)
	}
	return broken
}

var errWorkerEnded = errors.New("the worker ended")

// watch ends the worker when what is below it has failed: it would go on with states that are not those of the journal, or
// answer what is not on disk.
func (d *dev) watch(ctx context.Context) {
	select {
	case err := <-d.failed:
		d.worker.Fail(err)
	case <-ctx.Done():
	}
}

// announce calls ready when all partitions are owned.
func (d *dev) announce(ctx context.Context, ready func()) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for d.worker.Ready() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	ready()
}
