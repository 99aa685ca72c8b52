package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway/feed"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

func (a *app) changes() *cobra.Command {
	var want feed.Want
	c := &cobra.Command{
		Use:   "changes [CLASS]",
		Short: "Print what is committed, of one class or of all, as it comes",
		Long: `Print what is committed, of one class or of all, as it comes, and each commit once; the changes of an object come in
order. It reads the streams itself, and a worker tells it what is on disk. If the connection ends it goes on where it was,
if there is one again within the time-out.

With --json a line is an event with its id: --from with the id of the last one goes on behind it.`,
		Example: "  perdure changes\n  perdure changes counter --prefix cart --from start\n" +
			"  perdure changes --json | jq -r .data.name",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeClass,
		RunE: func(c *cobra.Command, args []string) error {
			if want.Class = strings.Join(args, ""); want.Class != "" && wire.CheckClass(want.Class) != nil {
				return usage(c, "%v", wire.CheckClass(want.Class))
			}
			return a.printChanges(c.Context(), want)
		},
	}
	c.Flags().StringVar(&want.Prefix, "prefix", "", "only names that begin with it")
	c.Flags().StringVar(&want.From, "from", feed.Now, "now, start, or the id of the event behind which to begin")
	return c
}

// printChanges prints events until it is interrupted.
func (a *app) printChanges(ctx context.Context, want feed.Want) error {
	hub, end, err := a.feed(ctx)
	if err != nil {
		return err
	}
	defer end()
	begun := want.From
	out := a.live("when", "object", "version", "method", "changes", "request", "caller")
	err = a.patiently(ctx, func(well func()) error {
		l, err := hub.Listen(ctx, want)
		if err != nil {
			return err
		}
		want.From = l.Place()
		well()
		return l.Run(ctx, func(events []feed.Event) error {
			for _, e := range events {
				if err := a.printEvent(out, e); err != nil {
					return err
				}
				want.From = e.ID
			}
			want.From = l.Place()
			well()
			return nil
		})
	})
	if want.From == begun {
		return err
	}
	return advise(err, "go on with --from %s", want.From)
}

func (a *app) printEvent(out *live, e feed.Event) error {
	if a.json {
		return a.printJSON(struct {
			Event string          `json:"event"`
			ID    string          `json:"id"`
			Data  json.RawMessage `json:"data"`
		}{"change", e.ID, e.JSON})
	}
	return out.add(out.when(e.Entry.At), e.Entry.Class+"/"+e.Entry.Name, fmt.Sprint(e.Entry.Version), e.Entry.Method, a.changesOf(*e.Entry, out.human), e.Entry.ID, callerOf(e.Entry.Caller))
}

// feed is a hub of this command's own. What is durable it asks a worker.
func (a *app) feed(ctx context.Context) (hub *feed.Hub, end func(), err error) {
	s, named, err := a.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	s.Close() // the hub makes its own, and again
	nc, err := a.nats.dial(nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return nil, nil, err
	}
	ns := wire.Subjects(a.nats.namespace)
	asking, stop := context.WithCancel(ctx)
	ask := natsbus.NewClient(nc, ns)
	hub, err = feed.New(feed.Config{Namespace: ns, Life: named.ID, Partitions: named.Partitions,
		Connect: func(ctx context.Context) (journal.Session, error) {
			return jetstream.Dial(ctx, jetstream.Config{Dial: a.nats.dial, Namespace: ns})
		},
		Durable: func(stream string, seq journal.Seq, open func()) {
			go durable(asking, ask, stream, seq, open) // it ends with asking
		}})
	if err != nil {
		stop()
		nc.Close()
		return nil, nil, err
	}
	return hub, func() { stop(); hub.Close(); nc.Close() }, nil
}

// durable asks until a worker says that what the stream has is durable.
func durable(ctx context.Context, ask *natsbus.Client, stream string, seq journal.Seq, open func()) {
	for ctx.Err() == nil {
		if err := ask.Durable(ctx, stream, seq); err == nil {
			open()
			return
		}
		pause(ctx, retryEvery)
	}
}

// retryEvery is how often something is tried again that nobody answers.
const retryEvery = 50 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// patiently runs f again when it fails because nobody answers, unless nothing went well for as long as the time-out; and at
// once when it was too slow.
func (a *app) patiently(ctx context.Context, f func(well func()) error) error {
	last := time.Now()
	for {
		err := f(func() { last = time.Now() })
		slow := errors.Is(err, engine.Overloaded)
		if ctx.Err() != nil || !slow && exitCode(ctx, err) != exitUnavailable || time.Since(last) > a.nats.timeout {
			return err
		}
		if !slow {
			pause(ctx, retryEvery)
		}
	}
}
