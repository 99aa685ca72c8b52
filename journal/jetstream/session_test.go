package jetstream

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/journal"
)

// cut closes the server's end of the connections with a name.
func cut(t *testing.T, name string) {
	t.Helper()
	conns := must[*server.Connz](t)(testServer.Connz(&server.ConnzOptions{Limit: 4096}))
	for _, c := range conns.Conns {
		if c.Name == name {
			if err := testServer.DisconnectClientByID(c.Cid); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("no connection %q", name)
}

func TestNoOptionHidesTheEndOfAConnection(t *testing.T) {
	t.Parallel()
	for _, use := range []string{"main", "lease", "read"} {
		t.Run(use, func(t *testing.T) {
			t.Parallel()
			name := "cut-" + use
			s, err := Dial(t.Context(), Config{Name: name, Options: []nats.Option{
				nats.InProcessServer(testServer), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true),
				func(o *nats.Options) error { o.AllowReconnect = true; return nil },
				nats.DisconnectErrHandler(nil), nats.ClosedHandler(nil),
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			select {
			case <-s.Done():
				t.Fatal("ended before it was cut")
			default:
			}
			cut(t, name+" "+use)
			select {
			case <-s.Done():
			case <-time.After(10 * time.Second):
				t.Error("the server ended the connection and the session did not end")
			}
		})
	}
}

func TestAContextThatHasEndedDialsNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(ctx, Config{Options: []nats.Option{nats.InProcessServer(testServer)}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// lines is a log's output, line by line.
type lines chan string

func (l lines) Write(p []byte) (int, error) { l <- string(p); return len(p), nil }

func TestASlowConsumerIsAnAlarm(t *testing.T) {
	t.Parallel()
	out := make(lines, 16)
	s, err := Dial(t.Context(), Config{Options: []nats.Option{nats.InProcessServer(testServer)}, Log: slog.New(slog.NewTextHandler(out, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	subject := string(newNamespace(t))
	block := make(chan struct{})
	defer close(block)
	sub := must[*nats.Subscription](t)(s.Conn().Subscribe(subject, func(*nats.Msg) { <-block }))
	if err := sub.SetPendingLimits(1, -1); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		if err := s.Conn().Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
	}
	if line := <-out; !strings.Contains(line, "level=ERROR") || !strings.Contains(line, "subject="+subject) || !strings.Contains(line, "slow consumer") {
		t.Error(line)
	}
}

func TestADeletedKeyIsAbsentAtTheRevisionOfItsDeletion(t *testing.T) {
	t.Parallel()
	s, js := newStreams(t)
	must[Namespace](t)(s.Open(t.Context(), Settings{Partitions: 1}))
	kv := must[jetstream.KeyValue](t)(js.KeyValue(t.Context(), s.ns.Bucket()))
	first := must[journal.Seq](t)(s.Meta().Put(t.Context(), "worker.a", []byte("x"), 0))
	if err := kv.Delete(t.Context(), "worker.a"); err != nil {
		t.Fatal(err)
	}
	_, rev, err := s.Meta().Get(t.Context(), "worker.a")
	if !errors.Is(err, journal.ErrNotFound) || rev <= first {
		t.Errorf("revision %d after %d, %v", rev, first, err)
	}
	if _, err := s.Meta().Put(t.Context(), "worker.a", nil, 0); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("made anew over its deletion: %v", err)
	}
	must[journal.Seq](t)(s.Meta().Put(t.Context(), "worker.a", nil, rev))
}

// TestAQuestionThatNobodyAnsweredIsAskedAgain: a stream has no leader for a while when its leader has died.
func TestAQuestionThatNobodyAnsweredIsAskedAgain(t *testing.T) {
	t.Parallel()
	silent := must[*server.Server](t)(server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true}))
	silent.Start()
	t.Cleanup(silent.Shutdown)
	s := must[*Session](t)(Dial(t.Context(), Config{Options: []nats.Option{nats.InProcessServer(silent)}}))
	t.Cleanup(s.Close)
	asked := 0
	_ = must[*nats.Subscription](t)(s.Conn().Subscribe("$JS.API.STREAM.INFO.objects-0", func(m *nats.Msg) {
		if asked++; asked == 3 {
			_ = m.Respond([]byte(`{"state":{"first_seq":2,"last_seq":7}}`))
		}
	}))
	if first, last, err := s.Log(0).Range(t.Context()); first != 2 || last != 7 || err != nil {
		t.Errorf("%d to %d, %v", first, last, err)
	}
	var purged atomic.Int64
	_ = must[*nats.Subscription](t)(s.Conn().Subscribe("$JS.API.STREAM.PURGE.objects-0", func(*nats.Msg) { purged.Add(1) }))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := s.Log(0).Purge(ctx, "objects.fence.0", 9); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if n := purged.Load(); n != 1 {
		t.Errorf("a purge was asked for %d times", n)
	}
}
