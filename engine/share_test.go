package engine

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/journal"
)

// TestAssign: every partition has an owner, what was moved is where it was moved to, nobody has more than his share, and when a worker
// comes or goes about its share moves and not more than twice that.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(1, 64).Draw(t, "partitions")
		workers := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}`), 1, 9, rapid.ID).Draw(t, "workers")
		moved := rapid.MapOfN(rapid.IntRange(0, partitions-1), rapid.SampledFrom(append(workers, "nobody")), 0, 3).Draw(t, "moved")
		owners := assign(partitions, workers, moved)
		load := map[string]int{}
		for p, owner := range owners {
			load[owner]++
			if !slices.Contains(workers, owner) {
				t.Fatalf("partition %d is %q's", p, owner)
			}
			if to := moved[p]; slices.Contains(workers, to) && owner != to {
				t.Fatalf("partition %d is %q's and was moved to %q", p, owner, to)
			}
		}
		if len(moved) > 0 {
			return
		}
		most := (partitions + len(workers) - 1) / len(workers)
		for worker, n := range load {
			if n > most {
				t.Fatalf("%s has %d of %d partitions, of %d workers", worker, n, partitions, len(workers))
			}
		}
		other := slices.Clone(workers)
		slices.Reverse(other)
		if again := assign(partitions, other, nil); !slices.Equal(owners, again) {
			t.Fatalf("the order of the workers matters: %v, then %v", owners, again)
		}
	})
}

func TestFewPartitionsMove(t *testing.T) {
	t.Parallel()
	const partitions, rounds = 64, 50
	for n := 2; n <= 8; n++ {
		moves := 0
		for round := range rounds {
			var workers []string
			for i := range n {
				workers = append(workers, fmt.Sprintf("w%d-%d", round, i))
			}
			before, after := assign(partitions, workers, nil), assign(partitions, workers[1:], nil)
			for p := range before {
				if before[p] != after[p] {
					moves++
				}
			}
		}
		share := float64(partitions) / float64(n)
		if per := float64(moves) / rounds; per > 2*share {
			t.Errorf("one of %d workers leaves: %.1f of %d partitions move; its share is %.1f", n, per, partitions, share)
		}
	}
}

func BenchmarkAssign(b *testing.B) {
	for _, n := range []int{10, 100} {
		var workers []string
		for i := range n {
			workers = append(workers, fmt.Sprint("worker-", i))
		}
		for _, partitions := range []int{16, 256} {
			owners := assign(partitions, workers, nil)
			b.Run(fmt.Sprintf("workers=%d/partitions=%d", n, partitions), func(b *testing.B) {
				for b.Loop() {
					assign(partitions, workers, nil)
				}
			})
			b.Run(fmt.Sprintf("workers=%d/partitions=%d/next", n, partitions), func(b *testing.B) {
				for b.Loop() {
					assignNext(owners, workers, nil)
				}
			})
		}
	}
}

func TestWhoShares(t *testing.T) {
	const term = 2 * time.Second
	on := func(s standing, closed bool) lease {
		return lease{leaseValue: leaseValue{Nonce: 1, Closed: closed, TermMS: term.Milliseconds(), Standing: s}, rev: 1}
	}
	for name, c := range map[string]struct {
		roster  roster
		drained []string
		want    string
	}{
		"all":                    {roster{"a": {on("", false), 9 * time.Second, 0}, "b": {on("", false), 8 * time.Second, 0}}, nil, "a b"},
		"a closed one":           {roster{"a": {on("", true), 9 * time.Second, 0}, "b": {on("", false), 8 * time.Second, 0}}, nil, "b"},
		"a silent one":           {roster{"a": {on("", false), 7800 * time.Millisecond, 0}, "b": {on("", false), 8 * time.Second, 0}}, nil, "b"},
		"one that leaves":        {roster{"a": {on(leaving, false), 9 * time.Second, 0}, "b": {on("", false), 8 * time.Second, 0}}, nil, "b"},
		"one that joins":         {roster{"a": {on(joining, false), 9 * time.Second, 0}, "b": {on("", false), 8 * time.Second, 0}}, nil, "b"},
		"only one that joins":    {roster{"a": {on(joining, false), 9 * time.Second, 0}, "b": {on(leaving, false), 8 * time.Second, 0}}, nil, "a"},
		"a drained one":          {roster{"a": {on("", false), 9 * time.Second, 0}, "b": {on("", false), 8 * time.Second, 0}}, []string{"a"}, "b"},
		"all drained":            {roster{"a": {on("", false), 9 * time.Second, 0}, "b": {on(joining, false), 8 * time.Second, 0}}, []string{"a", "b"}, "a b"},
		"joining before drained": {roster{"a": {on("", false), 9 * time.Second, 0}, "b": {on(joining, false), 8 * time.Second, 0}}, []string{"a"}, "b"},
		"nobody":                 {roster{"a": {on(leaving, false), 9 * time.Second, 0}}, nil, ""},
	} {
		if got, _ := c.roster.workers(10*time.Second, c.drained); strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q share; want %q", name, got, c.want)
		}
	}
	r := roster{"a": {on("", false), 9 * time.Second, 0}, "b": {on("", false), 8 * time.Second, 0}}
	if _, next := r.workers(10*time.Second, nil); next != 10200*time.Millisecond {
		t.Errorf("the next one may be dead at %v", next)
	}
}

// TestSilenceCountsFromTheFirstSight: a lease that is absent, or was never seen, was not silent for long because of that.
func TestSilenceCountsFromTheFirstSight(t *testing.T) {
	r := roster{}
	if s := r.note("a", lease{}, 50*time.Second); s.since != 50*time.Second {
		t.Errorf("an absent lease is silent since %v", s.since)
	}
	if s := r.note("a", lease{}, 60*time.Second); s.since != 50*time.Second {
		t.Errorf("still absent, and silent since %v", s.since)
	}
	l := lease{leaseValue: leaseValue{Nonce: 1}, rev: 3}
	for _, c := range []struct {
		rev   journal.Seq
		now   time.Duration
		since time.Duration
	}{{3, 70 * time.Second, 70 * time.Second}, {3, 71 * time.Second, 70 * time.Second}, {4, 72 * time.Second, 72 * time.Second}} {
		if l.rev = c.rev; r.note("a", l, c.now).since != c.since {
			t.Errorf("revision %d at %v is silent since %v", c.rev, c.now, r["a"].since)
		}
	}
}

// TestWordOfARenewalIsForTheShareAlone: who sent it is taken to be alive for longer, and its lease is closed no later.
func TestWordOfARenewalIsForTheShareAlone(t *testing.T) {
	l := lease{leaseValue: leaseValue{Nonce: 1, TermMS: 2000}, rev: 3}
	r := roster{}
	r.note("a", l, 10*time.Second)
	for _, c := range []struct {
		what  string
		life  journal.Token
		alive bool
	}{{"of another life", 2, false}, {"of no life", 0, false}, {"of this one", 1, true}} {
		r.hear("a", c.life, 12*time.Second)
		if got := r["a"].alive(14 * time.Second); got != c.alive {
			t.Errorf("after word %s it is alive: %v, want %v", c.what, got, c.alive)
		}
	}
	if s := r.note("a", l, 15*time.Second); s.since != 10*time.Second || s.alive(15*time.Second) {
		t.Errorf("the lease is as it was since %v, want 10s; alive: %v, want false", s.since, s.alive(15*time.Second))
	}
	if r.hear("b", 0, time.Second); len(r) != 1 {
		t.Errorf("word made a worker: %v", r)
	}
	if r.known("a", 12*time.Second) || !r.known("a", 11*time.Second) {
		t.Error("a lease is known if word came since the last look")
	}
	l.Closed = true
	if r.note("a", l, 16*time.Second); !r.known("a", 20*time.Second) || r.known("b", 0) {
		t.Error("a closed lease is known, and one that was never read is not")
	}
}

// TestManyWorkersReadFewLeases: word of renewals stands for leases, and who says nothing any more is missed nevertheless.
func TestManyWorkersReadFewLeases(t *testing.T) {
	t.Parallel()
	const n = 4 * leasesEach
	for name, told := range map[string]bool{"with word": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world := newServer(t)
			var word peers
			var meta countedMeta
			var all []*Worker
			for i := range n {
				all = append(all, world.worker(fmt.Sprintf("w%02d", i), func(c *Config) {
					c.LeaseTerm = 4 * time.Second
					if told {
						c.Peers = word.join
					}
					c.Connect = func(context.Context) (journal.Session, error) {
						return countedSession{world.server.Session("objects", worldPartitions), &meta}, nil
					}
				}))
			}
			eventually(t, "all have settled who owns what", func() bool {
				return !slices.ContainsFunc(all, func(w *Worker) bool { return w.Ready() != nil })
			})
			eventually(t, "few leases are read with word, all without", func() bool {
				meta.looks.Store(0)
				meta.reads.Store(0)
				eventually(t, "everybody has looked twice", func() bool { return meta.looks.Load() >= 2*n })
				return (meta.reads.Load()/meta.looks.Load() <= n/2) == told
			})
			owner := slices.IndexFunc(all, func(w *Worker) bool { return len(owned(w)) > 0 })
			all[owner].Kill()
			left := slices.Delete(slices.Clone(all), owner, owner+1)
			eventually(t, "what the one that died had is owned", func() bool {
				parts := 0
				for _, w := range left {
					parts += len(owned(w))
				}
				return parts == worldPartitions
			})
		})
	}
}

// countedSession counts how often leases are looked at, and read.
type countedSession struct {
	journal.Session
	meta *countedMeta
}

type countedMeta struct{ looks, reads atomic.Int64 }

func (s countedSession) Meta() journal.Meta { return countedKeys{s.Session.Meta(), s.meta} }

type countedKeys struct {
	journal.Meta
	*countedMeta
}

func (m countedKeys) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	m.looks.Add(1)
	return m.Meta.Keys(ctx, prefix)
}

func (m countedKeys) Get(ctx context.Context, key string) ([]byte, journal.Seq, error) {
	if strings.HasPrefix(key, leaseKey("")) {
		m.reads.Add(1)
	}
	return m.Meta.Get(ctx, key)
}

func TestAFlappingWorkerWaits(t *testing.T) {
	now := time.Unix(1e9, 0)
	life := func(began time.Duration, s standing, flaps int) lease {
		return lease{leaseValue: leaseValue{Nonce: 1, Began: now.Add(-began), Standing: s, Flaps: flaps}, rev: 1}
	}
	for name, c := range map[string]struct {
		former lease
		want   int
	}{
		"the first life":     {lease{}, 0},
		"a short one":        {life(time.Second, "", 0), 1},
		"a short one, again": {life(time.Second, joining, 4), 5},
		"a clean stop":       {life(time.Second, leaving, 4), 0},
		"one that went on":   {life(2*flapForget, "", 4), 0},
	} {
		if got := flapped(c.former, now); got != c.want {
			t.Errorf("%s: %d; want %d", name, got, c.want)
		}
	}
	for flaps, want := range map[int]time.Duration{0: 0, 1: 0, 2: 4 * time.Second, 3: 8 * time.Second, 9: flapMost, 1 << 30: flapMost} {
		if got := flapWait(flaps, 2*time.Second); got != want {
			t.Errorf("after %d short lives it waits %v; want %v", flaps, got, want)
		}
	}
}

// peers carries word among the workers of a test, and knows which of them still listen.
type peers struct {
	mu    sync.Mutex
	hear  map[journal.Token]func(Word)
	gone  map[journal.Token]bool
	found map[journal.Token]int
}

func (p *peers) join(_ journal.Session, life journal.Token, hear func(Word)) (Peers, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hear == nil {
		p.hear, p.gone, p.found = map[journal.Token]func(Word){}, map[journal.Token]bool{}, map[journal.Token]int{}
	}
	p.hear[life] = hear
	return p, nil
}

func (p *peers) Tell(w Word) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, hear := range p.hear {
		hear(w)
	}
}

func (p *peers) Probe(_ context.Context, _ string, life journal.Token) Presence {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.gone[life]:
		return Gone
	case p.hear[life] == nil:
		return Unsure
	}
	p.found[life]++
	return Present
}

// owned are the partitions that a worker owns now.
func owned(w *Worker) (list []int) {
	for _, p := range w.Status().Owned {
		if p.Owned {
			list = append(list, p.Partition)
		}
	}
	return list
}

// TestWorkersShare: who joins gets its share, what is moved moves, who is drained or stops gives all away, and callers of either
// notice a pause at most.
func TestWorkersShare(t *testing.T) {
	t.Parallel()
	for name, quick := range map[string]bool{"with word": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world := newServer(t)
			var word peers
			all := &crew{}
			start := func(id string) *Worker {
				w := world.worker(id, func(c *Config) {
					c.LeaseTerm = 4 * time.Second
					if quick {
						c.Peers = word.join
					}
					c.Others = all
				})
				all.join(w)
				return w
			}
			a := start("a")
			world.ready(a)
			load := startCounting(t, all)

			b := start("b")
			eventually(t, "each has one", func() bool { return len(owned(a)) == 1 && len(owned(b)) == 1 })
			load.more(t)
			meta := world.server.Session("objects", worldPartitions).Meta()
			place := func(change func(*Placement)) {
				t.Helper()
				if err := ChangePlacement(t.Context(), meta, change); err != nil {
					t.Fatal(err)
				}
			}
			place(func(pl *Placement) { pl.Moved[0], pl.Moved[1] = "a", "a" })
			eventually(t, "both were moved to a", func() bool { return len(owned(a)) == 2 })
			load.more(t)
			place(func(pl *Placement) { pl.Drained = []string{"a"}; clear(pl.Moved) })
			eventually(t, "a was drained", func() bool { return len(owned(b)) == 2 })
			load.more(t)
			place(func(pl *Placement) { pl.Drained = nil })
			eventually(t, "each has one again", func() bool { return len(owned(a)) == 1 && len(owned(b)) == 1 })
			load.more(t)
			a.Stop()
			eventually(t, "b has all", func() bool { return len(owned(b)) == 2 })
			load.more(t)
			load.stop(t)

			members := must(ReadMembers(t.Context(), meta))(t)
			if len(members) != 2 || members[0].Worker != "a" || !members[0].Closed || members[0].Standing != "leaving" || members[1].Closed || members[1].Standing != "sharing" {
				t.Errorf("members %+v", members)
			}
			for p := range worldPartitions {
				for m, err := range world.server.Session("objects", worldPartitions).Log(p).Read(t.Context(), a.ns.Epoch(p), 1) {
					if err != nil {
						t.Fatal(err)
					}
					r := must(journal.DecodeEpoch(m.Data))(t)
					if r.Release && r.Heir == "" {
						t.Errorf("partition %d was released by %s to nobody", p, r.Worker)
					}
				}
			}
		})
	}
}

// crew reaches whichever worker owns an object.
type crew struct {
	mu      sync.Mutex
	workers []*Worker
}

func (c *crew) join(w *Worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workers = append(c.workers, w)
}

func (c *crew) Do(ctx context.Context, r Request) (Reply, error) {
	c.mu.Lock()
	workers := slices.Clone(c.workers)
	c.mu.Unlock()
	for _, w := range workers {
		if slices.Contains(owned(w), partitionOf(r.Class, r.Name)) {
			return w.Do(ctx, r)
		}
	}
	return Reply{}, Errorf(Unavailable, "nobody owns it")
}

func (c *crew) Post(context.Context, Request) (journal.Seq, error) {
	return 0, Errorf(Unavailable, "nothing is sent here")
}

// counting is a load: callers that count, each its own objects.
type counting struct {
	client  *Client
	end     context.CancelFunc
	running sync.WaitGroup
	counts  [4]atomic.Int64
	failed  atomic.Pointer[error]
}

func startCounting(t *testing.T, to Transport) *counting {
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	c := &counting{client: NewClient(to), end: end}
	for i := range c.counts {
		c.running.Go(func() {
			for n := int64(0); ctx.Err() == nil; n++ {
				got, err := Call(c.client.With(context.Background()), registers.Get(fmt.Sprint("o", i)), (*register).Add, 1)
				if err == nil && got != n+1 {
					err = fmt.Errorf("increment %d of o%d gave %d", n+1, i, got)
				}
				if err != nil {
					c.failed.CompareAndSwap(nil, &err)
					return
				}
				c.counts[i].Store(n + 1)
			}
		})
	}
	return c
}

// more waits until every caller has had further answers.
func (c *counting) more(t *testing.T) {
	t.Helper()
	var before [4]int64
	for i := range before {
		before[i] = c.counts[i].Load()
	}
	eventually(t, "everybody is answered", func() bool {
		if err := c.failed.Load(); err != nil {
			t.Fatal(*err)
		}
		for i := range before {
			if c.counts[i].Load() < before[i]+2 {
				return false
			}
		}
		return true
	})
}

// stop ends the load; the objects have what was answered.
func (c *counting) stop(t *testing.T) {
	t.Helper()
	c.end()
	c.running.Wait()
	if err := c.failed.Load(); err != nil {
		t.Fatal(*err)
	}
	for i := range c.counts {
		if got := must(Read(c.client.With(t.Context()), registers.Get(fmt.Sprint("o", i)), (*register).Value, nil))(t); got != c.counts[i].Load() {
			t.Errorf("o%d is %d after %d increments", i, got, c.counts[i].Load())
		}
	}
}

// TestAWorkerThatIsGoneIsFollowedAtOnce: one that answers over NATS alone, and whose connection the server has seen end. One that also answers in its
// own process is waited for, as is one that was never seen to listen.
func TestAWorkerThatIsGoneIsFollowedAtOnce(t *testing.T) {
	t.Parallel()
	const term = 20 * time.Second
	for name, c := range map[string]struct {
		onlyNATS, met bool
		soon          bool
	}{
		"gone":                 {true, true, true},
		"gone, with a gateway": {false, true, false},
		"never seen to listen": {true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world := newServer(t)
			var word peers
			start := func(id string) *Worker {
				return world.worker(id, func(cfg *Config) {
					cfg.LeaseTerm, cfg.OnlyNATS = term, c.onlyNATS
					cfg.Peers = word.join
				})
			}
			a := start("a")
			world.ready(a)
			life := a.ses.Load().nonce
			if !c.met {
				word.lose(life)
			}
			b := start("b")
			eventually(t, "each has one", func() bool { return len(owned(a)) == 1 && len(owned(b)) == 1 })
			if c.onlyNATS && c.met {
				eventually(t, "b has met a", func() bool { return word.probes(life) > 1 })
			}
			if !c.soon {
				time.Sleep(10 * probeEvery) // sleeps: a probe that must not be believed has time to come
			}
			began := time.Now()
			a.Kill()
			word.lose(life)
			if !c.soon {
				time.Sleep(10 * probeEvery) // sleeps: what must not happen has time to
				if took := time.Since(began); len(owned(b)) > 1 && took < term {
					t.Errorf("b has all after %v; the lease is trusted for %v", took, term)
				}
				return
			}
			eventually(t, "b has all", func() bool { return len(owned(b)) == 2 })
			if took := time.Since(began); took > term {
				t.Errorf("after %v: that is as long as the lease is trusted", took)
			}
		})
	}
}

// lose has a life listen no more.
func (p *peers) lose(life journal.Token) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone[life] = true
}

// probes is how often a life was found.
func (p *peers) probes(life journal.Token) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.found[life]
}
