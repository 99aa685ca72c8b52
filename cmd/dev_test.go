package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// fails starts a `perdure dev` that must end by itself with this exit code and say this.
func (p *process) fails(code int, says ...string) {
	p.t.Helper()
	p.start()
	stderr, got := p.wait()
	if got != code {
		p.t.Errorf("exit code %d; want %d: %s", got, code, stderr)
	}
	for _, want := range says {
		if !strings.Contains(stderr, want) {
			p.t.Errorf("nothing about %q in:\n%s", want, stderr)
		}
	}
}

func TestTheTourOfTheIssue(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	for _, want := range []string{`{"count":1}`, `{"count":2}`} {
		if got := p.want(200, "POST", "/counter/checkout-cart-99", ""); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
	nc, err := nats.Connect("nats://" + p.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	r, err := nc.Request("objects.call.counter.checkout-cart-99.increment", []byte(`{"by":2}`), nats.DefaultTimeout*5)
	if err != nil || string(r.Data) != "4" {
		t.Errorf("%v, %v", r, err)
	}
	if out, errs, code := p.run("call", "counter/checkout-cart-99", "increment", `{"by":3}`); out != "7\n" || code != 0 {
		t.Errorf("%s %s %d", out, errs, code)
	}
	stderr, err := p.stop()
	if err != nil {
		t.Errorf("ends with %v: %s", err, stderr)
	}
	for _, want := range []string{"http://" + p.http, "nats://" + p.nats, "curl -X POST", "nats req -s nats://" + p.nats + " objects.call."} {
		if !strings.Contains(stderr, want) {
			t.Errorf("nothing about %q in:\n%s", want, stderr)
		}
	}
	if strings.Contains(stderr, `"level":"WARN"`) || strings.Contains(stderr, `"level":"ERROR"`) {
		t.Errorf("not quiet:\n%s", stderr)
	}
	p.begin()
	if got := p.want(200, "GET", "/counter/checkout-cart-99", ""); got != `{"count":7}` {
		t.Errorf("after a clean stop %s", got)
	}
	p.kill()
	p.begin()
	if got := p.want(200, "GET", "/counter/checkout-cart-99", ""); got != `{"count":7}` {
		t.Errorf("after kill -9 %s", got)
	}
}

// TestNATSToolsFindTheService: what `nats micro stats objects` asks.
func TestNATSToolsFindTheService(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	for range 3 {
		p.want(200, "POST", "/v1/objects/counter/a/call/increment", `{"by":2}`)
	}
	p.want(400, "POST", "/v1/objects/counter/a/call/increment", `{"by":"2"}`)
	eventually(t, func() bool { // a turn is counted when it has ended, and its error may be told before
		m, err := nc.Request("$SRV.STATS.objects", nil, 10*time.Second)
		must(t, err)
		var stats micro.Stats
		must(t, json.Unmarshal(m.Data, &stats))
		i := slices.IndexFunc(stats.Endpoints, func(e *micro.EndpointStats) bool { return e.Name == "counter-increment" })
		return i >= 0 && stats.Endpoints[i].NumRequests == 4 && stats.Endpoints[i].NumErrors == 1 && stats.Version == Version
	})
}

func TestASecondProcessTouchesNothing(t *testing.T) {
	t.Parallel()
	first := newDev(t).begin()
	first.want(200, "POST", "/counter/a", "")

	folder := newDev(t)
	folder.args[2] = first.dir
	folder.fails(1, "another process", "--data")
	port := newDev(t, "--listen", first.http)
	port.fails(1, "listen for HTTP", first.http, "--listen")
	port = newDev(t, "--nats-listen", first.nats)
	port.fails(1, first.nats, "--nats-listen")

	if got := first.want(200, "POST", "/counter/a", ""); got != `{"count":2}` {
		t.Error(got)
	}
}

func TestFlagsAreCheckedFirst(t *testing.T) {
	t.Parallel()
	for _, c := range [][]string{
		{"--sync=sometimes", `--sync is "sometimes"; want always, or a duration`},
		{"--sync=1us", "at least 1ms"},
		{"--partitions=257", "want 1 to 256"},
		{"--log-level=loud", "want debug, info, warn or error"},
		{"--log-format=xml", "want text or json"},
		{"--namespace=a.b", `"a.b" is no identifier`},
		{"--nonsense", "unknown flag: --nonsense"},
	} {
		p := newDev(t, c[0])
		p.fails(exitUsage, c[1], "--help")
		if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
			t.Errorf("%s: the data folder was made", c[0])
		}
	}
}

func TestSnapshotsAreOnlyACache(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"deleted": func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) },
		"an older copy": func(t *testing.T, dir string) {
			must(t, os.RemoveAll(dir))
			must(t, os.Rename(dir+".old", dir))
		},
		"corrupted": func(t *testing.T, dir string) {
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			must(t, err)
			for _, f := range files {
				if info, err := os.Stat(f); err == nil && info.Mode().IsRegular() && filepath.Base(f) != "LOCK" {
					must(t, os.WriteFile(f, []byte("spoilt"), 0o600))
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newDev(t).begin()
			snapshots := filepath.Join(p.dir, "snapshots")
			p.want(200, "POST", "/counter/a", "")
			p.want(200, "POST", "/v1/objects/tally/a/call/add", `{"by":5}`)
			p.stop()
			must(t, os.CopyFS(snapshots+".old", os.DirFS(snapshots)))
			p.begin()
			p.want(200, "POST", "/counter/a", "")
			p.want(200, "POST", "/v1/objects/tally/a/call/add", `{"by":5}`)
			p.stop()
			spoil(t, snapshots)
			p.begin()
			if got := p.want(200, "POST", "/counter/a", ""); got != `{"count":3}` {
				t.Error(got)
			}
			if got := p.want(200, "POST", "/v1/objects/tally/a/call/value", ""); got != "10" {
				t.Error(got)
			}
			eventually(t, func() bool { // until all names are read it is 503, never a list that lacks some
				status, _, got, err := p.send(t.Context(), "GET", "/v1/objects/counter", "")
				if err == nil && status == 200 && !strings.Contains(got, `"name":"a"`) {
					t.Fatal(got)
				}
				return err == nil && status == 200
			})
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotsOfAnotherNamespaceAreRefused(t *testing.T) {
	t.Parallel()
	one, other := newDev(t).begin(), newDev(t).begin()
	one.stop()
	other.stop()
	must(t, os.RemoveAll(filepath.Join(one.dir, "snapshots")))
	must(t, os.Rename(filepath.Join(other.dir, "snapshots"), filepath.Join(one.dir, "snapshots")))
	one.fails(1, "another namespace", "may be moved away")
}

func TestAMissingStreamIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	p.want(200, "POST", "/counter/a", "")
	p.stop()
	streams := filepath.Join(p.dir, "nats", "jetstream", "$G", "streams")
	must(t, os.RemoveAll(filepath.Join(streams, "objects-2")))
	p.fails(1, "stream objects-2", "missing", "restore it from a backup")
}

// limitStream gives a stream a setting that it must not have.
func limitStream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	must(t, err)
	stream, err := js.Stream(t.Context(), "objects-1")
	must(t, err)
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgsPerSubject = 7
	_, err = js.UpdateStream(t.Context(), cfg)
	must(t, err)
	return js
}

func TestAStreamWithOtherSettingsIsRefusedWithTheDifference(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	limitStream(t, nc)
	nc.Close()
	p.stop()
	p.fails(1, "stream objects-1 has other settings", "max messages per subject is 7 and must be -1")
}

// TestAJournalThatWentBackIsAccepted puts an older copy of the server's folder in place of the present one, as a restore
// from a backup does.
func TestAJournalThatWentBackIsAccepted(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--partitions", "1").begin()
	p.want(200, "POST", "/counter/a", "")
	p.stop()
	streams := filepath.Join(p.dir, "nats", "jetstream", "$G", "streams", "objects-0")
	must(t, os.CopyFS(streams+".backup", os.DirFS(streams)))
	p.begin()
	p.want(200, "POST", "/counter/a", "")
	p.stop()
	must(t, os.RemoveAll(streams))
	must(t, os.Rename(streams+".backup", streams))
	p.start()
	eventually(t, func() bool {
		out, _, code := p.run("status", "--json")
		var s engine.Status
		return code == 0 && json.Unmarshal([]byte(out), &s) == nil && strings.Contains(s.Owned[0].Alarm, "journal went back")
	})
	if status, _, body, err := p.send(t.Context(), "GET", "/counter/a", "", wire.HeaderDeadline, "100ms"); err != nil || status != 503 || !strings.Contains(body, `"code":"unavailable"`) {
		t.Errorf("%d %s %v", status, body, err)
	}
	if status, _, body, _ := p.send(t.Context(), "GET", "/readyz", ""); status != 503 || !strings.Contains(body, "journal went back") {
		t.Errorf("%d %s", status, body)
	}
	if out, stderr, code := p.run("doctor"); code != 1 || !strings.Contains(out, "journal\tbad\tjournal went back") || !strings.Contains(out, "perdure accept-journal 0") {
		t.Errorf("%d %s %s", code, out, stderr)
	}
	if _, stderr, code := p.run("accept-journal", "0"); code != 1 || !strings.Contains(stderr, "sequences are lost") || !strings.Contains(stderr, "--yes") {
		t.Errorf("%d %s", code, stderr)
	}
	if _, stderr, code := p.run("accept-journal", "0", "--yes"); code != 0 || !strings.Contains(stderr, "accepted") {
		t.Errorf("%d %s", code, stderr)
	}
	p.ready()
	if got := p.want(200, "POST", "/counter/a", ""); got != `{"count":2}` {
		t.Error(got)
	}
	if _, stderr, code := p.run("accept-journal", "0", "--yes"); code != 0 || !strings.Contains(stderr, "nothing to accept") {
		t.Errorf("%d %s", code, stderr)
	}
	if _, stderr, code := p.run("accept-journal", "9", "--yes"); code != exitUsage || !strings.Contains(stderr, "there is no partition 9") {
		t.Errorf("%d %s", code, stderr)
	}
}

func TestBelowTheReserveWritesAreRefusedAndReadsGoOn(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	p.want(200, "POST", "/counter/a", "")
	p.stop()
	p.args = append(p.args, "--reserve-min", "18000000000000000000")
	p.begin()
	eventually(t, func() bool {
		status, header, body, err := p.send(t.Context(), "POST", "/counter/a", "")
		return err == nil && status == 507 && strings.Contains(body, "are kept as a reserve") && header.Get("Retry-After") != ""
	})
	if got := p.want(200, "GET", "/counter/a", ""); got != `{"count":1}` {
		t.Error(got)
	}
}
