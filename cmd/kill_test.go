package cmd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/history"
)

// given is a number that the environment has under a name, or another.
func given(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

const (
	killCallers = 8
	killObjects = 3 // counters that live through all kills
	killEach    = 3 // a history's objects live through so many kills: few, so that what is unknown can be searched through
)

// TestKillNineLosesNothingAcknowledged kills the real binary again and again under load, in both sync modes. Increments
// that were answered are held against the journal; adding, taking and reading must be the history of objects that do one
// thing after the other. KILLS=n is how often, SEED=n repeats the moments.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	seed, kills := given(t, "SEED", uint64(time.Now().UnixNano())), int(given(t, "KILLS", 52))
	t.Logf("SEED=%d repeats the moments of the kills", seed)
	for _, mode := range []string{"always", "100ms"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p := newDev(t, "--sync", mode)
			k := &killing{t: t, p: p, gates: []*process{p}, random: rand.New(rand.NewPCG(seed, uint64(len(mode))))}
			k.history.Name = fmt.Sprintf("SEED=%d-", seed)
			k.p.begin()
			k.renew()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var callers sync.WaitGroup
			for _, c := range k.callers(killCallers) {
				callers.Go(func() { c.run(ctx) })
			}
			for k.kills < kills/2-1 {
				k.round()
			}
			stop()
			callers.Wait()
			k.check()
			k.p.kill() // once more, when nobody calls
			k.p.begin()
			k.check()
			told, unknown := k.history.Count()
			t.Logf("%d kills; %d increments; histories of %d operations and %d whose outcome is unknown", k.kills+1, len(k.increments), told, unknown)
			if err := k.history.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// killing is a load on a process that is killed, and knows what it was told.
type killing struct {
	t       *testing.T
	p       *process   // that is asked
	gates   []*process // that callers over HTTP call through
	random  *rand.Rand // for the moments
	kills   int
	history history.History
	life    atomic.Int64 // names the histories' objects

	mu         sync.Mutex
	increments []increment
}

// increment is one increment of a counter that lives through all kills.
type increment struct {
	object int
	id     string // the caller's own, if it gave one
	told   string // empty: its outcome is unknown
}

// round kills, perhaps twice, and starts again.
func (k *killing) round() {
	k.kill()
	// Half of the times it dies again while it starts: recovery has to survive what it is for.
	if k.random.IntN(2) == 0 {
		k.p.start()
		k.kill()
	}
	k.p.begin()
	k.renew()
}

// kill kills at some moment soon.
func (k *killing) kill() {
	<-time.After(time.Duration(k.random.IntN(250)) * time.Millisecond)
	k.p.kill()
	k.kills++
}

// renew gives the histories new objects.
func (k *killing) renew() {
	life := int64(k.kills/killEach) + 1
	if life == k.life.Load() {
		return
	}
	k.p.soon("POST", fmt.Sprintf("/v1/objects/account/h%d/call/open", life), `"owner"`, "Idempotency-Key", "open")
	k.life.Store(life)
}

// check holds what callers were told against the journal and the objects, and the journal against its own rules.
func (k *killing) check() {
	k.t.Helper()
	k.p.verify()
	k.checkCounters()
}

func (k *killing) checkCounters() {
	k.t.Helper()
	for object := range killObjects {
		k.checkCounter(object)
	}
}

const ownID = "id-" // begins the ids that callers give

func (k *killing) checkCounter(object int) {
	k.t.Helper()
	name := fmt.Sprintf("counter/k%d", object)
	told, unknown := map[string]increment{}, 0
	for _, inc := range k.increments {
		switch other, twice := told[inc.told]; {
		case inc.object != object:
		case inc.told == "":
			unknown++
		case twice:
			k.t.Errorf("%s: %s was told to %+v and to %+v", name, inc.told, other, inc)
		default:
			told[inc.told] = inc
		}
	}
	entries, untold, applied := k.p.entries(name), 0, map[string]bool{}
	for i, e := range entries {
		reply := strconv.Itoa(i + 1)
		if int(e.Version) != i+1 || string(e.Reply.Body) != reply {
			k.t.Fatalf("%s: version %d with the reply %s at place %s", name, e.Version, e.Reply.Body, reply)
		}
		if e.ID != "" && applied[e.ID] {
			k.t.Errorf("%s: %s was applied twice", name, e.ID)
		}
		applied[e.ID] = true
		inc, answered := told[reply]
		delete(told, reply)
		own := ""
		if strings.HasPrefix(e.ID, ownID) {
			own = e.ID
		}
		switch {
		case answered && inc.id != own:
			k.t.Errorf("%s: %s was told to the request %q, and the journal has %q there", name, reply, inc.id, e.ID)
		case !answered && own != "":
			k.t.Errorf("%s: %s is in the journal, and was never answered", name, e.ID)
		case !answered:
			untold++
		}
	}
	for _, inc := range told {
		k.t.Errorf("%s: %+v was answered, and is not in the journal", name, inc)
	}
	if untold > unknown {
		k.t.Errorf("%s: %d changes were told to nobody, and of %d requests the outcome is unknown", name, untold, unknown)
	}
	if got := k.p.soon("POST", "/v1/objects/"+name+"/call/value", ""); got != strconv.Itoa(len(entries)) {
		k.t.Errorf("%s is %s and has %d changes", name, got, len(entries))
	}
}
