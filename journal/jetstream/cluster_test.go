package jetstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/freeport"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

// testCluster is three servers in this process, which know each other.
type testCluster struct {
	t       testing.TB
	options []*server.Options
	servers []*server.Server // nil: it is down
}

// newCluster prepares three servers; start starts one of them.
func newCluster(t testing.TB) *testCluster {
	t.Helper()
	if testing.Short() {
		t.Skip("three servers take seconds")
	}
	c := &testCluster{t: t, servers: make([]*server.Server, 3)}
	var routes []*url.URL
	ports, err := freeport.Find(len(c.servers))
	if err != nil {
		t.Fatal(err)
	}
	for i, port := range ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
		c.options = append(c.options, &server.Options{ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: -1,
			JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, MaxPayload: 8 << 20,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}})
	}
	for _, o := range c.options {
		o.Routes = routes
	}
	t.Cleanup(func() {
		for i := range c.servers {
			c.stop(i)
		}
	})
	return c
}

func (c *testCluster) start(i int) {
	c.t.Helper()
	s, err := server.NewServer(c.options[i].Clone())
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		c.t.Fatalf("server %d is not ready", i)
	}
	c.servers[i] = s
}

func (c *testCluster) stop(i int) {
	if s := c.servers[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		c.servers[i] = nil
	}
}

// session opens one with a server, of the namespace.
func (c *testCluster) session(t testing.TB, i int, ns wire.Subjects) *Session {
	t.Helper()
	s, err := Dial(t.Context(), Config{Options: []nats.Option{nats.InProcessServer(c.servers[i])}, Namespace: ns})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestJetStreamOnACluster is the suite of every log, over streams of three copies, through a server that need not lead them.
func TestJetStreamOnACluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range c.servers {
		c.start(i)
	}
	t.Run("suite", func(t *testing.T) {
		journaltest.Test(t, func(t *testing.T) (wire.Subjects, func() journal.Session) {
			ns := wire.Subjects(fmt.Sprintf("r%d", namespaces.Add(1)))
			c.open(c.session(t, 0, ns), Settings{Partitions: 2, Replicas: 3})
			at := 0
			return ns, func() journal.Session { at++; return c.session(t, at%3, ns) }
		})
	})
}

// TestANamespaceIsMadeWhenAllServersAreThere: with one there is no leader to ask, with two no place for three copies.
func TestANamespaceIsMadeWhenAllServersAreThere(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, o := range c.options[:2] { // they do not wait for the third
		o.Routes = o.Routes[:2]
	}
	c.start(0)
	open := func() (Namespace, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return c.session(t, 0, "objects").Open(ctx, Settings{Partitions: 2, Replicas: 3})
	}
	if _, err := open(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a leader: %v", err)
	}
	c.start(1)
	c.leader()
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "objects-meta, of 3 copies: ") || !strings.Contains(err.Error(), "no suitable peers") {
		t.Errorf("with two servers: %v", err)
	}
	c.start(2)
	s := c.session(t, 0, "objects")
	made := c.open(s, Settings{Partitions: 2, Replicas: 3})
	if made.Replicas != 3 {
		t.Fatalf("%+v", made)
	}

	js := must[jetstream.JetStream](t)(jetstream.New(s.Conn()))
	for _, name := range []string{"objects-0", "objects-1", "objects-inbox", "KV_objects-meta"} {
		stream := must[jetstream.Stream](t)(js.Stream(t.Context(), name))
		if cluster := stream.CachedInfo().Cluster; len(cluster.Replicas) != 2 {
			t.Errorf("%s: %+v", name, cluster)
		}
		cfg := stream.CachedInfo().Config
		cfg.Replicas = 1
		must[jetstream.Stream](t)(js.UpdateStream(t.Context(), cfg))
		_, err := s.Open(t.Context(), Settings{})
		if wrong, ok := errors.AsType[*SettingsError](err); !ok || wrong.Stream != name || !slices.Contains(wrong.Differences, "replicas is 1 and must be 3") {
			t.Errorf("%s with one copy: %v", name, err)
		}
		cfg.Replicas = 3
		must[jetstream.Stream](t)(js.UpdateStream(t.Context(), cfg))
	}
	if again, err := s.Open(t.Context(), Settings{Replicas: 3}); err != nil || again != made {
		t.Errorf("%+v, %v", again, err)
	}
}

// open makes a namespace, as soon as the servers can.
func (c *testCluster) open(s *Session, want Settings) Namespace {
	c.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		ctx, cancel := context.WithTimeout(c.t.Context(), 10*time.Second)
		ns, err := s.Open(ctx, want)
		cancel()
		if err == nil {
			return ns
		}
		if time.Now().After(deadline) {
			c.t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// leader waits until the servers have one.
func (c *testCluster) leader() {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		for _, s := range c.servers {
			if s != nil && s.JetStreamIsLeader() {
				return
			}
		}
		if time.Now().After(deadline) {
			c.t.Fatal("no leader")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestALogGoesOnWhenItsLeaderIsGone: what was acknowledged is read back from the others, and the next epoch begins there.
func TestALogGoesOnWhenItsLeaderIsGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range c.servers {
		c.start(i)
	}
	s := c.session(t, 0, "objects")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c.open(s, Settings{Partitions: 1, Replicas: 3})
	answers := make(chan journal.Answer, journal.Window)
	w := must[journal.Writer](t)(s.Log(0).Writer(func(a journal.Answer) { answers <- a }))
	subject := wire.DefaultNamespace.Journal("c", "a")
	for i := range journal.Seq(100) {
		if err := w.Append(i, journal.NoSubjectCheck, journal.Message{Subject: subject, Data: []byte(strconv.Itoa(int(i)))}); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		if a := <-answers; a.Outcome != journal.Stored {
			t.Fatal(a)
		}
	}
	js := must[jetstream.JetStream](t)(jetstream.New(s.Conn()))
	lost := slices.IndexFunc(c.options, func(o *server.Options) bool {
		return o.ServerName == must[jetstream.Stream](t)(js.Stream(ctx, "objects-0")).CachedInfo().Cluster.Leader
	})
	c.stop(lost)
	other := c.session(t, (lost+1)%3, "objects")
	var end journal.Seq
	for { // an election takes some seconds; an epoch is asked for again until then
		trying, stop := context.WithTimeout(ctx, 2*time.Second)
		last, err := other.Log(0).Begin(trying, 0, journal.Message{Subject: wire.DefaultNamespace.Epoch(0)}, journal.Message{Subject: wire.DefaultNamespace.Fence(0)})
		stop()
		if end = last; err == nil {
			break
		}
		if errors.Is(err, journal.ErrConflict) {
			break // one whose answer was lost had been stored
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if tails, upTo, err := other.Log(0).Tails(ctx, max(end, 102), subject); err != nil || len(tails) != 1 || string(tails[0].Data) != "99" || upTo < 102 {
		t.Errorf("%+v as of %d, %v", tails, upTo, err)
	}
	if _, last, err := other.Log(0).Range(ctx); err != nil || last != 102 {
		t.Errorf("the end is %d, %v", last, err)
	}
}

// TestWhatIsStillComingUpIsNotMissing: workers that make one namespace side by side, and one that opens it while all servers
// start. That a stream of it were missing would end a worker.
func TestWhatIsStillComingUpIsNotMissing(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range c.servers {
		c.start(i)
	}
	c.leader()
	settings := Settings{Partitions: 16, Replicas: 3}
	open := func() []string {
		ids := make([]string, len(c.servers))
		var wg sync.WaitGroup
		for i := range c.servers {
			wg.Go(func() {
				for ids[i] == "" && t.Context().Err() == nil { // until the servers are there
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					s, err := Dial(ctx, Config{Options: []nats.Option{nats.InProcessServer(c.servers[i])}})
					if err == nil {
						var ns Namespace
						ns, err = s.Open(ctx, settings)
						ids[i] = ns.ID
						s.Close()
					}
					cancel()
					if err != nil {
						ids[i] = ""
					}
					if errors.Is(err, journal.ErrMissing) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return ids
	}
	made := open()
	for i := range c.servers {
		c.stop(i)
	}
	for i := range c.servers {
		c.start(i)
	}
	made = append(made, open()...)
	if len(slices.Compact(made)) != 1 || made[0] == "" {
		t.Errorf("namespaces %q", made)
	}
}

// TestACopyWithoutALeaderIsNotBelieved: the server that is left tells how long its own copy is, which says nothing of what was acknowledged.
func TestACopyWithoutALeaderIsNotBelieved(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for i := range c.servers {
		c.start(i)
	}
	s := c.session(t, 0, "objects")
	c.open(s, Settings{Partitions: 1, Replicas: 3})
	log := s.Log(0)
	c.stop(1)
	c.stop(2)
	for patience := time.Now().Add(2 * time.Minute); ; <-time.After(100 * time.Millisecond) {
		m, err := s.Conn().Request("$JS.API.STREAM.INFO."+log.Stream(), nil, time.Second)
		if err == nil && !strings.Contains(string(m.Data), `"error"`) && !strings.Contains(string(m.Data), `"leader":`) {
			break // the server does that, once it does not lead itself any more
		}
		if time.Now().After(patience) {
			t.Fatalf("the server does not tell of its copy: %v, %v", m, err)
		}
	}
	if _, last, err := log.Range(t.Context()); !errors.Is(err, errNoLeader) {
		t.Errorf("it ends at %d, %v", last, err)
	}
	for subject, err := range log.Subjects(t.Context(), ">") {
		if !errors.Is(err, errNoLeader) {
			t.Errorf("it has %q, %v", subject, err)
		}
	}
	c.start(1)
	c.start(2)
	for patience := time.Now().Add(2 * time.Minute); ; <-time.After(100 * time.Millisecond) {
		_, _, err := log.Range(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(patience) {
			t.Fatal(err)
		}
	}
}
