// Package cmd is the whole command line as one function, for cmd/perdure and for users' own programs:
//
//	func main() { cmd.Main(counter.Counters, cart.Carts) }
//
// It joins what is apart elsewhere: engine, gateway, journal, snapshot store and server. Nothing imports it but mains.
package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
)

// Version is the version of the software, as `perdure version` and epoch records tell it.
const Version = "0.1.0-dev"

// Main runs the command line with these classes and ends the process. What is wrong with the classes is printed, all of
// it, and the exit code is 2.
func Main(classes ...engine.AnyClass) {
	os.Exit(Run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, classes...))
}

// Run is [Main] with everything that it touches as arguments; it returns the exit code. The first SIGINT or SIGTERM ends
// what runs in good order, the second ends the process at once.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer, classes ...engine.AnyClass) int {
	if err := engine.CheckClasses(classes...); err != nil {
		fmt.Fprintf(stderr, "perdure: the classes cannot be served\n%v\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal does what it always does
	a := &app{classes: classes, in: stdin, out: stdout, err: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		a.json = a.json || slices.Contains(args, "--json") // the flag before it may have been wrong
		a.tell(ctx, err)
	}
	return exitCode(ctx, err)
}

// app is one run of the command line.
type app struct {
	classes []engine.AnyClass
	in      io.Reader
	out     io.Writer
	err     io.Writer
	nats    natsFlags
	json    bool
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "perdure",
		Short: "Durable objects on NATS: one memory, one mailbox and one log for every named object",
		Long: `Perdure gives every named object one memory, one mailbox and one log, on NATS.

Data goes to standard output, everything else to standard error. On a terminal lists are tables; in a pipe they are
plain rows, separated by tabs, with times in ISO form; --json prints JSON.

Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 conflict · 5 unavailable or timed out · 130 interrupted`,
		Example:       "  perdure dev\n  perdure call counter/cart-99 increment '{\"by\":2}'\n  perdure journal counter/cart-99",
		Version:       Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usage(c, "%v", err) })
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	a.nats.add(root)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return a.nats.check(c) }
	// The root runs nothing, but what is no command is its argument: without RunE cobra would word the error.
	root.Args = cobra.ArbitraryArgs
	root.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c, "unknown command %q%s", args[0], didYouMean(c, args[0]))
		}
		return c.Help()
	}
	root.ValidArgsFunction = cobra.NoFileCompletions
	root.AddCommand(a.dev(), a.serve(), a.workerCommand(), a.gateway(), a.call(), a.send(), a.sent(), a.dead(), a.journal(), a.changes(), a.state(), a.objects(), a.listClasses(), a.status(), a.workers(), a.partitions(), a.drain(), a.doctor(), a.verify(), a.acceptJournal(), a.acceptInbox(), a.bench(), a.drill(), a.natsServer(), a.cluster(), a.version())
	for _, c := range root.Commands() {
		c.Args = countArgs(c.Args)
	}
	addCompletion(root)
	return root
}

func didYouMean(c *cobra.Command, typed string) string {
	c.SuggestionsMinimumDistance = 2
	if like := c.SuggestionsFor(typed); len(like) > 0 {
		return "; did you mean " + strings.Join(like, " or ") + "?"
	}
	return ""
}

// countArgs shows what arrived and what a command wants, where cobra counts: most often a shell took JSON apart.
func countArgs(are cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if are(c, args) != nil {
			return usage(c, "the arguments are %q; want: %s", args, c.UseLine())
		}
		return nil
	}
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs, Example: "  perdure version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.out, "perdure", Version)
			return err
		},
	}
}
