package cmd

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/counter"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot"
)

// configured is a server with docs/nats.conf, on another port and folder.
type configured struct {
	t      *testing.T
	server *server.Server
}

func newConfigured(t *testing.T) *configured {
	for _, role := range []string{"WORKER", "GATEWAY", "CLIENT", "READER", "CONSOLE"} {
		t.Setenv("PERDURE_"+role+"_PASSWORD", "secret-of-the-"+strings.ToLower(role))
	}
	opts, err := server.ProcessConfigFile("../docs/nats.conf")
	must(t, err)
	opts.Port, opts.StoreDir, opts.NoSigs, opts.NoLog = server.RANDOM_PORT, t.TempDir(), true, true
	s, err := server.NewServer(opts)
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server did not start")
	}
	return &configured{t, s}
}

func (c *configured) user(role string) nats.Option {
	return nats.UserInfo(role, "secret-of-the-"+role)
}

func (c *configured) connect(role string) *nats.Conn {
	c.t.Helper()
	nc, err := nats.Connect(c.server.ClientURL(), c.user(role), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	must(c.t, err)
	c.t.Cleanup(nc.Close)
	return nc
}

// serve runs a worker with the counter as the role worker.
func (c *configured) serve() {
	t := c.t
	const ns = wire.DefaultNamespace
	dial := func(ctx context.Context) (*jetstream.Session, error) {
		return jetstream.Dial(ctx, jetstream.Config{Options: []nats.Option{c.user("worker"), nats.InProcessServer(c.server)}, Namespace: ns})
	}
	s, err := dial(t.Context())
	must(t, err)
	named, err := s.Open(t.Context(), jetstream.Settings{Partitions: 4})
	must(t, err)
	s.Close()
	log := slog.New(slog.DiscardHandler)
	var w *engine.Worker
	w, err = engine.New(engine.Config{
		ID: "w", Namespace: ns, Partitions: named.Partitions, Store: snapshot.NewMemory(), Classes: []engine.AnyClass{counter.Counters},
		Connect: func(ctx context.Context) (journal.Session, error) { return dial(ctx) },
		Listen: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			nc := js.(*jetstream.Session).Conn()
			if _, err := natsbus.ServePart(nc, ns, p, w, log); err != nil { // it ends with the connection
				return nil, err
			}
			return natsbus.Listen(nc, ns, p, named.Partitions, log, serve)
		},
	})
	must(t, err)
	classes, err := w.Classes(t.Context())
	must(t, err)
	nc := c.connect("worker")
	_, err = natsbus.ServeAdmin(nc, ns, natsbus.Admin{Worker: "w", Partitions: named.Partitions, Classes: w.Classes}, log)
	must(t, err)
	_, err = natsbus.RelayCalls(nc, ns, log) // the server maps calls: nothing comes there
	must(t, err)
	_, err = natsbus.NewService(ns, "w", Version, named.Partitions, classes).Serve(nc, ns, log)
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() { stop(); must(t, <-ended) })
	eventually(t, func() bool { return w.Ready() == nil })
}

// may tells whether the server lets a role do it.
func (c *configured) may(role string, do func(nc *nats.Conn) error) bool {
	c.t.Helper()
	nc := c.connect(role)
	defer nc.Close()
	must(c.t, do(nc))
	must(c.t, nc.Flush()) // what the server refuses it says before it answers this
	err := nc.LastError()
	if err != nil && !errors.Is(err, nats.ErrPermissionViolation) {
		c.t.Errorf("%s: %v", role, err)
	}
	return err == nil
}

// TestEachRoleMayWhatItIsFor and nothing else, on a server with docs/nats.conf.
func TestEachRoleMayWhatItIsFor(t *testing.T) {
	c := newConfigured(t)
	c.serve()
	published := map[string][]string{"client": {"call", "read", "send"}, "reader": nil, "console": {"admin", "discover"},
		"gateway": {"call", "read", "send", "admin", "slot", "slotted read", "http", "cancel", "info", "get", "consumer"}}
	subscribed := map[string][]string{"client": {"inbox of its own", "owner"}, "reader": {"change"}, "console": {"change", "inbox of its own"},
		"gateway": {"inbox of its own", "owner"}}
	subjects := map[string]string{
		"call": "objects.call.counter.a.value", "read": "objects.read.counter.a.value", "send": "objects.send.counter.a.increment", "admin": "objects.admin.classes", "discover": "$SRV.PING",
		"change": "objects.change.counter.a", "inbox of its own": "_INBOX.x.y",
		"journal": "objects.journal.254.counter.cart-99", "snap": "objects.snap.254.counter.cart-99", "epoch": "objects.epoch.0", "fence": "objects.fence.0",
		"check": "objects.check.0", "due": "objects.due.254.counter.cart-99", "inbox": "objects.inbox.254.counter.cart-99.increment",
		"slot": "objects.part.254.call.counter.cart-99.value", "slotted send": "objects.part.254.send.counter.cart-99.increment",
		"slotted read": "objects.part.254.read.counter.cart-99.value",
		"part":         "objects.control.part.0.state", "worker": "objects.control.worker.w.status", "word": "objects.control.word.share", "owner": "objects.owner.*.*",
		"http": "objects.part.254.http.counter.cart-99", "cancel": "objects.part.254.cancel",
		"bucket": "$KV.objects-meta.namespace", "purge": "$JS.API.STREAM.PURGE.objects-0", "info": "$JS.API.STREAM.INFO.objects-0",
		"get": "$JS.API.DIRECT.GET.objects-0", "consumer": "$JS.API.CONSUMER.CREATE.objects-inbox", "ack": "$JS.ACK.x", "all": ">", "other": "elsewhere",
	}
	for role := range published {
		for what, subject := range subjects {
			if subject != ">" {
				want := slices.Contains(published[role], what)
				if got := c.may(role, func(nc *nats.Conn) error { return nc.Publish(subject, nil) }); got != want {
					t.Errorf("%s publishes %s: %v, want %v", role, subject, got, want)
				}
			}
			want := slices.Contains(subscribed[role], what)
			if got := c.may(role, func(nc *nats.Conn) error { _, err := nc.SubscribeSync(subject); return err }); got != want {
				t.Errorf("%s subscribes to %s: %v, want %v", role, subject, got, want)
			}
		}
	}
	if _, err := nats.Connect(c.server.ClientURL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a password: %v", err)
	}
}

// TestRolesReachWhatTheyAreFor: across accounts, with answers, errors and acknowledgements.
func TestRolesReachWhatTheyAreFor(t *testing.T) {
	c := newConfigured(t)
	c.serve()
	client, console := c.connect("client"), c.connect("console")
	const call = "objects.call.counter.a.increment"
	m, err := client.RequestMsg(&nats.Msg{Subject: call, Data: []byte(`{"by":2}`), Header: nats.Header{wire.HeaderRequestID: {"order-1"}}}, 10*time.Second)
	must(t, err)
	if string(m.Data) != "2" || m.Header.Get(wire.HeaderVersion) != "1" {
		t.Errorf("call: %v %s", m.Header, m.Data)
	}
	if m, err = client.Request(call, []byte(`{"bye":2}`), 10*time.Second); err != nil || m.Header.Get(wire.HeaderErrorCode) != "400" {
		t.Errorf("wrong argument: %v", err)
	}
	if _, err := client.Request("objects.call.counter.a.b.increment", nil, 10*time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("where nobody listens: %v", err)
	}
	js, err := natsjs.New(client)
	must(t, err)
	if ack, err := js.Publish(t.Context(), "objects.send.counter.a.increment", []byte(`{"by":1}`)); err != nil || ack.Stream != "objects-inbox" {
		t.Errorf("send: %+v, %v", ack, err)
	}
	if classes, err := natsbus.NewClient(console, "objects").Classes(t.Context()); err != nil || classes[0].Name != "counter" {
		t.Errorf("console: %v, %v", classes, err)
	}
	if m, err := console.Request("$SRV.INFO.objects", nil, 10*time.Second); err != nil || !strings.Contains(string(m.Data), micro.InfoResponseType) {
		t.Errorf("nats micro: %v", err)
	}
	changes, err := c.connect("reader").SubscribeSync("objects.change.>")
	must(t, err)
	eventually(t, func() bool { // its interest travels to the other account by itself
		must(t, c.connect("worker").Publish("objects.change.counter.a", []byte("7")))
		_, err := changes.NextMsg(100 * time.Millisecond)
		return err == nil
	})
}

// TestAGatewayNeedsNoMoreThanItMay: calls, whole HTTP requests, messages, looking, and what changes.
func TestAGatewayNeedsNoMoreThanItMay(t *testing.T) {
	c := newConfigured(t)
	c.serve()
	f := newFleet(t)
	f.nats = strings.TrimPrefix(c.server.ClientURL(), "nats://")
	g := f.start("gateway", "--user", "gateway", "--password", "secret-of-the-gateway")
	g.ready()
	g.want(200, "POST", "/v1/objects/counter/a/call/increment", `{"by":2}`)
	if got := g.want(200, "POST", "/counter/a", ""); got != `{"count":3}` {
		t.Error(got)
	}
	g.want(202, "POST", "/v1/objects/counter/a/send/increment", `{"by":2}`)
	eventually(t, func() bool { return g.want(200, "GET", "/counter/a", "") == `{"count":5}` })
	if n := len(g.entries("counter/a")); n != 3 {
		t.Errorf("%d changes", n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+g.http+"/v1/changes?from=start", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	lines, changes := bufio.NewScanner(resp.Body), 0
	for changes < 3 && lines.Scan() {
		if strings.HasPrefix(lines.Text(), `{"event":"change"`) {
			changes++
		}
	}
	if changes != 3 {
		t.Errorf("%d changes are told: %d, %v", changes, resp.StatusCode, lines.Err())
	}
	if said, err := g.stop(); err != nil || strings.Contains(said, "ermission") {
		t.Errorf("ends with %v: %s", err, said)
	}
}

// TestNoAnswerGoesIntoAJournal: with clients in the workers' own account, the acknowledgement of a durable message would
// be stored wherever its reply subject says.
func TestNoAnswerGoesIntoAJournal(t *testing.T) {
	c := newConfigured(t)
	c.serve()
	s, err := jetstream.Dial(t.Context(), jetstream.Config{Options: []nats.Option{c.user("worker"), nats.InProcessServer(c.server)}})
	must(t, err)
	defer s.Close()
	const name = "cart-99"
	p := wire.Partition(wire.Slot("counter", name), 4)
	_, before, err := s.Log(p).Range(t.Context())
	must(t, err)
	client := c.connect("client")
	// Of objects in another partition.
	for _, subject := range []string{"objects.send.counter.b.increment", "objects.call.counter.b.increment", "objects.call.counter.b.c.increment"} {
		must(t, client.PublishRequest(subject, wire.DefaultNamespace.Journal("counter", name), []byte(`{}`)))
	}
	js, err := natsjs.New(client)
	must(t, err)
	_, err = js.Publish(t.Context(), "objects.send.counter.b.increment", nil) // acknowledged after the one above
	must(t, err)
	if m, err := client.Request("objects.call.counter.cart-99.increment", nil, 10*time.Second); err != nil || string(m.Data) != "1" {
		t.Fatalf("%v", err)
	}
	_, after, err := s.Log(p).Range(t.Context())
	must(t, err)
	if after != before+1 {
		t.Errorf("the stream went from %d to %d", before, after)
	}
}
