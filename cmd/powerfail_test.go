package cmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/cluster"
	"github.com/perdure/perdure/internal/wire"
)

const serverModule = "github.com/nats-io/nats-server/v2"

// notingServer builds the program with a NATS server that notes what of its files is on disk (testdata/synced.go.txt): which no process can
// see of another one. Each sync and each rename of its file store and of its Raft logs is replaced by one that notes it.
func notingServer(t *testing.T) (path string) {
	t.Helper()
	golang := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("go", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dir := t.TempDir()
	module := filepath.Join(dir, "nats-server")
	must(t, os.CopyFS(module, os.DirFS(golang("list", "-m", "-f", "{{.Dir}}", serverModule))))
	code, err := os.ReadFile("testdata/synced.go.txt")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(module, "server", "synced.go"), code, 0o640))
	// What a file that is opened to be synced by each write has is noted when it is closed, before it gets its name.
	written := regexp.MustCompile(`(?s)(flags \| os\.O_SYNC.*?)(\tif err := f\.Close\(\); err != nil \{)`)
	for file, patterns := range map[string]map[*regexp.Regexp]string{
		"filestore.go": {
			written: "${1}\tif sync {\n\t\tif err := noteWritten(f); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n${2}",
			regexp.MustCompile(`([A-Za-z][\w.]*)\.Sync\(\)`): "noteSync(${1})",
			regexp.MustCompile(`os\.Rename\(`):               "noteRename(",
		},
		"raft.go": {regexp.MustCompile(`([A-Za-z][\w.]*)\.Sync\(\)`): "noteSync(${1})"},
	} {
		file = filepath.Join(module, "server", file)
		code, err := os.ReadFile(file)
		must(t, err)
		for from, to := range patterns {
			if !from.Match(code) {
				t.Fatalf("%s has no %v any more: look how it syncs now", file, from)
			}
			code = from.ReplaceAll(code, []byte(to))
		}
		must(t, os.WriteFile(file, code, 0o640))
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		must(t, err)
		if name == "go.mod" {
			text = fmt.Appendf(text, "\nreplace %s => %s\n", serverModule, module)
		}
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o640))
	}
	path = filepath.Join(dir, "perdure")
	golang("build", "-modfile", filepath.Join(dir, "go.mod"), "-o", path, "./perdure")
	return path
}

// fate is what becomes of what is not synced.
type fate int

const (
	lost fate = iota // all of it: files end where they were synced, and one that never was is not there
	part             // each file ends anywhere behind that
	kept
	fates
)

// cutPower leaves of a killed server's files what a power cut may.
func (a *abused) cutPower(p *cluster.Process, of fate, random *rand.Rand) {
	a.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.Dir(), "synced"))
	must(a.t, err)
	on := onDisk(string(text))
	cut, gone := 0, 0
	must(a.t, filepath.WalkDir(filepath.Join(p.Dir(), "data"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		size, known := on[file]
		if of == part {
			size += random.Int64N(max(1, info.Size()-size+1))
		}
		switch {
		case of == kept || known && size >= info.Size():
			return nil
		case !known && (of == lost || random.IntN(2) == 0):
			gone++
			return os.Remove(file)
		}
		cut++
		return os.Truncate(file, size)
	}))
	a.t.Logf("power cut of %s: %d files are shorter, %d are gone", p.Name, cut, gone)
}

// onDisk is how long each file is on disk, by what its server noted.
func onDisk(noted string) map[string]int64 {
	on := map[string]int64{}
	for line := range strings.Lines(noted) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if f[0] == "synced" {
			on[f[1]], _ = strconv.ParseInt(f[2], 10, 64)
			continue
		}
		from, to := f[1], f[2]
		delete(on, to)
		for name, size := range on { // of a folder, all that is in it
			if rest, ok := strings.CutPrefix(name, from); ok && (rest == "" || rest[0] == filepath.Separator) {
				delete(on, name)
				on[to+rest] = size
			}
		}
	}
	return on
}

// Power cuts of servers, while callers count.
var powerCuts = map[string]func(a *abused, of fate, random *rand.Rand){
	"one server": func(a *abused, of fate, random *rand.Rand) {
		p := a.servers.Servers[random.IntN(3)]
		must(a.t, p.Kill())
		a.cutPower(p, of, random)
		must(a.t, p.Start())
	},
	"all servers": func(a *abused, of fate, random *rand.Rand) {
		var wg sync.WaitGroup
		for _, p := range a.servers.Servers {
			wg.Go(func() {
				if err := p.Kill(); err != nil {
					a.t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, p := range a.servers.Servers {
			a.cutPower(p, of, random)
			must(a.t, p.Start())
		}
	},
	// What the third acknowledged is then on no server but the first, which comes back last.
	"one server, when another was paused and the third ends": func(a *abused, of fate, random *rand.Rand) {
		order := random.Perm(3)
		first, cut, behind := a.servers.Servers[order[0]], a.servers.Servers[order[1]], a.servers.Servers[order[2]]
		must(a.t, behind.Pause())
		defer func() { must(a.t, behind.Continue()) }()
		if !a.moves(3, 20*time.Second) {
			a.t.Logf("without %s nothing goes on: %v", behind.Name, a.told.Load())
		}
		must(a.t, first.Kill())
		must(a.t, cut.Kill())
		a.cutPower(cut, of, random)
		must(a.t, behind.Continue())
		must(a.t, cut.Start())
		a.moves(3, 20*time.Second) // with a server that never had some of it, and one that lost it
		must(a.t, first.Start())
	},
}

// TestPowerCutsOfServers that sync before they acknowledge lose nothing; of servers that sync now and then they do, and that is told before
// anything is served over it.
func TestPowerCutsOfServers(t *testing.T) {
	rounds := given(t, "JEPSEN", 0)
	if rounds == 0 {
		t.Skip("it builds a NATS server, which takes a minute: make torture, or JEPSEN=1")
	}
	seed := given(t, "SEED", uint64(time.Now().UnixNano()))
	t.Logf("SEED=%d repeats the choices, not the moments", seed)
	program := notingServer(t)
	for _, sync := range []string{"always", "2s"} {
		for name, cut := range powerCuts {
			t.Run(sync+", "+name, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, uint64(len(sync+name))))
				a := newAbused(t, program, 3, func(conf string) string {
					return strings.Replace(conf, "sync_interval: always", "sync_interval: "+sync, 1)
				})
				for i := range rounds * uint64(fates) {
					a.powerCut(cut, fate(i%uint64(fates)), random, sync == "always")
				}
			})
		}
	}
}

// powerCut cuts the power of servers while callers count, and looks what is left. A loss is told, and nothing is served then, until it is
// accepted.
func (a *abused) powerCut(cut func(*abused, fate, *rand.Rand), of fate, random *rand.Rand, durable bool) {
	a.t.Helper()
	stop := a.count()
	defer func() { stop() }()
	a.more(10)
	if !durable {
		a.settle()
		a.more(10)
	}
	cut(a, of, random)
	alarm := ""
	a.soon("callers go on, or it is told why not", func() bool {
		if alarm = a.alarm(); alarm != "" {
			return true
		}
		return a.moves(2, time.Second)
	})
	if alarm != "" {
		stop()
		a.accept(alarm, durable)
		stop = a.count()
		a.more(2)
	}
	stop()
	a.check(false)
	stop = a.count()
	a.more(1)
	a.together()
}

// settle writes all that there is to disk, as the system does within half a minute: the server never syncs some files by itself then.
func (a *abused) settle() {
	a.t.Helper()
	for _, p := range a.servers.Servers {
		noted, err := os.OpenFile(filepath.Join(p.Dir(), "synced"), os.O_APPEND|os.O_WRONLY, 0o640)
		must(a.t, err)
		_ = filepath.WalkDir(filepath.Join(p.Dir(), "data"), func(file string, d fs.DirEntry, gone error) error {
			f, err := os.Open(file)
			if errors.Join(gone, err) != nil || d.IsDir() {
				return nil // what is gone meanwhile is gone
			}
			defer f.Close()
			info, err := f.Stat()
			must(a.t, errors.Join(err, f.Sync()))
			_, err = fmt.Fprintf(noted, "synced\t%s\t%d\n", file, info.Size())
			return err
		})
		must(a.t, noted.Close())
	}
}

// alarm is what the partition tells of its journal.
func (a *abused) alarm() string {
	out, _, code := a.worker.run("partitions", "--json")
	var p partitionState
	if code != 0 || json.Unmarshal([]byte(out), &p) != nil {
		return ""
	}
	return p.Alarm
}

// accept wants nothing to be served while an alarm stands, accepts it, and goes on from what there is.
func (a *abused) accept(alarm string, durable bool) {
	a.t.Helper()
	a.t.Logf("told: %s", alarm)
	if durable {
		a.t.Errorf("a power cut of servers that sync before they acknowledge: %s", alarm)
	}
	for i := range a.counted {
		for _, method := range []string{"GET", "POST"} {
			status, _, body, err := a.worker.send(a.t.Context(), method, fmt.Sprintf("/counter/c%d", i), "", wire.HeaderDeadline, "50ms")
			if err != nil || status < 500 {
				a.t.Errorf("%s of c%d while the alarm stands: %d %s, %v", method, i, status, body, err)
			}
		}
	}
	a.copies(1)
	a.copies(3)
	out, stderr, code := a.worker.run("accept-journal", "0", "--yes")
	a.t.Logf("accept-journal: %d %s%s", code, out, stderr)
	a.life++
	for i := range a.counted {
		a.soon(fmt.Sprintf("c%d is served again", i), func() bool {
			status, _, body, err := a.worker.send(a.t.Context(), "POST", fmt.Sprintf("/v1/objects/counter/c%d/call/value", i), "")
			a.told.Store(fmt.Sprintf("%d %s, %v", status, body, err))
			if err != nil || status != 200 {
				return false
			}
			var n int64
			_, err = fmt.Sscan(body, &n)
			must(a.t, err)
			if was := a.counted[i].Swap(n); n > was+1 {
				a.t.Errorf("c%d is %d; %d was answered", i, n, was)
			} else if n < was {
				a.t.Logf("c%d lost %d", i, was-n)
			}
			return true
		})
	}
}

// copies has the streams kept in so many copies. One at first: after a power cut servers that had not synced may have different messages at
// the same places, and do not notice; so all but the leader's copy are thrown away, and made anew.
func (a *abused) copies(n int) {
	a.t.Helper()
	a.soon(fmt.Sprintf("%d copies", n), func() bool {
		s, err := a.js.Stream(a.t.Context(), abusedStream)
		if err != nil {
			return false
		}
		cfg := s.CachedInfo().Config
		if cfg.Replicas != n {
			cfg.Replicas = n
			_, _ = a.js.UpdateStream(a.t.Context(), cfg) // tried again
			return false
		}
		c := s.CachedInfo().Cluster
		return c != nil && c.Leader != "" && len(c.Replicas) == n-1 && !slices.ContainsFunc(c.Replicas, func(r *natsjs.PeerInfo) bool { return !r.Current })
	})
}
