package blocksync

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/embed"
)

// knownServer is the version of nats-server whose files this package was held against. When it changes: run these tests,
// read filestore.go for what [layout.go] says, and how a block is begun, flushed, compacted and recovered; then change it.
const knownServer = "2.15.2"

// startServer starts a server with one stream of the given name, which has n messages.
func startServer(t *testing.T, dir, stream string, n int) (*embed.Server, nats.JetStreamContext) {
	t.Helper()
	s, err := embed.Start(embed.Options{Dir: dir, SyncInterval: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	nc, err := nats.Connect("", s.InProcess())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	addStream(t, js, stream, n)
	return s, js
}

func addStream(t *testing.T, js nats.JetStreamContext, stream string, n int) {
	t.Helper()
	if _, err := js.AddStream(&nats.StreamConfig{Name: stream, Subjects: []string{stream + ".>"}}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		publish(t, js, stream, fmt.Sprint("message ", i))
	}
}

func publish(t *testing.T, js nats.JetStreamContext, stream, data string) uint64 {
	t.Helper()
	ack, err := js.PublishMsg(&nats.Msg{Subject: stream + ".a", Header: nats.Header{"X": {"y"}}, Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func TestTheServerWritesBeforeItAcknowledgesWhereThisPackageLooks(t *testing.T) {
	if server.VERSION != knownServer {
		t.Fatalf("nats-server is %s; package blocksync knows the files of %s (see knownServer)", server.VERSION, knownServer)
	}
	dir := t.TempDir()
	_, js := startServer(t, dir, "s", 1)
	f := folder{globalAccount, "s", filepath.Join(dir, "jetstream", globalAccount, "streams", "s", "msgs")}
	for i := range 50 {
		data := fmt.Sprint("payload ", i, " ", time.Now().UnixNano())
		seq := publish(t, js, "s", data)
		raw, err := os.ReadFile(f.block(1))
		if err != nil || !bytes.Contains(raw, []byte(data)) {
			t.Fatalf("%d is acknowledged, and its file does not have it: %v", seq, err)
		}
		if got, err := f.scan(1); err != nil || got != (span{first: 1, last: seq, records: int(seq), bytes: len(raw), whole: true}) {
			t.Fatalf("%+v, %v; want all up to %d", got, err, seq)
		}
	}
	if err := js.DeleteMsg("s", 2); err != nil {
		t.Fatal(err)
	}
	if got, err := f.scan(1); err != nil || !got.whole || got.last != 51 {
		t.Errorf("with a message deleted: %+v, %v", got, err)
	}
	raw, err := os.ReadFile(f.block(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, spoilt := range [][]byte{raw[:len(raw)-3], append(bytes.Clone(raw), make([]byte, 4096)...), append(bytes.Clone(raw), 1, 2, 3)} {
		if err := os.WriteFile(f.block(7), spoilt, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := f.scan(7); err != nil || got.whole { // the key of the checksums names the block too
			t.Errorf("a spoilt block: %+v, %v", got, err)
		}
	}
}

func TestAFolderThatIsNotKnownIsRefused(t *testing.T) {
	dir := t.TempDir()
	startServer(t, dir, "s", 3)
	name := filepath.Join(dir, "jetstream", globalAccount, "streams", "s", "msgs", "1.blk")
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func() error{
		"other records": func() error { return os.WriteFile(name, append(bytes.Clone(raw), "more"...), 0o600) },
		"no blocks":     func() error { return os.Rename(name, name+".else") },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if err := (marks{Boot: "another", Streams: map[string]mark{}}).write(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Options{Dir: dir, OnFatal: func(error) {}}); !errors.Is(err, ErrLayout) {
			t.Errorf("%s: %v; want %v", what, err, ErrLayout)
		}
		if c, err := Repair(dir, slog.New(slog.DiscardHandler)); c != nil || err != nil {
			t.Errorf("%s: marks are left, of what somebody else syncs: %+v, %v", what, c, err)
		}
	}
}

func TestAFailedSyncTellsNobodyAnythingAnyMore(t *testing.T) {
	dir := t.TempDir()
	_, js := startServer(t, dir, "s", 1)
	full, broken := errors.New("disk on fire"), false
	fatal := make(chan error, 1)
	s, err := New(Options{Dir: dir, Every: time.Hour, OnFatal: func(err error) { fatal <- err }, datasync: func(f *os.File) error {
		if broken {
			return full
		}
		return datasync(f)
	}})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan int, 10)
	publish(t, js, "s", "a")
	s.Durable("s", func() { told <- 1 })
	if <-told != 1 {
		t.Fatal("not told")
	}
	broken = true
	publish(t, js, "s", "b")
	s.Durable("s", func() { told <- 2 })
	select {
	case err := <-fatal:
		if !errors.Is(err, full) {
			t.Errorf("%v", err)
		}
	case n := <-told:
		t.Fatalf("%d is told after a sync that failed", n)
	}
	s.Durable("s", func() { told <- 3 })
	if err := s.Close(); !errors.Is(err, full) {
		t.Errorf("close: %v; want the failure", err)
	}
	if len(told) != 0 {
		t.Errorf("told %d", <-told)
	}
	if m, _, err := readMarks(dir); err != nil || m.Clean {
		t.Errorf("the marks say that all is synced: %+v, %v", m, err)
	}
}

// TestAStreamThatIsMadeAnewIsSynced: another stream of the same name begins with block 1 again.
func TestAStreamThatIsMadeAnewIsSynced(t *testing.T) {
	dir := t.TempDir()
	_, js := startServer(t, dir, "s", 2)
	addStream(t, js, "other", 1)
	sizes := &synced{sizes: map[string]int64{}}
	s, err := New(Options{Dir: dir, Every: time.Hour, OnFatal: func(err error) { t.Error(err) }, trace: sizes.trace})
	if err != nil {
		t.Fatal(err)
	}
	durable := func(stream string) {
		done := make(chan struct{})
		s.Durable(stream, func() { close(done) })
		<-done
	}
	if err := js.DeleteStream("s"); err != nil {
		t.Fatal(err)
	}
	durable("s") // of a stream that is gone nothing is left to sync
	addStream(t, js, "s", 3)
	durable("s")
	name := filepath.Join(dir, "jetstream", globalAccount, "streams", "s", "msgs", "1.blk")
	stat, err := os.Stat(name)
	if err != nil || sizes.copy()[name] != stat.Size() {
		t.Errorf("%d of %d bytes are synced, %v", sizes.copy()[name], stat.Size(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestMarksTellACleanStopAndAPowerCut(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	repair := func() *Cut {
		c, err := Repair(dir, log)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := repair(); c != nil {
		t.Errorf("a folder without marks: %+v", c)
	}
	server, js := startServer(t, dir, "s", 5)
	s, err := New(Options{Dir: dir, OnFatal: func(err error) { t.Error(err) }, Ends: server.Ends})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, js, "s", "sixth")
	if c := repair(); c != nil {
		t.Errorf("the same boot: %+v", c)
	}
	was, _, err := readMarks(dir)
	if err != nil || was.Clean {
		t.Fatalf("%+v, %v", was, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if m, _, err := readMarks(dir); err != nil || !m.Clean {
		t.Errorf("after a clean stop: %+v, %v", m, err)
	}
	if c := repair(); c != nil {
		t.Errorf("after a clean stop: %+v", c)
	}
	if m, _, err := readMarks(dir); err != nil || m.Clean { // the next one has begun
		t.Errorf("%+v, %v", m, err)
	}
	was.Boot = "another"
	if err := was.write(dir); err != nil {
		t.Fatal(err)
	}
	if c := repair(); c == nil || len(c.Aside) > 0 || c.Acked["s"] != 5 {
		t.Errorf("another boot: %+v; want that five were acknowledged", c)
	}
	if err := os.WriteFile(marksFile(dir), []byte(`{"v":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Repair(dir, log); err == nil {
		t.Error("marks of another version are read")
	}
}

// TestARoundTellsThoseWhoCameBeforeIt: what is stored while a round syncs may not be in what it synced.
func TestARoundTellsThoseWhoCameBeforeIt(t *testing.T) {
	dir := t.TempDir()
	_, js := startServer(t, dir, "s", 1)
	name := filepath.Join(dir, "jetstream", globalAccount, "streams", "s", "msgs", "1.blk")
	sizes := &synced{sizes: map[string]int64{}}
	during := make(chan func(), 1)
	s, err := New(Options{Dir: dir, Every: time.Hour, OnFatal: func(err error) { t.Error(err) }, trace: sizes.trace, datasync: func(f *os.File) error {
		err := datasync(f)
		select {
		case f := <-during:
			f()
		default:
		}
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 2)
	store := func(what string) {
		publish(t, js, "s", what)
		stat, err := os.Stat(name)
		if err != nil {
			t.Error(err)
			return
		}
		s.Durable("s", func() {
			if have := sizes.copy()[name]; have < stat.Size() {
				t.Errorf("%s: told with %d bytes synced, and it needs %d", what, have, stat.Size())
			}
			told <- what
		})
	}
	during <- func() { store("during the round") }
	store("before the round")
	for _, want := range []string{"before the round", "during the round"} {
		if got := <-told; got != want {
			t.Errorf("%s is told; want %s", got, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
