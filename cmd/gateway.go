package cmd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/gateway"
	"github.com/perdure/perdure/gateway/feed"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

func (a *app) gateway() *cobra.Command {
	var logging logFlags
	var address string
	c := &cobra.Command{
		Use:   "gateway",
		Short: "Run an HTTP gateway to workers that run elsewhere",
		Long: `Run an HTTP gateway: requests come over HTTP and go to the workers over NATS. It knows no classes and keeps nothing; any number
of them may run. --server, --context and the like say where NATS is; it may come up later. The first SIGINT or SIGTERM ends it
in good order.`,
		Example: "  perdure gateway --server nats://a,nats://b,nats://c\n  perdure gateway --context prod --listen :8080",
		Args:    cobra.NoArgs,
	}
	logging.add(c)
	c.Flags().StringVar(&address, "listen", "127.0.0.1:8080", "where it listens for HTTP")
	c.RunE = func(c *cobra.Command, _ []string) error {
		log, err := a.logger(logging)
		if err != nil {
			return usage(c, "%v", err)
		}
		l, err := listen(address)
		if err != nil {
			return err
		}
		defer l.Close()
		g := &remote{a: a, ns: wire.Subjects(a.nats.namespace), metrics: gateway.NewMetrics(Version)}
		g.config = gateway.Config{Ready: g.ready, Metrics: g.metrics, Log: log}
		ctx, end := context.WithCancelCause(c.Context())
		defer end(nil)
		if err := g.connect(); err != nil {
			return err
		}
		defer g.close()
		var gate sync.WaitGroup
		gate.Go(func() { end(gateway.Serve(ctx, l, g)) })
		fmt.Fprintf(a.err, "perdure %s: gateway to namespace %s; HTTP on http://%s\n", Version, g.ns, reachable(l.Addr().String()))
		if err := g.follow(ctx); err != nil && ctx.Err() == nil {
			end(adviseServers(err))
		}
		<-ctx.Done()
		gate.Wait()
		if c.Context().Err() != nil {
			return nil
		}
		return context.Cause(ctx)
	}
	return c
}

// remote is a gateway without a worker.
type remote struct {
	a       *app
	ns      wire.Subjects
	metrics *gateway.Metrics
	config  gateway.Config
	client  *gateway.Client
	release func()
	kept    atomic.Pointer[jetstream.Namespace] // nil: not known yet
	front   atomic.Pointer[gateway.Gateway]
}

// ServeHTTP implements http.Handler.
func (g *remote) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.front.Load().ServeHTTP(w, r) }

// connect makes the gateway, without the feed: that needs to know the namespace.
func (g *remote) connect() error {
	nc, err := g.a.nats.dial(gateway.ClientOptions{Name: "perdure gateway", Wait: true}.Lasting()...)
	if err != nil {
		return err
	}
	g.release = nc.Close
	if g.client, err = gateway.NewClient(nc, gateway.ClientOptions{Namespace: string(g.ns), ToSlots: true}); err != nil {
		return err
	}
	g.config.Transport = g.client
	return g.renew()
}

func (g *remote) renew() error {
	front, err := gateway.New(g.config)
	if err == nil {
		g.front.Store(front)
	}
	return err
}

func (g *remote) close() {
	if g.config.Feed != nil {
		g.config.Feed.Close()
	}
	g.client.Close()
	g.release()
}

func (g *remote) session(ctx context.Context) (*jetstream.Session, error) {
	return jetstream.Dial(ctx, jetstream.Config{Dial: g.a.nats.dial, Namespace: g.ns, Name: "perdure gateway", Log: g.config.Log})
}

// follow waits for the namespace, and has the gateway tell what changes in it.
func (g *remote) follow(ctx context.Context) error {
	var kept jetstream.Namespace
	err := patiently(ctx, g.config.Log, func(ctx context.Context) error {
		s, err := g.session(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		if kept, err = s.Find(ctx); err == nil {
			return nil
		}
		if denied := s.Denied(); denied != nil {
			return denied
		}
		return err
	}, func(err error) bool { // the first worker makes it
		return jetstream.Passing(err) || errors.Is(err, journal.ErrNotFound) || errors.Is(err, journal.ErrMissing)
	})
	if err != nil {
		return err
	}
	hub, err := feed.New(feed.Config{Namespace: g.ns, Life: kept.ID, Partitions: kept.Partitions, Log: g.config.Log,
		Connect: func(ctx context.Context) (journal.Session, error) { return g.session(ctx) }})
	if err != nil {
		return err
	}
	g.config.Feed = hub
	g.kept.Store(&kept)
	return g.renew()
}

// ready says why no object can be reached just now.
func (g *remote) ready() error {
	if err := g.client.Ready(); err != nil {
		return err
	}
	kept := g.kept.Load()
	if kept == nil {
		return errors.New("the namespace is not known yet: a worker makes it")
	}
	ctx, cancel := context.WithTimeout(context.Background(), reachWithin)
	defer cancel()
	return g.client.Reach(ctx, kept.Partitions)
}
