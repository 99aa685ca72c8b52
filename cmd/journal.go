package cmd

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

func (a *app) journal() *cobra.Command {
	var from uint64
	var limit int
	var raw, follow bool
	c := &cobra.Command{
		Use:   "journal CLASS/NAME",
		Short: "Print every change of an object: when, what, which request, by whom",
		Long: `Print every change of an object, from its first, without waking it. With --json a line is a commit, with its changes
and its reply. What is in the journal and does not count is shown with its problem.

With --follow it goes on with what is committed from now on, until it is interrupted. If the connection ends it goes on where
it was, if there is one again within the time-out.

With --raw a line is a message as it is stored: the object's records and snapshot records, and the epochs of its
partition, which decide what counts. They are read from the stream, without a worker.`,
		Example: "  perdure journal counter/cart-99\n  perdure journal counter/cart-99 --json --from 5120 --limit 10\n" +
			"  perdure journal counter/cart-99 --follow\n  perdure journal counter/cart-99 --raw | jq -r .data",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeObject,
		RunE: func(c *cobra.Command, args []string) error {
			class, name, err := address(c, args[0])
			if err != nil {
				return err
			}
			if limit < 0 {
				return usage(c, "--limit is %d; want at least 1, or 0 for all", limit)
			}
			if follow && (raw || limit != 0) {
				return usage(c, "what is followed has no end, and is not raw: want no --limit and no --raw with --follow")
			}
			if follow {
				return a.followJournal(c.Context(), class, name, journal.Seq(from))
			}
			if raw {
				return a.printRaw(c.Context(), class, name, journal.Seq(from), limit)
			}
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				return a.printJournal(ctx, to, class, name, journal.Seq(from), limit)
			})
		},
	}
	c.Flags().Uint64Var(&from, "from", 0, "first sequence of the partition's stream")
	c.Flags().IntVar(&limit, "limit", 0, "at most so many changes; 0: all")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is committed from now on")
	c.Flags().BoolVar(&raw, "raw", false, "print the messages as they are stored, in JSON")
	return c
}

func (a *app) printJournal(ctx context.Context, to engine.Inspector, class, name string, from journal.Seq, limit int) error {
	var table *rows
	if !a.json {
		table = a.rows("seq", "version", "when", "method", "changes", "request", "caller")
	}
	printed := 0
	for {
		want := engine.ListMax
		if limit > 0 {
			want = min(want, limit-printed)
		}
		entries, next, err := to.Journal(ctx, class, name, from, want)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if limit > 0 && printed == limit {
				break
			}
			printed++
			if a.json {
				if err := a.printJSON(e); err != nil {
					return err
				}
				continue
			}
			table.add(fmt.Sprint(e.Seq), fmt.Sprint(e.Version), table.when(e.At), e.Method, a.changesOf(e, table.human), e.ID, callerOf(e.Caller))
		}
		if next == 0 || limit > 0 && printed == limit {
			break
		}
		from = next
	}
	if a.json {
		return nil
	}
	return table.end()
}

func callerOf(c engine.Caller) string {
	if c.Verified != "" {
		return c.Verified
	}
	return c.Claimed
}

// changesOf are the changes of a commit on one line, short on a terminal.
func (a *app) changesOf(e engine.JournalEntry, short bool) string {
	if e.Problem != "" {
		return "PROBLEM: " + e.Problem
	}
	var parts []string
	for _, c := range e.Changes {
		text := c.Kind + " " + c.Key + c.Type
		if len(c.Data) > 0 {
			text += " " + string(c.Data)
		}
		parts = append(parts, text)
	}
	line := strings.Join(parts, "; ")
	if short && utf8.RuneCountInString(line) > changesWidth {
		line = string([]rune(line)[:changesWidth]) + "…"
	}
	return line
}

// changesWidth is how much of a commit's changes fits on a terminal's line.
const changesWidth = 60

// followJournal prints an object's journal, and what is added to it. The worker tells what counts and is durable; the stream
// tells when to ask it.
func (a *app) followJournal(ctx context.Context, class, name string, from journal.Seq) error {
	out := a.live("seq", "version", "when", "method", "changes", "request", "caller")
	err := a.patiently(ctx, func(well func()) error {
		s, named, err := a.open(ctx)
		if err != nil {
			return err
		}
		defer s.Close()
		log := s.Log(wire.Partition(wire.Slot(class, wire.Escape(name)), named.Partitions))
		ask := natsbus.NewClient(s.Conn(), wire.Subjects(a.nats.namespace))
		following, stop := context.WithCancel(ctx)
		defer stop()
		stored, ended := make(chan journal.Seq, 1), make(chan error, 1)
		go func() {
			ended <- newest(following, log, wire.Subjects(a.nats.namespace).Journal(class, wire.Escape(name)), from, stored)
		}()
		for last := journal.Seq(0); ; {
			if from, err = a.printPages(ctx, ask, out, class, name, from); err != nil {
				return err
			}
			well()
			if from <= last { // whoever answered is behind
				pause(ctx, retryEvery)
				continue
			}
			select {
			case last = <-stored:
			case err := <-ended:
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return engine.Errorf(engine.Unavailable, "%w", err)
			case <-s.Done():
				return engine.Errorf(engine.Unavailable, "the connection ended")
			}
		}
	})
	return advise(err, "go on with --from %d", from)
}

// newest keeps the position of the newest message on a subject in a channel.
func newest(ctx context.Context, log journal.Reader, subject string, from journal.Seq, stored chan journal.Seq) error {
	for m, err := range log.Follow(ctx, from, subject) {
		if err != nil {
			return err
		}
		select {
		case <-stored: // an older one
		default:
		}
		stored <- m.Seq
	}
	return nil
}

// printPages prints what there is from a position on, and returns the one behind it.
func (a *app) printPages(ctx context.Context, ask engine.Inspector, out *live, class, name string, from journal.Seq) (journal.Seq, error) {
	for {
		entries, next, err := ask.Journal(ctx, class, name, from, engine.ListMax)
		if err != nil {
			return from, err
		}
		for _, e := range entries {
			if a.json {
				err = a.printJSON(e)
			} else {
				err = out.add(fmt.Sprint(e.Seq), fmt.Sprint(e.Version), out.when(e.At), e.Method, a.changesOf(e, out.human), e.ID, callerOf(e.Caller))
			}
			if err != nil {
				return from, err
			}
			from = max(from, e.Seq+1)
		}
		if next == 0 {
			return from, nil
		}
		from = next
	}
}
