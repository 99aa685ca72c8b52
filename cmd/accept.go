package cmd

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
)

func (a *app) acceptJournal() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "accept-journal PARTITION",
		Short: "Accept that a partition's journal lost its end, after the alarm \"journal went back\"",
		Long: `Accept that a partition's journal came back shorter than it is known to have been: after a power cut with relaxed sync, a
restore, or a damaged disk. While the alarm stands the partition serves nothing. This command says what is lost and, if
you agree, lets the partition go on from what there is. First see whether a better copy of the stream can be restored:
what is accepted as lost is lost.`,
		Example: "  perdure accept-journal 2\n  perdure accept-journal 2 --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := strconv.Atoi(args[0])
			if err != nil || p < 0 || p >= wire.Slots {
				return usage(c, "%q is no partition; see: perdure status", args[0])
			}
			return a.accept(c, p, yes)
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) accept(c *cobra.Command, p int, yes bool) error {
	ns := wire.Subjects(a.nats.namespace)
	ctx, cancel := context.WithTimeout(c.Context(), max(a.nats.timeout, time.Minute))
	defer cancel()
	s, named, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if p >= named.Partitions {
		return usage(c, "there is no partition %d; there are %d, from 0", p, named.Partitions)
	}
	var refused error
	found := false
	accepted, err := engine.AcceptJournal(ctx, s, ns, p, func(l engine.Loss) bool {
		found = true
		fmt.Fprintf(a.err, "%s\nstream %s is known to have had sequence %d and ends at %d: %d sequences are lost\n",
			l.Why, l.Stream, l.Known, l.Have, max(0, int64(l.Known)-int64(l.Have)))
		if !yes {
			refused = a.confirm(ctx, l.Stream)
		}
		return refused == nil
	})
	switch {
	case err != nil:
		return err
	case refused != nil:
		return refused
	case !found:
		fmt.Fprintf(a.err, "partition %d has all that is known of it; there is nothing to accept\n", p)
		return nil
	case accepted:
		fmt.Fprintf(a.err, "accepted; its worker goes on within some seconds\n")
	}
	return nil
}

// confirm asks for the stream's name. Without a terminal there is nobody to ask.
func (a *app) confirm(ctx context.Context, stream string) error {
	if !isTerminal(a.in) {
		return advise(fmt.Errorf("nothing is accepted: there is no terminal to ask on"), "add --yes if you mean it")
	}
	fmt.Fprintf(a.err, "type the stream's name to accept the loss: ")
	line, err := await(ctx, func() (string, error) { return bufio.NewReader(a.in).ReadString('\n') })
	if err != nil {
		return fmt.Errorf("nothing is accepted: %w", err)
	}
	if got := strings.TrimSpace(line); got != stream {
		return fmt.Errorf("nothing is accepted: %q is not %q", got, stream)
	}
	return nil
}

func (a *app) acceptInbox() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "accept-inbox",
		Short: "Accept that the inbox lost messages, after the alarm \"inbox went back\"",
		Long: `Accept that the inbox came back without messages that were answered: after a power cut with relaxed sync, a restore, or a
damaged disk. While the alarm stands, calls are served and messages are kept, but those of the partitions that tell of it are
not applied. Objects know what they answered, so what is there is applied once; messages that were lost before they were
answered are lost. First see whether a better copy of the stream can be restored.`,
		Example: "  perdure accept-inbox\n  perdure accept-inbox --yes",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), max(a.nats.timeout, time.Minute))
			defer cancel()
			s, _, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer s.Close()
			why, err := a.inboxAlarms(ctx)
			if err != nil {
				return err
			}
			if why == "" {
				fmt.Fprintln(a.err, "no partition tells of a loss; there is nothing to accept")
				return nil
			}
			fmt.Fprintln(a.err, why)
			if !yes {
				if err := a.confirm(ctx, s.Inbox().Stream()); err != nil {
					return err
				}
			}
			if _, err := engine.AcceptInbox(ctx, s, why); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "accepted; workers go on within some seconds\n")
			return nil
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// inboxAlarms are why the workers' partitions do not follow the inbox.
func (a *app) inboxAlarms(ctx context.Context) (why string, err error) {
	err = a.withClient(ctx, func(ctx context.Context, to *natsbus.Client) error {
		s, err := doctor.ReadSystem(ctx, to)
		if err != nil {
			return err
		}
		var all []string
		for _, p := range s.Partitions {
			if p.Inbox.Alarm != "" {
				all = append(all, p.Inbox.Alarm)
			}
		}
		why = strings.Join(all, "\n")
		return nil
	})
	return why, err
}
