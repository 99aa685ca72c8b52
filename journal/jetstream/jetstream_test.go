package jetstream

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

var testServer *server.Server

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "perdure-jetstream")
	if err != nil {
		panic(err)
	}
	testServer, err = server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoSigs: true, NoLog: true, MaxPayload: 8 << 20})
	if err != nil {
		panic(err)
	}
	testServer.Start()
	code := m.Run()
	testServer.Shutdown()
	testServer.WaitForShutdown()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

var namespaces atomic.Int64

// dial opens a session on a namespace of the test's own.
func dial(t testing.TB, ns wire.Subjects) *Session {
	t.Helper()
	s, err := Dial(t.Context(), Config{Options: []nats.Option{nats.InProcessServer(testServer)}, Namespace: ns})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func newNamespace() wire.Subjects { return wire.Subjects(fmt.Sprintf("t%d", namespaces.Add(1))) }

func TestJetStream(t *testing.T) {
	journaltest.Test(t, func(t *testing.T) (wire.Subjects, func() journal.Session) {
		ns := newNamespace()
		if _, err := dial(t, ns).Open(t.Context(), Settings{Partitions: 2}); err != nil {
			t.Fatal(err)
		}
		return ns, func() journal.Session { return dial(t, ns) }
	})
}
