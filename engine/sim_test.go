package engine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
)

// outcome is what came of a story.
type simOutcome struct {
	failure *failure
	story   []string
	hash    uint64
	counts  map[string]int
}

// simulate tells one story in a bubble of its own.
func simulate(t *testing.T, seed uint64, p profile, script []simStep, verbose bool) (out simOutcome) {
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		s := newSim(p)
		s.verbose = verbose
		s.tell(script)
		out = simOutcome{s.failure.Load(), s.story, s.hash(), s.counts}
	})
	return out
}

func (s *sim) tell(script []simStep) {
	s.startOne(0)
	s.rest()
	s.run(simTerm / 4)
	for _, st := range script {
		if s.failure.Load() != nil {
			break
		}
		s.do(st)
	}
	if s.failure.Load() == nil {
		s.end()
	}
	for _, l := range s.alive() {
		s.die(l)
	}
	s.cancel()
	s.rest()
	if slices.ContainsFunc(s.lives, func(l *life) bool { return !l.ended() }) {
		s.pass(2 * drainFor)
	}
}

func drawn(seed uint64) (profile, []simStep) {
	r := rand.New(rand.NewPCG(seed, 1))
	p := profileOf(r)
	return p, scriptOf(r, &p)
}

func TestSimulation(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	from, n := uint64(1), 300
	verbose := false
	if v := os.Getenv("SEED"); v != "" {
		from, _ = strconv.ParseUint(v, 10, 64)
		n, verbose = 1, true
	}
	if v := os.Getenv("N"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	counts := map[string]int{}
	for seed := from; seed < from+uint64(n); seed++ {
		if os.Getenv("PROGRESS") != "" {
			fmt.Println("seed", seed)
		}
		p, script := drawn(seed)
		out := simulate(t, seed, p, script, verbose)
		for k, v := range out.counts {
			counts[k] += v
		}
		if verbose {
			fmt.Println(strings.Join(out.story, "\n"))
		}
		if out.failure != nil {
			t.Fatalf("seed %d: %s", seed, out.failure)
		}
	}
	t.Log(counts)
}
