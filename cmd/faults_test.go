package cmd

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/internal/wiretap"
	"github.com/perdure/perdure/journal/jetstream"
)

const (
	clusterTerm  = time.Second // of the leases
	clusterParts = 4
)

// faulty is a load on several processes, to which something is done again and again, by chance.
type faulty struct {
	*killing
	seed    uint64
	servers string                      // where NATS is
	draw    func() fault                // the next one
	ready   func(context.Context) error // waits until all processes are

	mu   sync.Mutex
	done map[string]int // faults, by what they are
}

// newFaulty draws from the seed that the environment has, or another, for each name in another way.
func newFaulty(t *testing.T, name string) *faulty {
	t.Helper()
	f := &faulty{seed: given(t, "SEED", uint64(time.Now().UnixNano())), done: map[string]int{}, killing: &killing{t: t}}
	f.random = rand.New(rand.NewPCG(f.seed, uint64(len(name))))
	f.history.Name = fmt.Sprintf("%s-SEED=%d-", name, f.seed)
	t.Logf("SEED=%d draws the same faults", f.seed)
	return f
}

// between draws a time.
func (f *faulty) between(from, to time.Duration) time.Duration {
	return from + time.Duration(f.random.Int64N(int64(to-from)))
}

// disturb has callers call while faults come, for 12 s or as long as DISTURB says, and until all is well again.
func (f *faulty) disturb() {
	f.t.Helper()
	long := 12 * time.Second
	if s := os.Getenv("DISTURB"); s != "" {
		var err error
		long, err = time.ParseDuration(s)
		must(f.t, err)
	}
	ctx, stop := context.WithCancel(f.t.Context())
	defer stop()
	var callers sync.WaitGroup
	for _, c := range f.callers(12) {
		callers.Go(func() { c.run(ctx) })
	}
	for began := time.Now(); (time.Since(began) < long || f.kills < 2) && !f.t.Failed(); {
		f.round()
	}
	f.settle()
	eventually(f.t, f.enough)
	stop()
	callers.Wait()
}

// enough tells whether enough was answered to show anything.
func (f *faulty) enough() bool {
	told, _ := f.history.Count()
	f.killing.mu.Lock()
	defer f.killing.mu.Unlock()
	return told >= 30 && len(f.increments) >= 30
}

// settle wants all processes to be ready, and everything to be served.
func (f *faulty) settle() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 3*time.Minute)
	defer cancel()
	must(f.t, f.ready(ctx))
	for object := range killObjects {
		for _, gate := range f.gates {
			gate.soon("POST", fmt.Sprintf("/v1/objects/counter/k%d/call/value", object), "")
		}
	}
}

// fault is something that is done to a process, and ended after a while.
type fault struct {
	to, what   string
	begin, end func() error
	long       time.Duration
}

// round does something to one process or two. The histories' objects live through a few rounds.
func (f *faulty) round() {
	faults := []fault{f.draw()}
	if other := f.draw(); f.random.IntN(2) == 0 && other.to != faults[0].to {
		faults = append(faults, other)
	}
	var all sync.WaitGroup
	for _, one := range faults {
		all.Go(func() { f.do(one) })
	}
	all.Wait()
	f.kills++
	<-time.After(time.Duration(f.random.Int64N(int64(clusterTerm))))
	if f.kills%killEach == 0 {
		f.settle()
		f.renew()
	}
}

func (f *faulty) do(one fault) {
	began := time.Now()
	if err := one.begin(); err != nil {
		f.t.Errorf("%s %s: %v", one.what, one.to, err)
	}
	<-time.After(one.long)
	if err := one.end(); err != nil {
		f.t.Errorf("the end of %s %s: %v", one.what, one.to, err)
	}
	f.t.Logf("%s: %s %s for %v", began.Format(time.TimeOnly), one.what, one.to, time.Since(began).Round(time.Millisecond))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done[one.what+" "+strings.TrimRight(one.to, "0123456789")]++
}

// check holds what callers were told against the journal, the objects, and each other.
func (f *faulty) check() {
	f.t.Helper()
	f.verify()
	f.checkCounters()
	if err := f.history.Check(); err != nil {
		f.t.Error(err)
	}
	told, unknown := f.history.Count()
	f.t.Logf("%d rounds, %v; %d increments; histories of %d operations and %d whose outcome is unknown", f.kills, f.done, len(f.increments), told, unknown)
}

// verify reads all journals: nothing severe may be in them. A replica that is behind may answer at first, and the command says so.
func (f *faulty) verify() {
	f.t.Helper()
	for tries := 1; ; tries++ {
		out, stderr, code := f.p.run("verify", "--json", "--timeout", "30s")
		if code == exitOK {
			f.t.Logf("verify: %s", out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
			return
		}
		if strings.Contains(out, `"severity":"severe"`) || tries == 10 {
			f.t.Errorf("perdure verify: exit code %d\n%s%s", code, out, stderr)
			return
		}
		<-time.After(time.Second)
	}
}

// listen hears what is said on the wire, until the function that it returns is called. All has to go through one server.
func (f *faulty) listen() (stop func() wiretap.Heard) {
	f.t.Helper()
	nc, err := nats.Connect(f.servers)
	must(f.t, err)
	f.t.Cleanup(nc.Close)
	tap, err := wiretap.Listen(nc, wire.DefaultNamespace)
	must(f.t, err)
	return func() wiretap.Heard {
		heard, err := tap.Stop()
		must(f.t, err)
		return heard
	}
}

// checkWire holds what was heard against the journal: no call has two answers, and nobody answers for an object after its next owner has.
func (f *faulty) checkWire(heard wiretap.Heard) {
	f.t.Helper()
	heard.Stopped = true
	s, err := jetstream.Dial(f.t.Context(), jetstream.Config{Dial: func(o ...nats.Option) (*nats.Conn, error) { return nats.Connect(f.servers, o...) }})
	must(f.t, err)
	defer s.Close()
	commits, err := wiretap.ReadCommits(f.t.Context(), s, wire.DefaultNamespace, clusterParts)
	must(f.t, err)
	heard = heard.Without("value", "balance")
	for _, found := range wiretap.Check(heard, commits, 0) {
		f.t.Error(found)
	}
	workers := map[string]int{}
	for _, object := range commits {
		for _, c := range object {
			workers[c.Worker]++
		}
	}
	if len(heard.Answers) < 30 {
		f.t.Errorf("%d answers were heard", len(heard.Answers))
	}
	f.t.Logf("%d requests and %d answers heard; commits by worker: %v", len(heard.Requests), len(heard.Answers), slices.Sorted(maps.Values(workers)))
}
