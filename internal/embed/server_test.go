package embed

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/wire"
)

// start runs a server for one test, in a folder of its own unless the options name one.
func start(t *testing.T, o Options) *Server {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func connect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append(opts, nats.NoReconnect())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func stream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "kept", Subjects: []string{"kept.>"}})
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// kept is the payload of the stream's message at a position.
func kept(t *testing.T, s *Server, seq uint64) string {
	t.Helper()
	js, err := jetstream.New(connect(t, "", s.InProcess()))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "kept")
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetMsg(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	return string(msg.Data)
}

func TestClientsConnectInProcessAndByURL(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Listen: "127.0.0.1:0", Name: "my-server"})
	inside, outside := connect(t, "", s.InProcess()), connect(t, s.URL())
	sub, err := inside.SubscribeSync("hello")
	if err != nil {
		t.Fatal(err)
	}
	if err := inside.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := outside.Publish("hello", []byte("world")); err != nil {
		t.Fatal(err)
	}
	msg, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if string(msg.Data) != "world" {
		t.Errorf("got %q, want world", msg.Data)
	}
	if got := outside.ConnectedServerName(); got != "my-server" {
		t.Errorf("server name is %q, want my-server", got)
	}
	if got := outside.MaxPayload(); got != PayloadBytesMax {
		t.Errorf("largest payload is %d, want %d", got, PayloadBytesMax)
	}
	if want := "nats://" + outside.ConnectedAddr(); s.URL() != want {
		t.Errorf("URL is %s, want %s", s.URL(), want)
	}
}

func TestServerWithoutListenHasNoSocket(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	connect(t, "", s.InProcess())
	if s.URL() != "" {
		t.Errorf("URL is %q, want none", s.URL())
	}
	if addr := s.nats.Addr(); addr != nil {
		t.Errorf("the server listens on %v", addr)
	}
}

func TestRestartKeepsMessages(t *testing.T) {
	t.Parallel()
	for name, interval := range map[string]time.Duration{"sync always": 0, "sync at intervals": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{Dir: filepath.Join(t.TempDir(), "made", "by", "start"), SyncInterval: interval}
			s := start(t, o)
			if _, err := stream(t, connect(t, "", s.InProcess())).Publish(t.Context(), "kept.a", []byte("one")); err != nil {
				t.Fatal(err)
			}
			s.Shutdown()
			s.Shutdown() // a second time does no harm
			if got := kept(t, start(t, o), 1); got != "one" {
				t.Errorf("after a restart the message is %q, want one", got)
			}
		})
	}
}

func TestSyncIsAlwaysUnlessAnIntervalIsSet(t *testing.T) {
	t.Parallel()
	always := start(t, Options{}).nats.JetStreamConfig()
	if !always.SyncAlways {
		t.Error("without an interval the server does not sync always")
	}
	if always.MaxStore != storeBytesMax {
		t.Errorf("the server limits its store to %d bytes; only the worker's reserve may", always.MaxStore)
	}
	relaxed := start(t, Options{SyncInterval: 100 * time.Millisecond}).nats.JetStreamConfig()
	if relaxed.SyncAlways || relaxed.SyncInterval != 100*time.Millisecond {
		t.Errorf("sync always is %v, the interval %v; want false and 100ms", relaxed.SyncAlways, relaxed.SyncInterval)
	}
}

func TestPortInUseIsSaidBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "nats")
	_, err = Start(Options{Dir: dir, Listen: l.Addr().String()})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("Start on a port in use returned %v", err)
	}
	for _, want := range []string{l.Addr().String(), "--nats-listen"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not contain %s", err, want)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was touched: %v", err)
	}
}

func TestPortTakenBehindTheProbeIsAnError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	opts := &server.Options{
		Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port,
		JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
	}
	_, err = run(opts, Options{}.withDefaults())
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("run returned %v, want address already in use", err)
	}
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := t.TempDir()
	if err := os.WriteFile(filepath.Join(blocked, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		options Options
		want    string
	}{
		{"no folder", Options{}, "Dir is required"},
		{"a file for a folder", Options{Dir: file}, "not a directory"},
		{"a file where JetStream stores", Options{Dir: blocked}, "Can't start JetStream"},
		{"an address without port", Options{Dir: t.TempDir(), Listen: "localhost"}, "choose an address with --nats-listen"},
		{"a tiny interval", Options{Dir: t.TempDir(), SyncInterval: 1}, "SyncInterval is 1ns"},
		{"a namespace with a dot", Options{Dir: t.TempDir(), Namespaces: []wire.Subjects{"a.b"}}, `"a.b" is no identifier`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, err := Start(test.options)
			if err == nil {
				s.Shutdown()
				t.Fatal("Start succeeded")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want it to contain %q", err, test.want)
			}
		})
	}
}

func TestLoggerHearsWarningsOnlyByDefault(t *testing.T) {
	t.Parallel()
	var quiet, loud bytes.Buffer
	start(t, Options{Logger: slog.New(slog.NewTextHandler(&quiet, nil))}).Shutdown()
	if quiet.Len() > 0 {
		t.Errorf("an ordinary start and stop logged:\n%s", quiet.String())
	}
	debug := &slog.HandlerOptions{Level: slog.LevelDebug}
	start(t, Options{Logger: slog.New(slog.NewTextHandler(&loud, debug))}).Shutdown()
	if !strings.Contains(loud.String(), "Server is ready") {
		t.Errorf("at debug level the server's notices are missing:\n%s", loud.String())
	}
}
