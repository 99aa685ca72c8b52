package cmd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/cluster"
)

// cable leads from a process in a network namespace of its own to this one's. Either direction can be cut: then the other side's hardware
// address is a wrong one, and what is sent is lost without a word.
type cable struct {
	space, dev, far string // far: the device in the namespace
	addr, farAddr   string
}

// The hardware addresses of the two sides, and one that nobody has.
const (
	nearMAC = "02:00:00:00:00:01"
	farMAC  = "02:00:00:00:00:02"
	noMAC   = "02:00:00:00:00:03"
)

// cables lays some, or skips the test where that cannot be done. The addresses are from the block for benchmarks, which leads nowhere.
func cables(t *testing.T, n int) (all []cable) {
	t.Helper()
	network := 1 + rand.IntN(250)
	for i := range n {
		name := fmt.Sprintf("pd%d-%d", os.Getpid(), i)
		c := cable{space: name, dev: name, far: "eth0", addr: fmt.Sprintf("198.18.%d.%d", network, 4*i+1), farAddr: fmt.Sprintf("198.18.%d.%d", network, 4*i+2)}
		t.Cleanup(func() { _ = ip("netns del " + c.space) }) // and the cable with it
		if err := c.lay(network); err != nil {
			t.Skipf("no network namespace can be made here, which takes Linux, root and the command ip: %v", err)
		}
		all = append(all, c)
	}
	return all
}

func (c cable) lay(network int) error {
	for _, args := range []string{
		"netns add " + c.space,
		"link add " + c.dev + " address " + nearMAC + " type veth peer name " + c.far + " address " + farMAC + " netns " + c.space,
		"addr add " + c.addr + "/30 dev " + c.dev,
		"link set " + c.dev + " up",
		"-n " + c.space + " addr add " + c.farAddr + "/30 dev " + c.far,
		"-n " + c.space + " link set lo up",
		"-n " + c.space + " link set " + c.far + " up",
		"-n " + c.space + fmt.Sprintf(" route add 198.18.%d.0/24 via ", network) + c.addr,
	} {
		if err := ip(args); err != nil {
			return err
		}
	}
	return errors.Join(c.in(farMAC), c.out(nearMAC))
}

// in is where what is sent to the namespace goes, out where what is sent from it.
func (c cable) in(mac string) error {
	return ip("neigh replace " + c.farAddr + " lladdr " + mac + " dev " + c.dev + " nud permanent")
}

func (c cable) out(mac string) error {
	return ip("-n " + c.space + " neigh replace " + c.addr + " lladdr " + mac + " dev " + c.far + " nud permanent")
}

func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}

// TestCutsBetweenWorkersAndTheServerLoseNothingAcknowledged, in one direction or both, for less than the lease's term and for more. And a
// worker that is cut off for good takes no requests of others with it: the server of internal/cluster/nats.conf gives up its connection.
func TestCutsBetweenWorkersAndTheServerLoseNothingAcknowledged(t *testing.T) {
	t.Parallel()
	lines := cables(t, 2)
	f := newFleet(t)
	f.nats = lines[0].addr + ":" + port(freePort(t))
	f.beginProcess(lines[0].addr)
	load := newFaulty(t, "cuts")
	var workers []*process
	for _, c := range lines {
		w := f.prepare("worker", "--partitions", fmt.Sprint(clusterParts), "--lease-term", clusterTerm.String())
		w.path, w.args = "ip", append([]string{"netns", "exec", c.space, w.path}, w.args...)
		w.start()
		workers = append(workers, w)
	}
	gateway := f.start("gateway")
	load.gates, load.p, load.servers = []*process{gateway}, gateway, "nats://"+f.nats
	load.ready = func(context.Context) error { return nil } // nobody has ended
	load.draw = func() fault { return load.cut(lines) }
	load.renew()
	heard := load.listen()
	load.disturb()
	load.check()
	load.checkWire(heard())
	for _, w := range workers {
		w.said()
	}
	must(t, lines[0].in(noMAC))
	must(t, lines[0].out(noMAC))
	gateway.servesAll(40)
}

// beginProcess starts the fleet's server as a process, with the configuration that is for several workers.
func (f *fleet) beginProcess(host string) {
	f.t.Helper()
	p := &process{t: f.t, path: "env", args: []string{"NATS_NAME=n", "NATS_HOST=" + host, "NATS_PORT=" + port(f.nats), "NATS_CLUSTER_PORT=0", "NATS_ROUTES=[]",
		"NATS_MONITOR_PORT=0", fmt.Sprintf("NATS_STORE=%q", filepath.Join(f.dir, "nats")), f.path, cluster.ServerCommand, "-c", "../internal/cluster/nats.conf"}}
	f.t.Cleanup(p.kill)
	p.start()
	eventually(f.t, func() bool {
		nc, err := net.Dial("tcp", f.nats)
		if err == nil {
			err = nc.Close()
		}
		return err == nil
	})
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// servesAll wants so many calls of different objects, one after the other, to be answered soon, within a minute.
func (p *process) servesAll(many int) {
	p.t.Helper()
	row, slowest := 0, time.Duration(0)
	for began := time.Now(); row < many; row++ {
		asked := time.Now()
		p.soon("POST", fmt.Sprintf("/v1/objects/counter/all%d/call/increment", row), "")
		if took := time.Since(asked); took > 2*time.Second { // less than when it is asked again
			row, slowest = -1, max(slowest, took)
		}
		if time.Since(began) > 2*time.Minute {
			p.t.Fatalf("for two minutes there were no %d calls that were answered at once; the slowest took %v", many, slowest)
		}
	}
	p.t.Logf("the slowest call took %v", slowest)
}

// cut draws a cut.
func (f *faulty) cut(lines []cable) fault {
	i := f.random.IntN(len(lines))
	cut := func(in, out string) func() error {
		return func() error { return errors.Join(lines[i].in(in), lines[i].out(out)) }
	}
	one := fault{to: fmt.Sprint("worker", i+1), end: cut(farMAC, nearMAC), long: f.between(clusterTerm/10, clusterTerm/2)}
	if f.random.IntN(2) == 0 {
		one.long = f.between(clusterTerm, 5*clusterTerm)
	}
	switch f.random.IntN(3) {
	case 0:
		one.what, one.begin = "to", cut(noMAC, nearMAC)
	case 1:
		one.what, one.begin = "from", cut(farMAC, noMAC)
	default:
		one.what, one.begin = "to and from", cut(noMAC, noMAC)
	}
	one.what = "cut " + one.what
	return one
}
