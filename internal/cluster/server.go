package cluster

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/nats-io/nats-server/v2/server"
)

// ServerCommand is the hidden command of the perdure binary that is a NATS server.
const ServerCommand = "nats-server"

// RunServer is the program nats-server of the module, with its arguments: -c FILE, and -t to check it only. It ends with ctx.
func RunServer(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet(ServerCommand, flag.ContinueOnError)
	flags.SetOutput(out)
	opts, err := server.ConfigureOptions(flags, args, server.PrintServerAndExit, flags.Usage, server.PrintTLSHelpAndDie)
	if err != nil {
		return fmt.Errorf("configure NATS server: %w", err)
	}
	if opts == nil { // it has told how it is used
		return nil
	}
	if opts.CheckConfig {
		_, err := fmt.Fprintf(out, "configuration file %s is valid\n", opts.ConfigFile)
		return err
	}
	opts.NoSigs = true // the caller has them
	s, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("start NATS server: %w", err)
	}
	s.ConfigureLogger() // its fatal errors end the process
	if err := server.Run(s); err != nil {
		return fmt.Errorf("start NATS server: %w", err)
	}
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
