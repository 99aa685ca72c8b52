package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
)

func (a *app) state() *cobra.Command {
	return &cobra.Command{
		Use:               "state CLASS/NAME",
		Short:             "Print an object's state as of its last change, without waking it",
		Example:           "  perdure state counter/cart-99\n  perdure state counter/cart-99 --json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeObject,
		RunE: func(c *cobra.Command, args []string) error {
			class, name, err := address(c, args[0])
			if err != nil {
				return err
			}
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				s, err := to.State(ctx, class, name)
				if err != nil {
					return err
				}
				if s.Version == 0 {
					return advise(engine.Errorf(engine.NotFound, "%s/%s has never changed, so there is no such object", class, name),
						"see which there are: perdure objects %s", class)
				}
				if a.json {
					return a.printJSON(s)
				}
				return a.printState(s)
			})
		},
	}
}

func (a *app) printState(s engine.ObjectState) error {
	r := a.rows("key", "value")
	r.add("version", fmt.Sprint(s.Version))
	r.add("changed", r.when(s.Changed))
	r.add("sequence", fmt.Sprint(s.Seq))
	if s.State != nil {
		var compact bytes.Buffer
		if err := json.Compact(&compact, s.State); err != nil {
			return fmt.Errorf("state: %w", err)
		}
		r.add("state", compact.String())
	}
	for _, key := range slices.Sorted(maps.Keys(s.Storage)) {
		r.add("storage "+key, string(s.Storage[key]))
	}
	if s.More {
		fmt.Fprintln(a.err, "perdure: storage has more keys than are shown")
	}
	return r.end()
}

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
		list, next, err := to.Objects(ctx, class, prefix, cursor, want)
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

func (a *app) listClasses() *cobra.Command {
	return &cobra.Command{
		Use: "classes", Short: "List the classes that are served, with their methods and events", Example: "  perdure classes", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				list, err := to.Classes(ctx)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(list)
				}
				r := a.rows("class", "kind", "name", "argument", "result")
				for _, cl := range list {
					for _, name := range slices.Sorted(maps.Keys(cl.Methods)) {
						m := cl.Methods[name]
						kind := "call"
						if m.Read {
							kind = "read"
						}
						r.add(cl.Name, kind, name, m.In, m.Out)
					}
					for _, e := range cl.Events {
						r.add(cl.Name, "event", e, "", "")
					}
					if cl.HTTP {
						r.add(cl.Name, "http", "/"+cl.Name+"/<name>/…", "", "")
					}
				}
				return r.end()
			})
		},
	}
}

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show partitions, their epochs, and alarms", Example: "  perdure status\n  perdure status --json", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				raw, err := to.Status(ctx)
				if err != nil {
					return err
				}
				var s engine.Status
				if err := json.Unmarshal(raw, &s); err != nil {
					return fmt.Errorf("status: %w", err)
				}
				if a.json {
					return a.printJSON(s)
				}
				r := a.rows("partition", "epoch", "sequence", "resident", "alarm")
				for _, p := range s.Owned {
					epoch := "not owned"
					if p.Owned {
						epoch = fmt.Sprint(p.Epoch)
					}
					r.add(fmt.Sprint(p.Partition), epoch, fmt.Sprint(p.High), fmt.Sprint(p.Resident), p.Alarm)
				}
				return r.end()
			})
		},
	}
}
