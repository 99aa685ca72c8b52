package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

// testServer serves all tests of the package, each in a namespace of its own; testStreams is to clean up with.
var (
	testServer  *server.Server
	testStreams jetstream.JetStream
)

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
	nc, err := nats.Connect("", nats.InProcessServer(testServer))
	if err != nil {
		panic(err)
	}
	if testStreams, err = jetstream.New(nc); err != nil {
		panic(err)
	}
	code := m.Run()
	nc.Close()
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

// newNamespace names a namespace, and deletes it behind the test: the server compares the subjects of a new stream with
// those of all others, which gets slow when there are many.
func newNamespace(t testing.TB) wire.Subjects {
	ns := wire.Subjects(fmt.Sprintf("t%d", namespaces.Add(1)))
	t.Cleanup(func() {
		for _, name := range []string{ns.Stream(0), ns.Stream(1), ns.Stream(2), "KV_" + ns.Bucket()} {
			if err := testStreams.DeleteStream(context.Background(), name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
				t.Errorf("delete %s: %v", name, err)
			}
		}
	})
	return ns
}

func TestJetStream(t *testing.T) {
	journaltest.Test(t, func(t *testing.T) (wire.Subjects, func() journal.Session) {
		ns := newNamespace(t)
		if _, err := dial(t, ns).Open(t.Context(), Settings{Partitions: 2}); err != nil {
			t.Fatal(err)
		}
		return ns, func() journal.Session { return dial(t, ns) }
	})
}

func TestANamespaceIsOpenedAsItWasMade(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	s := dial(t, ns)
	made, err := s.Open(t.Context(), Settings{Partitions: 3})
	if err != nil || made.Partitions != 3 || len(made.ID) != 32 {
		t.Fatalf("%+v, %v", made, err)
	}
	again, err := dial(t, ns).Open(t.Context(), Settings{})
	if err != nil || again != made {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := s.Open(t.Context(), Settings{Partitions: 4}); err == nil || !strings.Contains(err.Error(), "made with 3 partitions, which is for ever; 4 were asked for") {
		t.Error(err)
	}
	js, err := jetstream.New(s.Conn())
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.streamConfig(1, made)
	cfg.MaxAge = time.Hour
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	_, err = s.Open(t.Context(), Settings{})
	if wrong, ok := errors.AsType[*SettingsError](err); !ok || wrong.Stream != ns.Stream(1) || len(wrong.Differences) != 1 || wrong.Differences[0] != "max age is 1h0m0s and must be 0s" {
		t.Errorf("%v", err)
	}
	if err := js.DeleteStream(t.Context(), ns.Stream(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(t.Context(), Settings{}); !errors.Is(err, journal.ErrMissing) {
		t.Errorf("%v", err)
	}
	if _, err := js.Stream(t.Context(), ns.Stream(1)); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the missing stream: %v", err)
	}
}

func TestANamespaceThatWasMadeInPartIsCompleted(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	s := dial(t, ns)
	js, err := jetstream.New(s.Conn())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), s.streamConfig(0, Namespace{Partitions: 2, Replicas: 1})); err != nil {
		t.Fatal(err)
	}
	if made, err := s.Open(t.Context(), Settings{Partitions: 2}); err != nil || made.Partitions != 2 {
		t.Errorf("%+v, %v", made, err)
	}
}

func TestSessionEndsWithEitherConnection(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Session){"main": func(s *Session) { s.main.Close() }, "lease": func(s *Session) { s.meta.Close() }} {
		s := dial(t, newNamespace(t))
		end(s)
		select {
		case <-s.Done():
		case <-time.After(10 * time.Second):
			t.Errorf("the %s connection ended and the session did not", name)
		}
	}
}

func TestAcksAreReadInEveryForm(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]Ack{
		`{"stream":"objects-1","seq":42}`:                                  {"objects-1", 42},
		`{"stream":"objects-1", "seq":42}`:                                 {"objects-1", 42},
		`{"stream":"objects-1","seq":42,"domain":"hub"}`:                   {"objects-1", 42},
		`{"stream":"objects-1", "seq":257,"batch":"abc","count":257}`:      {"objects-1", 257},
		`{"type":"io.nats.jetstream.api.v1.pub_ack","stream":"s","seq":1}`: {"s", 1},
	} {
		if got, err := ParseAck([]byte(data)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", data, got, err)
		}
	}
	for _, data := range []string{``, `{}`, `{"stream":"s","seq":0}`, `{"stream":"s"}`, `-ERR`} {
		if got, err := ParseAck([]byte(data)); !errors.Is(err, errNoAck) {
			t.Errorf("%s: %+v, %v", data, got, err)
		}
	}
	_, err := ParseAck([]byte(`{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"s","seq":0}`))
	if !errors.Is(err, journal.ErrConflict) {
		t.Error(err)
	}
	if _, err = ParseAck([]byte(`{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}}`)); errors.Is(err, journal.ErrConflict) || err == nil {
		t.Error(err)
	}
}

// FuzzAck: the quick way reads the same as the long one.
func FuzzAck(f *testing.F) {
	for _, s := range []string{`{"stream":"objects-1","seq":42}`, `{"stream":"objects-1", "seq":42 }`, `{"stream":"a","seq":1,"domain":"hub"}`, `{"stream":"","seq":1}`,
		`{"stream":"a","seq":0}`, `{"stream":"a","seq":18446744073709551616}`, `{"error":{"code":400,"err_code":10071}}`, `{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		quick, ok := quickAck(data)
		if !ok || strings.ContainsAny(quick.Stream, `\`) || !utf8.ValidString(quick.Stream) || strings.ContainsFunc(quick.Stream, unicode.IsControl) {
			return // no name of a stream
		}
		var long Ack
		if err := json.Unmarshal(data, &long); err != nil || long != quick {
			t.Fatalf("%q is %+v, and by the long way %+v, %v", data, quick, long, err)
		}
	})
}

// BenchmarkAppend keeps a full window of 200-byte records in flight.
func BenchmarkAppend(b *testing.B) {
	ns := newNamespace(b)
	s := dial(b, ns)
	if _, err := s.Open(b.Context(), Settings{Partitions: 1}); err != nil {
		b.Fatal(err)
	}
	slots := make(chan struct{}, journal.Window)
	w, err := s.Log(0).Writer(func(a journal.Answer) {
		if a.Outcome != journal.Stored {
			b.Error(a)
		}
		<-slots
	})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	m := journal.Message{Subject: ns.Journal("c", "a"), Header: journal.Header{wire.HeaderFormat: "1", wire.HeaderEpoch: "1 0123456789abcdef"}, Data: make([]byte, 200)}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		slots <- struct{}{}
		if err := w.Append(journal.Seq(i), journal.NoSubjectCheck, m); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}
