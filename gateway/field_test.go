package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/counter"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot"
)

// field is a real server, which can end and come back at its address, and workers that reach it by socket.
type field struct {
	t       testing.TB
	options embed.Options
	server  *embed.Server
}

func newField(t testing.TB) *field {
	t.Helper()
	f := &field{t: t, options: embed.Options{Dir: t.TempDir(), Listen: "127.0.0.1:0", SyncInterval: time.Second, Logger: slog.New(slog.DiscardHandler)}}
	f.start()
	at, err := url.Parse(f.server.URL())
	check(t, err)
	f.options.Listen = at.Host
	t.Cleanup(f.end)
	return f
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *field) start() {
	f.t.Helper()
	var err error
	f.server, err = embed.Start(f.options)
	check(f.t, err)
}

func (f *field) end() { f.server.Shutdown() }

// dial connects, and again for ever.
func (f *field) dial(options ...nats.Option) *nats.Conn {
	f.t.Helper()
	quiet := nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})
	nc, err := nats.Connect(f.server.URL(), append(options, quiet, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))...)
	check(f.t, err)
	f.t.Cleanup(nc.Close)
	return nc
}

// faulty is a class that fails as it is told.
type faulty struct{}

type failure struct {
	Code  engine.Code
	After time.Duration
	Plain bool
}

func (*faulty) Fail(_ *engine.Ctx, in failure) (engine.None, error) {
	if in.Plain {
		return nil, errors.New("plain")
	}
	return nil, engine.Errorf(in.Code, "as told").RetryIn(in.After)
}

// worker starts one that answers questions, too. It ends with the test, if the test does not end it.
func (f *field) worker(id string) *engine.Worker {
	f.t.Helper()
	const ns, partitions = wire.DefaultNamespace, 2
	dial := func(ctx context.Context) (*jetstream.Session, error) {
		plain := func(options ...nats.Option) (*nats.Conn, error) {
			return nats.Connect("nats://"+f.options.Listen, options...)
		}
		return jetstream.Dial(ctx, jetstream.Config{Dial: plain, Namespace: ns})
	}
	s, err := dial(f.t.Context())
	check(f.t, err)
	_, err = s.Open(f.t.Context(), jetstream.Settings{Partitions: partitions})
	s.Close()
	check(f.t, err)
	log := slog.New(slog.DiscardHandler)
	var w *engine.Worker
	w, err = engine.New(engine.Config{
		ID: id, Namespace: ns, Partitions: partitions, Store: snapshot.NewMemory(), LeaseTerm: time.Second, AckTimeout: 2 * time.Second,
		Classes: []engine.AnyClass{counter.Counters, engine.Class[faulty]{Name: "faulty"}},
		Connect: func(ctx context.Context) (journal.Session, error) { return dial(ctx) },
		Listen: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			nc := js.(*jetstream.Session).Conn()
			if _, err := natsbus.ServePart(nc, ns, p, w, log); err != nil { // it ends with the connection
				return nil, err
			}
			return natsbus.Listen(nc, ns, p, partitions, log, serve)
		},
	})
	check(f.t, err)
	stop, err := natsbus.ServeAdmin(f.dial(), ns, natsbus.Admin{Worker: id, Partitions: partitions, Classes: w.Classes}, log)
	check(f.t, err)
	ran := make(chan error, 1)
	go func() { ran <- w.Run(context.Background()) }()
	f.t.Cleanup(func() {
		stop()
		w.Stop()
		if err := <-ran; err != nil {
			f.t.Error(err)
		}
	})
	return w
}

// serving waits until one of some workers owns everything.
func (f *field) serving(workers ...*engine.Worker) {
	f.t.Helper()
	var err error
	for range 3000 {
		for _, w := range workers {
			if err = w.Ready(); err == nil {
				return
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	f.t.Fatal(fmt.Errorf("nobody serves: %w", err))
}

func (f *field) client(o ClientOptions) *Client {
	f.t.Helper()
	c, err := Connect("nats://"+f.options.Listen, o)
	check(f.t, err)
	f.t.Cleanup(c.Close)
	return c
}

// CounterServer is where a worker serves the counter, for the tests that are written as a user writes.
func CounterServer(t testing.TB) (url string) {
	f := newField(t)
	f.serving(f.worker("w"))
	return f.server.URL()
}
