package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

func (a *app) dead() *cobra.Command {
	c := &cobra.Command{
		Use:   "dead",
		Short: "Look at dead letters: messages that their objects could not answer; send them again, or drop them",
		Long: `A message whose method keeps failing is tried 7 times in two minutes (Limits.Tries of its class), and its object's later
messages wait that long. Then it becomes a dead letter: the object's journal says so, and it is kept until it is sent again
or dropped.`,
		Example: "  perdure dead ls\n  perdure dead show counter/cart-99 4711\n  perdure dead retry counter/cart-99 4711\n  perdure dead drop counter/cart-99 4711",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		&cobra.Command{Use: "ls [CLASS[/NAME]]", Short: "List dead letters", Example: "  perdure dead ls\n  perdure dead ls counter --json", Args: cobra.MaximumNArgs(1),
			ValidArgsFunction: a.completeClass,
			RunE: func(c *cobra.Command, args []string) error {
				class, name, one := strings.Cut(strings.Join(args, ""), "/")
				return a.listDead(c.Context(), class, name, one)
			}},
		a.deadLetter("show", "Show one, with its argument", func(_ context.Context, s *jetstream.Session, _ *natsbus.Client, d journal.DeadLetter) error {
			return a.showDead(d)
		}),
		a.deadLetter("retry", "Send one to its object again, behind what waits now", a.retryDead),
		a.deadLetter("drop", "Drop one: the journal says that it was there", func(ctx context.Context, s *jetstream.Session, _ *natsbus.Client, d journal.DeadLetter) error {
			return a.dropDead(ctx, s, d)
		}),
	)
	return c
}

// deadLetter is a command for one dead letter.
func (a *app) deadLetter(verb, short string, do func(context.Context, *jetstream.Session, *natsbus.Client, journal.DeadLetter) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " CLASS/NAME SEQ", Short: short, Example: "  perdure dead " + verb + " counter/cart-99 4711", Args: cobra.ExactArgs(2),
		ValidArgsFunction: a.completeObject,
		RunE: func(c *cobra.Command, args []string) error {
			class, name, seq, err := message(c, args)
			if err != nil {
				return err
			}
			return a.withInbox(c.Context(), func(ctx context.Context, s *jetstream.Session, to *natsbus.Client) error {
				m, err := s.Inbox().Last(ctx, wire.Subjects(a.nats.namespace).Dead(class, wire.Escape(name), uint64(seq)))
				if errors.Is(err, journal.ErrNotFound) {
					return engine.Errorf(engine.NotFound, "there is no dead letter %d of %s; see: perdure dead ls", seq, args[0])
				}
				if err != nil {
					return err
				}
				d, err := journal.DecodeDeadLetter(m.Data)
				if err != nil {
					return err
				}
				return do(ctx, s, to, d)
			})
		},
	}
}

// withInbox runs f with a session and a client over its connection.
func (a *app) withInbox(ctx context.Context, f func(context.Context, *jetstream.Session, *natsbus.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.nats.timeout)
	defer cancel()
	s, _, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(ctx, s, natsbus.NewClient(s.Conn(), wire.Subjects(a.nats.namespace)))
}

func (a *app) listDead(ctx context.Context, class, name string, one bool) error {
	ns := wire.Subjects(a.nats.namespace)
	pattern := ns.DeadAll()
	if one {
		pattern = ns.DeadOf(class, wire.Escape(name))
	}
	return a.withInbox(ctx, func(ctx context.Context, s *jetstream.Session, _ *natsbus.Client) error {
		var list []journal.DeadLetter
		for m, err := range s.Inbox().Read(ctx, pattern, 1) {
			if err != nil {
				return err
			}
			d, err := journal.DecodeDeadLetter(m.Data)
			if err != nil {
				return fmt.Errorf("dead letter at %d: %w", m.Seq, err)
			}
			if class == "" || d.Class == class {
				list = slices.DeleteFunc(list, func(e journal.DeadLetter) bool { return e.Seq == d.Seq && e.Life == d.Life }) // it was kept again
				list = append(list, d)
			}
		}
		return a.printDead(list)
	})
}

func (a *app) printDead(list []journal.DeadLetter) error {
	r := &rows{}
	if !a.json {
		r = a.rows("object", "message", "method", "tries", "given up", "error")
	}
	for _, d := range list {
		if a.json {
			if err := a.printJSON(readableDead(d)); err != nil {
				return err
			}
			continue
		}
		r.add(objectOf(d), fmt.Sprint(d.Seq), d.Method, fmt.Sprint(d.Tries), r.when(d.Buried), d.Error)
	}
	if a.json {
		return nil
	}
	return r.end()
}

func objectOf(d journal.DeadLetter) string {
	name, err := wire.Unescape(d.Token)
	if err != nil {
		name = d.Token // its spelling is why it is dead
	}
	return d.Class + "/" + name
}

// readableDead is a dead letter with its argument as JSON, if it is some.
func readableDead(d journal.DeadLetter) any {
	type plain journal.DeadLetter
	out := struct {
		Object string `json:"object"`
		plain
		Body any `json:"body,omitempty"`
	}{Object: objectOf(d), plain: plain(d), Body: string(d.Body)}
	if json.Valid(d.Body) {
		out.Body = json.RawMessage(d.Body)
	}
	return out
}

func (a *app) showDead(d journal.DeadLetter) error {
	if a.json {
		return a.printJSON(readableDead(d))
	}
	_, err := fmt.Fprintf(a.out, "object   %s\nmessage  %d, stored %s\nmethod   %s\ntries    %d, given up %s\nerror    %s\n",
		printable(objectOf(d)), d.Seq, d.At.UTC().Format("2006-01-02T15:04:05Z"), printable(d.Method), d.Tries, d.Buried.UTC().Format("2006-01-02T15:04:05Z"), printable(d.Error))
	for _, name := range slices.Sorted(maps.Keys(d.Header)) {
		if err == nil {
			_, err = fmt.Fprintf(a.out, "header   %s: %s\n", printable(name), printable(d.Header[name]))
		}
	}
	if err == nil && len(d.Body) > 0 {
		_, err = fmt.Fprintf(a.out, "argument %s\n", printable(string(d.Body)))
	}
	return err
}

// retryDead sends a dead letter again, under an id of its own, so that it is applied once however often that is tried. What
// its object answered after all is not sent: the letter is left of a worker that was ended in between.
func (a *app) retryDead(ctx context.Context, s *jetstream.Session, to *natsbus.Client, d journal.DeadLetter) error {
	name, err := wire.Unescape(d.Token)
	if err != nil {
		return fmt.Errorf("it cannot be sent again: %w", err)
	}
	switch was, err := to.Sent(ctx, d.Class, name, d.Seq); {
	case err != nil && !errors.Is(err, engine.NotFound):
		return err
	case err == nil && was.State != journal.SentDead && was.State != engine.SentWaiting:
		return advise(engine.Errorf(engine.Conflict, "its object answered message %d after all, as version %d: %s", d.Seq, was.Version, was.State), "drop the dead letter")
	}
	r := engine.Request{Class: d.Class, Name: name, Method: d.Method, Body: d.Body, ID: fmt.Sprintf("dead-%d-%d", d.Life, d.Seq), Caller: engine.Caller{Claimed: d.Header[wire.HeaderCaller]}}
	seq, err := engine.NewClient(to).Post(ctx, r)
	if err != nil {
		return err
	}
	if err := a.dropDead(ctx, s, d); err != nil {
		return err
	}
	return a.printSeq(seq)
}

func (a *app) dropDead(ctx context.Context, s *jetstream.Session, d journal.DeadLetter) error {
	return s.Inbox().Purge(ctx, wire.Subjects(a.nats.namespace).Dead(d.Class, d.Token, uint64(d.Seq)), 1<<62)
}
