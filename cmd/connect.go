package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"github.com/synadia-io/orbit.go/natscontext"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// natsFlags say how to reach NATS: flags first, then the variables that the nats command knows, then its
// selected context. A --context goes before NATS_URL.
type natsFlags struct {
	server, context, creds, nkey, user, password, token, cert, key, ca string
	namespace                                                          string
	timeout                                                            time.Duration
	given                                                              func(flag string) bool // on the command line
}

func (f *natsFlags) add(c *cobra.Command) {
	flags := c.PersistentFlags()
	env := func(p *string, name, short, variable, what string) {
		flags.StringVarP(p, name, short, os.Getenv(variable), what+" ("+variable+")")
		flags.Lookup(name).DefValue = "" // a secret in the environment is not for the help
	}
	env(&f.server, "server", "s", "NATS_URL", "NATS servers; without any, the context's, or "+nats.DefaultURL)
	env(&f.context, "context", "", "NATS_CONTEXT", "NATS context, as `nats context` keeps it")
	env(&f.creds, "creds", "", "NATS_CREDS", "credentials file")
	env(&f.nkey, "nkey", "", "NATS_NKEY", "nkey seed file")
	env(&f.user, "user", "", "NATS_USER", "user")
	env(&f.password, "password", "", "NATS_PASSWORD", "password")
	env(&f.token, "token", "", "NATS_TOKEN", "token")
	env(&f.cert, "tlscert", "", "NATS_CERT", "TLS certificate file")
	env(&f.key, "tlskey", "", "NATS_KEY", "TLS key file")
	env(&f.ca, "tlsca", "", "NATS_CA", "TLS certificate authority file")
	flags.StringVar(&f.namespace, "namespace", cmp.Or(os.Getenv("PERDURE_NAMESPACE"), string(wire.DefaultNamespace)), "namespace of the objects (PERDURE_NAMESPACE)")
	flags.DurationVar(&f.timeout, "timeout", defaultTimeout, "how long to wait at most (NATS_TIMEOUT)")
	f.given = flags.Changed
}

const defaultTimeout = 10 * time.Second

// check reads what can be wrong in flags and variables that say how to reach NATS.
func (f *natsFlags) check(c *cobra.Command) error {
	if s := os.Getenv("NATS_TIMEOUT"); s != "" && !f.given("timeout") {
		var err error
		if f.timeout, err = time.ParseDuration(s); err != nil {
			return usage(c, "NATS_TIMEOUT is %q; want a duration, such as 10s", s)
		}
	}
	if f.timeout <= 0 {
		return usage(c, "--timeout is %v; want more than 0", f.timeout)
	}
	if f.given("server") && f.given("context") {
		return usage(c, "--server and --context both say where NATS is; want one of them")
	}
	if f.given("context") {
		f.server = "" // NATS_URL is for those who say nothing
	}
	if err := wire.Subjects(f.namespace).Check(); err != nil {
		return usage(c, "--namespace: %v", err)
	}
	return nil
}

func (f *natsFlags) options() (options []nats.Option, err error) {
	add := func(set string, o func() (nats.Option, error)) {
		if set == "" || err != nil {
			return
		}
		var option nats.Option
		if option, err = o(); err == nil {
			options = append(options, option)
		}
	}
	add(f.creds, func() (nats.Option, error) { return nats.UserCredentials(f.creds), nil })
	add(f.nkey, func() (nats.Option, error) { return nats.NkeyOptionFromSeed(f.nkey) })
	add(f.user, func() (nats.Option, error) { return nats.UserInfo(f.user, f.password), nil })
	add(f.token, func() (nats.Option, error) { return nats.Token(f.token), nil })
	add(f.cert, func() (nats.Option, error) { return nats.ClientCert(f.cert, f.key), nil })
	add(f.ca, func() (nats.Option, error) { return nats.RootCAs(f.ca), nil })
	return append(options, nats.Name("perdure command"), nats.Timeout(f.timeout)), err
}

// dial opens a connection: to the servers if they are named, else as the named or the selected context says, else to
// the default.
func (f *natsFlags) dial(more ...nats.Option) (*nats.Conn, error) {
	options, err := f.options()
	if err != nil {
		return nil, err
	}
	options = append(options, more...)
	where := f.server
	var nc *nats.Conn
	if f.server != "" {
		nc, err = nats.Connect(f.server, options...)
	} else {
		where = cmp.Or(f.context, "the selected context, or "+nats.DefaultURL)
		nc, _, err = natscontext.Connect(f.context, options...)
	}
	if errors.Is(err, nats.ErrAuthorization) {
		return nil, advise(fmt.Errorf("no connection to NATS at %s: %w", where, err),
			"say who you are with --creds, --nkey, --user and --password, or --context")
	}
	if err != nil {
		return nil, advise(fmt.Errorf("no connection to NATS at %s: %w", where, err),
			"start one with `perdure dev`, or say where it is with --server or --context")
	}
	return nc, nil
}

// withClient runs f with a client of the namespace and a context that ends with the time-out.
func (a *app) withClient(ctx context.Context, f func(ctx context.Context, c *natsbus.Client) error) error {
	nc, err := a.nats.dial()
	if err != nil {
		return err
	}
	defer nc.Close()
	timed, cancel := context.WithTimeout(ctx, a.nats.timeout)
	defer cancel()
	err = f(timed, natsbus.NewClient(nc, wire.Subjects(a.nats.namespace)))
	if ctx.Err() == nil && isTimeout(err) {
		return advise(err, "give it more time with --timeout; it was %v", a.nats.timeout)
	}
	return err
}

// open connects to the namespace's streams themselves, for what needs no worker.
func (a *app) open(ctx context.Context) (*jetstream.Session, jetstream.Namespace, error) {
	s, err := jetstream.Dial(ctx, jetstream.Config{Dial: a.nats.dial, Namespace: wire.Subjects(a.nats.namespace)})
	if err != nil {
		return nil, jetstream.Namespace{}, err
	}
	named, err := s.Find(ctx)
	if err == nil {
		return s, named, nil
	}
	s.Close()
	if errors.Is(err, journal.ErrNotFound) || errors.Is(err, journal.ErrMissing) {
		err = advise(engine.Errorf(engine.NotFound, "%w", err), "another server or namespace may be meant: see --server, --context and --namespace")
	}
	return nil, named, err
}
