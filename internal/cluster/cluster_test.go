package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// waitMax is how long a test waits for what should happen at once.
const waitMax = 2 * time.Minute

var programDir string

// program builds the perdure binary once for all tests.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(programDir, "perdure")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/perdure").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	var err error
	if programDir, err = os.MkdirTemp("", "perdure-cluster"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(programDir)
	os.Exit(code)
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newCluster prepares a cluster in a folder of the test's own, and ends it with the test.
func newCluster(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts processes")
	}
	cfg.Program = must[string](t)(program())
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	c := must[*Cluster](t)(New(cfg))
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, p := range c.All() {
				t.Logf("%s:\n%s", p.Name, p.tail())
			}
		}
	})
	return c
}

func withDeadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	t.Cleanup(cancel)
	return ctx
}

// eventually tries until it succeeds.
func eventually(t *testing.T, try func(ctx context.Context) error) {
	t.Helper()
	err := errors.New("not tried")
	check(t, poll(withDeadline(t), func() (bool, error) {
		ctx, cancel := context.WithTimeout(t.Context(), answerTimeout)
		defer cancel()
		err = try(ctx)
		return err == nil, nil
	}, func() error { return err }))
}

func connect(t *testing.T, c *Cluster) natsjs.JetStream {
	t.Helper()
	nc := must[*nats.Conn](t)(nats.Connect(c.NATS(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond)))
	t.Cleanup(nc.Close)
	return must[natsjs.JetStream](t)(natsjs.New(nc, natsjs.WithDefaultTimeout(answerTimeout)))
}

// numbers stores numbers, each under an id of its own so that a repeat is stored once, and knows what was acknowledged.
type numbers struct {
	t    *testing.T
	js   natsjs.JetStream
	next int
}

func (n *numbers) store(count int) {
	n.t.Helper()
	for range count {
		text := strconv.Itoa(n.next)
		eventually(n.t, func(ctx context.Context) error {
			_, err := n.js.Publish(ctx, "numbers", []byte(text), natsjs.WithMsgID(text))
			return err
		})
		n.next++
	}
}

// check reads them all back.
func (n *numbers) check(stream natsjs.Stream) {
	n.t.Helper()
	for i := range n.next {
		eventually(n.t, func(ctx context.Context) error {
			m, err := stream.GetMsg(ctx, uint64(i+1))
			if err == nil && string(m.Data) != strconv.Itoa(i) {
				n.t.Fatalf("message %d is %s", i+1, m.Data)
			}
			return err
		})
	}
}

func leader(t *testing.T, c *Cluster, js natsjs.JetStream, stream string) (found *Process) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		s, err := js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		for _, p := range c.Servers {
			if p.Name == s.CachedInfo().Cluster.Leader {
				found = p
				return nil
			}
		}
		return errors.New("no leader")
	})
	return found
}

func TestAStreamOutlivesTheServerThatLeadsIt(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{})
	check(t, c.Start(withDeadline(t)))
	js := connect(t, c)
	var stream natsjs.Stream
	eventually(t, func(ctx context.Context) (err error) {
		stream, err = js.CreateOrUpdateStream(ctx, natsjs.StreamConfig{Name: "numbers", Replicas: 3})
		return err
	})
	n := &numbers{t: t, js: js}
	n.store(50)
	led := leader(t, c, js, "numbers")
	check(t, led.Kill())
	if pid, err := led.Pid(); pid != 0 || err != nil {
		t.Errorf("killed, and process %d, %v", pid, err)
	}
	n.store(50)
	if now := leader(t, c, js, "numbers"); now == led {
		t.Errorf("%s is dead, and leads", now.Name)
	}
	check(t, led.Start())
	check(t, led.Ready(withDeadline(t)))
	paused := leader(t, c, js, "numbers")
	check(t, paused.Pause())
	if pid, err := paused.Pid(); pid == 0 || err != nil {
		t.Errorf("paused, and process %d, %v", pid, err)
	}
	check(t, paused.Continue())
	n.store(10)
	for _, p := range c.Servers { // one after the other, as in an upgrade
		check(t, p.Restart(withDeadline(t)))
		check(t, p.Ready(withDeadline(t)))
		n.store(5)
	}
	n.check(stream)
	check(t, c.Ready(withDeadline(t)))
	check(t, c.Stop(withDeadline(t)))
	if running, err := c.Running(); len(running) != 0 || err != nil {
		t.Errorf("stopped, and %v run, %v", running, err)
	}
}

func TestOneServerIsEnough(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{Servers: 1})
	check(t, c.Start(withDeadline(t)))
	js := connect(t, c)
	stream := must[natsjs.Stream](t)(js.CreateStream(withDeadline(t), natsjs.StreamConfig{Name: "numbers"}))
	n := &numbers{t: t, js: js}
	n.store(20)
	check(t, c.Servers[0].Kill())
	check(t, c.Servers[0].Start())
	n.store(20)
	n.check(stream)
}

func TestAClusterIsFoundInItsFolder(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{Servers: 1})
	check(t, c.Start(withDeadline(t)))
	if err := c.Servers[0].Start(); !errors.Is(err, ErrRunning) {
		t.Errorf("started twice: %v", err)
	}
	if _, err := New(c.kept.Config); !errors.Is(err, ErrRunning) {
		t.Errorf("two clusters in one folder: %v", err)
	}
	other := must[*Cluster](t)(Open(c.Dir()))
	if other.NATS() != c.NATS() {
		t.Errorf("%s, and from elsewhere %s", c.NATS(), other.NATS())
	}
	check(t, other.Ready(withDeadline(t)))
	check(t, other.Servers[0].Kill())
	if running, err := c.Running(); len(running) != 0 || err != nil {
		t.Errorf("killed from elsewhere, and %v run, %v", running, err)
	}
	if _, err := New(Config{Dir: c.Dir(), Program: c.kept.Program, Servers: 3}); err == nil || errors.Is(err, ErrRunning) {
		t.Errorf("three servers on what one left: %v", err)
	}
	check(t, other.Servers[0].Start())
	check(t, c.Ready(withDeadline(t)))
}

// TestANumberThatAnotherProcessHasNowIsNotSignalled: the file names this process, which has no lock on it.
func TestANumberThatAnotherProcessHasNowIsNotSignalled(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{Servers: 1})
	p := c.Servers[0]
	check(t, os.MkdirAll(p.Dir(), 0o750))
	check(t, os.WriteFile(p.pidFile(), []byte(strconv.Itoa(os.Getpid())), 0o640))
	check(t, p.Kill())
	check(t, c.Stop(withDeadline(t)))
}

func TestAProcessThatEndsSaysWhy(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Config{Servers: 1, ServerArgs: []string{"--no-such-flag"}})
	if err := c.Start(withDeadline(t)); err == nil || !contains(err, "nats1 has ended", "no-such-flag") {
		t.Error(err)
	}
}

func TestWhatIsWrongWithAConfigIsSaid(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Servers: 7, Workers: -1, NATSPort: 70000})
	if !contains(err, "Dir is required", "Program is required", "Servers is 7; want 1 to 5", "Workers is -1", "NATSPort is 70000") {
		t.Error(err)
	}
	for servers, want := range map[int]int{0: 3, 1: 1, 2: 1, 3: 3, 4: 3, 5: 5} {
		if got := (Config{Servers: servers}).Replicas(); got != want {
			t.Errorf("%d replicas of %d servers; want %d", got, servers, want)
		}
	}
}

func contains(err error, parts ...string) bool {
	return err != nil && !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(err.Error(), part) })
}
