package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/natsbus"
)

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show partitions, their epochs, and alarms", Example: "  perdure status\n  perdure status --json", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				raw, err := to.Status(ctx)
				if err != nil {
					return err
				}
				var s doctor.Report
				if err := json.Unmarshal(raw, &s); err != nil {
					return fmt.Errorf("status: %w", err)
				}
				if a.json {
					return a.printJSON(s)
				}
				r := a.rows("partition", "epoch", "sequence", "resident", "messages waiting", "held", "alarm")
				for _, p := range s.Owned {
					epoch := "not owned"
					if p.Owned {
						epoch = fmt.Sprint(p.Epoch)
					}
					r.add(fmt.Sprint(p.Partition), epoch, fmt.Sprint(p.High), fmt.Sprint(p.Resident), fmt.Sprint(p.Inbox.Open), fmt.Sprint(p.Inbox.Held), cmp.Or(p.Alarm, p.Inbox.Alarm))
				}
				return r.end()
			})
		},
	}
}
