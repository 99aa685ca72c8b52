package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

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
