package natsbus

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// mortal is a server that can end and come back at the same address.
type mortal struct {
	t       *testing.T
	options server.Options
	now     *server.Server
}

func newMortal(t *testing.T) *mortal {
	t.Helper()
	m := &mortal{t: t, options: server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true}}
	m.start()
	m.options.Port = m.now.Addr().(*net.TCPAddr).Port
	t.Cleanup(m.end)
	return m
}

func (m *mortal) start() {
	m.t.Helper()
	options := m.options
	m.now = must[*server.Server](m.t)(server.NewServer(&options))
	check(m.t, m.now.GlobalAccount().AddMapping(wire.DefaultNamespace.Mapping()))
	m.now.Start()
	if !m.now.ReadyForConnections(wait) {
		m.t.Fatal("the server did not start")
	}
}

func (m *mortal) end() { m.now.Shutdown(); m.now.WaitForShutdown() }

// dial connects, and at once again when it has to.
func (m *mortal) dial(options ...nats.Option) *nats.Conn {
	m.t.Helper()
	options = append(options, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0))
	nc := must[*nats.Conn](m.t)(nats.Connect(m.now.ClientURL(), options...))
	m.t.Cleanup(nc.Close)
	return nc
}

// TestWhatIsInFlightWhenTheConnectionBreaksIsGivenUpAtOnce, and what comes while there is none leaves when there is one. It
// holds with nats.go's buffer for what is published meanwhile and without it.
func TestWhatIsInFlightWhenTheConnectionBreaksIsGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]nats.Option{"buffer": nil, "no buffer": {nats.ReconnectBufSize(-1)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMortal(t)
			served := make(chan engine.Request, 8)
			var answers atomic.Bool
			stop := must[func()](t)(Listen(m.dial(), wire.DefaultNamespace, 0, 1, slog.New(slog.DiscardHandler), func(r engine.Request, answer func(engine.Reply, error)) {
				served <- r
				if answers.Load() {
					answer(engine.Reply{Version: 1}, nil)
				}
			}))
			t.Cleanup(stop)
			c := NewClient(m.dial(options...), wire.DefaultNamespace)
			r := engine.Request{Class: "counter", Name: "a", Method: "increment", ID: "x"}
			failed := make(chan error, 1)
			go func() { _, err := c.Do(t.Context(), r); failed <- err }()
			<-served
			m.end()
			select {
			case err := <-failed:
				if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.UnknownOutcome || !errors.Is(err, errBroke) || e.RequestID != "x" {
					t.Errorf("in flight: %v", err)
				}
			case <-time.After(wait):
				t.Fatal("it still waits for an answer that cannot come")
			}
			if c.Connected() {
				t.Error("it says that it is connected")
			}
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if e := failure(t, short, c, r, engine.Unavailable); !errors.Is(e, context.DeadlineExceeded) {
				t.Errorf("while there is no connection: %v", e)
			}
			answers.Store(true)
			answered := make(chan error, 1)
			go func() { answered <- untilOwned(t, c, r) }()
			m.start()
			if err := <-answered; err != nil {
				t.Errorf("after the restart: %v", err)
			}
			<-served
			if len(served) != 0 {
				t.Errorf("what was refused as not sent has arrived: %+v", <-served)
			}
		})
	}
}

// untilOwned repeats while nobody listens: who answers connects again as well.
func untilOwned(t *testing.T, c *Client, r engine.Request) (err error) {
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	for err = errors.New("not begun"); err != nil && ctx.Err() == nil; {
		_, err = c.Do(ctx, r)
		if err != nil && !errors.Is(err, engine.Unavailable) {
			return err
		}
	}
	return err
}

func TestAClientThatIsClosedSaysSo(t *testing.T) {
	t.Parallel()
	r := engine.Request{Class: "counter", Name: "a", Method: "get"}
	for name, end := range map[string]func(*Client, *nats.Conn){
		"the client":     func(c *Client, _ *nats.Conn) { c.Close(); c.Close() },
		"the connection": func(_ *Client, nc *nats.Conn) { nc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns, nc := namespace(t), connect(t)
			served := make(chan bool, 1)
			listen(t, ns, func(engine.Request, func(engine.Reply, error)) { served <- true })
			c := NewClient(nc, ns)
			failed := make(chan error, 1)
			go func() { _, err := c.Do(t.Context(), r); failed <- err }()
			<-served
			end(c, nc)
			if err := <-failed; !errors.Is(err, engine.UnknownOutcome) {
				t.Errorf("in flight: %v", err)
			}
			for range 100 { // nats.go tells of the end a moment later
				_, err := c.Do(t.Context(), r)
				if errors.Is(err, engine.Unavailable) && errors.Is(err, engine.ErrClosed) {
					return
				}
				<-time.After(10 * time.Millisecond)
			}
			t.Error("it does not say that it is closed")
		})
	}
}
