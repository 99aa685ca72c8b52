package engine

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Peers is the way to the other workers of the namespace, over the connection that requests, answers and appends go through.
// All that it does saves time: without it workers see what is to be seen at each other's leases.
type Peers interface {
	// Tell tells the others, and gateways. It does not wait, and what is told may get lost.
	Tell(Word)
	// Probe asks whether a life of a worker still listens.
	Probe(ctx context.Context, worker string, life journal.Token) Presence
}

// Presence is what a probe found.
type Presence uint8

const (
	Unsure  Presence = iota // no answer, or none that says anything
	Present                 // it answered
	Gone                    // the server that this worker is connected to knows of nobody who listens there
)

// Word is what workers tell each other, and callers. All of it may get lost: whoever waits looks by itself as well.
type Word struct {
	Kind      WordKind
	Partition int
	Of        int // how many partitions there are
	Worker    string
	Life      journal.Token // of that worker
}

// WordKind is what has happened.
type WordKind string

const (
	WordShare   WordKind = "share"   // a lease or the placement has changed
	WordFree    WordKind = "free"    // a partition was released
	WordOwned   WordKind = "owned"   // told to callers only: a partition has a new owner, which is about to listen: what nobody has answered is to be asked again
	WordRenewed WordKind = "renewed" // a life of a worker has renewed its lease; told where there are many workers
)

// String is the word as a token of the subject on which workers hear it: share, free-3-16, renewed-<life>-<worker>.
func (w Word) String() string {
	switch w.Kind {
	case WordShare:
		return string(WordShare)
	case WordRenewed:
		return fmt.Sprintf("%s-%v-%s", w.Kind, w.Life, w.Worker)
	}
	return fmt.Sprintf("%s-%d-%d", w.Kind, w.Partition, w.Of)
}

// ParseWord reads what String made.
func ParseWord(token string) (w Word, ok bool) {
	kind, rest, _ := strings.Cut(token, "-")
	w.Kind = WordKind(kind)
	switch w.Kind {
	case WordShare:
		return w, rest == ""
	case WordRenewed:
		life, worker, _ := strings.Cut(rest, "-")
		w.Worker = worker
		return w, w.Life.UnmarshalText([]byte(life)) == nil && w.String() == token && worker != ""
	}
	p, of, _ := strings.Cut(rest, "-")
	var err, err2 error
	w.Partition, err = strconv.Atoi(p)
	w.Of, err2 = strconv.Atoi(of)
	return w, w.Kind == WordFree && err == nil && err2 == nil && w.Partition >= 0 && w.Partition < w.Of && w.Of <= wire.Slots && w.String() == token
}

// tell tells the other workers something of a partition.
func (s *session) tell(kind WordKind, p int) {
	if s.peers != nil {
		s.peers.Tell(Word{Kind: kind, Partition: p, Of: s.w.cfg.Partitions})
	}
}

// tellRenewed tells the others that the lease was renewed, where they are so many that they would rather not read it.
func (s *session) tellRenewed() {
	s.mu.Lock()
	many := s.roster.turns(s.w.leasesEach) > 1
	s.mu.Unlock()
	if many && s.peers != nil {
		s.peers.Tell(Word{Kind: WordRenewed, Worker: s.w.cfg.ID, Life: s.nonce})
	}
}

// heard takes word from another worker.
func (s *session) heard(w Word) {
	to := s.look
	switch {
	case w.Kind == WordRenewed:
		s.mu.Lock()
		s.roster.hear(w.Worker, w.Life, s.w.clock.Boot())
		s.mu.Unlock()
		return
	case w.Kind != WordShare && w.Partition >= len(s.claims):
		return
	case w.Kind != WordShare:
		to = s.claims[w.Partition].word
	}
	select {
	case to <- struct{}{}:
	default:
	}
}

// Each worker probes the next one in the ring of those that answer callers through the same server, so that the death of one is
// noticed sooner than by its silence.
const (
	probeEvery = 50 * time.Millisecond
	probeFor   = 100 * time.Millisecond
)

// intakeNATS is a lease's word that its worker answers callers through its connection to NATS alone.
const intakeNATS = "nats"

// probe probes the next worker until ctx is done, and closes its lease when it is gone.
//
// A lease may be closed before its term is over when its worker provably answers nobody any more. Where the lease says that callers are
// answered through the connection to NATS alone, and that this is a connection to the server that we are connected to ourselves,
// that server's word that nobody listens on the worker's subject, which that connection had subscribed to, means that the
// connection has ended: what the worker sends on it is neither stored nor delivered. It is believed only if it answered a probe of this
// session before: else it may be one that we cannot see, in another account.
func (s *session) probe(ctx context.Context) {
	tick := time.NewTicker(s.w.probeEvery)
	defer tick.Stop()
	var met journal.Incarnation
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		worker, l, ok := s.nextInRing()
		if !ok {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, probeFor)
		presence := s.peers.Probe(asking, worker, l.Nonce)
		cancel()
		switch {
		case presence == Present:
			met = l.incarnation()
		case presence == Gone && met == l.incarnation():
			if err := s.bury(ctx, worker, met); err != nil && ctx.Err() == nil {
				s.w.log.Warn("the lease of a worker that is gone is not closed yet", "worker", worker, "err", err)
			}
		}
	}
}

// nextInRing is the worker to probe: the next one by name that is alive and that a probe can tell of.
func (s *session) nextInRing() (worker string, l lease, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.w.clock.Boot()
	var ring []string
	for id, other := range s.roster {
		if id != s.w.cfg.ID && other.alive(now) && other.Intake == intakeNATS && other.Server == s.js.Server() && other.Server != "" {
			ring = append(ring, id)
		}
	}
	if len(ring) == 0 {
		return "", lease{}, false
	}
	slices.Sort(ring)
	i, _ := slices.BinarySearch(ring, s.w.cfg.ID)
	worker = ring[i%len(ring)]
	return worker, s.roster[worker].lease, true
}

// bury closes the lease of a life that has ended.
func (s *session) bury(ctx context.Context, worker string, life journal.Incarnation) error {
	ctx, cancel := context.WithTimeout(ctx, s.trust.term/2)
	defer cancel()
	l, err := s.readLease(ctx, worker)
	if err != nil || l.Closed || l.incarnation() != life {
		return err
	}
	if _, err := s.closeAs(ctx, leaseKey(worker), l, life); err != nil {
		return err
	}
	s.w.log.Info("a worker is gone", "worker", worker)
	s.tell(WordShare, 0)
	s.heard(Word{Kind: WordShare})
	return nil
}
