package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// simLiveness is how long after the last fault it may take until every partition is owned and every caller has its
// answer, beside what an append without an answer is waited for.
const simLiveness = 12 * time.Second

// simPerMessage is how long it may take for each message that waits then, beside [retryMax]: as long as it takes to be a
// dead letter.
const simPerMessage = 60 * time.Second

// end ends the faults and holds what is there then against the journal: what the workers that went through them answer,
// and what one answers that knows nothing.
func (s *sim) end() {
	s.say("the faults end")
	s.full.Store(false)
	s.mu.Lock()
	for _, l := range s.lives {
		l.stalled, l.store.failing = false, false
		for _, c := range l.sessions {
			if c.ended {
				c.cut()
			}
		}
	}
	for _, c := range s.clocks {
		c.wall.Store(0)
	}
	s.mu.Unlock()
	if len(s.requests)%2 == 0 {
		s.ghost(simStep{kind: stepForget})
	}
	for i, l := range s.alive() { // a call from a turn does not find an object that another worker has
		if i > 0 {
			s.killOne(l)
		}
	}
	s.run(time.Second) // the disk is looked at each second
	s.restore()
	for late := true; late && s.failure.Load() == nil; { // whatever comes now comes too late
		late = s.ghost(simStep{kind: stepGhost, a: 1 << 16})
		s.rest()
	}
	s.restore()
	s.requestsEnd()
	s.look()
	for _, l := range s.alive() {
		s.killOne(l)
	}
	if s.failure.Load() != nil {
		return
	}
	s.say("a worker starts that knows nothing")
	l := s.start(simWorkers[0], snapshot.NewMemory())
	s.restore()
	s.look()
	s.say("%s is to stop", l)
	l.w.kill(errDrain)
	if s.run(2*time.Second + 2*simSlow); !l.ended() { // it changes its lease twice
		s.failed("I9", "%s was asked to stop and does not end", l)
	}
}

// restore runs until everything is served again.
func (s *sim) restore() {
	const slice = 250 * time.Millisecond
	most := simLiveness + s.ackTimeout
	for spent := time.Duration(0); s.failure.Load() == nil; spent += slice {
		why, messages := s.notServed()
		s.mu.Lock()
		if messages > 0 {
			most = max(most, simLiveness+s.ackTimeout+retryMax+time.Duration(messages)*simPerMessage)
			s.answering = max(s.answering, spent)
		} else if most == simLiveness+s.ackTimeout {
			s.restored = max(s.restored, spent)
		}
		s.mu.Unlock()
		if why == "" {
			return
		}
		if spent > most && s.findStopped() {
			continue
		}
		if spent > most {
			s.failed("I9", "%v after the last fault %s", spent, why)
			return
		}
		if len(s.alive()) == 0 {
			s.startOne(2 << 8) // with its store
		}
		s.accept()
		s.run(slice)
	}
}

// findStopped looks whether an object whose messages wait is stopped, since its journal lost what its records rest on: with
// purging, a power cut may take the snapshots and leave the purge; and a store may know of a loss that nothing else does, with
// records of another worker behind it. It tells whether that is new.
func (s *sim) findStopped() (found bool) {
	if !s.lossy || s.counts["power cuts"] == 0 {
		return false
	}
	s.mu.Lock()
	list := s.waiting()
	s.mu.Unlock()
	for _, l := range list {
		_, name, _ := strings.Cut(string(l.id), ".")
		if l.request == nil || !strings.HasPrefix(string(l.id), "thing.") || s.stopped[l.id] {
			continue
		}
		r, _ := s.lookAt(name, "look")
		if !r.done || r.err == nil || asError(r.err).Code != Internal || !strings.Contains(r.err.Error(), "the object is stopped") {
			continue
		}
		found = true
		s.mu.Lock()
		s.count("objects stopped for good")
		s.stopped[l.id] = true
		s.mu.Unlock()
	}
	return found
}

// notServed is why not everything is served, and how many messages wait if that is all.
func (s *sim) notServed() (why string, messages int) {
	for p := range s.partitions {
		if !slices.ContainsFunc(s.alive(), func(l *life) bool { return l.w.Status().Owned[p].Owned }) {
			return fmt.Sprintf("partition %d is not owned", p), 0
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if !r.done {
			return fmt.Sprintf("%s is not answered", r), 0
		}
	}
	if list := s.waiting(); len(list) > 0 {
		return fmt.Sprintf("%s is not answered", list[0]), len(list)
	}
	return "", 0
}

// requestsEnd: whoever was told that nothing was done was told the truth.
func (s *sim) requestsEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.err == nil || r.copies > 0 || asError(r.err).Code == UnknownOutcome {
			continue
		}
		if asError(r.err).Code == Refused && r.tries > 1 {
			continue // an earlier try came after the one that was refused: mayRun
		}
		for v, c := range s.history(r.object).commits {
			if c.n == r.in.N {
				s.failed("I4", "%s ended with %v, and made version %d", r, r.err, v+1)
			}
		}
	}
}

// look asks every object what it is, and has it change once more.
func (s *sim) look() {
	for i := range s.objects {
		for _, method := range []string{"look", "put"} {
			for tries := 0; s.failure.Load() == nil; tries++ {
				r, version := s.lookAt(string(rune('a'+i)), method)
				// What was lost before may end an epoch now. A store may know of a loss that nothing else does: then there is
				// an alarm, which is accepted, or, if the object was changed elsewhere since, the object is stopped.
				stopped := s.lossy && r.err != nil && asError(r.err).Code == Internal
				if r.err != nil && asError(r.err).Retryable() && tries < 4 {
					s.run(time.Second)
					s.restore()
					continue
				}
				switch {
				case s.failure.Load() != nil || stopped:
				case !r.done || r.err != nil:
					s.failed("I9", "%s when all faults have ended: done %v, %v", r, r.done, r.err)
				case method == "look" && r.reply.Version < version:
					s.failed("I6", "%s tells version %d; the journal has %d", r, r.reply.Version, version)
				}
				break
			}
		}
	}
}

// lookAt asks one object, and returns with the request the version that the journal had before.
func (s *sim) lookAt(name, method string) (*simRequest, journal.Version) {
	s.mu.Lock()
	r := &simRequest{in: ask{N: int64(len(s.requests) + 1), Key: "end"}, method: method, how: "no id",
		object: snapshot.ID("thing." + name), partition: s.partitionOf(name), under: map[journal.EpochID]*tries{}}
	s.requests = append(s.requests, r)
	version := s.history(r.object).version()
	s.mu.Unlock()
	body, _ := json.Marshal(r.in) // its fields always encode
	out := Request{Class: "thing", Name: name, Method: method, Body: body, Deadline: time.Now().Add(10 * time.Minute)}
	go s.called(r, func() (Reply, error) { return simRouter{s: s}.Do(s.ctx, out) })
	s.rest()
	s.say("call: %s", r)
	for end := time.Now().Add(simLiveness + s.ackTimeout); !r.done && time.Now().Before(end) && s.failure.Load() == nil; {
		s.run(10 * time.Millisecond)
	}
	return r, version
}

// accept accepts losses that a worker tells of.
func (s *sim) accept() {
	s.acceptInbox()
	var told []int
	for p := range s.parts {
		if slices.ContainsFunc(s.alive(), func(l *life) bool { return l.w.Status().Owned[p].Alarm != "" }) {
			told = append(told, p)
		}
	}
	for _, p := range told {
		admin := &simSession{s: s, life: &life{s: s}, direct: s.direct, done: make(chan struct{})}
		var loss Loss
		took, err := AcceptJournal(s.ctx, admin, s.ns, p, func(l Loss) bool { loss = l; return true })
		if err != nil {
			s.failed("I9", "accept the loss of partition %d: %v", p, err)
		}
		if !took {
			continue
		}
		s.say("the loss of partition %d is accepted: %s knew of %d, it ended at %d", p, loss.Why, loss.Known, loss.Have)
		s.mu.Lock()
		s.count("losses accepted")
		part := &s.parts[p]
		part.due, part.knowing, part.spent = false, nil, max(part.spent, loss.Known)
		if !s.lossy || s.counts["power cuts"] == 0 {
			s.failed("I2", "an alarm, and nothing was lost: %s", loss.Why)
		}
		s.mu.Unlock()
		s.rest()
	}
}

// loseEnd takes the last n messages of a stream away, but nothing that was durable. Called with mu held.
func (s *sim) loseEnd(p int, n journal.Seq) {
	part := &s.parts[p]
	end := max(part.end-min(n, part.end), part.purged) // that a purge outlives what it rests on is open (docs/design.md)
	if s.durable {
		end = max(end, s.synced[p])
	}
	s.mem.Truncate(s.ns.Stream(p), int(part.end-end))
	part.end = end
	if w, _, err := journal.ReadWitness(s.ctx, s.direct.Meta(), p); err == nil {
		part.due = max(w.Acked, w.EpochSeq) > end
	}
	for _, l := range s.lives {
		known := l.w.known(p, 0).Seq
		if ep := l.w.epochs[p].Load(); ep != nil {
			known = max(known, ep.committer.high())
		}
		if !l.dead && known > end {
			part.knowing = append(part.knowing, l)
		}
	}
	part.last, part.released = journal.EpochRecord{}, false
	if m, err := s.direct.Log(p).Last(s.ctx, s.ns.Epoch(p)); err == nil {
		part.last, _ = journal.DecodeEpoch(m.Data)
		part.released = part.last.Release
	}
	for id, h := range s.histories {
		if s.partitionOf(string(id[len("thing."):])) != p {
			continue
		}
		v := h.version()
		for v > 0 && h.commits[v-1].seq > end {
			v--
		}
		if s.durable && v < h.acked {
			s.failed("I2", "%s was told of at version %d; the journal has %d", id, h.acked, v)
		}
		s.unanswered(p, h.commits[v:])
		h.commits, h.models, h.hashes, h.hash = h.commits[:v], h.models[:v+1], h.hashes[:v+1], h.hashes[v]
		h.acked, h.snap = min(h.acked, v), nil
	}
	s.unanswered(p, nil)
	s.line("  stream %d ends at %d; an alarm is due: %v", p, end, part.lost())
}
