package cmd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/journal"
)

func (a *app) send() *cobra.Command {
	var id, caller string
	var wait bool
	c := &cobra.Command{
		Use:   "send CLASS/NAME METHOD [JSON|-]",
		Short: "Send a durable message to an object: it is applied once, even if no worker runs now",
		Long: `Send a durable message to an object and print its position in the inbox. It is applied once, in the order of the object's
messages, even if no worker runs now; nobody waits for a reply. --wait waits until it was answered and says how.

Any NATS client does the same with a JetStream publish to objects.send.CLASS.NAME.METHOD.`,
		Example: "  perdure send counter/cart-99 increment '{\"by\":2}'\n  perdure send counter/cart-99 increment --id order-17 --wait\n" +
			"  perdure sent counter/cart-99 4711",
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: a.completeCall,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.methodRequest(c, args, id, caller)
			if err != nil {
				return err
			}
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				seq, err := engine.NewClient(to).Post(ctx, r)
				if err != nil {
					return adviseUnsent(err, id)
				}
				if !wait {
					return a.printSeq(seq)
				}
				return a.waitSent(ctx, to, r.Class, r.Name, seq)
			})
		},
	}
	c.Flags().StringVar(&id, "id", "", "the message's id: a repeat is applied once")
	c.Flags().StringVar(&caller, "caller", "", "who sends, for the journal")
	c.Flags().BoolVar(&wait, "wait", false, "wait until it was answered, at most for the time-out")
	return c
}

func (a *app) printSeq(seq journal.Seq) error {
	if a.json {
		return a.printJSON(map[string]journal.Seq{"seq": seq})
	}
	_, err := fmt.Fprintln(a.out, seq)
	return err
}

// adviseUnsent says how to go on when nobody knows whether a message was stored.
func adviseUnsent(err error, id string) error {
	switch e, ok := errors.AsType[*engine.Error](err); {
	case !ok || e.Code != engine.UnknownOutcome:
		return err
	case id != "":
		return advise(err, "repeat it with the same id, which applies it once: --id %s", id)
	}
	return advise(err, "it may be stored; with --id a repeat would be applied once")
}

func (a *app) sent() *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use:               "sent CLASS/NAME SEQ",
		Short:             "Show what became of a message: waiting, applied, refused, repeat, notRun or dead",
		Example:           "  perdure sent counter/cart-99 4711\n  perdure sent counter/cart-99 4711 --wait --json",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeObject,
		RunE: func(c *cobra.Command, args []string) error {
			class, name, seq, err := message(c, args)
			if err != nil {
				return err
			}
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				if wait {
					return a.waitSent(ctx, to, class, name, seq)
				}
				s, err := to.Sent(ctx, class, name, seq)
				if err != nil {
					return err
				}
				return a.printSent(s)
			})
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until it was answered, at most for the time-out")
	return c
}

// message reads CLASS/NAME SEQ: an object, and the position of a message to it in the inbox.
func message(c *cobra.Command, args []string) (class, name string, seq journal.Seq, err error) {
	if class, name, err = address(c, args[0]); err != nil {
		return "", "", 0, err
	}
	n, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil || n == 0 {
		return "", "", 0, usage(c, "%q is no position of a message; `perdure send` prints it", args[1])
	}
	return class, name, journal.Seq(n), nil
}

// sentPoll is how often a message that waits is looked at.
const sentPoll = 50 * time.Millisecond

func (a *app) waitSent(ctx context.Context, to engine.Inspector, class, name string, seq journal.Seq) error {
	tick := time.NewTicker(sentPoll)
	defer tick.Stop()
	for {
		s, err := to.Sent(ctx, class, name, seq)
		switch {
		case err == nil && s.State != engine.SentWaiting:
			return a.printSent(s)
		case err != nil && !errors.Is(err, engine.Unavailable):
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err == nil && s.Error != "" {
				return engine.Errorf(engine.Timeout, "message %d waits: %s", seq, s.Error)
			}
			return engine.Errorf(engine.Timeout, "message %d waits still", seq)
		}
	}
}

// printSent prints what became of a message. One that was refused, not run, or is dead is no failure of the command.
func (a *app) printSent(s engine.SentState) error {
	if a.json {
		return a.printJSON(s)
	}
	r := a.rows("message", "state", "version", "tries", "stored", "what")
	what := s.Error
	if s.Reply != nil {
		what = string(s.Reply.Body)
		if s.Reply.Status >= 400 {
			what = engine.ParseProblem(s.Reply.Body).Detail
		}
	}
	version := "-"
	if s.Version > 0 {
		version = fmt.Sprint(s.Version)
	}
	r.add(fmt.Sprint(s.Seq), s.State, version, fmt.Sprint(s.Tries), r.when(s.Stored), what)
	return r.end()
}
