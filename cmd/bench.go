package cmd

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/bench"
)

func (a *app) bench() *cobra.Command {
	o := bench.Options{}
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast the system is, each figure beside a yardstick",
		Long: `Measure how fast the system is, each figure beside a yardstick that is measured in the same run, in turn with it.
A system of its own is started for that, in a temporary folder, and removed.`,
		Example: "  perdure bench\n  perdure bench --only hot,reads\n  perdure bench --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Rounds < 1 || o.For < time.Millisecond || o.Callers < 1 || o.Connections < 1 || o.Objects < 1 || o.HTTPCallers < 1 || o.Restart < 1 {
				return usage(c, "--rounds, --callers, --connections and --objects are at least 1, --for is at least 1ms")
			}
			return a.runBench(c, o)
		},
	}
	flags := c.Flags()
	flags.StringSliceVar(&o.Only, "only", nil, "rows with one of these in their name: "+strings.Join(bench.Names(), " "))
	flags.IntVar(&o.Rounds, "rounds", 5, "rounds of each figure and of its yardstick")
	flags.DurationVar(&o.For, "for", 600*time.Millisecond, "how long a round takes")
	flags.IntVar(&o.Callers, "callers", 256, "callers, each with one request in flight")
	flags.IntVar(&o.Connections, "connections", 4, "NATS connections of all callers together")
	flags.IntVar(&o.HTTPCallers, "http-callers", 64, "callers over HTTP, each with a connection")
	flags.IntVar(&o.Objects, "objects", 10_000, "objects where a row has many")
	flags.IntVar(&o.Restart, "restart-objects", 100_000, "objects before the restart")
	flags.StringVar(&o.Profile, "profile", "", "folder for profiles of the system under each figure and yardstick")
	return c
}

func (a *app) runBench(c *cobra.Command, o bench.Options) (err error) {
	if o.Program, err = os.Executable(); err != nil {
		return err
	}
	o.Progress = func(row string) { fmt.Fprintf(a.err, "measuring: %s\n", row) }
	if a.json {
		return bench.Run(c.Context(), o, func(r bench.Row) error { return a.printJSON(r) })
	}
	var notes []string
	t := a.rows("figure", "measured", "yardstick", "measured", "ratio", "at least", "proud of", "reached")
	err = bench.Run(c.Context(), o, func(r bench.Row) error {
		yardstick, ratio := "-", "-"
		if r.Against != "" {
			yardstick, ratio = bench.Number(r.Yardstick)+" "+r.Unit, bench.Number(r.Ratio)+" x"
		}
		if r.Goal.Kind == bench.BeyondBelow {
			ratio = fmt.Sprintf("%+.0f %s", r.Beyond, r.Unit)
		}
		atLeast, proud := r.Bars()
		reached := r.Reached
		if reached == "" {
			reached = "-"
		}
		t.add(r.What, bench.Number(r.Measured)+" "+r.Unit, r.Against, yardstick, ratio, atLeast, proud, reached)
		if r.Note != "" {
			notes = append(notes, r.What+": "+r.Note)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = t.end()
	for _, note := range notes {
		fmt.Fprintln(a.err, note)
	}
	return err
}
