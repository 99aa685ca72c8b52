package engine

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// simStep is one thing that the driver does: a kind, and a number that says to what and how. A step that has nothing to do
// does nothing, so a story from which steps are taken is a story.
type simStep struct {
	kind stepKind
	a    uint32
}

type stepKind uint8

const (
	stepCall      stepKind = iota // a caller calls
	stepBurst                     // several call, and their appends are under way
	stepGo                        // one thing that is under way happens
	stepSettle                    // all that is under way happens
	stepRun                       // time passes, and all that is under way happens
	stepHalf                      // one thing happens, and whoever asked hears of it later
	stepLose                      // one thing that is under way is lost, or its answer is
	stepBehind                    // a question is answered by a replica that is behind
	stepCopy                      // an earlier request arrives again
	stepPass                      // time passes, and nothing arrives
	stepInspect                   // somebody looks at an object from outside
	stepCut                       // a connection ends
	stepKill                      // a process dies
	stepStart                     // a worker starts
	stepStop                      // a worker is asked to stop
	stepStall                     // nothing reaches a worker any more, and nothing of it arrives
	stepThaw                      // it does again
	stepWall                      // a clock is set
	stepGhost                     // something happens whose sender has given up
	stepForget                    // all such things are lost
	stepDisk                      // a store fails
	stepFull                      // the disk is full, or no longer
	stepPower                     // the journal loses its end
	stepAccept                    // somebody accepts what was lost
	stepSend                      // a publisher sends a message
	stepSendAgain                 // and an earlier one once more
	stepPlace                     // somebody moves a partition, or drains a worker, or takes that back
	stepRead                      // a caller reads what may be a moment old
	stepKinds
)

const lastUsualStep = int(stepRun)

var stepWeights = [stepKinds]int{stepCall: 55, stepBurst: 4, stepGo: 90, stepSettle: 24, stepRun: 10, stepHalf: 14, stepLose: 12, stepBehind: 6,
	stepCopy: 12, stepPass: 8, stepInspect: 5, stepCut: 4, stepKill: 4, stepStart: 8, stepStop: 2, stepStall: 4, stepThaw: 5, stepWall: 4, stepGhost: 10,
	stepForget: 1, stepDisk: 1, stepFull: 2, stepPower: 1, stepAccept: 3, stepSend: 20, stepSendAgain: 5, stepPlace: 3, stepRead: 90}

// scriptOf draws the steps of a story.
func scriptOf(r *rand.Rand, p *profile) []simStep {
	sum := 0
	for _, w := range p.weights {
		sum += w
	}
	steps := make([]simStep, 40+r.IntN(160))
	for i := range steps {
		n := r.IntN(sum)
		for k, w := range p.weights {
			if n -= w; n < 0 {
				steps[i].kind = stepKind(k)
				break
			}
		}
		steps[i].a = r.Uint32()
	}
	return steps
}

// event is something that is under way.
type event struct {
	op       *simOp
	writer   *simWriter
	append   *simAppend // an answer to it; nil: the writer's next append arrives
	delivery *delivery
	sync     *life
	follow   *simFollow // the next message for whoever follows
	word     *simWord
}

func (e event) String() string {
	switch {
	case e.op != nil:
		return e.op.String()
	case e.append != nil:
		return fmt.Sprintf("%s: answer for %d: %s", e.writer, e.append.answer.Seq, e.append.answer.Outcome)
	case e.writer != nil:
		a := e.writer.sent[0]
		return fmt.Sprintf("%s: append of %s behind %d", e.writer, a.messages[0].Subject, a.last)
	case e.sync != nil:
		return fmt.Sprintf("%s: sync round", e.sync)
	case e.follow != nil:
		return e.follow.String()
	case e.word != nil:
		return fmt.Sprintf("%s: word %s", e.word.c, e.word.word)
	}
	return fmt.Sprintf("%s, try %d", e.delivery.request, e.delivery.try)
}

func compareDeliveries(a, b *delivery) int {
	return cmp.Or(cmp.Compare(a.request.in.N, b.request.in.N), cmp.Compare(a.try, b.try))
}

// possible is what is under way and may happen next, until it is asked again.
func (s *sim) possible() []event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.events[:0]
	for _, o := range s.ops {
		slow := o.slow() && time.Since(o.asked) < simSlow
		if !slow && (!o.stuck() || o.session == nil) {
			events = append(events, event{op: o})
		}
	}
	for _, w := range s.writers {
		if w.c.cannot() || w.closed {
			continue
		}
		for _, a := range w.arrived {
			events = append(events, event{writer: w, append: a})
		}
		if len(w.sent) > 0 {
			events = append(events, event{writer: w})
		}
	}
	for _, f := range s.follows {
		if _, ok := f.coming(); ok {
			events = append(events, event{follow: f})
		}
	}
	for i := range s.words {
		events = append(events, event{word: &s.words[i]})
	}
	for _, d := range s.sending {
		events = append(events, event{delivery: d})
	}
	for _, l := range s.lives {
		if !l.dead && len(l.opens) > 0 {
			events = append(events, event{sync: l})
		}
	}
	s.events = events
	return events
}

// appends is what is possible; of that, if so asked and if there are any, only appends and their answers.
func (s *sim) appends(only bool) []event {
	all := s.possible()
	if some := slices.DeleteFunc(slices.Clone(all), func(e event) bool { return e.writer == nil }); only && len(some) > 0 {
		return some
	}
	return all
}

// happen lets something happen; half of it, if it has two halves.
func (s *sim) happen(e event, half bool) {
	s.say("  %s%s", e, map[bool]string{true: " (done; the answer is on its way)"}[half])
	switch {
	case e.op != nil && half:
		s.half(e.op)
	case e.op != nil:
		s.answer(e.op, 0)
	case e.append != nil:
		e.writer.tell(e.append)
	case e.writer != nil:
		if a := e.writer.arrive(); !half {
			e.writer.tell(a)
		}
	case e.sync != nil:
		s.sync(e.sync)
	case e.follow != nil:
		e.follow.arrive()
	case e.word != nil:
		s.spread(*e.word)
	default:
		l := s.owner(e.delivery)
		if l != nil && e.delivery.r.Eventual {
			s.say("  goes to %s", l)
		}
		s.deliver(e.delivery, l)
	}
	s.rest()
}

// owner is where a request goes: to a worker that holds its partition, or may answer it from a copy, the one or the other if several
// think so, else to any, as many times as it was tried.
func (s *sim) owner(d *delivery) *life {
	lives := s.alive()
	var owners []*life
	for _, l := range lives {
		if _, reads := l.reads[d.request.partition]; reads && d.r.Eventual && !d.passedOn {
			owners = append(owners, l)
		} else if ep := l.w.epochs[d.request.partition].Load(); ep != nil && !ep.over.Load() {
			owners = append(owners, l)
		}
	}
	if len(owners) > 0 {
		lives = owners
	}
	if len(lives) == 0 {
		return nil
	}
	return lives[(d.try+d.request.turn)%len(lives)]
}

func pick[T any](list []T, a uint32) (e T, ok bool) {
	if len(list) == 0 {
		return e, false
	}
	return list[int(a%uint32(len(list)))], true
}

var (
	passTimes = []time.Duration{time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 12 * time.Second}
	runTimes  = []time.Duration{50 * time.Millisecond, 500 * time.Millisecond, 1500 * time.Millisecond, 3 * time.Second, 45 * time.Second}
	wallTimes = []time.Duration{-10 * time.Second, -2 * time.Second, 2 * time.Second, 10 * time.Second, 35 * time.Second}
)

// do does a step.
func (s *sim) do(st simStep) {
	switch st.kind {
	case stepCall:
		r := s.call(st.a)
		s.say("call: %s", r)
		s.rest()
	case stepRead:
		if st.a>>29%2 == 0 { // behind a change that no copy has
			s.say("call: %s, at once", s.call(st.a))
			s.settleBut(func(e event) bool { return e.follow != nil })
		}
		r := s.readOld(st.a)
		s.say("call: %s of version %d at least", r, r.least)
		s.rest()
		if i := slices.IndexFunc(s.sending, func(d *delivery) bool { return d.request == r }); i >= 0 && st.a>>28%2 == 0 {
			s.happen(event{delivery: s.sending[i]}, false) // before the copies have what is on its way to them
		}
	case stepBurst:
		for i := range 3 + st.a%6 {
			s.pass(simMoment) // or the turns' contexts would end at one instant
			r := s.call(st.a>>3 + i*3571)
			s.say("call: %s, at once", r)
			s.rest()
			if i := slices.IndexFunc(s.sending, func(d *delivery) bool { return d.request == r }); i >= 0 {
				s.happen(event{delivery: s.sending[i]}, false)
			}
		}
	case stepGo, stepHalf:
		if e, ok := pick(s.appends(st.kind == stepHalf && st.a>>16%2 == 0), st.a); ok {
			s.happen(e, st.kind == stepHalf && e.append == nil && e.delivery == nil && e.sync == nil && e.follow == nil && e.word == nil)
		}
	case stepSettle:
		s.say("all that is under way arrives")
		s.settle()
	case stepRun:
		d, _ := pick(runTimes, st.a)
		s.say("%v pass", d)
		s.run(d)
	case stepPass:
		d, _ := pick(passTimes, st.a)
		s.say("%v pass, and nothing arrives", d)
		s.pass(d)
	case stepLose, stepBehind:
		s.spoil(st)
	case stepCopy:
		if r, ok := pick(s.earlier(st.a), st.a); ok && r.tries > 0 && r.how != "no id" && r.header == nil {
			if l, ok := pick(s.alive(), st.a>>8); ok {
				s.say("%s arrives again, at %s", r, l)
				s.again(r, l)
				s.rest()
			}
		}
	case stepInspect:
		if l, ok := pick(s.alive(), st.a); ok {
			name := string(rune('a' + st.a>>8%uint32(s.objects)))
			s.say("%s is asked for the state of %s", l, name)
			go s.inspect(l, name)
			s.rest()
		}
	default:
		s.doToWorkers(st)
	}
}

// earlier are requests that may arrive again: where some are refused now and then, rather the last of those.
func (s *sim) earlier(a uint32) []*simRequest {
	if s.daring && a>>30%2 == 0 {
		for i, r := range slices.Backward(s.requests) {
			if r.method == "dare" && r.done && r.err != nil && r.copies < 3 {
				return s.requests[i : i+1]
			}
		}
	}
	return s.requests
}

// spoil loses something that is under way, or lets a replica answer that is behind.
func (s *sim) spoil(st simStep) {
	how := int(st.a >> 16)
	events := s.appends(how%2 == 0 && st.kind == stepLose)
	if st.kind == stepBehind {
		events = slices.DeleteFunc(events, func(e event) bool { return e.op == nil || e.op.kind != opRead || e.op.applied })
	}
	e, ok := pick(events, st.a)
	switch {
	case !ok:
	case st.kind == stepBehind:
		s.say("  %s (by a replica that is behind)", e)
		s.answer(e.op, 1+how%8+how/8%2*journal.Window) // so that it lacks an epoch too
	case e.op != nil && e.op.kind == opStore:
	case e.op != nil:
		name := e.String()
		s.say("  %s %s", name, s.lose(e.op, how))
	case e.append != nil:
		s.say("  %s is lost", e)
		s.mu.Lock()
		s.count("answers lost")
		e.writer.arrived = without(e.writer.arrived, e.append)
		s.mu.Unlock()
	case e.writer != nil:
		s.say("  %s is lost", e)
		s.mu.Lock()
		s.count("appends lost")
		e.writer.sent = e.writer.sent[1:]
		s.mu.Unlock()
	case e.follow != nil:
		s.say("  %s ends", e)
		e.follow.lose()
	case e.word != nil:
		s.say("  %s is lost", e)
		s.mu.Lock()
		s.words = without(s.words, *e.word)
		s.mu.Unlock()
	case e.delivery != nil:
		s.say("  %s is lost", e)
		s.mu.Lock()
		s.giveUp(e.delivery)
		s.sending = without(s.sending, e.delivery)
		s.mu.Unlock()
	}
	if d, ok := pick(s.delivered, st.a>>8); ok && st.kind == stepLose && how%4 == 0 && !d.lost {
		s.say("  the answer to %s will be lost", d.request)
		s.mu.Lock()
		s.giveUp(d)
		s.mu.Unlock()
	}
	s.rest()
}

// doToWorkers does a step to a worker or to what is behind it.
func (s *sim) doToWorkers(st simStep) {
	l, some := pick(s.alive(), st.a)
	switch st.kind {
	case stepStart:
		s.startOne(st.a)
	case stepCut:
		if some && len(l.sessions) > 0 {
			s.cutOne(l.sessions[len(l.sessions)-1], st.a>>8)
		}
	case stepKill:
		if some {
			s.killOne(l)
		}
	case stepStop:
		if some && !l.stopping {
			s.say("%s is to stop", l)
			l.stopping = true
			if l.w.kill(errDrain); st.a>>8%3 == 0 {
				s.say("and no append arrives for so long as it drains")
				s.runBut(drainFor+time.Second, func(e event) bool { return e.writer != nil })
			}
		}
	case stepStall, stepThaw:
		if some {
			s.say("%s: its network stands still: %v", l, st.kind == stepStall)
			l.stalled = st.kind == stepStall
		}
	case stepWall:
		if some {
			d, _ := pick(wallTimes, st.a>>8)
			if st.a>>16%4 == 0 && !s.lossy { // an inbox that loses its end needs its clock
				s.say("the clock of the journal is set by %v", d)
				s.mem.Shift(d)
				break
			}
			s.say("the clock of %s is set by %v", l.id, d)
			l.clock.wall.Add(int64(d))
		}
	case stepDisk:
		if some {
			s.say("the store of %s fails", l)
			l.store.failing = true
		}
	case stepFull:
		s.full.Store(!s.full.Load())
		s.say("the disk is full: %v", s.full.Load())
	case stepGhost, stepForget:
		s.ghost(st)
	case stepPower:
		if s.lossy {
			s.power(st.a)
		}
	case stepAccept:
		s.accept()
	case stepPlace:
		s.place(st.a)
	case stepSend:
		s.say("sent: %s", s.publish(st.a))
	case stepSendAgain:
		if r, ok := pick(s.mails, st.a); ok && r.how != "sent" {
			s.mu.Lock()
			l := s.send(r)
			s.mu.Unlock()
			s.say("sent again: %s", l)
		}
	}
	s.rest()
}

// cutOne ends a connection. Where callers come through connections only, the worker may hear of it later.
func (s *sim) cutOne(c *simSession, a uint32) {
	if !s.probes || c.ended || c.closed || a%2 == 0 {
		s.say("%s is cut", c)
		c.Close()
		return
	}
	s.say("%s is ended by the server, and nobody tells the worker", c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count("connections that ended unnoticed")
	c.ended = true
	for _, d := range s.delivered {
		if d.via == c {
			s.giveUp(d)
		}
	}
}

// place changes what the share is asked to be.
func (s *sim) place(a uint32) {
	worker, _ := pick(simWorkers, a)
	p := int(a>>8) % s.partitions
	err := ChangePlacement(context.Background(), s.direct.Meta(), func(pl *Placement) {
		switch a >> 16 % 4 {
		case 0:
			s.say("%s is drained", worker)
			pl.Drained = append(without(pl.Drained, worker), worker)
		case 1:
			s.say("nobody is drained, and nothing was moved")
			*pl = Placement{}
		default:
			s.say("partition %d is moved to %s", p, worker)
			pl.Moved[p] = worker
		}
	})
	if err != nil {
		panic(err) // it is in memory
	}
}

// startOne starts a worker unless it runs: on its disk as it was, on an older one, or on an empty one.
func (s *sim) startOne(a uint32) {
	id, _ := pick(simWorkers, a)
	for _, l := range s.lives {
		if l.id == id && !l.dead {
			return
		}
	}
	disk, what := snapshot.NewMemory(), "with an empty store"
	if former := s.disks[id]; former != nil && len(*former) > 0 {
		n := len(*former)
		switch a >> 8 % 4 {
		case 0:
		case 1:
			disk, what = (*former)[int(a>>16)%n].Clone(), "with an old store"
		default:
			disk, what = (*former)[n-1].Clone(), "with its store"
		}
	}
	l := s.start(id, disk)
	s.say("%s starts %s", l, what)
}

// killOne is a crash. Callers whose requests it had hear that the connection ended.
func (s *sim) killOne(l *life) {
	s.say("%s is killed", l)
	s.die(l)
	s.mu.Lock()
	s.count("kills")
	for _, d := range s.delivered {
		if d.life == l {
			s.giveUp(d)
		}
	}
	s.delivered = slices.DeleteFunc(s.delivered, func(d *delivery) bool { return d.life == l })
	s.mu.Unlock()
	s.rest()
	if !l.ended() && !l.stopping { // one that drains notices late; what it does counts for nothing
		s.failed("I9", "%s was killed and does not end", l)
	}
}

// ghost lets something happen whose sender has given up or is gone; or forgets all of it. It tells whether something happened.
func (s *sim) ghost(st simStep) bool {
	s.mu.Lock()
	late := slices.DeleteFunc(slices.Clone(s.writers), func(w *simWriter) bool { return !w.closed && !w.c.closed && !w.c.ended })
	n := len(late) + len(s.ghosts)
	if st.kind == stepForget || n == 0 {
		for _, w := range late {
			w.sent = nil
		}
		s.ghosts = nil
		s.mu.Unlock()
		s.say("nothing is under way that nobody waits for")
		return false
	}
	i := int(st.a % uint32(n))
	if i >= len(late) {
		o := s.ghosts[i-len(late)]
		s.ghosts = without(s.ghosts, o)
		err := o.apply(0)
		s.count("changes that came late")
		s.mu.Unlock()
		s.say("  late: %s: %v", o, err)
		return true
	}
	s.mu.Unlock()
	for n := 1 + st.a>>16%2*journal.Window; n > 0 && len(late[i].sent) > 0; n-- { // the next, or all of its
		s.say("  late: %s", event{writer: late[i]})
		late[i].arrive()
	}
	return true
}

// power is a power cut of the journal: streams and keys lose their ends, and all connections end with it. What was
// durable, where that is told apart, is kept.
func (s *sim) power(a uint32) {
	if s.counts["power cuts"] > 0 {
		return
	}
	s.say("the power is cut")
	if s.durable || a%2 == 0 { // the workers are on the same machine, or not
		for _, l := range s.alive() {
			s.killOne(l)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count("power cuts")
	if !s.durable {
		s.mem.Revert(int(a>>4) % 6)
	}
	for p := range s.parts {
		most := []uint32{40, 3 * journal.Window}[a>>28%2] // whole epochs too
		s.loseEnd(p, journal.Seq(a>>8%most)>>(p%2))
	}
	s.loseInbox(int(a>>12) % 12)
	s.ghosts = nil
	for _, o := range s.ops {
		o.cut = true
	}
	for _, w := range s.writers {
		w.sent = nil
	}
	for _, l := range s.lives {
		for _, c := range l.sessions {
			c.cut()
		}
	}
}
