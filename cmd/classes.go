package cmd

import (
	"context"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/natsbus"
)

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
