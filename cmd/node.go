package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot/pebblestore"
)

// logFlags say what is logged, and how.
type logFlags struct{ level, format string }

func (f *logFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.level, "log-level", "warn", "debug, info, warn or error")
	c.Flags().StringVar(&f.format, "log-format", "", "text or json; default: text on a terminal")
}

func (a *app) logger(f logFlags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level is %q; want debug, info, warn or error", f.level)
	}
	format := f.format
	if format == "" && isTerminal(a.err) {
		format = "text"
	}
	switch format {
	case "text":
		return slog.New(tint.NewTextHandler(a.err, &tint.Options{Level: level, NoColor: !isColored(a.err)})), nil
	case "json", "":
		return slog.New(slog.NewJSONHandler(a.err, &slog.HandlerOptions{Level: level})), nil
	}
	return nil, fmt.Errorf("--log-format is %q; want text or json", f.format)
}

// nodeFlags are what every command takes that runs a worker.
type nodeFlags struct {
	logging                 logFlags
	listen, data, republish string
	partitions, memoryMB    int
	reserveMin              uint64
	sendRetry               time.Duration
}

// add defines them. listen is where HTTP is served by default, partitions what a new namespace has by default.
func (f *nodeFlags) add(c *cobra.Command, listen, serves string, partitions int) {
	flags := c.Flags()
	f.logging.add(c)
	flags.StringVar(&f.listen, "listen", listen, serves)
	flags.StringVar(&f.data, "data", "./data", "folder for everything that is kept")
	flags.IntVar(&f.partitions, "partitions", 0, fmt.Sprintf("streams of a new namespace, for ever; default %d", partitions))
	flags.StringVar(&f.republish, "republish", "", "on or off: the server publishes each change on <namespace>.change.<class>.<name> as well, for a third of the rate; default: as it is, at first off")
	flags.IntVar(&f.memoryMB, "memory", 256, "MiB of objects in memory")
	flags.Uint64Var(&f.reserveMin, "reserve-min", reserveBytesMin, "bytes of disk that are kept free at least")
	_ = flags.MarkHidden("reserve-min") // for tests; it was just defined
	flags.DurationVar(&f.sendRetry, "send-retry", 0, "after a message failed for the first time")
	_ = flags.MarkHidden("send-retry") // for tests
}

func (f *nodeFlags) check(c *cobra.Command) error {
	if f.memoryMB < 1 || f.partitions < 0 || f.partitions > wire.Slots {
		return usage(c, "--memory is %d, want at least 1; --partitions is %d, want 1 to %d", f.memoryMB, f.partitions, wire.Slots)
	}
	if f.republish != "" && f.republish != "on" && f.republish != "off" {
		return usage(c, "--republish is %q; want on or off", f.republish)
	}
	return nil
}

// settings are what the namespace is to have, or is made with.
func (f *nodeFlags) settings() jetstream.Settings {
	want := jetstream.Settings{Partitions: f.partitions}
	if f.republish != "" {
		on := f.republish == "on"
		want.Republish = &on
	}
	return want
}

// gcPercent is half as much work for the garbage collector as Go's default, for half as much memory again.
const gcPercent = 200

// node is a worker, what callers reach it by, and what both stand on.
type node struct {
	nodeFlags
	classes []engine.AnyClass
	log     *slog.Logger
	ns      wire.Subjects
	want    jetstream.Settings

	// dial makes a connection to NATS.
	dial func(options ...nats.Option) (*nats.Conn, error)
	// alone says that no other worker has the namespace.
	alone bool
	// syncs is how often the server in this process syncs, as --sync has it; empty without one. durable waits for that;
	// nil if an acknowledgement is all it takes.
	syncs   string
	durable func(stream string, seq journal.Seq, open func())
	// joined is asked whenever the journal is connected; its error is for good.
	joined func(ctx context.Context, s *jetstream.Session) error

	leaseTerm time.Duration // 0: the engine's
	standby   bool
	http      net.Listener // nil: no HTTP
	probes    bool         // of HTTP only those
	beside    func(ctx context.Context) error
	failed    chan error // what ends the worker from below: the disk, or the snapshot store

	kept    jetstream.Namespace
	store   *pebblestore.Store
	metrics *gateway.Metrics
	bus     *natsbus.Client // to other workers, and to the inbox
	worker  *engine.Worker
	service *natsbus.Service // what NATS tools are told of the worker
}

// newNode is a node as all commands have it.
func (a *app) newNode(c *cobra.Command, f nodeFlags) (node, error) {
	if err := f.check(c); err != nil {
		return node{}, err
	}
	log, err := a.logger(f.logging)
	if err != nil {
		return node{}, usage(c, "%v", err)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	return node{nodeFlags: f, classes: a.classes, log: log, ns: wire.Subjects(a.nats.namespace), want: f.settings(), failed: make(chan error, 1)}, nil
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

// session connects to the journal.
func (n *node) session(ctx context.Context, ns wire.Subjects) (*jetstream.Session, error) {
	s, err := jetstream.Dial(ctx, jetstream.Config{Dial: n.dial, Namespace: ns, Name: "perdure worker", Log: n.log})
	if err != nil || n.joined == nil {
		return s, err
	}
	if err := n.joined(ctx, s); err != nil {
		s.Close()
		n.fail(err)
		return nil, err
	}
	return s, nil
}

// join is [node.session] for the engine.
func (n *node) join(ctx context.Context) (journal.Session, error) { return n.session(ctx, n.ns) }

// connect makes a connection that comes back whenever it breaks.
func (n *node) connect(use string) (*nats.Conn, error) {
	nc, err := n.dial(gateway.ClientOptions{Name: "perdure " + use}.Lasting()...)
	if err != nil {
		return nil, fmt.Errorf("connect the %s: %w", use, err)
	}
	return nc, nil
}

// fail keeps the first failure from below.
func (n *node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// openNamespace makes the namespace, or checks it.
func (n *node) openNamespace(ctx context.Context) error {
	s, err := n.session(ctx, n.ns)
	if err != nil {
		return err
	}
	defer s.Close()
	if n.kept, err = s.Open(ctx, n.want); err != nil {
		return cmp.Or(s.Denied(), err)
	}
	return nil
}

// run serves the namespace, which is open, until ctx is done. ready is called when the worker owns all partitions.
func (n *node) run(ctx context.Context, ready func()) error {
	id, err := workerID(n.data)
	if err != nil {
		return err
	}
	n.store, err = pebblestore.Open(filepath.Join(n.data, "snapshots"), pebblestore.Options{Namespace: n.kept.ID, Logger: n.log, OnFatal: n.fail})
	if errors.Is(err, pebblestore.ErrNamespace) {
		return advise(err, "the folder snapshots is of another namespace: it is a cache, and may be moved away")
	}
	if err != nil {
		return err
	}
	defer func() { _ = n.store.Close() }() // it is a cache, and says by itself what is wrong
	nc, err := n.connect("gateway")
	if err != nil {
		return err
	}
	defer nc.Close()
	n.bus = natsbus.NewClient(nc, n.ns).ToSlots()
	n.metrics = gateway.NewMetrics(Version)
	if n.worker, err = engine.New(n.config(id)); err != nil {
		return err
	}
	n.metrics.Watch(n.worker.Status)
	classes, err := n.worker.Classes(ctx)
	if err != nil {
		return err
	}
	n.service = natsbus.NewService(n.ns, id, Version, n.kept.Partitions, classes)
	return n.serve(ctx, ready)
}

func (n *node) config(id string) engine.Config {
	c := engine.Config{
		ID: id, Namespace: n.ns, Partitions: n.kept.Partitions, Store: n.store, Classes: n.classes, Connect: n.join,
		Listen: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			return n.intake(js.(*jetstream.Session).Conn(), p, serve)
		},
		ListenReads: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			return natsbus.ListenReads(js.(*jetstream.Session).Conn(), n.ns, p, n.kept.Partitions, n.log, serve)
		},
		Post:        n.bus.Post,
		SendRetry:   n.sendRetry,
		MayWrite:    n.mayWrite,
		Observe:     n.observer(),
		MemoryBytes: int64(n.memoryMB) << 20,
		LeaseTerm:   n.leaseTerm,
		Standby:     n.standby,
		Log:         n.log,
		Version:     Version,
		Durable:     n.durable,
	}
	if !n.alone {
		c.Others = n.bus
		c.OnlyNATS = n.probes // there is no gateway in the process
		c.Peers = func(js journal.Session, life journal.Token, hear func(engine.Word)) (engine.Peers, error) {
			return natsbus.Peers(js.(*jetstream.Session).Conn(), n.ns, id, life, hear)
		}
	}
	return c
}

// intake takes requests for a partition, and questions about its objects.
func (n *node) intake(nc *nats.Conn, p int, serve func(engine.Request, func(engine.Reply, error))) (stop func(), err error) {
	calls, err := natsbus.Listen(nc, n.ns, p, n.kept.Partitions, n.log, serve)
	if err != nil {
		return nil, err
	}
	questions, err := natsbus.ServePart(nc, n.ns, p, n.worker, n.log)
	if err != nil {
		calls()
		return nil, err
	}
	return func() { questions(); calls() }, nil // callers of methods are served meanwhile
}

func (n *node) mayWrite() error { return mayWrite(n.data, n.reserveMin) }

// observer counts for metrics and service, which is there before the worker runs.
func (n *node) observer() engine.Observer {
	o := n.metrics.Observer()
	metrics := o.Turn
	o.Turn = func(class, method string, code engine.Code, waited, ran time.Duration) {
		metrics(class, method, code, waited, ran)
		n.service.Ran(class, method, code, waited, ran)
	}
	return o
}

// front is what HTTP requests are served by.
func (n *node) front(changes *feed.Hub) (http.Handler, error) {
	if n.probes {
		return gateway.Probes(n.worker.Ready, n.metrics), nil
	}
	c := gateway.Config{Transport: engine.NewClient(n.worker), Inspector: n.worker, Feed: changes, Ready: n.worker.Ready, Metrics: n.metrics, Log: n.log}
	if !n.alone {
		near := &nearest{n.worker, n.bus, n.kept.Partitions}
		c.Transport, c.Inspector, c.Ready = engine.NewClient(n.worker.Nearest()), near, near.ready
	}
	return gateway.New(c)
}

// serve runs worker and gateway and what tells of them, and ends them in the order in which callers notice least.
func (n *node) serve(ctx context.Context, ready func()) error {
	nc, err := n.connect("admin service")
	if err != nil {
		return err
	}
	defer nc.Close()
	hide, err := n.service.Serve(nc, n.ns, n.log)
	if err != nil {
		return err
	}
	defer hide()
	silence, err := n.answer(nc)
	if err != nil {
		return err
	}
	defer silence()
	if !n.alone { // the server of `perdure dev` maps calls
		unrelay, err := natsbus.RelayCalls(nc, n.ns, n.log)
		if err != nil {
			return err
		}
		defer unrelay()
	}
	if n.durable != nil {
		stop, err := natsbus.StorePosts(nc, n.ns, n.durable, n.mayWrite, n.log)
		if err != nil {
			return err
		}
		defer stop()
	}
	changes, err := feed.New(feed.Config{Namespace: n.ns, Life: n.kept.ID, Partitions: n.kept.Partitions, Durable: n.durable, Log: n.log, Connect: n.join})
	if err != nil {
		return err
	}
	defer changes.Close()
	front, err := n.front(changes)
	if err != nil {
		return err
	}
	serving, end := context.WithCancelCause(ctx)
	defer end(nil)
	working, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorker()
	var wg, gate sync.WaitGroup
	var cutOff, broken error // of gateway and worker; read when they have ended
	if n.http != nil {
		gate.Go(func() { cutOff = gateway.Serve(serving, n.http, front); end(cutOff) })
	}
	wg.Go(func() { broken = n.worker.Run(working); end(cmp.Or(broken, errWorkerEnded)) })
	wg.Go(func() { n.announce(serving, ready) })
	wg.Go(func() { n.watch(serving) })
	if n.beside != nil {
		wg.Go(func() { end(n.beside(serving)) })
	}
	<-serving.Done()
	gate.Wait() // the worker outlives it: requests that are under way get their answers
	stopWorker()
	wg.Wait()
	if ctx.Err() == nil {
		return context.Cause(serving)
	}
	if cutOff != nil {
		n.log.Warn("a request was not waited for any longer", "err", cutOff)
	}
	return broken
}

var errWorkerEnded = errors.New("the worker ended")

// watch ends the worker when what is below it has failed: it would go on with states that are not those of the journal, or
// answer what is not on disk.
func (n *node) watch(ctx context.Context) {
	select {
	case err := <-n.failed:
		n.worker.Fail(err)
	case <-ctx.Done():
	}
}

// announce calls ready when all partitions are owned.
func (n *node) announce(ctx context.Context, ready func()) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n.worker.Ready() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	ready()
}
