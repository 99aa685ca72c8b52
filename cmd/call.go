package cmd

import (
	"context"
	"fmt"
	"io"
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

func (a *app) call() *cobra.Command {
	var id, caller string
	c := &cobra.Command{
		Use:   "call CLASS/NAME METHOD [JSON|-]",
		Short: "Call a method of an object and print its reply",
		Long: `Call a method of an object and print its reply. The argument is JSON, - reads it from standard input, none is the
zero argument. A call that finds no owner, or whose outcome is not known, is repeated until the time-out; it applies once.`,
		Example: "  perdure call counter/cart-99 increment '{\"by\":2}'\n  perdure call counter/cart-99 value\n" +
			"  perdure call counter/cart-99 increment --id order-17    # again: the same reply, applied once",
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: a.completeCall,
		RunE: func(c *cobra.Command, args []string) error {
			class, name, err := address(c, args[0])
			if err != nil {
				return err
			}
			var body []byte
			switch {
			case len(args) == 3 && args[2] == "-":
				if body, err = readInput(c.Context(), a.in); err != nil {
					return fmt.Errorf("read the argument: %w", err)
				}
			case len(args) == 3:
				body = []byte(args[2])
			}
			return a.withClient(c.Context(), func(ctx context.Context, to *natsbus.Client) error {
				reply, err := engine.NewClient(to).Do(ctx, engine.Request{Class: class, Name: name, Method: args[1], Body: body, ID: id,
					Caller: engine.Caller{Claimed: caller}, Limit: a.nats.timeout})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.out, "%s\n", reply.Body)
				return err
			})
		},
	}
	c.Flags().StringVar(&id, "id", "", "the request's id: a repeat gets the recorded reply")
	c.Flags().StringVar(&caller, "caller", "", "who asks, for the journal")
	return c
}

// readInput reads an argument, or gives up when ctx ends: a terminal may never send the end.
func readInput(ctx context.Context, in io.Reader) (body []byte, err error) {
	done := make(chan struct{})
	go func() { // ends with the process at the latest
		defer close(done)
		body, err = io.ReadAll(io.LimitReader(in, engine.BodyBytesMax+1))
	}()
	select {
	case <-done:
		return body, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
