package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// three is three servers with streams of three copies, and a worker.
type three struct {
	*fleet
	dirs, listen, routes []string
	servers              []*server.Server
	worker               *process
	js                   natsjs.JetStream
}

func newThree(t *testing.T) *three {
	t.Helper()
	f := &three{fleet: newFleet(t), servers: make([]*server.Server, 3)}
	for range f.servers {
		f.dirs, f.listen, f.routes = append(f.dirs, t.TempDir()), append(f.listen, freePort(t)), append(f.routes, freePort(t))
	}
	f.nats = f.listen[0]
	for i := range f.servers {
		f.startServer(i)
	}
	f.worker = f.prepare("serve", "--replicas", "3", "--partitions", "1", "--timeout", "5s")
	f.worker.start()
	f.servesSoon()
	nc, err := nats.Connect("nats://"+f.nats, nats.MaxReconnects(-1))
	must(t, err)
	t.Cleanup(nc.Close)
	f.js, err = natsjs.New(nc)
	must(t, err)
	return f
}

func (f *three) startServer(i int) {
	f.servers[i] = clustered(f.t.(*testing.T), i, f.dirs[i], f.listen[i], f.routes)
}

func (f *three) stopServer(i int) {
	f.servers[i].Shutdown()
	f.servers[i].WaitForShutdown()
}

// soon waits for what takes elections.
func (f *three) soon(what string, is func() bool) {
	f.t.Helper()
	for patience := time.Now().Add(2 * time.Minute); !is(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(patience) {
			f.t.Fatalf("not within 2 minutes: %s", what)
		}
	}
}

func (f *three) servesSoon() {
	f.t.Helper()
	f.soon("the worker owns the partition", func() bool {
		status, _, _, err := f.worker.send(f.t.Context(), "GET", "/counter/probe", "")
		return err == nil && status == 200
	})
}

// together waits until all copies of the stream are up to date.
func (f *three) together() {
	f.t.Helper()
	f.soon("all copies are up to date", func() bool {
		s, err := f.js.Stream(f.t.Context(), "objects-0")
		if err != nil || s.CachedInfo().Cluster == nil || len(s.CachedInfo().Cluster.Replicas) != 2 {
			return false
		}
		for _, r := range s.CachedInfo().Cluster.Replicas {
			if !r.Current || r.Offline || r.Lag > 0 {
				return false
			}
		}
		return true
	})
}

// flip flips a bit in the middle of the records that a server has of the stream.
func (f *three) flip(i int) {
	f.t.Helper()
	blocks, err := filepath.Glob(filepath.Join(f.dirs[i], "jetstream", "$G", "streams", "objects-0", "msgs", "*.blk"))
	must(f.t, err)
	for _, block := range blocks {
		data, err := os.ReadFile(block)
		must(f.t, err)
		word := []byte(`"method":"`)
		at, n := 0, bytes.Count(data, word)
		if n < 20 {
			continue
		}
		for range n / 2 {
			at += bytes.Index(data[at:], word) + len(word)
		}
		data[at] ^= 4
		must(f.t, os.WriteFile(block, data, 0o640))
		return
	}
	f.t.Fatal("there are no records")
}

// TestABlockWithAFlippedBitOnOneOfThreeServers: no change is lost and none is served wrongly, whichever copy is asked, and also when the copies
// that are left are a good one and that. What cannot be read is told as an error.
func TestABlockWithAFlippedBitOnOneOfThreeServers(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers take seconds")
	}
	t.Parallel()
	f := newThree(t)
	const counters, counts = 8, 12
	wrong := func(when string, want int) (told int) {
		t.Helper()
		for i := range counters {
			status, _, body, err := f.worker.send(t.Context(), "GET", fmt.Sprintf("/counter/c%d", i), "")
			switch {
			case err != nil:
				t.Fatal(err)
			case status != 200:
				told++
				t.Logf("%s: c%d: %d %s", when, i, status, body)
			case strings.TrimSpace(body) != fmt.Sprintf(`{"count":%d}`, want):
				t.Errorf("%s: c%d is %s; want %d", when, i, body, want)
			}
		}
		return told
	}
	for n := range counts {
		for i := range counters {
			if got := f.worker.want(200, "POST", fmt.Sprintf("/counter/c%d", i), ""); got != fmt.Sprintf(`{"count":%d}`, n+1) {
				t.Fatal(got)
			}
		}
	}
	f.together()
	const spoilt = 0 // to which the worker is connected, and which is asked first
	f.stopServer(spoilt)
	f.flip(spoilt)
	f.startServer(spoilt)
	f.together()
	told := 0
	for range 3 { // a worker without states reads all, from any copy
		f.worker.stop()
		must(t, os.RemoveAll(filepath.Join(f.worker.dir, "snapshots")))
		f.worker.start()
		f.servesSoon()
		told += wrong("of three copies", counts)
	}
	f.stopServer(2)
	f.servesSoon()
	f.worker.stop()
	must(t, os.RemoveAll(filepath.Join(f.worker.dir, "snapshots")))
	f.worker.start()
	f.servesSoon()
	told += wrong("of two copies", counts)
	out, stderr, code := f.worker.run("verify", "--json", "--timeout", "30s")
	t.Logf("%d times it was told; verify: %d %s%s", told, code, out, stderr)
	var last struct {
		Summary struct{ Severe, Commits int }
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code == 0 && (json.Unmarshal([]byte(lines[len(lines)-1]), &last) != nil || last.Summary.Commits != counters*counts) {
		t.Errorf("%d commits, want %d", last.Summary.Commits, counters*counts)
	}
}
