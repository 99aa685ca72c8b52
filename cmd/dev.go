package cmd

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/lmittmann/tint"
	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot/pebblestore"
)

// devFlags are what `perdure dev` takes.
type devFlags struct {
	listen, natsListen, data, sync, logLevel, logFormat string
	partitions, memoryMB                                int
	reserveMin                                          uint64
}

// The reserve of free disk: a share of it, and at least so much.
const (
	reservePercent  = 5
	reserveBytesMin = 256 << 20
)

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
	flags.IntVar(&f.memoryMB, "memory", 256, "MiB of objects in memory")
	flags.StringVar(&f.logLevel, "log-level", "warn", "debug, info, warn or error")
	flags.StringVar(&f.logFormat, "log-format", "", "text or json; default: text on a terminal")
	flags.Uint64Var(&f.reserveMin, "reserve-min", reserveBytesMin, "bytes of disk that are kept free at least")
	_ = flags.MarkHidden("reserve-min") // for tests; it was just defined
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
		return slog.New(tint.NewTextHandler(a.err, &tint.Options{Level: level, NoColor: !isTerminal(a.err) || os.Getenv("NO_COLOR") != ""})), nil
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
	http    net.Listener
	server  *embed.Server
	kept    jetstream.Namespace
	store   *pebblestore.Store
	metrics *gateway.Metrics
	worker  *engine.Worker
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
	d := &dev{flags: f, classes: a.classes, log: log, ns: wire.Subjects(a.nats.namespace)}
	if err := d.ns.Check(); err != nil {
		return usage(c, "--namespace: %v", err)
	}
	// Ports first, then the folder's lock: nothing is touched by a second one.
	if d.http, err = net.Listen("tcp", f.listen); err != nil {
		return advise(fmt.Errorf("listen for HTTP: %w", err), "another program has the port: choose one with --listen, such as --listen 127.0.0.1:8081")
	}
	defer d.http.Close()
	lock, err := lockFolder(f.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	d.server, err = embed.Start(embed.Options{Dir: filepath.Join(f.data, "nats"), Listen: f.natsListen, SyncInterval: every,
		Namespaces: []wire.Subjects{d.ns}, Logger: log})
	if err != nil {
		return err
	}
	defer d.server.Shutdown()
	return d.run(c.Context(), func() { d.banner(a) })
}

func lockFolder(dir string) (*embed.Lock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := embed.LockDir(dir)
	if errors.Is(err, embed.ErrLocked) {
		return nil, advise(err, "one process at a time has a data folder: stop the other one, or choose another with --data")
	}
	return lock, err
}

// run opens the namespace and the store, and serves until ctx is done.
func (d *dev) run(ctx context.Context, ready func()) error {
	if err := d.openNamespace(ctx); err != nil {
		return err
	}
	id, err := workerID(d.flags.data)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	d.store, err = pebblestore.Open(filepath.Join(d.flags.data, "snapshots"), pebblestore.Options{Namespace: d.kept.ID, Logger: d.log,
		OnFatal: func(err error) {
			select {
			case failed <- err:
			default:
			}
		}})
	if errors.Is(err, pebblestore.ErrNamespace) {
		return advise(err, "the folder snapshots is of another namespace: it is a cache, and may be moved away")
	}
	if err != nil {
		return err
	}
	defer d.store.Close()
	d.metrics = gateway.NewMetrics(Version)
	if d.worker, err = engine.New(d.config(id)); err != nil {
		return err
	}
	d.metrics.Watch(d.worker.Status)
	return d.serve(ctx, failed, ready)
}

func (d *dev) openNamespace(ctx context.Context) error {
	s, err := d.dial(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	d.kept, err = s.Open(ctx, jetstream.Settings{Partitions: d.flags.partitions})
	return err
}

func (d *dev) dial(ctx context.Context) (*jetstream.Session, error) {
	return jetstream.Dial(ctx, jetstream.Config{Options: []nats.Option{d.server.InProcess()}, Namespace: d.ns, Name: "perdure worker", Log: d.log})
}

func (d *dev) config(id string) engine.Config {
	return engine.Config{
		ID: id, Namespace: d.ns, Partitions: d.kept.Partitions, Store: d.store, Classes: d.classes,
		Connect: func(ctx context.Context) (journal.Session, error) { return d.dial(ctx) },
		Listen: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			return natsbus.Listen(js.(*jetstream.Session).Conn(), d.ns, p, d.kept.Partitions, d.log, serve)
		},
		MayWrite:    func() error { return mayWrite(d.flags.data, d.flags.reserveMin) },
		Observe:     d.metrics.Observer(),
		MemoryBytes: int64(d.flags.memoryMB) << 20,
		Log:         d.log,
		Version:     Version,
	}
}

// mayWrite keeps a reserve of free disk: a stream that meets a full one stops until its server starts again.
func mayWrite(dir string, reserveMin uint64) error {
	free, total, err := embed.DiskFree(dir)
	if err != nil {
		return nil // not knowing is no reason to stop; a full disk will say so
	}
	if reserve := max(total/100*reservePercent, reserveMin); free < reserve {
		return fmt.Errorf("%d MiB of disk are free, and %d MiB are kept as a reserve", free>>20, reserve>>20)
	}
	return nil
}

// serve runs worker, admin service and gateway, and ends them in the order in which callers notice least.
func (d *dev) serve(ctx context.Context, failed <-chan error, ready func()) error {
	admin, err := nats.Connect("", d.server.InProcess(), nats.Name("perdure admin"))
	if err != nil {
		return fmt.Errorf("connect the admin service: %w", err)
	}
	defer admin.Close()
	stop, err := natsbus.ServeAdmin(admin, d.ns, d.worker, func() any { return d.worker.Status() }, d.log)
	if err != nil {
		return err
	}
	defer stop()
	front, err := gateway.New(gateway.Config{Transport: engine.NewClient(d.worker), Inspector: d.worker, Ready: d.worker.Ready, Metrics: d.metrics, Log: d.log})
	if err != nil {
		return err
	}
	// The worker outlives the gateway: requests that are under way get their answers.
	serving, end := context.WithCancelCause(ctx)
	defer end(nil)
	var wg sync.WaitGroup
	wg.Go(func() { end(gateway.Serve(serving, d.http, front)) })
	working, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorker()
	worked := make(chan error, 1)
	wg.Go(func() {
		err := d.worker.Run(working)
		worked <- err
		end(cmp.Or(err, errWorkerEnded))
	})
	wg.Go(func() {
		if d.awaitReady(serving) {
			ready()
		}
	})
	wg.Go(func() {
		select {
		case err := <-failed:
			d.worker.Fail(err)
		case <-serving.Done():
		}
	})
	<-serving.Done()
	if ctx.Err() == nil {
		stopWorker()
		wg.Wait()
		return context.Cause(serving)
	}
	return d.shutDown(&wg, stopWorker, worked)
}

var errWorkerEnded = errors.New("the worker ended")

// shutDown waits for the gateway's requests, then drains the worker.
func (d *dev) shutDown(wg *sync.WaitGroup, stopWorker context.CancelFunc, worked <-chan error) error {
	stopWorker()
	err := <-worked
	wg.Wait()
	return err
}

// awaitReady waits until all partitions are owned.
func (d *dev) awaitReady(ctx context.Context) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for d.worker.Ready() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// workerID is the worker's name, made once and kept in the data folder, whose lock says that nobody else has it.
func workerID(dir string) (string, error) {
	file := filepath.Join(dir, "worker.id")
	kept, err := os.ReadFile(file)
	if err == nil {
		id := strings.TrimSpace(string(kept))
		return id, wire.CheckIdentifier(id)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("worker id: %w", err)
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	id := "w" + hex.EncodeToString(b[:])
	if err := os.WriteFile(file, []byte(id+"\n"), 0o640); err != nil {
		return "", fmt.Errorf("worker id: %w", err)
	}
	return id, nil
}

// banner says where everything is and what to try next.
func (d *dev) banner(a *app) {
	addr := d.http.Addr().String()
	sync := "every record before it is acknowledged"
	if d.flags.sync != "always" {
		sync = "every " + d.flags.sync
	}
	data, err := filepath.Abs(d.flags.data)
	if err != nil {
		data = d.flags.data
	}
	fmt.Fprintf(a.err, "perdure %s, %s\n", Version, runtime.Version())
	w := tabwriter.NewWriter(a.err, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "  HTTP\thttp://%s/<class>/<name>\n", addr)
	fmt.Fprintf(w, "  NATS\t%s\n", d.server.URL())
	fmt.Fprintf(w, "  Data\t%s, synced %s\n", data, sync)
	fmt.Fprintf(w, "  Classes\t%s\n", strings.Join(classNames(a.classes), " "))
	fmt.Fprintf(w, "Try\n")
	fmt.Fprintf(w, "  curl -X POST %s/counter/checkout-cart-99\n", addr)
	fmt.Fprintf(w, "  nats req objects.call.counter.checkout-cart-99.increment '{\"by\":2}'\n")
	fmt.Fprintf(w, "  perdure journal counter/checkout-cart-99\n")
	_ = w.Flush() // a terminal that is gone hears nothing
}

func classNames(classes []engine.AnyClass) (names []string) {
	for _, c := range classes {
		if b, err := c.Bind(); err == nil {
			names = append(names, b.Name)
		}
	}
	return names
}
