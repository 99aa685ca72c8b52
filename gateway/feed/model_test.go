package feed

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/engine"
)

// TestListenersAreToldEachCommitOnceAndInOrder lets listeners come, go, lag, be cut and go on from where they were, while
// records, strays and epochs are stored and connections end. Each is told what counts, once, in order, and when it is
// durable.
func TestListenersAreToldEachCommitOnceAndInOrder(t *testing.T) {
	stories, first := uint64(60), uint64(1)
	if testing.Short() {
		stories = 10
	}
	if s := os.Getenv("SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		stories, first = 1, seed
	}
	var reached happened
	for seed := first; seed < first+stories && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) { tellStory(t, seed, &reached) })
	}
	if stories > 1 && (reached.cuts.Load() == 0 || reached.resumed.Load() == 0 || reached.partly.Load() == 0 || reached.lost.Load() == 0 || reached.read.Load() == 0) {
		t.Errorf("the stories never came to what they are about: %+v", &reached)
	}
	t.Logf("%d events; %d places, %d of them within a record; %d slow listeners cut, %d lost their connection; %d read the past",
		reached.told.Load(), reached.resumed.Load(), reached.partly.Load(), reached.cuts.Load(), reached.lost.Load(), reached.read.Load())
}

// happened counts what stories came to.
type happened struct{ told, resumed, partly, cuts, lost, read atomic.Int64 }

func (h *happened) String() string {
	return fmt.Sprint(h.told.Load(), h.resumed.Load(), h.partly.Load(), h.cuts.Load(), h.lost.Load(), h.read.Load())
}

func tellStory(t *testing.T, seed uint64, reached *happened) {
	random := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, 1+random.IntN(3))
	for range random.IntN(40) {
		w.step(random)
	}
	life, end := context.WithCancel(t.Context())
	var around, listening sync.WaitGroup
	for p := range w.partitions {
		around.Go(func() { w.durably(life, ns.Stream(p), rand.New(rand.NewPCG(seed, uint64(p)+100))) })
	}
	synctest.Wait()
	h := w.hub(Config{Durable: w.ask, MemoryBytes: 20000, Heartbeat: 50 * time.Millisecond})
	written := make(chan struct{})
	wants := []Want{{}, {Class: "a"}, {Class: "b", Prefix: "x"}, {Prefix: "y"}, {Class: "a", Name: "x.1"}, {Class: "none"}}
	for i := range 6 {
		l := &modelListener{w: w, h: h, seed: seed, reached: reached, want: wants[random.IntN(len(wants))], slow: random.IntN(3) == 0,
			random: rand.New(rand.NewPCG(seed, uint64(i)+1000)), written: written}
		l.want.From = []string{Start, Now}[random.IntN(2)]
		late := time.Duration(random.IntN(60)) * time.Millisecond
		listening.Go(func() {
			<-time.After(late)
			l.listen()
		})
	}
	for range 300 {
		w.step(random)
		<-time.After(time.Duration(random.IntN(1000)) * time.Microsecond)
		if random.IntN(100) == 0 {
			w.cut()
		}
	}
	close(written)
	listening.Wait()
	h.Close()
	end()
	around.Wait()
}

// step stores something.
func (w *world) step(random *rand.Rand) {
	class, name := []string{"a", "b"}[random.IntN(2)], fmt.Sprint([]string{"x.", "y"}[random.IntN(2)], random.IntN(3))
	switch n := random.IntN(40); {
	case n == 0:
		w.epoch(random.IntN(w.partitions))
	case n < 4:
		w.commit(class, name, 1, true)
	default:
		w.commit(class, name, 1+max(0, random.IntN(8)-4), false)
	}
}

// modelListener listens until it was told everything.
type modelListener struct {
	w       *world
	h       *Hub
	seed    uint64
	want    Want
	slow    bool
	random  *rand.Rand
	written chan struct{}
	reached *happened

	got    []commit
	before map[int]int // how many were committed before it listened, for one that begins now, by partition
}

var errLeft = errors.New("the listener left")

func (l *modelListener) listen() {
	from := l.want.From
	for tries := 0; !l.complete(); tries++ {
		if tries == 500 {
			l.w.t.Errorf("seed %d: %+v is never told everything: %s", l.seed, l.want, missing(l.w.wanted(l.want), byPartition(l.got)))
			return
		}
		want := l.want
		want.From = from
		listener, err := l.h.Listen(l.w.t.Context(), want)
		if err != nil {
			if !errors.Is(err, engine.Unavailable) { // its connection had just ended
				l.w.t.Errorf("seed %d: %v", l.seed, err)
				return
			}
			<-time.After(time.Millisecond)
			continue
		}
		if listener.reading {
			l.reached.read.Add(1)
		}
		if from == Now {
			l.mark()
		}
		from = l.run(listener)
	}
}

// mark remembers what was committed before it listened.
func (l *modelListener) mark() {
	l.before = map[int]int{}
	for p, of := range l.w.wanted(l.want) {
		l.before[p] = len(of)
	}
}

// run listens for a while, and returns the place to go on from.
func (l *modelListener) run(listener *Listener) (place string) {
	place = listener.Place()
	ctx, cancel := context.WithCancel(l.w.t.Context())
	defer cancel()
	left := l.random.IntN(200)
	err := listener.Run(ctx, func(events []Event) error {
		if len(events) == 0 {
			place = listener.Place()
		}
		for _, e := range events {
			if left--; left == 0 {
				return errLeft
			}
			if c := l.w.of(e); !l.w.isDurable(c) {
				l.w.t.Errorf("seed %d: %v is told and not durable", l.seed, c)
			}
			l.got, place = append(l.got, l.w.of(e)), e.ID
			l.reached.told.Add(1)
			if l.slow {
				<-time.After(time.Duration(l.random.IntN(5000)) * time.Microsecond)
			}
		}
		if l.complete() {
			return errLeft
		}
		return nil
	})
	switch {
	case errors.Is(err, engine.Overloaded):
		l.reached.cuts.Add(1)
	case errors.Is(err, engine.Unavailable):
		l.reached.lost.Add(1)
	case err != errLeft:
		l.w.t.Errorf("seed %d: %v", l.seed, err)
	}
	l.reached.resumed.Add(1)
	for i := range place {
		if place[i] == ':' {
			l.reached.partly.Add(1)
			break
		}
	}
	return place
}

// complete tells whether everything was told. What was told is checked on the way: of each partition it is a run of what is
// to be told, from the start or from no later than when it began to listen.
func (l *modelListener) complete() bool {
	all := true
	wanted, got := l.w.wanted(l.want), byPartition(l.got)
	for p, of := range wanted {
		first := 0
		if l.want.From == Now && len(got[p]) > 0 {
			first = max(0, slices.Index(of, got[p][0]))
		} else if l.want.From == Now {
			first = min(l.before[p], len(of))
		}
		if n := first + len(got[p]); first > l.before[p] || n > len(of) || !slices.Equal(of[first:n], got[p]) {
			l.w.t.Errorf("seed %d: %+v: from %d of %d: %s", l.seed, l.want, first, l.before[p], missing(map[int][]commit{p: of[first:]}, map[int][]commit{p: got[p]}))
			return true
		}
		all = all && first+len(got[p]) == len(of)
	}
	for p := range got {
		if len(wanted[p]) == 0 {
			l.w.t.Errorf("seed %d: %+v is told %v", l.seed, l.want, got[p])
		}
	}
	select {
	case <-l.written:
		return all
	default:
		return false
	}
}
