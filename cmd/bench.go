package cmd

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/internal/bench"
	"github.com/perdure/perdure/internal/wire"
)

// benchFlags are what `perdure bench` takes.
type benchFlags struct {
	bench.Options
	prefix string
	stream bool
}

// Flags that have a meaning for the table only, or only without it.
var (
	ofTheTable  = []string{"only", "http-callers", "restart-objects", "partitions", "profile"}
	ofOneMethod = []string{"prefix", "stream", "server", "context"}
)

func (a *app) bench() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "bench [CLASS METHOD [JSON|-]]",
		Short: "Measure how fast the system is, each figure beside a yardstick",
		Long: `Measure how fast the system is, each figure beside a yardstick that is measured in turn with it. The ratio is the median
over pairs of rounds.

Without arguments a system of its own is started, in a temporary folder, and removed: some minutes, both cores, and a few
GiB of disk. The rows that have "large" in their name are measured only when --only asks for them.

With CLASS METHOD it calls that method of objects of the running system that --server or --context names: the objects
<prefix>0, <prefix>1 and so on, which are there afterwards. --stream also measures the log alone, on streams that are
removed at the end.`,
		Example: "  perdure bench\n  perdure bench --only hot,reads --json\n" +
			"  perdure bench counter increment --objects 10000 --callers 256 --for 5s --rounds 1",
		Args:              cobra.MaximumNArgs(3),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(c, args); err != nil {
				return err
			}
			if len(args) == 0 {
				return a.benchTable(c, f.Options)
			}
			return a.benchMethod(c, &f, args)
		},
	}
	flags := c.Flags()
	flags.StringSliceVar(&f.Only, "only", nil, "rows with one of these in their name: "+strings.Join(bench.Names(), " "))
	flags.IntVar(&f.Rounds, "rounds", 5, "rounds of each figure and of its yardstick")
	flags.DurationVar(&f.For, "for", 600*time.Millisecond, "how long a round takes")
	flags.IntVar(&f.Callers, "callers", 256, "callers over NATS, each with one request in flight")
	flags.IntVar(&f.Connections, "connections", 4, "NATS connections of all callers together")
	flags.IntVar(&f.HTTPCallers, "http-callers", 64, "callers over HTTP, each with a connection")
	flags.IntVar(&f.Objects, "objects", 10_000, "objects, where there are many")
	flags.IntVar(&f.Restart, "restart-objects", 100_000, "objects before the restart")
	flags.IntVar(&f.Partitions, "partitions", 0, "streams of each system; default: as many as dev makes")
	flags.StringVar(&f.Profile, "profile", "", "folder for profiles of the system under each figure and yardstick")
	flags.StringVar(&f.prefix, "prefix", "bench-", "of the objects' names")
	flags.BoolVar(&f.stream, "stream", false, "also measure the log alone, on streams of its own")
	return c
}

func (f *benchFlags) check(c *cobra.Command, args []string) error {
	for name, n := range map[string]int{"rounds": f.Rounds, "callers": f.Callers, "connections": f.Connections, "http-callers": f.HTTPCallers,
		"objects": f.Objects, "restart-objects": f.Restart} {
		if n < 1 {
			return usage(c, "--%s is %d; want at least 1", name, n)
		}
	}
	wrong, why := ofOneMethod, "is for a running system: say what to call there, such as: perdure bench counter increment"
	if len(args) > 0 {
		wrong, why = ofTheTable, "is for the table, which takes no CLASS METHOD"
	}
	switch i := slices.IndexFunc(wrong, c.Flags().Changed); {
	case i >= 0:
		return usage(c, "--%s %s", wrong[i], why)
	case f.Partitions < 0 || f.Partitions > wire.Slots:
		return usage(c, "--partitions is %d; want 1 to %d", f.Partitions, wire.Slots)
	case f.For < time.Millisecond:
		return usage(c, "--for is %v; want at least 1ms", f.For)
	case len(args) == 1:
		return usage(c, "%q is no method; want CLASS METHOD, such as counter increment", args[0])
	}
	return nil
}

func (a *app) benchTable(c *cobra.Command, o bench.Options) (err error) {
	if o.Program, err = os.Executable(); err != nil {
		return err
	}
	o.Progress = func(row string) { fmt.Fprintf(a.err, "measuring: %s\n", row) }
	return a.benchRows(c.Context(), func(emit func(bench.Row) error) error { return bench.Run(c.Context(), o, emit) })
}

func (a *app) benchMethod(c *cobra.Command, f *benchFlags, args []string) (err error) {
	o := bench.AttachOptions{Namespace: wire.Subjects(a.nats.namespace), Class: args[0], Method: args[1], Prefix: f.prefix, Objects: f.Objects,
		Callers: f.Callers, Connections: f.Connections, Rounds: f.Rounds, For: f.For, Stream: f.stream,
		Dial: func(options ...nats.Option) (*nats.Conn, error) { return a.nats.dial(options...) }}
	if err := cmp.Or(wire.CheckClass(o.Class), wire.CheckIdentifier(o.Method), wire.CheckName(o.Prefix+"0")); err != nil {
		return usage(c, "%v", err)
	}
	if len(args) == 3 {
		if o.Body, err = a.argument(c.Context(), args[2]); err != nil {
			return err
		}
	}
	return a.benchRows(c.Context(), func(emit func(bench.Row) error) error { return bench.Attach(c.Context(), o, emit) })
}

// benchRows prints what run measures: the rows that there are, also when it fails.
func (a *app) benchRows(ctx context.Context, run func(emit func(bench.Row) error) error) error {
	t := a.rows("figure", "measured", "beside", "measured", "ratio", "cpu/call", "at least", "proud of", "reached")
	var notes []string
	err := run(func(r bench.Row) error {
		if a.json {
			return a.printJSON(r)
		}
		atLeast, proud := r.Bars()
		t.add(r.What, bench.Number(r.Measured)+" "+r.Unit, cmp.Or(r.Against, "-"), besides(r), ratio(r), cpu(r), atLeast, proud, cmp.Or(r.Reached, "-"))
		if r.Note != "" {
			notes = append(notes, r.What+": "+r.Note)
		}
		return nil
	})
	if ctx.Err() != nil {
		err = ctx.Err() // and not what it broke
	}
	if a.json {
		return err
	}
	if err := t.end(); err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(a.err, note)
	}
	return err
}

func besides(r bench.Row) string {
	if r.Against == "" {
		return "-"
	}
	return bench.Number(r.Yardstick) + " " + r.Unit
}

func ratio(r bench.Row) string {
	switch {
	case r.Against == "":
		return "-"
	case r.Goal.Kind == bench.BeyondBelow && r.Beyond >= 0:
		return "+" + bench.Number(r.Beyond) + " " + r.Unit
	case r.Goal.Kind == bench.BeyondBelow:
		return bench.Number(r.Beyond) + " " + r.Unit
	}
	return bench.Number(r.Ratio) + " x"
}

// cpu is what a call costs the system's process, and what one of the yardstick's does.
func cpu(r bench.Row) string {
	if r.CPU == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s µs", bench.Number(r.CPU), bench.Number(r.YardstickCPU))
}
