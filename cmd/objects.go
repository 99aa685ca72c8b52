package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
)

func (a *app) objects() *cobra.Command {
	var prefix string
	var limit int
	c := &cobra.Command{
		Use:   "objects [CLASS]",
		Short: "List objects, of one class or of all, without waking them",
		Example: "  perdure objects\n  perdure objects counter --prefix cart\n" +
			"  perdure objects counter --json | jq -r .name",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeClass,
		RunE: func(c *cobra.Command, args []string) error {
			class := strings.Join(args, "")
			if limit < 0 {
				return usage(c, "--limit is %d; want at least 1, or 0 for all", limit)
			}
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				return a.printObjects(ctx, to, class, prefix, limit)
			})
		},
	}
	c.Flags().StringVar(&prefix, "prefix", "", "only names that begin with it")
	c.Flags().IntVar(&limit, "limit", 0, "at most so many; 0: all")
	return c
}

func (a *app) printObjects(ctx context.Context, to engine.Inspector, class, prefix string, limit int) error {
	var table *rows
	if !a.json {
		table = a.rows("object", "version", "changed", "state")
	}
	for cursor, printed := "", 0; ; {
		want := engine.ListMax
		if limit > 0 {
			want = min(want, limit-printed)
		}
		list, next, err := listed(ctx, to, class, prefix, cursor, want)
		if err != nil {
			return err
		}
		printed += len(list)
		for _, o := range list {
			if a.json {
				if err := a.printJSON(o); err != nil {
					return err
				}
				continue
			}
			state := "asleep"
			if o.Active {
				state = "active"
			}
			table.add(o.Class+"/"+o.Name, fmt.Sprint(o.Version), table.when(o.Changed), state)
		}
		if next == "" || limit > 0 && printed >= limit {
			break
		}
		cursor = next
	}
	if a.json {
		return nil
	}
	return table.end()
}

// listed asks for a page of names, and again while a worker that has just started is still reading them.
func listed(ctx context.Context, to engine.Inspector, class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
	var why error
	for {
		list, next, err := to.Objects(ctx, class, prefix, cursor, limit)
		if err != nil && ctx.Err() != nil && why != nil {
			return nil, "", why // that the last question ended says less
		}
		e, ok := errors.AsType[*engine.Error](err)
		if !ok || e.Code != engine.Unavailable {
			return list, next, err
		}
		why = err
		select {
		case <-time.After(max(e.RetryAfter/10, 20*time.Millisecond)):
		case <-ctx.Done():
			return nil, "", err
		}
	}
}
