package embed

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
)

// PayloadBytesMax is the largest message that the server takes, as the design sets it for our own servers.
const PayloadBytesMax = 8 << 20

// storeBytesMax switches the server's own limit off. By default it is three quarters of the free disk, so appends
// would be refused long before the reserve that the worker keeps, and without the worker's explanation.
const storeBytesMax = 1 << 60

// syncIntervalMin keeps the flusher from spinning; the server also cannot take an interval below two nanoseconds.
const syncIntervalMin = time.Millisecond

// Options say how to run a server. Dir is required.
type Options struct {
	// Dir is where JetStream stores: a folder of its own, made if it is missing. One process at a time may use it;
	// Start does not see to that, [LockDir] does.
	Dir string

	// Listen is the host:port for NATS clients; port 0 takes any that is free. Empty: only this process connects.
	Listen string

	// SyncInterval is how often writes are synced to disk: a power cut loses at most about that much.
	// 0 syncs every write before it is acknowledged. Otherwise at least 1ms.
	SyncInterval time.Duration

	// Namespaces are those whose public calls the server maps to their slots. Default: [wire.DefaultNamespace].
	Namespaces []wire.Subjects

	// HoldSends maps public sends to slots too, for a process that syncs the log itself: it receives what is sent, stores it,
	// and acknowledges when it is on disk. Otherwise the inbox captures them.
	HoldSends bool

	// Name is the server's name. Default: perdure.
	Name string

	// Logger gets the server's warnings and errors, and its notices at debug level. Default: slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.Name = cmp.Or(o.Name, "perdure")
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if len(o.Namespaces) == 0 {
		o.Namespaces = []wire.Subjects{wire.DefaultNamespace}
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("Dir is required"))
	}
	if o.SyncInterval != 0 && o.SyncInterval < syncIntervalMin {
		errs = append(errs, fmt.Errorf("SyncInterval is %v; want 0 (always) or at least %v", o.SyncInterval, syncIntervalMin))
	}
	for _, ns := range o.Namespaces {
		if err := ns.Check(); err != nil {
			errs = append(errs, fmt.Errorf("namespace: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Server is a running NATS server. It is safe for concurrent use.
type Server struct {
	nats *server.Server
	url  string
}

// Start runs a server and returns when it is ready: streams recovered, mapping in place, listening. If it cannot listen,
// it says so before it touches Dir.
func Start(o Options) (*Server, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("start NATS server: %w", err)
	}
	opts := &server.Options{
		ServerName:        o.Name,
		DontListen:        o.Listen == "",
		JetStream:         true,
		StoreDir:          o.Dir,
		JetStreamMaxStore: storeBytesMax,
		SyncAlways:        o.SyncInterval == 0,
		SyncInterval:      o.SyncInterval,
		MaxPayload:        PayloadBytesMax,
		NoSigs:            true,
	}
	if o.Listen != "" {
		var err error
		if opts.Host, opts.Port, err = probe(o.Listen); err != nil {
			return nil, err
		}
	}
	// The server makes its folders too, but says less when it cannot.
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return nil, fmt.Errorf("make folder for NATS server: %w", err)
	}
	s, err := run(opts, o)
	if err != nil {
		return nil, fmt.Errorf("start NATS server: %w", err)
	}
	return s, nil
}

func run(opts *server.Options, o Options) (*Server, error) {
	ns, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	log := &logger{to: o.Logger.With("from", "nats-server")}
	ns.SetLoggerV2(log, false, false, false)
	// Before the server listens, so that no call can slip through unmapped.
	for _, namespace := range o.Namespaces {
		mappings := []func() (from, to string){namespace.Mapping, namespace.ReadMapping}
		if o.HoldSends {
			mappings = append(mappings, namespace.SendMapping)
		}
		for _, mapping := range mappings {
			from, to := mapping()
			if err := ns.GlobalAccount().AddMapping(from, to); err != nil {
				return nil, fmt.Errorf("map %s to %s: %w", from, to, err)
			}
		}
	}
	ns.Start() // returns when the server is ready, or has told the logger why it is not
	if err := log.fatal(); err != nil {
		ns.Shutdown()
		return nil, err
	}
	s := &Server{nats: ns}
	if o.Listen != "" {
		s.url = ns.ClientURL()
	}
	return s, nil
}

// probe finds out whether address is free, before anything on disk is touched. Port 0 becomes one that is free.
// Another program may still take the port before the server does; then the server's own error is returned.
func probe(address string) (host string, port int, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		advice := "choose an address"
		if errors.Is(err, syscall.EADDRINUSE) {
			advice = "stop the program that uses it, or choose another address"
		}
		return "", 0, fmt.Errorf("listen for NATS clients on %s: %w; %s with --nats-listen HOST:PORT", address, unwrapOp(err), advice)
	}
	port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return "", 0, fmt.Errorf("listen for NATS clients on %s: %w", address, err)
	}
	host, _, err = net.SplitHostPort(address)
	return host, port, err
}

// unwrapOp drops what net repeats of the address.
func unwrapOp(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// InProcess is the option that connects a client to this server without a socket. The client's URL is then ignored.
func (s *Server) InProcess() nats.Option { return nats.InProcessServer(s.nats) }

// URL is where NATS clients connect, such as nats://127.0.0.1:4222; empty if the server does not listen.
func (s *Server) URL() string { return s.url }

// Ends is how far each stream of the account without a name goes. Its error is the server's, such as when it stops.
func (s *Server) Ends() (map[string]uint64, error) {
	info, err := s.nats.JszAccount(&server.JSzOptions{Account: server.DEFAULT_GLOBAL_ACCOUNT, Streams: true})
	if err != nil {
		return nil, fmt.Errorf("ask for the streams' ends: %w", err)
	}
	ends := map[string]uint64{}
	for _, st := range info.Streams {
		ends[st.Name] = st.State.LastSeq
	}
	return ends, nil
}

// Members is how many are subscribed to each subject as members of a queue group.
func (s *Server) Members(group string) (map[string]int, error) {
	subs, err := s.nats.Subsz(&server.SubszOptions{Subscriptions: true, Limit: 1 << 20})
	if err != nil {
		return nil, fmt.Errorf("ask for the subscriptions: %w", err)
	}
	members := map[string]int{}
	for _, sub := range subs.Subs {
		if sub.Queue == group {
			members[sub.Subject]++
		}
	}
	return members, nil
}

// Shutdown stops the server and returns when it has closed its connections and stored what it holds. It may be called
// more than once.
func (s *Server) Shutdown() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}
