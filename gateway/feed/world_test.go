package feed

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

const (
	ns   = wire.DefaultNamespace
	life = "3f9a0c12aa"
)

// world is a journal in memory, written by the test, and what is durable of it.
type world struct {
	t          testing.TB
	m          *journaltest.Memory
	partitions int

	mu       sync.Mutex
	epochs   []journal.EpochID        // by partition
	versions map[string]uint64        // of objects
	prev     map[string]journal.Hash  // of objects
	counting []commit                 // what is to be told
	durable  map[string]journal.Seq   // by stream
	asked    map[string]chan question // by stream
	sessions []*journaltest.MemorySession
}

type question struct {
	seq  journal.Seq
	open func()
}

// commit is what a listener is told.
type commit struct {
	p       int
	class   string
	name    string
	seq     journal.Seq
	version uint64
}

func newWorld(t testing.TB, partitions int) *world {
	w := &world{t: t, m: journaltest.NewMemory(), partitions: partitions, epochs: make([]journal.EpochID, partitions), versions: map[string]uint64{},
		prev: map[string]journal.Hash{}, durable: map[string]journal.Seq{}, asked: map[string]chan question{}}
	w.m.Session(ns, partitions)
	for p := range partitions {
		w.epoch(p)
	}
	return w
}

// epoch begins a new epoch, with one filler.
func (w *world) epoch(p int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.epochs[p] = journal.EpochID{Number: w.epochs[p].Number + 1, Token: journal.Token(w.epochs[p].Number * 7)}
	r := journal.EpochRecord{Epoch: w.epochs[p], Worker: "w", Window: 1}
	w.m.Publish(ns.Stream(p), journal.Message{Subject: ns.Epoch(p), Data: r.Encode()})
	w.m.Publish(ns.Stream(p), journal.Message{Subject: ns.Fence(p)})
}

func (w *world) partition(class, name string) int {
	return wire.Partition(wire.Slot(class, wire.Escape(name)), w.partitions)
}

// commit stores a record of n commits. One that is stray names the epoch before, and counts for nothing.
func (w *world) commit(class, name string, n int, stray bool) journal.Seq {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, id := w.partition(class, name), class+"/"+name
	encoded := make([]journal.Encoded, n)
	for i := range encoded {
		c := journal.Commit{At: time.Now(), ID: fmt.Sprint(id, w.versions[id]+uint64(i)+1), Source: "call", Method: "put",
			Changes: []journal.Change{{Kind: journal.Put, Key: "k", Data: []byte(`"v"`)}}, Reply: &journal.Reply{Status: 200, Body: []byte("1")}}
		encoded[i] = journal.Encoded{At: c.At, JSON: journal.AppendCommit(nil, &c)}
	}
	data := journal.AppendRecord(nil, journal.Version(w.versions[id]+1), w.prev[id], encoded)
	epoch := w.epochs[p]
	if stray {
		epoch.Number--
	}
	seq := w.m.Publish(ns.Stream(p), journal.Message{Subject: ns.Journal(class, wire.Escape(name)), Data: data,
		Header: journal.Header{wire.HeaderFormat: "1", wire.HeaderEpoch: epoch.String()}})
	if stray {
		return seq
	}
	w.prev[id] = journal.HashOf(data)
	for range n {
		w.versions[id]++
		w.counting = append(w.counting, commit{p, class, name, seq, w.versions[id]})
	}
	return seq
}

func (w *world) connect(ctx context.Context) (journal.Session, error) {
	s := w.m.Session(ns, w.partitions)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions = append(w.sessions, s)
	return s, nil
}

// cut ends all sessions.
func (w *world) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sessions {
		s.Close()
	}
	w.sessions = nil
}

// durably answers the questions of one stream, one after the other, after a while.
func (w *world) durably(ctx context.Context, stream string, random *rand.Rand) {
	w.mu.Lock()
	asked := make(chan question, 1000)
	w.asked[stream] = asked
	w.mu.Unlock()
	for {
		select {
		case q := <-asked:
			<-time.After(time.Duration(random.IntN(3000)) * time.Microsecond)
			w.mu.Lock()
			w.durable[stream] = max(w.durable[stream], q.seq)
			w.mu.Unlock()
			q.open()
		case <-ctx.Done():
			return
		}
	}
}

func (w *world) ask(stream string, seq journal.Seq, open func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[stream] <- question{seq, open}
}

func (w *world) isDurable(c commit) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return c.seq <= w.durable[ns.Stream(c.p)]
}

// wanted are the commits that a listener is to be told, by partition.
func (w *world) wanted(want Want) map[int][]commit {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[int][]commit{}
	for _, c := range w.counting {
		if want.takes(&record{class: c.class, name: c.name}) {
			out[c.p] = append(out[c.p], c)
		}
	}
	return out
}

func (w *world) hub(c Config) *Hub {
	w.t.Helper()
	c.Life, c.Partitions, c.Connect = life, w.partitions, w.connect
	h, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(h.Close)
	return h
}

func (w *world) of(e Event) commit {
	return commit{w.partition(e.Entry.Class, e.Entry.Name), e.Entry.Class, e.Entry.Name, e.Entry.Seq, uint64(e.Entry.Version)}
}

func byPartition(all []commit) map[int][]commit {
	out := map[int][]commit{}
	for _, c := range all {
		out[c.p] = append(out[c.p], c)
	}
	return out
}

// missing tells what of want was not told as it should be.
func missing(want, got map[int][]commit) string {
	for p := range want {
		if !slices.Equal(want[p], got[p]) {
			n := 0
			for n < min(len(want[p]), len(got[p])) && want[p][n] == got[p][n] {
				n++
			}
			return fmt.Sprintf("partition %d: %d commits are to be told, %d were; the first %d are the same, then want %v, got %v",
				p, len(want[p]), len(got[p]), n, want[p][n:min(n+3, len(want[p]))], got[p][n:min(n+3, len(got[p]))])
		}
	}
	for p := range got {
		if len(want[p]) == 0 {
			return fmt.Sprintf("partition %d: nothing is to be told, %v was", p, got[p])
		}
	}
	return ""
}
