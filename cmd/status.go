package cmd

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/natsbus"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show partitions, their owners and epochs, and alarms", Example: "  perdure status\n  perdure status --json", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				s, err := doctor.ReadSystem(ctx, to)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(s)
				}
				r := a.rows("partition", "worker", "epoch", "sequence", "resident", "messages waiting", "held", "alarm")
				for _, p := range s.Partitions {
					owner, epoch := "-", "not owned"
					if p.Owned {
						owner, epoch = p.Worker, fmt.Sprint(p.Epoch)
					}
					r.add(fmt.Sprint(p.Partition), owner, epoch, fmt.Sprint(p.High), fmt.Sprint(p.Resident), fmt.Sprint(p.Inbox.Open), fmt.Sprint(p.Inbox.Held), cmp.Or(p.Alarm, p.Inbox.Alarm))
				}
				return r.end()
			})
		},
	}
}
