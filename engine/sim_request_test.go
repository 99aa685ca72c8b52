package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// simRequest is a request of a caller: one thing to be done once, however often it is sent.
type simRequest struct {
	in        ask
	object    snapshot.ID
	partition int
	method    string
	how       string  // numbered by a client, with an own id, or neither
	sent      Request // as it went out first, for late copies
	turn      int     // of those that may answer it
	least     journal.Version
	header    journal.Header // of a message
	tries     int
	copies    int
	under     map[journal.EpochID]*tries
	done      bool
	reply     Reply
	err       error
}

// tries are the sendings of a request under one epoch, and how many of them were told that nothing was done.
type tries struct{ all, denied int }

func (r *simRequest) tried(id journal.EpochID) *tries {
	if r.under[id] == nil {
		r.under[id] = &tries{}
	}
	return r.under[id]
}

func (r *simRequest) reads() bool {
	return r.method == "look" || r.method == "peek" || r.method == "state"
}

func (r *simRequest) String() string {
	return fmt.Sprintf("request %d (%s of %s, %s)", r.in.N, r.method, r.object, r.how)
}

// delivery is one sending of a request: by its client, or a copy that comes late.
type delivery struct {
	request *simRequest
	r       Request
	try     int
	copy    bool
	life    *life       // that has it
	via     *simSession // through which it came; nil: within the process
	epoch   journal.EpochID
	acked   journal.Version
	told    bool
	lost    bool // whoever waits has been told that the connection is gone
	answer  chan simAnswer

	passedOn bool            // a copy could not answer it
	of       *simCopy        // that has it
	seen     journal.Version // the latest that this copy had told when it got it
}

// simCopy is one object's copy, as one follower has it.
type simCopy struct {
	told journal.Version
}

// simCopyOf says which copy: the follower is the n-th of its worker's that answers reads.
type simCopyOf struct {
	life   *life
	n      int
	object snapshot.ID
}

type simAnswer struct {
	reply Reply
	err   error
}

var simMethods = []string{"put", "put", "put", "look", "look", "note", "both", "long", "drop", "peek", "fail", "spoil", "pass", "pass"}

// call begins a request of a caller. Each caller is a goroutine, as it would be.
func (s *sim) call(a uint32) *simRequest {
	object := int(a) % s.objects
	a /= 64
	r := &simRequest{method: simMethods[int(a)%len(simMethods)], under: map[journal.EpochID]*tries{}}
	a /= uint32(len(simMethods))
	name := func(i int) string { return string(rune('a' + i%s.objects)) }
	s.mu.Lock()
	r.in = ask{N: int64(len(s.requests) + 1), Key: fmt.Sprint("k", a%4)}
	if s.daring && r.method == "put" {
		r.method = "dare"
	}
	switch above := s.objects - 1 - object; { // two that call each other would wait until one gives up
	case r.method == "pass" && above > 0:
		r.in.To = name(object + 1 + int(a/4)%above)
	case r.method == "pass":
		r.method = "put"
	}
	r.object, r.partition = snapshot.ID("thing."+name(object)), s.partitionOf(name(object))
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	body, err := json.Marshal(r.in)
	if err != nil {
		panic(err) // its fields always encode
	}
	out := Request{Class: "thing", Name: name(object), Method: r.method, Body: body}
	client := s.clients[int(a/16)%len(s.clients)]
	switch a / 32 % 4 {
	case 0:
		r.how, out.ID = "own id", fmt.Sprint("id-", r.in.N)
	case 1:
		r.how = "no id"
		out.Deadline = s.clients[0].now().Add(DefaultDeadline)
		go s.called(r, func() (Reply, error) { return simRouter{s: s}.Do(s.ctx, out) })
		return r
	default:
		r.how = "numbered"
	}
	go s.called(r, func() (Reply, error) { return client.Do(s.ctx, out) })
	return r
}

func (s *sim) called(r *simRequest, do func() (Reply, error)) {
	reply, err := do()
	s.mu.Lock()
	defer s.mu.Unlock()
	r.done, r.reply, r.err = true, reply, err
}

// readOld begins a read that may be answered as of a moment ago; of at least a version, now and then.
func (s *sim) readOld(a uint32) *simRequest {
	name := string(rune('a' + int(a)%s.objects))
	a /= 64
	s.mu.Lock()
	r := &simRequest{in: ask{N: int64(len(s.requests) + 1)}, method: "look", how: "eventual", object: snapshot.ID("thing." + name),
		partition: s.partitionOf(name), turn: int(a % 5), under: map[journal.EpochID]*tries{}}
	h := s.history(r.object)
	switch a / 5 % 6 {
	case 0, 1:
		r.least = h.acked
	case 2:
		r.least = h.version()
	case 3:
		r.least = h.version() + 1
	}
	s.requests = append(s.requests, r)
	s.mu.Unlock()
	body, _ := json.Marshal(r.in) // its fields always encode
	out := Request{Class: "thing", Name: name, Method: "look", Body: body, Eventual: true, MinVersion: r.least}
	client := s.clients[int(a/30)%len(s.clients)]
	go s.called(r, func() (Reply, error) { return client.Do(s.ctx, out) })
	return r
}

// simRouter carries requests to workers: each sending waits for the driver.
type simRouter struct {
	s *sim
	noPost
}

func (t simRouter) Do(ctx context.Context, r Request) (Reply, error) {
	s := t.s
	s.mu.Lock()
	rq := s.requests[askedOf(r.Body)-1]
	rq.tries++
	if rq.tries == 1 {
		rq.sent = r
	}
	d := &delivery{request: rq, r: r, try: rq.tries, answer: make(chan simAnswer, 1)}
	s.sending = append(s.sending, d)
	s.mu.Unlock()
	select {
	case a := <-d.answer:
		return a.reply, a.err
	case <-ctx.Done():
		return Reply{}, Errorf(UnknownOutcome, "the caller stopped waiting")
	}
}

// askedOf is the number of a request, which is what its body begins with.
func askedOf(body []byte) (n int) {
	for _, c := range body[len(`{"N":`):] {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// deliver hands a request to a worker; nil: there is none.
func (s *sim) deliver(d *delivery, l *life) {
	s.mu.Lock()
	s.sending = without(s.sending, d)
	if l == nil {
		s.giveBack(d, Errorf(Unavailable, "nobody listens"))
		s.mu.Unlock()
		return
	}
	d.life, d.acked = l, s.history(d.request.object).acked
	if ep := l.w.epochs[d.request.partition].Load(); ep != nil {
		d.epoch = ep.id
	}
	d.request.tried(d.epoch).all++
	in, listens := l.serve[d.request.partition]
	if reads, ok := l.reads[d.request.partition]; ok && d.r.Eventual && !d.passedOn {
		in, listens = reads, true
		d.of = s.copyAt(l, d.request)
		d.seen = d.of.told
	}
	network := s.probes || d.of != nil // else a caller in the process
	if network && (!listens || in.c.closed || in.c.ended) {
		s.giveBack(d, Errorf(Unavailable, "nobody listens"))
		s.mu.Unlock()
		return
	}
	d.via = in.c
	s.delivered = append(s.delivered, d)
	s.mu.Unlock()
	serve := in.serve
	if !listens {
		serve = func(r Request, reply func(Reply, error)) { l.w.submit(s.ctx, r, reply) } // a caller in the process
	}
	serve(d.r, func(reply Reply, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.dead || network && (d.via.closed || d.via.ended) {
			s.giveUp(d)
			s.delivered = without(s.delivered, d)
			return // it goes nowhere
		}
		if d.of != nil && errors.Is(err, ErrNoCopy) {
			s.passOn(d)
			return
		}
		if d.told {
			s.failed("I3", "%s is answered twice", d.request)
		}
		d.told = true
		s.replied(d, reply, err)
		s.delivered = without(s.delivered, d)
		if !d.lost && d.answer != nil {
			d.answer <- simAnswer{reply, err}
		}
	})
}

// copyAt is the copy of a request's object that a worker has now. Called with mu held.
func (s *sim) copyAt(l *life, r *simRequest) *simCopy {
	at := simCopyOf{l, l.copies[r.partition], r.object}
	if s.copies[at] == nil {
		s.copies[at] = &simCopy{}
	}
	return s.copies[at]
}

// passOn sends a read that a copy cannot answer to the owner. Called with mu held.
func (s *sim) passOn(d *delivery) {
	s.count("reads passed on to the owner")
	s.delivered = without(s.delivered, d)
	s.sending = append(s.sending, &delivery{request: d.request, r: d.r, try: d.try, passedOn: true, lost: d.lost, answer: d.answer})
}

// giveBack answers for whoever is not there. Called with mu held.
func (s *sim) giveBack(d *delivery, err error) {
	if d.answer != nil {
		d.answer <- simAnswer{err: err}
	}
}

// giveUp tells whoever waits for a delivery that the connection is gone. Called with mu held.
func (s *sim) giveUp(d *delivery) {
	if !d.lost && d.answer != nil {
		d.answer <- simAnswer{err: Errorf(UnknownOutcome, "the connection ended")}
	}
	d.lost = true
}

// again delivers a copy of an earlier request.
func (s *sim) again(r *simRequest, l *life) {
	s.mu.Lock()
	r.copies++
	d := &delivery{request: r, r: r.sent, try: r.tries, copy: true}
	s.mu.Unlock()
	s.deliver(d, l)
}

// inspect looks at an object from outside, as `perdure state` does: like a read, it shows nothing that is lost or stale.
func (s *sim) inspect(l *life, name string) {
	s.mu.Lock()
	r := &simRequest{method: "state", how: "from outside", object: snapshot.ID("thing." + name), partition: s.partitionOf(name)}
	d := &delivery{request: r, acked: s.history(r.object).acked}
	s.mu.Unlock()
	st, err := l.w.State(s.ctx, "thing", name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || l.dead || l.unheard() {
		return // unavailable, or of a store that fails, or told to nobody
	}
	s.count("looks from outside")
	h := s.history(r.object)
	have := &model{items: map[string]int64{}}
	for key, value := range st.Storage {
		var n int64
		_ = json.Unmarshal(value, &n) // what does not decode differs
		if item, ok := strings.CutPrefix(key, "items/"); ok {
			have.items[item] = n
		} else {
			have.total = n
		}
	}
	var t thing
	_ = json.Unmarshal(st.State, &t)
	have.count, have.last = t.Count, t.Last
	switch v := st.Version; {
	case v > h.version() || v < d.acked:
		s.failed("I5", "the state of %s is shown at version %d; %d was told before, and the journal has %d", r.object, v, d.acked, h.version())
	case !have.equal(h.models[v]):
		s.failed("I5", "the state of %s is shown as %s; version %d is %s", r.object, have, v, h.models[v])
	}
}
