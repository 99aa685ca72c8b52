package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/cluster"
	"github.com/perdure/perdure/internal/wire"
)

// abused is real servers, a worker, and callers that count. To the servers and their files is done what Jepsen did to NATS 2.12.1.
type abused struct {
	*fleet
	servers *cluster.Cluster
	worker  *process
	js      natsjs.JetStream

	counted [abusedCounters]atomic.Int64 // what was answered
	told    atomic.Value                 // the last answer that was none
	life    int                          // names ids; a loss that was accepted begins another
}

const (
	abusedCounters = 8
	abusedStream   = "objects-0"
	abusedPatience = 2 * time.Minute // elections and catching up take seconds, on a busy machine many
)

// newAbused starts servers of a program that has their hidden command. configure changes their configuration.
func newAbused(t *testing.T, program string, servers int, configure func(string) string) *abused {
	t.Helper()
	if testing.Short() {
		t.Skip("a cluster takes seconds")
	}
	a := &abused{fleet: newFleet(t)}
	var err error
	a.servers, err = cluster.New(cluster.Config{Dir: t.TempDir(), Program: program, Servers: servers})
	must(t, err)
	t.Cleanup(func() {
		must(t, a.servers.Close())
		if t.Failed() {
			a.tell()
		}
	})
	if configure != nil {
		conf := filepath.Join(a.servers.Dir(), "nats.conf")
		text, err := os.ReadFile(conf)
		must(t, err)
		must(t, os.WriteFile(conf, []byte(configure(string(text))), 0o640))
	}
	ctx, cancel := context.WithTimeout(t.Context(), abusedPatience)
	defer cancel()
	must(t, a.servers.Start(ctx))
	a.nats = strings.TrimPrefix(a.servers.NATS(), "nats://")
	nc, err := nats.Connect(a.servers.NATS(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	must(t, err)
	t.Cleanup(nc.Close)
	a.js, err = natsjs.New(nc, natsjs.WithDefaultTimeout(5*time.Second))
	must(t, err)
	a.worker = a.prepare("serve", "--replicas", "3", "--partitions", "1", "--timeout", "5s", "--lease-term", "1s")
	a.worker.start()
	return a
}

// tell logs what the servers warned of, and the worker.
func (a *abused) tell() {
	for _, p := range a.servers.Servers {
		text, err := os.ReadFile(p.Log())
		must(a.t, err)
		for line := range strings.Lines(string(text)) {
			if !strings.Contains(line, "[INF]") && !strings.Contains(line, "connect to route") {
				a.t.Logf("%s: %s", p.Name, line)
			}
		}
	}
	said := a.worker.said()
	a.t.Logf("worker: %s", said[max(0, len(said)-8<<10):])
}

// soon waits for what takes elections.
func (a *abused) soon(what string, is func() bool) {
	a.t.Helper()
	for patience := time.Now().Add(abusedPatience); !is(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(patience) {
			a.t.Fatalf("not within %v: %s; the last answer was %v", abusedPatience, what, a.told.Load())
		}
	}
}

// count counts, a caller for each counter, until it is stopped. Each increment has an id and is repeated until it is answered, by the next
// callers too: so the answers are 1, 2, 3 and so on, or something was lost or applied twice.
func (a *abused) count() (stop func()) {
	ctx, cancel := context.WithCancel(a.t.Context())
	var callers sync.WaitGroup
	for i := range a.counted {
		callers.Go(func() {
			for ctx.Err() == nil && !a.t.Failed() {
				a.increment(ctx, i)
			}
		})
	}
	return func() { cancel(); callers.Wait() }
}

// increment asks once, and notes the answer.
func (a *abused) increment(ctx context.Context, i int) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	n := a.counted[i].Load() + 1
	status, _, body, err := a.worker.send(ctx, "POST", fmt.Sprintf("/v1/objects/counter/c%d/call/increment", i), "",
		"Idempotency-Key", fmt.Sprintf("%d-%d", a.life, n), wire.HeaderDeadline, "10s")
	switch {
	case err != nil || status != 200:
		a.told.Store(fmt.Sprintf("c%d: %d %s, %v", i, status, body, err))
		<-time.After(20 * time.Millisecond)
	case strings.TrimSpace(body) != fmt.Sprint(n):
		a.t.Errorf("increment %d of c%d was answered %s", n, i, body)
	default:
		a.counted[i].Store(n)
	}
}

// moves tells whether each counter comes so much further within a time.
func (a *abused) moves(n int64, within time.Duration) bool {
	patience := time.Now().Add(within)
	for i := range a.counted {
		for want := a.counted[i].Load() + n; a.counted[i].Load() < want; <-time.After(10 * time.Millisecond) {
			if a.t.Failed() || time.Now().After(patience) {
				return false
			}
		}
	}
	return true
}

// more wants each counter to come so much further.
func (a *abused) more(n int64) {
	a.t.Helper()
	if !a.moves(n, abusedPatience) {
		a.t.Fatalf("within %v not all counters went on; the last answer was %v", abusedPatience, a.told.Load())
	}
}

// check wants each change that was answered to be there once, and what was not answered at most once; nobody counts meanwhile. A worker
// without states reads all of the journal, from any copy. Where a copy is spoilt it may also be told that something cannot be read; what is
// answered has to be right all the same.
func (a *abused) check(spoilt bool) {
	a.t.Helper()
	a.forget()
	sum, told := 0, 0
	for i := range a.counted {
		var got int64
		n := a.counted[i].Load()
		a.soon(fmt.Sprintf("c%d is read", i), func() bool {
			status, _, body, err := a.worker.send(a.t.Context(), "POST", fmt.Sprintf("/v1/objects/counter/c%d/call/value", i), "")
			a.told.Store(fmt.Sprintf("%d %s, %v", status, body, err))
			switch {
			case err != nil || status == 503 || status == 504:
				return false
			case status == 200:
				_, err = fmt.Sscan(body, &got)
				must(a.t, err)
			case spoilt:
				told++
				a.t.Logf("c%d: %d %s", i, status, body)
				got = n
			default:
				return false
			}
			return true
		})
		if got != n && got != n+1 {
			a.t.Errorf("c%d is %d; %d was answered", i, got, n)
		}
		sum += int(got)
	}
	out, stderr, code := a.worker.run("verify", "--json", "--timeout", "30s")
	var last struct {
		Summary struct{ Severe, Commits int }
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	err := json.Unmarshal([]byte(lines[len(lines)-1]), &last)
	switch whole := err == nil && code == 0 && last.Summary.Severe == 0 && last.Summary.Commits == sum; {
	case whole:
		a.t.Logf("verify: all %d commits are there; %d objects told of damage", sum, told)
	case spoilt && code == 1 && last.Summary.Severe > 0:
		a.t.Logf("verify: %s; %d objects told of damage", lines[0], told)
	default:
		a.t.Errorf("perdure verify: code %d, want %d commits: %s%s", code, sum, out, stderr)
	}
}

// forget starts the worker anew, without states.
func (a *abused) forget() {
	a.t.Helper()
	a.worker.stop()
	must(a.t, os.RemoveAll(filepath.Join(a.worker.dir, "snapshots")))
	a.worker.start()
}

// start starts a server, and wants it to be ready.
func (a *abused) start(p *cluster.Process) {
	a.t.Helper()
	must(a.t, p.Start())
	ctx, cancel := context.WithTimeout(a.t.Context(), abusedPatience)
	defer cancel()
	must(a.t, p.Ready(ctx))
}

// stop ends a server in good order: it writes snapshots then.
func (a *abused) stop(p *cluster.Process) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), abusedPatience)
	defer cancel()
	must(a.t, p.Stop(ctx))
}

// together waits until the stream has three copies that are up to date.
func (a *abused) together() {
	a.t.Helper()
	a.soon("all copies are up to date", func() bool {
		s, err := a.js.Stream(a.t.Context(), abusedStream)
		if err != nil || s.CachedInfo().Cluster == nil || len(s.CachedInfo().Cluster.Replicas) != 2 {
			return false
		}
		return !slices.ContainsFunc(s.CachedInfo().Cluster.Replicas, func(r *natsjs.PeerInfo) bool { return !r.Current || r.Offline || r.Lag > 0 })
	})
}

// damage changes each file of a server that a pattern below its store names; there has to be one.
func (a *abused) damage(p *cluster.Process, how func([]byte) []byte, patterns ...string) {
	a.t.Helper()
	done := 0
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(p.Dir(), "data", "jetstream", pattern))
		must(a.t, err)
		for _, file := range files {
			data, err := os.ReadFile(file)
			must(a.t, err)
			if len(data) == 0 {
				continue
			}
			must(a.t, os.WriteFile(file, how(data), 0o640))
			done++
		}
	}
	if done == 0 {
		_ = filepath.WalkDir(filepath.Join(p.Dir(), "data"), func(path string, _ fs.DirEntry, _ error) error { a.t.Log(path); return nil })
		a.t.Fatalf("%s has no file %v", p.Name, patterns)
	}
}

// Kinds of damage: one bit in the middle; the second half gone.
func flipMiddle(data []byte) []byte { data[len(data)/2] ^= 4; return data }
func cutHalf(data []byte) []byte    { return data[:len(data)/2] }

// Files of a server, below its store.
const (
	streamBlocks  = "$G/streams/" + abusedStream + "/msgs/*.blk"
	streamIndex   = "$G/streams/" + abusedStream + "/msgs/index.db"
	streamMeta    = "$G/streams/" + abusedStream + "/meta.*"
	bucketBlocks  = "$G/streams/KV_objects-meta/msgs/*.blk"
	raftBlocks    = "$SYS/_js_/S-*/msgs/*.blk"
	raftSnapshots = "$SYS/_js_/S-*/snapshots/*"
	metaSnapshots = "$SYS/_js_/_meta_/snapshots/*"
	metaBlocks    = "$SYS/_js_/_meta_/msgs/*.blk"
)

// TestFilesOfOneOfThreeServersAreDamaged, one kind after the other: while callers count, a server ends, its files are damaged, and it comes
// back; then each of the others is away for a while, so that the damaged one is half of what is left, and may lead. Then its store is
// deleted, as docs/operate.md has it for a damaged disk, so that each kind meets two good copies.
func TestFilesOfOneOfThreeServersAreDamaged(t *testing.T) {
	t.Parallel()
	path, err := binary()
	must(t, err)
	a := newAbused(t, path, 3, nil)
	damages := []struct {
		name  string
		how   func([]byte) []byte
		files []string
	}{
		{"a block of the journal is cut", cutHalf, []string{streamBlocks}},
		{"a bit of a block of the journal", flipMiddle, []string{streamBlocks}},
		{"blocks of the bucket are cut", cutHalf, []string{bucketBlocks}},
		{"blocks of the Raft logs are cut", cutHalf, []string{raftBlocks, metaBlocks}},
		{"a bit of each block of the Raft logs", flipMiddle, []string{raftBlocks, metaBlocks}},
		{"a bit of each snapshot of Raft", flipMiddle, []string{raftSnapshots, metaSnapshots}},
		{"snapshots of Raft are cut", cutHalf, []string{raftSnapshots, metaSnapshots}},
		{"a bit of the stream's own files", flipMiddle, []string{streamIndex, streamMeta}},
		{"the stream's own files are cut", cutHalf, []string{streamIndex, streamMeta}},
	}
	for i, c := range damages[:abusedCases(t, 1, len(damages))] {
		if !t.Run(c.name, func(t *testing.T) {
			a.t, a.worker.t = t, t
			began := time.Now()
			damaged := a.servers.Servers[i%3]
			others := slices.Delete(slices.Clone(a.servers.Servers), i%3, i%3+1)
			stop := a.count()
			defer func() { stop() }()
			a.more(5)
			a.stop(damaged)
			a.more(2)
			a.damage(damaged, c.how, c.files...)
			must(t, damaged.Start())
			a.more(5)
			for _, p := range others {
				must(t, p.Kill())
				if !a.moves(2, 20*time.Second) {
					t.Logf("without %s nothing goes on: %v", p.Name, a.told.Load())
				}
				must(t, p.Start())
				a.more(2)
			}
			stop()
			a.check(true)
			stop = a.count()
			a.more(2)
			must(t, damaged.Kill())
			must(t, os.RemoveAll(filepath.Join(damaged.Dir(), "data")))
			a.start(damaged)
			a.together()
			stop()
			a.check(false)
			t.Logf("%v", time.Since(began))
		}) {
			break
		}
	}
}

// TestMembersOfTheClusterChange while callers count: one server after the other is no longer to keep the stream, another of four takes its
// place, and a server is killed in the middle of it: the one that leads, the one that takes the place, or the one that goes.
func TestMembersOfTheClusterChange(t *testing.T) {
	t.Parallel()
	path, err := binary()
	must(t, err)
	a := newAbused(t, path, 4, nil)
	for _, kill := range []string{"the leader", "who comes", "who goes"}[:abusedCases(t, 1, 3)] {
		t.Run(kill, func(t *testing.T) {
			a.t, a.worker.t = t, t
			stop := a.count()
			defer func() { stop() }()
			a.more(5)
			a.together()
			before := a.peers()
			goes := before[1] // a follower
			a.remove(goes)
			var victim string
			a.soon("another takes the place", func() bool {
				now := a.peers()
				if len(now) != 3 || slices.Contains(now, goes) {
					return false
				}
				victim = map[string]string{"the leader": now[0], "who goes": goes}[kill]
				for _, name := range now {
					if kill == "who comes" && !slices.Contains(before, name) {
						victim = name
					}
				}
				return victim != ""
			})
			p := a.servers.Servers[slices.IndexFunc(a.servers.Servers, func(p *cluster.Process) bool { return p.Name == victim })]
			must(t, p.Kill())
			if !a.moves(5, 20*time.Second) {
				t.Logf("without %s nothing goes on: %v", p.Name, a.told.Load())
			}
			must(t, p.Start())
			a.more(5)
			a.together()
			a.more(2)
			stop()
			a.check(false)
			t.Logf("%v: %s went, %s was killed, now %v", before, goes, victim, a.peers())
		})
	}
}

// abusedCases is how many cases there are in the short form, and in the long one, which JEPSEN asks for.
func abusedCases(t *testing.T, short, long int) int {
	if given(t, "JEPSEN", 0) > 0 {
		return long
	}
	return short
}

// peers are the servers that keep the stream: first the one that leads. None while there is no leader.
func (a *abused) peers() []string {
	s, err := a.js.Stream(a.t.Context(), abusedStream)
	if err != nil || s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == "" {
		return nil
	}
	names := []string{s.CachedInfo().Cluster.Leader}
	for _, r := range s.CachedInfo().Cluster.Replicas {
		names = append(names, r.Name)
	}
	return names
}

// remove asks for another server in the place of one.
func (a *abused) remove(name string) {
	a.t.Helper()
	a.soon(name+" is to go", func() bool {
		m, err := a.js.Conn().Request("$JS.API.STREAM.PEER.REMOVE."+abusedStream, fmt.Appendf(nil, `{"peer":%q}`, name), 5*time.Second)
		if err == nil {
			a.told.Store(string(m.Data))
		}
		return err == nil && strings.Contains(string(m.Data), `"success":true`)
	})
}
