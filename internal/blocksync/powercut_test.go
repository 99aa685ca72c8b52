package blocksync

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/journal/verify"
	"github.com/perdure/perdure/snapshot"
)

// tally counts, and fills the journal's blocks while it does.
type tally struct{}

var (
	tallies = engine.Class[tally]{Name: "tally"}
	count   = engine.Key[int]("count")
	pad     = engine.Key[string]("pad")
)

func (*tally) Add(ctx *engine.Ctx, bytes int) (int, error) {
	n := count.Get(ctx) + 1
	count.Put(ctx, n)
	if bytes > 0 {
		pad.Put(ctx, strings.Repeat("x", bytes))
	}
	return n, nil
}

func (*tally) Value(v engine.View, _ engine.None) (int, error) { return count.Get(v), nil }

// machine is a server, its syncer and a worker over one folder.
type machine struct {
	t      testing.TB
	dir    string
	server *embed.Server
	js     *jetstream.Session
	syncer *Syncer
	worker *engine.Worker
	env    engine.Env
	ran    chan error
}

const machinePartitions = 2

// boot starts a machine on a folder, as `perdure dev` does.
func boot(t testing.TB, dir string, o Options) *machine {
	t.Helper()
	m := &machine{t: t, dir: dir, ran: make(chan error, 1)}
	log := slog.New(slog.DiscardHandler)
	if _, err := Repair(dir, log); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.server, err = embed.Start(embed.Options{Dir: dir, SyncInterval: time.Minute, Logger: log}); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	dial := func(ctx context.Context) (*jetstream.Session, error) {
		return jetstream.Dial(ctx, jetstream.Config{Options: []nats.Option{m.server.InProcess()}, Namespace: wire.DefaultNamespace, Log: log})
	}
	s, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m.js = s
	kept, err := s.Open(ctx, jetstream.Settings{Partitions: machinePartitions})
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { t.Error(err) }
	}
	if m.syncer, err = New(o); err != nil {
		t.Fatal(err)
	}
	if m.worker, err = engine.New(engine.Config{ID: "w", Partitions: kept.Partitions, Store: snapshot.NewMemory(), Classes: []engine.AnyClass{tallies},
		Connect: func(ctx context.Context) (journal.Session, error) { return dial(ctx) },
		Durable: func(stream string, _ journal.Seq, open func()) { m.syncer.Durable(stream, open) }}); err != nil {
		t.Fatal(err)
	}
	go func() { m.ran <- m.worker.Run(context.Background()) }() // ends with down
	m.env = engine.NewClient(m.worker).With(t.Context())
	return m
}

// down ends the machine without a clean stop.
func (m *machine) down() {
	m.worker.Kill()
	<-m.ran
	m.js.Close()
	m.server.Shutdown()
	if err := m.syncer.Close(); err != nil {
		m.t.Error(err)
	}
}

// synced knows how much of each file is durable. While the disk is held, nothing becomes so.
type synced struct {
	disk  sync.RWMutex
	mu    sync.Mutex
	sizes map[string]int64
}

func (s *synced) datasync(f *os.File) error {
	s.disk.RLock()
	defer s.disk.RUnlock()
	return datasync(f)
}

func (s *synced) trace(file string, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes[file] = size
}

func (s *synced) copy() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.sizes)
}

// load adds to objects until it is stopped, and knows what was answered.
type load struct {
	answered [objects]atomic.Int64
	budget   atomic.Int64 // bytes that it may still add
}

// burst adds for so many bytes, which make each stream begin a block or two.
const (
	burst   = 32 << 20
	callers = 200
	objects = 32
)

func (l *load) run(m *machine, random *rand.Rand) {
	l.budget.Store(burst)
	var wg sync.WaitGroup
	for range callers {
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		wg.Go(func() {
			for l.budget.Load() > 0 {
				k := random.IntN(len(l.answered))
				bytes := 0
				if random.IntN(2) == 0 {
					bytes = random.IntN(400 << 10)
				}
				l.budget.Add(int64(-500 - bytes))
				n, err := engine.Call(m.env, tallies.Get(strconv.Itoa(k)), (*tally).Add, bytes)
				if err != nil {
					m.t.Error(err)
					return
				}
				for a := &l.answered[k]; ; {
					if was := a.Load(); int64(n) <= was || a.CompareAndSwap(was, int64(n)) {
						break
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestAPowerCutTakesNothingThatWasAnswered cuts the files of a running machine back to any state that a power cut may leave:
// each block anywhere between what is synced and what is written, one that is new missing, the index ahead of its blocks
// or not there. Every answered change is there after a restart, and every object goes on. CUTS=n makes n cuts.
func TestAPowerCutTakesNothingThatWasAnswered(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("SEED=%d repeats the choices, not the moments", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	cuts := 6
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		cuts = 1 // it looks for races, which one load shows; reading large values, more with each cut, is slow there
	}
	if n, err := strconv.Atoi(os.Getenv("CUTS")); err == nil {
		cuts = n
	}
	done, holes := 0, 0
	for done < cuts {
		n := min(cuts-done, cutsOfAMachine)
		holes += cutMachine(t, random, n)
		done += n
	}
	t.Logf("%d power cuts, %d blocks behind a hole", done, holes)
}

// cutsOfAMachine is how often one machine's files are cut at most: they grow, and each cut reads them all.
const cutsOfAMachine = 3

// cutMachine makes n cuts of one machine under load, and returns how many blocks stood behind a hole.
func cutMachine(t *testing.T, random *rand.Rand, n int) (holes int) {
	s := &synced{sizes: map[string]int64{}}
	m := boot(t, t.TempDir(), Options{trace: s.trace, datasync: s.datasync})
	defer m.down()
	l := &load{}
	var loading sync.WaitGroup
	defer loading.Wait()
	defer l.budget.Store(0)
	for range n {
		seed := random.Uint64()
		loading.Go(func() { l.run(m, rand.New(rand.NewPCG(seed, 0))) })
		for wait := random.Int64N(burst/2) + burst/2; l.budget.Load() > wait; {
			runtime.Gosched()
		}
		holes += cutAndCheck(t, m, l, s, random)
		loading.Wait()
	}
	return holes
}

func cutAndCheck(t *testing.T, m *machine, l *load, s *synced, random *rand.Rand) (holes int) {
	to := t.TempDir()
	c := cut{t: t, from: m.dir, to: to, random: random}
	answered := c.take(l, s)
	c.check(answered)
	if t.Failed() {
		t.FailNow()
	}
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	return c.holes
}

// take copies the files, and returns what was answered before.
func (c *cut) take(l *load, s *synced) (answered [objects]int64) {
	if c.random.IntN(2) == 0 { // much is written meanwhile, and nobody is told
		s.disk.Lock()
		defer s.disk.Unlock()
		<-time.After(100 * time.Millisecond)
	}
	for k := range answered {
		answered[k] = l.answered[k].Load()
	}
	c.marks()
	c.synced = s.copy() // no less than what was answered, and what the marks say
	c.files()
	return answered
}

// cut makes a folder as a power cut may leave it.
type cut struct {
	t        testing.TB
	from, to string
	random   *rand.Rand
	synced   map[string]int64
	holes    int
}

// marks copies the marks, as of another boot.
func (c *cut) marks() {
	m, ok, err := readMarks(c.from)
	if err != nil || !ok {
		c.t.Fatal(ok, err)
	}
	m.Boot = "another"
	raw, err := json.Marshal(m)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(marksFile(c.to), raw, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// files copies what else there is. What fate the unsynced ends have is one of four: all random, none there, all there, or
// only that of each stream's newest block.
func (c *cut) files() {
	fate := c.random.IntN(4)
	index := c.random.IntN(2) == 0
	all, err := folders(c.from)
	if err != nil {
		c.t.Fatal(err)
	}
	newest := map[string]bool{}
	for _, f := range all {
		if blocks, err := f.blocks(); err == nil && len(blocks) > 0 {
			newest[f.block(blocks[len(blocks)-1])] = true
		}
	}
	short := map[string]bool{} // folders with a block that was cut
	err = filepath.WalkDir(c.from, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() == filepath.Base(marksFile("")) || strings.HasSuffix(name, ".new") {
			return nil //nolint:nilerr // what is gone meanwhile is gone
		}
		to := filepath.Join(c.to, strings.TrimPrefix(name, c.from))
		if d.IsDir() {
			return os.MkdirAll(to, 0o750)
		}
		data, err := os.ReadFile(name)
		if err != nil || d.Name() == "index.db" && !index {
			return nil //nolint:nilerr // likewise
		}
		if filepath.Ext(name) == ".blk" {
			durable := c.synced[name]
			keep := int64(len(data))
			switch {
			case fate == 0 && keep > durable:
				keep = durable + c.random.Int64N(keep-durable+1)
			case fate == 1 || fate == 3 && !newest[name]:
				keep = min(keep, durable)
			}
			n, err := strconv.Atoi(strings.TrimSuffix(d.Name(), ".blk"))
			if err != nil {
				return err
			}
			if int64(n) > c.synced[filepath.Dir(name)] && c.random.IntN(2) == 0 {
				return nil // its folder does not know it yet
			}
			if short[filepath.Dir(name)] && keep > 0 {
				c.holes++
			}
			if keep < int64(len(data)) {
				short[filepath.Dir(name)] = true
			}
			data = data[:keep]
		}
		return os.WriteFile(to, data, 0o600)
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// check starts a machine on the folder.
func (c *cut) check(answered [objects]int64) {
	c.t.Helper()
	m := boot(c.t, c.to, Options{})
	defer m.down()
	for k, n := range answered {
		ref := tallies.Get(strconv.Itoa(k))
		has, err := engine.Read(m.env, ref, (*tally).Value, nil)
		if err != nil || int64(has) < n {
			c.t.Errorf("object %d: %d was answered before the power cut; after it there is %d, %v", k, n, has, err)
			continue
		}
		if next, err := engine.Call(m.env, ref, (*tally).Add, 0); err != nil || next != has+1 {
			c.t.Errorf("object %d had %d, and goes on with %d, %v", k, has, next, err)
		}
	}
	for p := range machinePartitions {
		report, err := verify.Partition(c.t.Context(), m.js.Log(p), m.js.Meta(), verify.Config{Namespace: wire.DefaultNamespace, Partition: p, Partitions: machinePartitions})
		if err != nil {
			c.t.Error(err)
		}
		for _, f := range report.Findings {
			if f.Severity == verify.Severe || f.Rule != verify.Fence { // the end of a fence may be cut
				c.t.Error(f)
			}
		}
	}
}
