package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
)

// address takes CLASS/NAME apart: the name is all behind the first slash, as it is.
func address(c *cobra.Command, s string) (class, name string, err error) {
	class, name, ok := strings.Cut(s, "/")
	if !ok {
		return "", "", usage(c, "%q is no object; want CLASS/NAME, such as counter/cart-99", s)
	}
	if err := wire.CheckClass(class); err != nil {
		return "", "", usage(c, "%v", err)
	}
	if err := wire.CheckName(name); err != nil {
		return "", "", usage(c, "%v", err)
	}
	return class, name, nil
}

// methodRequest is what CLASS/NAME METHOD [JSON|-] asks for.
func (a *app) methodRequest(c *cobra.Command, args []string, id, caller string) (r engine.Request, err error) {
	r = engine.Request{Method: args[1], ID: id, Caller: engine.Caller{Claimed: caller}, Limit: a.nats.timeout}
	if r.Class, r.Name, err = address(c, args[0]); err != nil || len(args) < 3 {
		return r, err
	}
	r.Body, err = a.argument(c.Context(), args[2])
	return r, err
}

func (a *app) call() *cobra.Command {
	var id, caller string
	var read engine.Request
	c := &cobra.Command{
		Use:   "call CLASS/NAME METHOD [JSON|-]",
		Short: "Call a method of an object and print its reply",
		Long: `Call a method of an object and print its reply. The argument is JSON, - reads it from standard input, none is the
zero argument. A call that finds no owner, or whose outcome is not known, is repeated until the time-out; it applies once.`,
		Example: "  perdure call counter/cart-99 increment '{\"by\":2}'\n  perdure call counter/cart-99 value\n" +
			"  perdure call counter/cart-99 increment --id order-17    # again: the same reply, applied once\n" +
			"  perdure call counter/cart-99 value --eventual           # from a copy, where standbys follow",
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: a.completeCall,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := a.methodRequest(c, args, id, caller)
			if err != nil {
				return err
			}
			r.Eventual, r.MinVersion = read.Eventual, read.MinVersion
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				reply, err := engine.NewClient(to).Do(ctx, r)
				if err != nil {
					return adviseUnknown(err, args[0], id)
				}
				_, err = fmt.Fprintf(a.out, "%s\n", reply.Body)
				return err
			})
		},
	}
	c.Flags().StringVar(&id, "id", "", "the request's id: a repeat gets the recorded reply")
	c.Flags().StringVar(&caller, "caller", "", "who asks, for the journal")
	c.Flags().BoolVar(&read.Eventual, "eventual", false, "of a read: a standby's copy may answer, which may be behind")
	c.Flags().Uint64Var((*uint64)(&read.MinVersion), "min-version", 0, "of a read: the version of the object that the reply has to know")
	return c
}

// adviseUnknown says how to go on when the outcome of a call is not known. Only the caller's own id makes a repeat by
// another process safe: the number that this one gave ends with it.
func adviseUnknown(err error, object, id string) error {
	switch e, ok := errors.AsType[*engine.Error](err); {
	case !ok || e.Code != engine.UnknownOutcome:
		return err
	case id != "":
		return advise(err, "repeat it with the same id, which applies it once: --id %s", id)
	default:
		return advise(err, "look for request %s before you repeat it: perdure journal %s", e.RequestID, object)
	}
}
