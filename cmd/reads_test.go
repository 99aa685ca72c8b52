package cmd

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
)

const valueOf = "/v1/objects/counter/%s/call/value"

// copyReads is how many reads a worker's copies answered.
func copyReads(p *process) int {
	p.t.Helper()
	for line := range strings.Lines(p.want(200, "GET", "/metrics", "")) {
		if n, ok := strings.CutPrefix(line, `perdure_copy_reads_total{outcome="answered"} `); ok {
			v, err := strconv.Atoi(strings.TrimSpace(n))
			must(p.t, err)
			return v
		}
	}
	p.t.Error("/metrics has no perdure_copy_reads_total")
	return 0
}

// TestEventualReadsAreSpread over the owner and the worker that would take over: from a gateway apart, and from that of either worker.
// What the header does not ask for comes from the owner alone.
func TestEventualReadsAreSpread(t *testing.T) {
	t.Parallel()
	p := newPair(newFleet(t).begin(), "--lease-term", "5s", "--standby", "--log-level", "info")
	g := p.start("gateway")
	at := func(name string) int { // who owns it
		if p.partitions()[partOf(name)].Worker == p.ids[0] {
			return 0
		}
		return 1
	}
	const name = "hot"
	owner, standby := p.workers[at(name)], p.workers[1-at(name)]
	eventually(t, func() bool { return strings.Count(standby.said(), "partition followed") >= 2 })
	_, h, _, err := g.send(t.Context(), "POST", "/v1/objects/counter/"+name+"/call/increment", `{"by":5}`, "Content-Type", "application/json")
	must(t, err)
	version := h.Get("Perdure-Version")
	read := func(from *process, header ...string) {
		t.Helper()
		status, h, body, err := from.send(t.Context(), "POST", fmt.Sprintf(valueOf, name), "", header...)
		if err != nil || status != 200 || strings.TrimSpace(body) != "5" || h.Get("Perdure-Version") != version {
			t.Fatalf("%d %s at version %s, %v; want 5 at version %s", status, body, h.Get("Perdure-Version"), err, version)
		}
	}
	eventually(t, func() bool { // it follows
		read(standby, "Perdure-Consistency", "eventual", "Perdure-Min-Version", version)
		return copyReads(standby) > 0
	})
	before := copyReads(standby)
	for range 100 {
		read(g, "Perdure-Consistency", "eventual", "Perdure-Min-Version", version)
	}
	if n := copyReads(standby) - before; n < 20 || n > 80 {
		t.Errorf("the copy answered %d of 100 reads", n)
	}
	before = copyReads(standby)
	for range 30 {
		read(g)
		read(standby)
		read(owner, "Perdure-Consistency", "eventual")
	}
	if n := copyReads(standby) - before + copyReads(owner); n != 0 {
		t.Errorf("copies answered %d reads that are the owner's", n)
	}
	before = copyReads(standby)
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	for range 100 { // on the public subject, which this server does not map
		r, err := natsbus.NewClient(nc, wire.DefaultNamespace).Do(t.Context(), engine.Request{Class: "counter", Name: name, Method: "value", Eventual: true})
		if err != nil || string(r.Body) != "5" {
			t.Fatalf("%s, %v", r.Body, err)
		}
	}
	if n := copyReads(standby) - before; n < 20 || n > 80 {
		t.Errorf("the copy answered %d of 100 reads over NATS", n)
	}
	out, said, code := g.run("call", "counter/"+name, "value", "--eventual", "--min-version", version, "--server", "nats://"+p.nats)
	if code != 0 || strings.TrimSpace(out) != "5" {
		t.Errorf("%d, %s %s", code, out, said)
	}
	if _, said, code = g.run("call", "counter/"+name, "increment", "--eventual", "--server", "nats://"+p.nats); code == 0 || !strings.Contains(said, "is no read") {
		t.Errorf("%d, %s", code, said)
	}
	g.want(400, "POST", fmt.Sprintf(valueOf, name), "", "Perdure-Consistency", "lax")
	g.want(400, "POST", "/v1/objects/counter/"+name+"/call/increment", "", "Perdure-Consistency", "eventual")
	g.want(409, "POST", fmt.Sprintf(valueOf, name), "", "Perdure-Min-Version", "99")
	owner.kill()
	read(standby, "Perdure-Consistency", "eventual") // the owner is not there, and nobody waits for the next
}

// BenchmarkTakeOver is what docs/perf.md says of --standby: one of two workers is killed, and all objects that it had are read once, by 64
// callers. What is told is how long that took from when the other one had all partitions.
func BenchmarkTakeOver(b *testing.B) {
	const objects, changes = 2000, 12
	for _, args := range [][]string{nil, {"--standby"}} {
		b.Run("standby="+strconv.FormatBool(args != nil), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				p := newPair(newFleet(b).begin(), append([]string{"--lease-term", "1s", "--log-level", "info"}, args...)...)
				nc, err := nats.Connect("nats://" + p.nats)
				must(b, err)
				client := engine.NewClient(natsbus.NewClient(nc, wire.DefaultNamespace).ToSlots())
				for range changes {
					all(b, client, objects, "increment")
				}
				if args != nil {
					eventually(b, func() bool { return strings.Count(p.workers[1].said(), "partition followed") >= 2 })
				}
				<-time.After(3 * time.Second) // what is copied is written, and objects that rest are
				p.workers[0].kill()
				eventually(b, func() bool { return p.owned(1) == 4 })
				b.StartTimer()
				all(b, client, objects, "value")
				b.StopTimer()
				nc.Close()
				p.workers[1].kill()
				b.StartTimer()
			}
		})
	}
}

// all calls a method of all objects once.
func all(b *testing.B, client *engine.Client, objects int, method string) {
	b.Helper()
	var callers sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		callers.Go(func() {
			for i := next.Add(1); i <= int64(objects); i = next.Add(1) {
				if _, err := client.Do(b.Context(), engine.Request{Class: "counter", Name: fmt.Sprint("t", i), Method: method}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
}
