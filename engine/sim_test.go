package engine

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"
)

// simSeeds is how many stories `go test` tells; N asks for another number, SEED for one of them.
const (
	simSeeds     = 12000
	simSeedsRace = 400
)

// simReached is what the stories have to come to, or they prove less than they seem to.
var simReached = []string{"answers lost", "answers of a replica that is behind", "appends lost", "appends refused",
	"appends stored after their writer was closed", "changes that came late", "epochs", "epochs taken from another worker",
	"alarms of the inbox accepted", "answered messages lost", "checkpoints", "connections that ended unnoticed", "dead letters", "messages answered", "messages followed by a standby", "messages not run", "messages purged",
	"messages read again", "objects held", "repeats of publishers", "slow objects held",
	"failures of the store", "kills", "partitions handed over", "looks from outside", "late appends refused", "losses accepted", "own ids found in the store", "power cuts",
	"reads answered by copies", "reads passed on to the owner",
	"records of several commits", "repeats answered", "replies read back from a record", "snapshot records",
	"snapshot records of several parts", "snapshot records used", "spills of a replay", "states written", "words heard", "workers found gone"}

// simReachedSeldom are those that few stories do not come to.
var simReachedSeldom = []string{"reads answered by copies that were behind", "requests refused, and run when an earlier sending arrived"}

// TestSimulation tells stories from seeds, in as many processes as there are cores: one core each, so that a seed tells
// the same story every time.
func TestSimulation(t *testing.T) {
	switch {
	case os.Getenv("SEED") != "":
		seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
		if err != nil {
			t.Fatalf("SEED is %q; want a number", os.Getenv("SEED"))
		}
		tellOne(t, seed)
	case os.Getenv("SIM_SHARD") != "":
		tellShard(t, os.Getenv("SIM_SHARD"))
	default:
		t.Parallel()
		tellAll(t)
	}
}

// TestTheSameSeedTellsTheSameStory is what SEED stands on: each is told four times. FROM and N ask for other seeds.
func TestTheSameSeedTellsTheSameStory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector has goroutines come in random order; make test runs this without it too")
	}
	from, to := uint64(1), uint64(60)
	if n := os.Getenv("N"); n != "" {
		if _, err := fmt.Sscan(n+" "+cmp.Or(os.Getenv("FROM"), "1"), &to, &from); err != nil {
			t.Fatal(err)
		}
	}
	defer oneCore()()
	for seed := from; seed <= to; seed++ {
		p, script := drawn(seed)
		tell := func() simOutcome { return simulate(t, seed, p, script, spoken) }
		one := tell()
		for range 3 {
			two := tell()
			for tries := 0; one.hash != two.hash && (one.disturbed || two.disturbed) && tries < 50; tries++ {
				if one.disturbed {
					one = tell()
				} else {
					two = tell()
				}
			}
			if one.hash == two.hash {
				continue
			}
			i := 0
			for i < min(len(one.story), len(two.story)) && one.story[i] == two.story[i] {
				i++
			}
			t.Errorf("seed %d tells two stories (the machine disturbed them: %v, %v), from line %d on:\n%s\nand\n%s", seed, one.disturbed, two.disturbed, i+1,
				strings.Join(one.story[max(0, i-5):min(i+3, len(one.story))], "\n"), strings.Join(two.story[max(0, i-5):min(i+3, len(two.story))], "\n"))
			break
		}
	}
}

// oneCore has goroutines take turns, until what it returns is called.
func oneCore() (restore func()) {
	n, gc, most := runtime.GOMAXPROCS(1), debug.SetGCPercent(-1), debug.SetMemoryLimit(512<<20) // a collection would change their order
	return func() { runtime.GOMAXPROCS(n); debug.SetGCPercent(gc); debug.SetMemoryLimit(most) }
}

// simOutcome is what came of a story.
type simOutcome struct {
	failure   *failure
	story     []string
	hash      uint64
	counts    map[string]int
	restored  time.Duration
	answering time.Duration

	disturbed bool // another telling may differ
}

// stories counts those of this process, which tells one at a time.
var stories int

// simulate tells one story, in a bubble of its own.
func simulate(t *testing.T, seed uint64, p profile, script []simStep, voice voice) (out simOutcome) {
	if stories++; stories%8 == 0 {
		runtime.GC()
	}
	synctest.Test(t, func(t *testing.T) {
		cryptotest.SetGlobalRandom(t, seed)
		s := newSim(p)
		s.voice = voice
		s.tell(script)
		out = simOutcome{s.failure.Load(), s.story, s.hash(), s.counts, s.restored, s.answering, s.disturbed}
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
		s.pass(simMoment)
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

// drawn is what a seed stands for.
func drawn(seed uint64) (profile, []simStep) {
	r := rand.New(rand.NewPCG(seed, 1))
	p := profileOf(r)
	if p.daring = seed%8 == 7; p.daring {
		p.weights[stepCopy] *= 3
	}
	return p, scriptOf(r, &p)
}

// tellOne tells a seed's story, and if it fails the shortest one that is left of it.
func tellOne(t *testing.T, seed uint64) {
	defer oneCore()()
	p, script := drawn(seed)
	out := simulate(t, seed, p, script, logged)
	fmt.Println(strings.Join(out.story, "\n"))
	if out.failure != nil {
		reportFailure(t, seed, p, script, out.failure)
	}
}

func reportFailure(t *testing.T, seed uint64, p profile, script []simStep, f *failure) {
	t.Helper()
	if os.Getenv("SIM_QUICK") != "" {
		t.Fatalf("seed %d: %s", seed, f)
	}
	short := shrink(t, seed, p, script, f.property)
	out := simulate(t, seed, p, short, logged)
	t.Fatalf("seed %d: %s\n%d of its %d steps are enough for %s:\n%s\nSEED=%d go test ./engine -run TestSimulation tells the whole story",
		seed, f, len(short), len(script), out.failure, strings.Join(out.story, "\n"), seed)
}

// tellShard tells the stories of one process: "from step to".
func tellShard(t *testing.T, shard string) {
	defer oneCore()()
	var from, step, to uint64
	if _, err := fmt.Sscan(shard, &from, &step, &to); err != nil {
		t.Fatalf("SIM_SHARD is %q: %v", shard, err)
	}
	counts := map[string]int{}
	for seed := from; seed <= to; seed += step {
		fmt.Println("seed", seed)
		p, script := drawn(seed)
		out := simulate(t, seed, p, script, silent)
		for what, n := range out.counts {
			counts[what] += n
		}
		counts[slowest] = max(counts[slowest], int(out.restored.Milliseconds()))
		counts[slowestMessage] = max(counts[slowestMessage], int(out.answering.Milliseconds()))
		if out.failure != nil {
			reportFailure(t, seed, p, script, out.failure)
		}
	}
	for what, n := range counts {
		fmt.Println("count", n, what)
	}
}

// What is counted as the maximum.
const (
	slowest        = "ms until everything was served again, at most"
	slowestMessage = "ms until every message was answered, at most"
)

// tellAll has processes tell all stories, and stops at the first that fails.
func tellAll(t *testing.T) {
	n := uint64(simSeeds)
	if raceDetector {
		n = simSeedsRace
	}
	asked := os.Getenv("N")
	if asked != "" {
		var err error
		if n, err = strconv.ParseUint(asked, 10, 64); err != nil {
			t.Fatalf("N is %q; want a number", asked)
		}
	}
	shards := uint64(runtime.NumCPU())
	var all []*shard
	var told sync.WaitGroup
	failed := make(chan *shard, shards)
	for i := range shards {
		sh := &shard{counts: map[string]int{}, loud: asked != "" && i == 0, of: n}
		if err := sh.start(fmt.Sprintf("%d %d %d", i+1, shards, n)); err != nil {
			t.Fatal(err)
		}
		all = append(all, sh)
		told.Go(func() {
			if !sh.listen() {
				failed <- sh
			}
		})
	}
	go func() { told.Wait(); close(failed) }()
	if sh := <-failed; sh != nil {
		for _, other := range all {
			_ = other.cmd.Process.Kill() // it may have ended
		}
		told.Wait()
		t.Fatalf("the process that told seed %s failed:\n%s", sh.seed, sh.said.String())
	}
	counts := map[string]int{}
	for _, sh := range all {
		for what, n := range sh.counts {
			if what == slowest || what == slowestMessage {
				counts[what] = max(counts[what], n)
			} else {
				counts[what] += n
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%9d %s", counts[what], what)
	}
	reached := simReached
	if !raceDetector {
		reached = slices.Concat(reached, simReachedSeldom)
	}
	for _, what := range reached {
		if counts[what] == 0 && asked == "" {
			t.Errorf("in %d stories there were no %s", n, what)
		}
	}
}

// shard is a process that tells stories.
type shard struct {
	cmd    *exec.Cmd
	out    *bufio.Scanner
	seed   string // that it tells
	said   strings.Builder
	wrote  bytes.Buffer // to standard error
	counts map[string]int
	loud   bool
	of     uint64
}

func (sh *shard) start(which string) error {
	sh.cmd = exec.Command(os.Args[0], "-test.run=^TestSimulation$", "-test.timeout=0")
	sh.cmd.Env = append(os.Environ(), "SIM_SHARD="+which, "GOMAXPROCS=1")
	sh.cmd.Stderr = &sh.wrote
	out, err := sh.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	sh.out = bufio.NewScanner(out)
	sh.out.Buffer(nil, 1<<20)
	return sh.cmd.Start()
}

// listen takes what the process says, and tells whether all went well.
func (sh *shard) listen() bool {
	began := time.Now()
	for n := 1; sh.out.Scan(); n++ {
		word, rest, _ := strings.Cut(sh.out.Text(), " ")
		switch word {
		case "seed":
			sh.seed = rest
			if sh.loud && n%1000 == 0 {
				fmt.Printf("seed %s of %d after %v\n", rest, sh.of, time.Since(began).Round(time.Second))
			}
		case "count":
			number, what, _ := strings.Cut(rest, " ")
			sh.counts[what], _ = strconv.Atoi(number)
		default:
			fmt.Fprintln(&sh.said, sh.out.Text())
		}
	}
	err := cmp.Or(sh.out.Err(), sh.cmd.Wait())
	if err != nil {
		fmt.Fprintf(&sh.said, "%s%v\n", sh.wrote.String(), err)
	}
	return err == nil
}
