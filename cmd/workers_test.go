package cmd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/wire"
)

// pair is a fleet of two workers with gateways, which share 4 partitions.
type pair struct {
	*fleet
	workers []*process
	ids     []string
}

func newPair(f *fleet, args ...string) *pair {
	t := f.t
	t.Helper()
	p := &pair{fleet: f}
	for range 2 {
		w := p.start("serve", append([]string{"--partitions", "4"}, args...)...)
		w.ready()
		id, err := workerID(w.dir)
		must(t, err)
		p.workers, p.ids = append(p.workers, w), append(p.ids, id)
	}
	eventually(t, func() bool { return p.owned(0) == 2 && p.owned(1) == 2 })
	return p
}

// owned is how many partitions a worker owns.
func (p *pair) owned(i int) (n int) {
	for _, of := range p.partitions() {
		if of.Worker == p.ids[i] && of.State == partServed {
			n++
		}
	}
	return n
}

func (p *pair) partitions() []partitionState {
	p.t.Helper()
	return lines[partitionState](p.t, p.workers[1], "partitions", "--json")
}

// partOf is the partition of a counter.
func partOf(name string) int { return wire.Partition(wire.Slot("counter", name), 4) }

// lines are what a command prints as JSON, a line each.
func lines[T any](t testing.TB, p *process, args ...string) (list []T) {
	t.Helper()
	out, stderr, code := p.run(args...)
	if code != 0 {
		t.Fatalf("perdure %s: %d %s", strings.Join(args, " "), code, stderr)
	}
	for line := range strings.Lines(out) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		list = append(list, v)
	}
	return list
}

// wants runs a command that is to end so, and to say so on standard error.
func (p *pair) wants(code int, says string, args ...string) {
	p.t.Helper()
	stdout, stderr, got := p.workers[1].run(args...)
	if got != code || !strings.Contains(stderr, says) || code != 0 && stdout != "" {
		p.t.Errorf("perdure %s: code %d, want %d and %q\n%s%s", strings.Join(args, " "), got, code, says, stdout, stderr)
	}
}

// TestQuestionsAreAnsweredByWorkersThatShare: through either, about all objects; and not about some only when an owner is gone.
func TestQuestionsAreAnsweredByWorkersThatShare(t *testing.T) {
	t.Parallel()
	p := newPair(newFleet(t).begin(), "--lease-term", "30s") // so long nobody takes over
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("c%02d", i))
		p.workers[i%2].want(200, "POST", "/counter/"+names[i], "")
	}
	for _, w := range p.workers {
		var got []string
		for cursor := ""; ; {
			var page struct {
				Objects []engine.ObjectInfo
				Next    string
			}
			must(t, json.Unmarshal([]byte(w.want(200, "GET", "/v1/objects/counter?limit=7&cursor="+cursor, "")), &page))
			for _, o := range page.Objects {
				if got = append(got, o.Name); o.Version != 1 {
					t.Errorf("%s has version %d", o.Name, o.Version)
				}
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("got %v, want %v", got, names)
		}
	}
	for range 4 { // whichever answers
		if got := len(lines[engine.ObjectInfo](t, p.workers[0], "objects", "--json")); got != len(names) {
			t.Errorf("%d objects, want %d", got, len(names))
		}
		s := lines[doctor.System](t, p.workers[0], "status", "--json")[0]
		if len(s.Workers) != 2 || len(s.Partitions) != 4 || slices.ContainsFunc(s.Partitions, func(of doctor.Partition) bool { return !of.Owned }) {
			t.Errorf("status: %+v", s)
		}
	}
	for _, name := range names[:6] {
		if s := lines[engine.ObjectState](t, p.workers[0], "state", "counter/"+name, "--json")[0]; string(s.Storage["count"]) != "1" {
			t.Errorf("%s: %+v", name, s)
		}
		for _, w := range p.workers {
			if n := len(w.entries("counter/" + name)); n != 1 {
				t.Errorf("%s has %d entries", name, n)
			}
		}
	}

	before := p.partitions()
	lost := slices.IndexFunc(names, func(name string) bool { return before[partOf(name)].Worker == p.ids[0] })
	kept := slices.IndexFunc(names, func(name string) bool { return before[partOf(name)].Worker == p.ids[1] })
	if lost < 0 || kept < 0 {
		t.Fatalf("partitions: %+v", before)
	}
	p.workers[0].end(syscall.SIGKILL)
	p.wants(exitUnavailable, "has no owner just now", "objects", "counter", "--timeout", "1s")
	p.wants(exitUnavailable, "has no owner just now", "state", "counter/"+names[lost])
	p.wants(exitUnavailable, "has no owner just now", "journal", "counter/"+names[lost])
	p.wants(0, "", "state", "counter/"+names[kept])
	if got := p.partitions()[partOf(names[lost])]; got.State != partSilent || got.Worker != p.ids[0] {
		t.Errorf("a partition of who was killed: %+v", got)
	}
	for _, w := range lines[workerState](t, p.workers[1], "workers", "--json") {
		if dead := w.Worker == p.ids[0]; dead != (w.State == workerSilent) || !dead && len(w.Partitions) != 2 {
			t.Errorf("one was killed: %+v", w)
		}
	}
	s := lines[doctor.System](t, p.workers[1], "status", "--json")[0]
	if n := len(slices.DeleteFunc(s.Partitions, func(of doctor.Partition) bool { return !of.Owned })); n != 2 || !slices.Equal(s.Silent, p.ids[:1]) {
		t.Errorf("one was killed: %d are owned, %v silent", n, s.Silent)
	}
}

// TestPartitionsAreMovedAndWorkersDrained by the commands, which return when it is done.
func TestPartitionsAreMovedAndWorkersDrained(t *testing.T) {
	t.Parallel()
	p := newPair(newFleet(t).begin(), "--lease-term", "1s")
	a, b := p.ids[0], p.ids[1]
	at := slices.IndexFunc(p.partitions(), func(of partitionState) bool { return of.Worker == a })
	moved := fmt.Sprint(at)
	p.wants(exitNotFound, `there is no worker "nobody"; there are: `, "partitions", "move", moved, "nobody")
	p.wants(exitUsage, "there is no partition 9; there are 4, from 0", "partitions", "move", "9", b)
	p.wants(exitUsage, `"x" is no partition`, "partitions", "free", "x")
	p.wants(0, "owns partition "+moved, "partitions", "move", moved, b)
	if got := p.partitions()[at]; got.Worker != b || !got.Pinned {
		t.Errorf("moved: %+v", got)
	}

	p.wants(0, "owns nothing", "drain", b)
	for _, of := range p.partitions() {
		if of.Worker == b {
			t.Errorf("drained: %+v", of)
		}
	}
	states := func() (s []string) {
		for _, w := range lines[workerState](t, p.workers[1], "workers", "--json") {
			s = append(s, w.Worker+" "+w.State)
		}
		return s
	}
	if got := states(); !slices.Contains(got, a+" sharing") || !slices.Contains(got, b+" drained") {
		t.Errorf("workers: %v", got)
	}
	p.wants(exitConflict, "is drained", "partitions", "move", "0", b)
	p.wants(exitConflict, "nobody could take", "drain", a)
	p.wants(exitNotFound, `there is no worker "nobody"`, "drain", "nobody")
	p.wants(exitNotFound, `there is no worker "nobody"`, "drain", "nobody", "--undo")
	p.wants(0, "is not drained", "drain", a, "--undo")
	p.wants(0, "gets its share again", "drain", b, "--undo")
	eventually(t, func() bool { return p.partitions()[at].Worker == b && p.owned(0) == 2 && p.owned(1) == 2 })
	p.wants(0, "is not pinned to worker "+b+" any more", "partitions", "free", moved)
	p.wants(0, "is not pinned to a worker", "partitions", "free", moved)

	p.workers[0].stop()
	eventually(t, func() bool { return p.owned(1) == 4 })
	if got := states(); !slices.Equal(got, []string{b + " sharing"}) {
		t.Errorf("one has ended: %v", got)
	}
	if n := len(lines[workerState](t, p.workers[1], "workers", "--all", "--json")); n != 2 {
		t.Errorf("%d workers there ever were, want 2", n)
	}
}

// TestNamesThatAnotherWorkerMadeAreListed when the partition is back.
func TestNamesThatAnotherWorkerMadeAreListed(t *testing.T) {
	t.Parallel()
	p := newPair(newFleet(t).begin(), "--lease-term", "1s")
	at := slices.IndexFunc(p.partitions(), func(of partitionState) bool { return of.Worker == p.ids[0] })
	var names []string
	for i := 0; len(names) < 2; i++ {
		if name := fmt.Sprintf("c%03d", i); partOf(name) == at {
			names = append(names, name)
		}
	}
	listed := func() (got []string) {
		for _, o := range lines[engine.ObjectInfo](t, p.workers[1], "objects", "--json") {
			got = append(got, o.Name)
		}
		return got
	}
	p.workers[1].want(200, "POST", "/counter/"+names[0], "")
	if got := listed(); !slices.Equal(got, names[:1]) {
		t.Errorf("listed: %v", got)
	}
	p.wants(0, "owns partition", "partitions", "move", fmt.Sprint(at), p.ids[1])
	p.workers[1].want(200, "POST", "/counter/"+names[1], "")
	p.wants(0, "owns partition", "partitions", "move", fmt.Sprint(at), p.ids[0])
	if got := listed(); !slices.Equal(got, names) {
		t.Errorf("listed: %v, want %v", got, names)
	}
}

// TestAStandbyTakesOver: with --standby each follows what is the other's, and says so; what was answered is there when one is killed.
func TestAStandbyTakesOver(t *testing.T) {
	t.Parallel()
	p := newPair(newFleet(t).begin(), "--lease-term", "1s", "--standby", "--log-level", "info")
	for i := range 20 {
		p.workers[1].want(200, "POST", fmt.Sprintf("/counter/c%d", i), "")
	}
	eventually(t, func() bool { return strings.Count(p.workers[1].said(), "partition followed") >= 2 })
	p.workers[0].kill()
	eventually(t, func() bool { return p.owned(1) == 4 })
	for i := range 20 {
		if got := p.workers[1].want(200, "GET", fmt.Sprintf("/counter/c%d", i), ""); !strings.Contains(got, "1") {
			t.Errorf("c%d is %s", i, got)
		}
	}
	p.workers[1].verify()
}

// TestOneWorkerIsShownAsMany are: perdure dev has one.
func TestOneWorkerIsShownAsMany(t *testing.T) {
	t.Parallel()
	dev := newDev(t).begin()
	dev.want(200, "POST", "/counter/a", "")
	list := lines[workerState](t, dev, "workers", "--json")
	if len(list) != 1 || list[0].State != "sharing" || len(list[0].Partitions) != 4 || list[0].Resident != 1 || list[0].Version != Version {
		t.Fatalf("workers: %+v", list)
	}
	for p, of := range lines[partitionState](t, dev, "partitions", "--json") {
		resident := 0
		if p == partOf("a") {
			resident = 1
		}
		if of.Worker != list[0].Worker || of.Share != of.Worker || of.State != partServed || of.Epoch != 1 || of.Since.IsZero() || of.Pinned || of.Resident != resident || of.Alarm != "" {
			t.Errorf("partition %d: %+v", p, of)
		}
	}
	p := &pair{fleet: &fleet{t: t}, workers: []*process{dev, dev}}
	p.wants(exitConflict, "nobody could take", "drain", list[0].Worker)
	p.wants(0, "owns partition 1", "partitions", "move", "1", list[0].Worker)
	p.wants(0, "not pinned", "partitions", "free", "1")
	for typed, want := range map[string]string{"drain ": list[0].Worker, "partitions move ": "3", "partitions move 3 ": list[0].Worker, "partitions free ": "2"} {
		out, _, _ := dev.run(append([]string{"__complete"}, strings.Split(typed, " ")...)...)
		if !strings.Contains(out, want+"\n") {
			t.Errorf("%q is completed as %q", typed, out)
		}
	}
}

// TestCallsFindTheirOwnerWithoutAMapping: whichever worker hears one passes it on, and says so when there is no owner.
func TestCallsFindTheirOwnerWithoutAMapping(t *testing.T) {
	t.Parallel()
	p := newPair(newFleet(t).beginFor("another"), "--lease-term", "30s")
	owners := p.partitions()
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	lost, kept := "", ""
	for i := range 12 {
		name := fmt.Sprint("c", i)
		for want := range 3 {
			m, err := nc.Request("objects.call.counter."+name+".increment", nil, 30*time.Second)
			if err != nil || string(m.Data) != fmt.Sprint(want+1) {
				t.Errorf("%s: %+v, %v", name, m, err)
			}
		}
		if owners[partOf(name)].Worker == p.ids[0] {
			lost = name
		} else {
			kept = name
		}
	}
	if out, stderr, code := p.workers[0].run("call", "counter/"+kept, "value"); out != "3\n" {
		t.Errorf("%s: %d %s%s", kept, code, out, stderr)
	}
	if _, err := nc.Request("objects.call.v1.a.b", nil, 30*time.Second); err != nil {
		t.Errorf("a class that cannot be: %v", err)
	}
	if out, _, _ := p.workers[0].run("doctor"); !strings.Contains(out, "mapping\twarn") {
		t.Errorf("doctor does not see that the server maps nothing: %s", out)
	}
	p.workers[0].end(syscall.SIGKILL)
	m, err := nc.Request("objects.call.counter."+lost+".value", nil, 30*time.Second)
	must(t, err)
	if e := engine.ParseProblem(m.Data); e.Code != engine.Unavailable || m.Header.Get(wire.HeaderErrorCode) != "503" {
		t.Errorf("without an owner: %v %s", m.Header, m.Data)
	}
	if m, err = nc.Request("objects.call.counter."+kept+".value", nil, 30*time.Second); err != nil || string(m.Data) != "3" {
		t.Errorf("%s: %v", m.Data, err)
	}
}
