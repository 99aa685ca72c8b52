package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/counter"
	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot"
)

// examined are the findings of `perdure doctor` by check, and its exit code.
func examined(t *testing.T, args ...string) (found map[string]doctor.Finding, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Run(append([]string{"doctor", "--json"}, args...), strings.NewReader(""), &out, &errs, counter.Counters)
	found = map[string]doctor.Finding{}
	for d := json.NewDecoder(&out); d.More(); {
		var f doctor.Finding
		must(t, d.Decode(&f))
		found[f.Check] = f
	}
	if code != exitOK && errs.Len() == 0 {
		t.Errorf("exit code %d and no reason", code)
	}
	return found, code
}

// wants compares some findings.
func wants(t *testing.T, found map[string]doctor.Finding, want map[string]doctor.Status) {
	t.Helper()
	for _, check := range slices.Sorted(maps.Keys(want)) {
		if f := found[check]; f.Status != want[check] {
			t.Errorf("%s is %q, want %q: %s", check, f.Status, want[check], f.What)
		}
	}
}

func TestDoctorFindsNothingWrongWithDev(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	p.want(200, "POST", "/counter/a", "")
	found, _ := examined(t, "-s", "nats://"+p.nats)
	delete(found, "clock") // of this machine, and
	delete(found, "folder")
	if len(found) != 14 {
		t.Errorf("%d findings", len(found))
	}
	for check, f := range found {
		if f.Status != doctor.OK {
			t.Errorf("%s: %+v", check, f)
		}
	}
	if status, _, body, _ := p.send(t.Context(), "GET", "/counter/a", ""); status != 200 || !strings.Contains(body, `{"count":1}`) {
		t.Errorf("after the doctor: %d %s", status, body)
	}

	p.stop()
	p.args = append(p.args, "--sync", "100ms")
	p.begin()
	found, code := examined(t, "-s", "nats://"+p.nats)
	wants(t, found, map[string]doctor.Status{"sync": doctor.Warn})
	if found["folder"].Status != doctor.Bad && code != exitOK {
		t.Errorf("exit code %d of a warning", code)
	}
}

func TestDoctorLooksAtAFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "snapshots.corrupt-1"), 0o750))
	found, _ := examined(t, "--data", dir)
	if len(found) != 1 || found["folder"].Status == doctor.OK {
		t.Errorf("%+v", found)
	}
	if _, code := examined(t, "--data", filepath.Join(dir, "missing")); code != exitFailed {
		t.Errorf("exit code %d for a folder that is not there", code)
	}
	for _, args := range [][]string{{"--monitor", "localhost"}, {"--data", dir, "--monitor", "http://localhost:1"}, {"more"}} {
		if _, code := examined(t, args...); code != exitUsage {
			t.Errorf("%v: exit code %d", args, code)
		}
	}
}

// outsideServer is a nats-server as it is without a configuration of ours.
func outsideServer(t *testing.T, change func(*server.Options)) *server.Server {
	t.Helper()
	o := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, HTTPHost: "127.0.0.1", HTTPPort: server.RANDOM_PORT,
		JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}
	if change != nil {
		change(o)
	}
	s, err := server.NewServer(o)
	must(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s
}

// outsideWorker runs a worker on a server, until the test ends.
func outsideWorker(t *testing.T, url string) {
	t.Helper()
	dial := func(ctx context.Context) (journal.Session, error) {
		return jetstream.Dial(ctx, jetstream.Config{Dial: func(o ...nats.Option) (*nats.Conn, error) { return nats.Connect(url, o...) }})
	}
	s, err := dial(t.Context())
	must(t, err)
	defer s.Close()
	kept, err := s.(*jetstream.Session).Open(t.Context(), jetstream.Settings{Partitions: 2})
	must(t, err)
	w, err := engine.New(engine.Config{ID: "w", Partitions: kept.Partitions, Classes: []engine.AnyClass{counter.Counters}, Store: snapshot.NewMemory(), Connect: dial, Version: "0.0.1"})
	must(t, err)
	ran := make(chan error, 1)
	go func() { ran <- w.Run(context.Background()) }() // ends with Stop
	t.Cleanup(func() { w.Stop(); must(t, <-ran) })
	eventually(t, func() bool { return w.Ready() == nil })
}

func TestDoctorFindsWhatIsWrongWithAServerOfOnesOwn(t *testing.T) {
	t.Parallel()
	s := outsideServer(t, nil)
	found, code := examined(t, "-s", s.ClientURL())
	if code != exitFailed {
		t.Errorf("exit code %d of a server without objects", code)
	}
	wants(t, found, map[string]doctor.Status{"streams": doctor.Bad, "worker": doctor.Bad, "mapping": doctor.Bad, "sync": doctor.Unseen, "folder": doctor.Unseen})

	outsideWorker(t, s.ClientURL())
	found, _ = examined(t, "-s", s.ClientURL())
	wants(t, found, map[string]doctor.Status{"payload": doctor.Warn, "mapping": doctor.Bad, "streams": doctor.OK, "journal": doctor.OK, "storage": doctor.OK,
		"epochs": doctor.OK, "lease": doctor.OK, "software": doctor.Warn, "sync": doctor.Unseen, "worker": doctor.Bad})

	from, to := wire.DefaultNamespace.Mapping()
	must(t, s.GlobalAccount().AddMapping(from, strings.Replace(to, "256", "16", 1)))
	found, _ = examined(t, "-s", s.ClientURL(), "--monitor", "http://"+s.MonitorAddr().String())
	wants(t, found, map[string]doctor.Status{"mapping": doctor.Warn, "sync": doctor.Bad, "storage": doctor.OK})
	must(t, s.GlobalAccount().AddMapping(from, to))

	nc, err := nats.Connect(s.ClientURL())
	must(t, err)
	defer nc.Close()
	js := limitStream(t, nc)
	found, code = examined(t, "-s", s.ClientURL())
	wants(t, found, map[string]doctor.Status{"mapping": doctor.OK, "streams": doctor.Bad})
	if code != exitFailed || !strings.Contains(found["streams"].What, "max messages per subject is 7 and must be -1") {
		t.Errorf("%d %+v", code, found["streams"])
	}
	must(t, js.DeleteStream(t.Context(), "objects-1"))
	found, _ = examined(t, "-s", s.ClientURL())
	if f := found["streams"]; f.Status != doctor.Bad || !strings.Contains(f.What, "stream objects-1") || !strings.Contains(f.What, "missing") {
		t.Errorf("%+v", f)
	}
}

func TestDoctorSaysWhatItCannotSee(t *testing.T) {
	t.Parallel()
	none := outsideServer(t, func(o *server.Options) { o.JetStream = false })
	found, code := examined(t, "-s", none.ClientURL())
	wants(t, found, map[string]doctor.Status{"storage": doctor.Bad, "streams": ""})
	if code != exitFailed {
		t.Errorf("exit code %d", code)
	}

	only := func(subjects ...string) *server.SubjectPermission { return &server.SubjectPermission{Allow: subjects} }
	poor := outsideServer(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "caller", Password: "x", Permissions: &server.Permissions{Publish: only("objects.part.*.call.counter.>"), Subscribe: only("_INBOX.>")}}}
	})
	found, code = examined(t, "-s", poor.ClientURL(), "--user", "caller", "--password", "x", "--timeout", "300ms")
	wants(t, found, map[string]doctor.Status{"access": doctor.OK, "storage": doctor.Unseen, "streams": doctor.Unseen, "mapping": doctor.Unseen,
		"worker": doctor.Unseen, "sync": doctor.Unseen, "folder": doctor.Unseen})
	if code != exitOK {
		t.Errorf("exit code %d of what is only not seen", code)
	}

	monitor := httptest.NewServer(http.NotFoundHandler())
	defer monitor.Close()
	found, _ = examined(t, "-s", none.ClientURL(), "--monitor", monitor.URL)
	if f := found["sync"]; f.Status != doctor.Unseen || !strings.Contains(f.What, "404") {
		t.Errorf("%+v", f)
	}
}

func TestFindingsAreShown(t *testing.T) {
	t.Parallel()
	list := []doctor.Finding{{Check: "sync", Status: doctor.Bad, What: "every 2m", Fix: "always"}, {Check: "size", Status: doctor.OK, What: "3 subjects"}}
	var out bytes.Buffer
	r := newRows(&out, true, false, []string{"check", "status", "what"})
	for _, f := range list {
		addFinding(r, f)
	}
	must(t, r.end())
	if want := "CHECK  STATUS  WHAT\nsync   bad     every 2m\n               -> always\nsize   ok      3 subjects\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	a := &app{out: &out}
	if err := a.printFindings(list); err == nil || !strings.Contains(err.Error(), "1 of 2") {
		t.Error(err)
	}
	if want := "sync\tbad\tevery 2m\talways\nsize\tok\t3 subjects\t\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}
