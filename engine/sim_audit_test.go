package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// The audit reads every message when it is stored, as a stranger would, and holds against that history each reply when
// it is told, each write of a snapshot store when it is made, and each worker that would answer. The properties are
// those of docs/design.md.

// failure is a property that does not hold.
type failure struct {
	property string
	text     string
}

func (f *failure) String() string { return f.property + ": " + f.text }

// failed notes the first property that does not hold. It may be called with and without mu held.
func (s *sim) failed(property, format string, args ...any) {
	s.failure.CompareAndSwap(nil, &failure{property, fmt.Sprintf(format, args...)})
}

// history is what the journal has of one object.
type history struct {
	id      snapshot.ID
	commits []simCommit    // commits[v-1] makes version v
	models  []*model       // models[v] is the object at version v
	hash    journal.Hash   // of the last record
	hashes  []journal.Hash // of the record that ends with version v, zero if none does
	acked   journal.Version
	snap    []*journal.Snap    // the parts of the snapshot record that is being stored
	letters []*simLetter       // its messages that are, or were, in the inbox
	senders map[string]*sender // what was read of windows
	answers map[string]*answer
}

type simCommit struct {
	n       int64
	id      string
	session *journal.SessionNumber
	at      time.Time
	seq     journal.Seq
	reply   string
	long    bool
	epoch   journal.EpochID
	sent    *journal.Sent
	letter  *simLetter // the message that it answers
}

func (h *history) version() journal.Version { return journal.Version(len(h.commits)) }

// partition is what the audit knows of a stream.
type simPartition struct {
	last     journal.EpochRecord
	end      journal.Seq
	released bool
	check    journal.InboxMark // of the last checkpoint
	purged   journal.Seq       // where the stream ended when an object's records were purged last
	spent    journal.Seq       // positions up to it were lost and accepted as lost: none is used again for a record
	due      bool              // the key of the partition tells of a loss: nothing is served
	knowing  []*life           // and so do these workers, as long as they live
}

// lost tells whether somebody knows that the stream lost something.
func (p *simPartition) lost() bool {
	return p.due || slices.ContainsFunc(p.knowing, func(l *life) bool { return !l.dead })
}

func (s *sim) history(id snapshot.ID) *history {
	h := s.histories[id]
	if h == nil {
		h = &history{id: id, models: []*model{{}}, hashes: []journal.Hash{{}},
			senders: map[string]*sender{}, answers: map[string]*answer{}}
		s.histories[id] = h
	}
	return h
}

// stored is told of messages that end at a position, and who sent them. Called with mu held.
func (s *sim) stored(p int, end journal.Seq, messages []journal.Message, by *life) {
	part := &s.parts[p]
	seq := end - journal.Seq(len(messages))
	fence := s.ns.Fence(p)
	for _, m := range messages {
		if seq++; m.Subject == fence {
			continue
		}
		class, token, isObject := s.ns.Object(m.Subject)
		switch {
		case m.Subject == s.ns.Epoch(p):
			s.epochStored(p, part, m, by)
		case m.Subject == s.ns.Checkpoint(p):
			if id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch]); err != nil || id != part.last.Epoch || part.released {
				s.failed("I8", "a checkpoint at %d is stored under epoch %d, released %v, of epoch %v (%v)", seq, part.last.Epoch.Number, part.released, id, err)
			}
			s.checkpointStored(p, seq, m.Data)
		case isObject:
			h := s.history(snapshot.ID(class + "." + token))
			switch id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch]); {
			case err != nil || id != part.last.Epoch:
				s.failed("I1", "%s at %d is stored under epoch %d by %s, of epoch %v (%v)", m.Subject, seq, part.last.Epoch.Number, by, id, err)
			case part.released:
				s.failed("I8", "%s at %d is stored after epoch %d was released", m.Subject, seq, id.Number)
			case m.Subject == s.ns.Journal(class, token):
				s.recordStored(h, part, seq, m.Data)
			default:
				s.snapStored(h, seq, m.Data)
			}
		default:
			s.failed("I1", "a message on %s at %d", m.Subject, seq)
		}
	}
	part.end = end
}

// epochStored holds an epoch against the one before it: no two workers may answer at a time.
func (s *sim) epochStored(p int, part *simPartition, m journal.Message, by *life) {
	r, err := journal.DecodeEpoch(m.Data)
	if err != nil {
		s.failed("I8", "epoch record: %v", err)
		return
	}
	switch {
	case r.Release && r.Epoch != part.last.Epoch:
		s.failed("I8", "epoch %d is released and the last is %d", r.Epoch.Number, part.last.Epoch.Number)
	case !r.Release && r.Epoch.Number <= part.last.Epoch.Number:
		s.failed("I8", "epoch %d after epoch %d", r.Epoch.Number, part.last.Epoch.Number)
	}
	if !r.Release {
		part.knowing = slices.DeleteFunc(part.knowing, func(l *life) bool { return l != by }) // its fillers lift the stream: nobody sees the loss now
		s.count("epochs")
		if !part.released && part.last.Worker != "" && part.last.Worker != r.Worker {
			s.count("epochs taken from another worker")
		}
	}
	if r.Release && r.Heir != "" {
		s.count("partitions handed over")
	}
	part.last, part.released = r, r.Release
	s.oneOwner(p, part)
}

// oneOwner: whoever would answer for a partition has its last epoch.
func (s *sim) oneOwner(p int, part *simPartition) {
	for _, l := range s.lives {
		ep := l.w.epochs[p].Load()
		if l.dead || ep == nil || ep.ses.js.(*simSession).ended || ep.mayAnswer() != nil {
			continue
		}
		if part.released || ep.id != part.last.Epoch {
			s.failed("I8", "%s would answer for partition %d under epoch %d; the last is %d of %s, released %v", l, p, ep.id.Number,
				part.last.Epoch.Number, part.last.Worker, part.released)
		}
	}
}

func (s *sim) recordStored(h *history, part *simPartition, seq journal.Seq, data []byte) {
	rec, err := journal.DecodeRecord(data)
	switch {
	case err != nil:
		s.failed("I1", "%s at %d: %v", h.id, seq, err)
		return
	case seq <= part.spent:
		s.failed("I3", "%s at %d: the position was accepted as lost and is used again", h.id, seq)
	case rec.First != h.version()+1 || rec.Prev != h.hash:
		s.failed("I1", "%s at %d begins with version %d after %s; the journal is at %d, %s", h.id, seq, rec.First, rec.Prev, h.version(), h.hash)
		return
	}
	if len(rec.Commits) > 1 {
		s.count("records of several commits")
	}
	for i := range rec.Commits {
		s.commitStored(h, seq, part.last.Epoch, &rec.Commits[i])
	}
	h.hash = journal.HashOf(data)
	h.hashes[h.version()] = h.hash
}

func (s *sim) commitStored(h *history, seq journal.Seq, epoch journal.EpochID, c *journal.Commit) {
	v := h.version() + 1
	var letter *simLetter
	if c.Inbox != nil {
		if letter = s.letterAnswered(h, v, c); letter == nil {
			return
		}
		if s.outcome(h, v, c, letter); c.Inbox.Outcome != "" {
			s.note(h, v, seq, epoch, c, letter, letter.request.in.N, h.models[v-1])
			return
		}
	}
	var out told
	if err := json.Unmarshal(c.Reply.Body, &out); err != nil {
		s.failed("I6", "%s version %d: %v", h.id, v, err)
		return
	}
	before := h.models[v-1]
	in, method := s.asked(h, c, out)
	now, err := before.apply(c.Changes)
	if err == nil {
		if want := before.next(method, in, now.items["to-"+in.To]); !now.equal(want) {
			err = fmt.Errorf("%s of request %d makes %s of %s; want %s", method, in.N, now, before, want)
		} else if tell := want.tell(method, in, v); tell != string(c.Reply.Body) {
			err = fmt.Errorf("%s of request %d answers %s; want %s", method, in.N, c.Reply.Body, tell)
		}
	}
	if err != nil {
		s.failed("I6", "%s version %d: %v", h.id, v, err)
		return
	}
	if letter == nil && method == s.requests[in.N-1].method {
		s.mayRun(h, v, c, s.requests[in.N-1])
	}
	if before.refuses(method) {
		s.failed("I6", "%s version %d is made by %s of request %d, which %s refuses", h.id, v, method, in.N, before)
	}
	if letter != nil && letter.request.in.N != in.N {
		s.failed("I3", "%s version %d answers %s, by request %d", h.id, v, letter, in.N)
	}
	if method == "pass" {
		s.passed(h, v, in, now.items["to-"+in.To])
	}
	s.note(h, v, seq, epoch, c, letter, in.N, now)
}

// mayRun: a refusal is not in the journal, so what its caller was told to be refused is run if an earlier sending of it arrives after that; before
// its deadline, and, if it is numbered, before a later request of its client has told the object that it is settled: once sees to that.
func (s *sim) mayRun(h *history, v journal.Version, c *journal.Commit, r *simRequest) {
	if d := r.sent.Deadline; !d.IsZero() && d.Before(c.At) {
		s.failed("I3", "%s version %d: %s began at %v, after its deadline %v", h.id, v, r, c.At, d)
	}
	if !r.done || r.err == nil || asError(r.err).Code != Refused {
		return
	}
	s.count("requests refused, and run when an earlier sending arrived")
	if r.copies == 0 && r.tries < 2 { // its client's own tries are sendings, too: an early one may come after the one that was refused
		s.failed("I4", "%s version %d is made by %s, which ended with %v and was sent once", h.id, v, r, r.err)
	}
}

// note adds a commit to a history.
func (s *sim) note(h *history, v journal.Version, seq journal.Seq, epoch journal.EpochID, c *journal.Commit, letter *simLetter, n int64, now *model) {
	if v > 1 && c.At.Before(h.commits[v-2].at) {
		s.failed("I1", "%s version %d has an earlier time than the one before it", h.id, v)
	}
	noted := simCommit{n: n, at: c.At, seq: seq, epoch: epoch, sent: c.Inbox, letter: letter}
	if c.Inbox.Counts() {
		noted.id, noted.session = c.ID, c.Session
		if letter != nil {
			noted.session = letter.session
		}
		noted.reply, noted.long = string(c.Reply.Body), len(c.Reply.Body) > keptReplyBytesMax
		s.once(h, v, &noted)
	}
	h.commits = append(h.commits, noted)
	s.isDenied(h, v, &h.commits[v-1])
	h.models, h.hashes = append(h.models, now), append(h.hashes, journal.Hash{})
}

// asked is what a commit answers, as it was sent.
func (s *sim) asked(h *history, c *journal.Commit, out told) (ask, string) {
	r := s.requests[out.N-1]
	if c.Caller.Claimed == "" {
		if r.object != h.id || r.method != c.Method {
			s.failed("I3", "%s has a commit of request %d, which is %s of %s", h.id, r.in.N, r.method, r.object)
		}
		return r.in, r.method
	}
	caller := s.history(snapshot.ID(strings.ReplaceAll(c.Caller.Claimed, "/", ".")))
	if r.tries > 1 || r.copies > 0 {
		return ask{N: out.N, Key: "from"}, "put" // it may be the call of an earlier turn of the same request
	}
	for _, l := range s.lives {
		var in ask
		if t := l.turn(caller.id); t != nil && !l.dead && json.Unmarshal(t.req.Body, &in) == nil && in.N == out.N && t.version > caller.version() {
			s.failed("I4", "%s calls %s at version %d, of which the journal has %d", caller.id, h.id, t.version, caller.version())
		}
	}
	return ask{N: out.N, Key: "from"}, "put"
}

// turn is the turn that runs in an object, nil if there is none.
func (l *life) turn(id snapshot.ID) *turn {
	ep := l.w.epochs[l.s.partitionOf(string(id[len("thing."):]))].Load()
	if ep == nil {
		return nil
	}
	ep.mu.Lock()
	o := ep.objects[id]
	ep.mu.Unlock()
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.turn
}

// once: a request that can be told again is in the journal once.
func (s *sim) once(h *history, v journal.Version, c *simCommit) {
	ids := 0 // own ids since
	for w := v - 1; w > 0; w-- {
		o := h.commits[w-1]
		recorded := h.commits[v-2].at
		switch {
		case c.session != nil && o.session != nil && o.session.Sender == c.session.Sender && o.session.N == c.session.N:
			s.failed("I3", "%s: request %d is applied at version %d and again at %d", h.id, c.n, w, v)
		case c.session != nil && o.session != nil && o.session.Sender == c.session.Sender && o.session.M > c.session.N:
			s.failed("I3", "%s: request %d has number %d, below the mark %d of version %d", h.id, c.n, c.session.N, o.session.M, w)
		case c.id != "" && o.id == c.id && ids < thingKeepIDsMax && !o.at.Add(thingKeepIDs).Before(recorded):
			s.failed("I3", "%s: request %d is applied at version %d and again at %d", h.id, c.n, w, v)
		}
		if o.id != "" {
			ids++
		}
	}
	at := c.at
	if c.sent != nil {
		at = c.sent.At
	}
	if c.session != nil && c.session.Deadline.Before(at) {
		s.failed("I3", "%s: request %d began at %v, after its deadline %v", h.id, c.n, at, c.session.Deadline)
	}
}

// passed: what a call from a turn answered is in the journal.
func (s *sim) passed(h *history, v journal.Version, in ask, got int64) {
	to := s.history(snapshot.ID("thing." + in.To))
	if got < 1 || got > int64(to.version()) || to.commits[got-1].n != in.N {
		s.failed("I4", "%s version %d was told that its call made version %d of %s, which is at %d", h.id, v, got, to.id, to.version())
	}
}

// replied is told of each reply of a worker, at the moment when it leaves. Called with mu held.
func (s *sim) replied(d *delivery, reply Reply, err error) {
	r := d.request
	h := s.history(r.object)
	part := &s.parts[r.partition]
	if err != nil {
		s.repliedError(d, h, asError(err))
		return
	}
	lost := part.lost()
	if d.of != nil { // it is no owner, to be told
		lost = part.due || slices.Contains(part.knowing, d.life)
	}
	if lost {
		s.failed("I2", "%s is answered although a witness knows that the journal went back", r)
	}
	v := reply.Version
	if v > h.version() {
		property := "I4"
		if r.reads() {
			property = "I5"
		}
		s.failed(property, "%s is answered at version %d, of which the journal has %d", r, v, h.version())
		return
	}
	switch {
	case d.of != nil:
		s.wasTrue(d, h, v, string(reply.Body))
	case r.reads():
		s.isFresh(d, h, v, string(reply.Body))
	default:
		c := h.commits[max(v, 1)-1]
		switch {
		case v == 0 || c.n != r.in.N:
			s.failed("I3", "%s is answered with version %d, which request %d made", r, v, c.n)
		case c.reply != string(reply.Body):
			s.failed("I6", "%s is answered %s; the journal has %s", r, reply.Body, c.reply)
		case !reply.Replayed && v <= d.acked && d.try == 1:
			s.failed("I1", "%s makes version %d, and version %d was told before it was sent", r, v, d.acked)
		}
		if reply.Replayed {
			s.count("repeats answered")
		}
	}
	h.acked = max(h.acked, v)
}

// isFresh: what a read tells is in the journal, and not older than what was told before the read was sent.
func (s *sim) isFresh(d *delivery, h *history, v journal.Version, body string) {
	r := d.request
	switch {
	case v > h.version():
		s.failed("I5", "%s tells version %d, of which the journal has %d", r, v, h.version())
	case v < d.acked:
		s.failed("I5", "%s tells version %d, and version %d was told before it was sent", r, v, d.acked)
	case v < r.least:
		s.failed("I5", "%s tells version %d; %d was asked for", r, v, r.least)
	default:
		if want := h.models[v].tell(r.method, r.in, v); want != body {
			s.failed("I5", "%s tells %s; version %d is %s", r, body, v, want)
		}
	}
}

// wasTrue: what a copy tells was so at the version that it names, which the journal has. It is not before the one that was asked for,
// nor what the same copy had told before the read was sent. So whoever reads behind the owner's back sees nothing that may be lost: from
// here on it counts as told.
func (s *sim) wasTrue(d *delivery, h *history, v journal.Version, body string) {
	r := d.request
	switch {
	case v < r.least:
		s.failed("I5", "a copy of %s tells %s version %d; %d was asked for", d.life, r, v, r.least)
	case s.durable && v > 0 && h.commits[v-1].seq > s.synced[r.partition]:
		s.failed("I2", "a copy of %s tells %s version %d, which a power cut can take", d.life, r, v)
	case v < d.seen:
		s.failed("I5", "a copy of %s tells %s version %d, and it had told version %d before", d.life, r, v, d.seen)
	default:
		if want := h.models[v].tell(r.method, r.in, v); want != body {
			s.failed("I5", "a copy of %s tells %s %s; version %d is %s", d.life, r, body, v, want)
		}
	}
	d.of.told = max(d.of.told, v)
	if s.count("reads answered by copies"); v < h.acked {
		s.count("reads answered by copies that were behind")
	}
}

// repliedError: an error that tells of the state is a read, and one that says that nothing was done is true.
func (s *sim) repliedError(d *delivery, h *history, e *Error) {
	r := d.request
	switch e.Code {
	case Refused:
		var out told
		if err := json.Unmarshal([]byte(e.Detail), &out); err != nil {
			s.failed("I5", "%s is answered %v", r, e)
			return
		}
		s.isFresh(d, h, out.Version, e.Detail)
		if out.Version <= h.version() && !h.models[out.Version].refuses(r.method) {
			s.failed("I5", "%s is answered %v", r, e)
		}
		h.acked = max(h.acked, out.Version)
	case UnknownOutcome, Unavailable, Overloaded, Limited, Timeout, Full, Denied:
	case Conflict: // a late copy, below the mark
		if !strings.Contains(e.Detail, "below its mark") && !(r.least > d.acked && strings.Contains(e.Detail, "was asked for")) && !strings.Contains(e.Detail, "in a circle") {
			s.failed("I5", "%s is answered %v", r, e)
		}
	case Internal:
		if stopped := strings.Contains(e.Detail, "stopped"); r.method != "spoil" && !(stopped && s.lossy) {
			s.failed("I6", "%s is answered %v", r, e)
		}
	default:
		s.failed("I5", "%s is answered %v", r, e)
	}
	if e.Code != UnknownOutcome {
		r.tried(d.epoch).denied++
		for v := range h.commits {
			if c := &h.commits[v]; c.n == r.in.N {
				s.isDenied(h, journal.Version(v+1), c)
			}
		}
	}
}

// isDenied: what was told not to have happened is not in the journal.
func (s *sim) isDenied(h *history, v journal.Version, c *simCommit) {
	if t := s.requests[c.n-1].under[c.epoch]; t != nil && t.denied > 0 && t.denied == t.all && s.requests[c.n-1].object == h.id {
		s.failed("I4", "%s version %d is what request %d was told not to have done", h.id, v, c.n)
	}
}

// written holds what a store has of an object against the journal. Called with mu held.
func (s *sim) written(st *simStore, id snapshot.ID, b snapshot.Batch) {
	raw, _ := st.Memory.Get(id, snapshot.Meta, "")
	var at base
	if err := json.Unmarshal(raw, &at); err != nil {
		s.failed("I7", "%s of %s: %v", id, st.l, err)
		return
	}
	switch {
	case b.Clear && at.Records == 0 && at.Snaps[0].First > 0:
		s.count("snapshot records used")
	case at.Epoch == (journal.EpochID{}) && at.Records > 0:
		s.count("spills of a replay")
	default:
		s.count("states written")
	}
	var entries []snapshot.Entry
	for _, space := range []snapshot.Space{snapshot.KV, snapshot.State, snapshot.Window} {
		for e := range st.Memory.Scan(id, space, "", "", false) {
			if space != snapshot.Window {
				e.Value = e.Value[1:] // the tag
			}
			entries = append(entries, e)
		}
	}
	if at.Version > s.history(id).version() && s.counts["power cuts"] > 0 {
		return // it was on its way when the journal lost its record
	}
	if err := s.history(id).holds(at.Version, at.Seq, at.Hash, entries); err != nil {
		s.failed("I7", "the store of %s has %s at version %d: %v", st.l, id, at.Version, err)
	}
}

// snapStored holds a snapshot record against the journal.
func (s *sim) snapStored(h *history, seq journal.Seq, data []byte) {
	snap, err := journal.DecodeSnap(data)
	if err == nil && snap.Part != len(h.snap)+1 {
		err = fmt.Errorf("part %d after %d", snap.Part, len(h.snap))
	}
	if err != nil {
		s.failed("I7", "the snapshot record of %s at %d: %v", h.id, seq, err)
		return
	}
	if h.snap = append(h.snap, snap); snap.Part < snap.Of {
		return
	}
	var entries []snapshot.Entry
	for _, part := range h.snap {
		for _, e := range part.Entries {
			entries = append(entries, snapshot.Entry{Space: snapshot.Space(e.Space[0]), Key: e.Key, Value: e.Data})
		}
	}
	if h.snap = nil; snap.Of > 1 {
		s.count("snapshot records of several parts")
	}
	s.count("snapshot records")
	if err := h.holds(snap.Version, snap.Seq, snap.Hash, entries); err != nil {
		s.failed("I7", "the snapshot record of %s at %d, version %d: %v", h.id, seq, snap.Version, err)
	}
}

// holds tells how entries differ from the object at a version.
func (h *history) holds(v journal.Version, seq journal.Seq, hash journal.Hash, entries []snapshot.Entry) error {
	if v < 1 || v > h.version() {
		return fmt.Errorf("the journal has version %d", h.version())
	}
	if c := h.commits[v-1]; c.seq != seq || hash != h.hashes[v] {
		return fmt.Errorf("it names record %d, %s; that of the version is %d, %s", seq, hash, c.seq, h.hashes[v])
	}
	have := &model{items: map[string]int64{}}
	window := map[string]string{}
	for _, e := range entries {
		var err error
		item, isItem := strings.CutPrefix(e.Key, "items/")
		switch {
		case e.Space == snapshot.State:
			var t thing
			err = json.Unmarshal(e.Value, &t)
			have.count, have.last = t.Count, t.Last
		case e.Space == snapshot.Window:
			window[e.Key] = string(e.Value)
		case isItem:
			var n int64
			err = json.Unmarshal(e.Value, &n)
			have.items[item] = n
		default:
			err = json.Unmarshal(e.Value, &have.total)
		}
		if err != nil {
			return fmt.Errorf("%c %q: %w", e.Space, e.Key, err)
		}
	}
	if !have.equal(h.models[v]) {
		return fmt.Errorf("it has %s; want %s", have, h.models[v])
	}
	return h.remembers(v, window)
}

// decoded is what a raw value says; the same is seen again and again.
func decoded[T any](seen map[string]*T, raw string) (*T, error) {
	if v := seen[raw]; v != nil {
		return v, nil
	}
	v := new(T)
	if err := json.Unmarshal([]byte(raw), v); err != nil {
		return nil, err
	}
	seen[raw] = v
	return v, nil
}

// remembers tells what a window lacks of what the object at a version must remember of its callers.
func (h *history) remembers(v journal.Version, window map[string]string) error {
	at := h.commits[v-1].at
	var inbox inboxMark
	var want string
	if sent := h.mark(v); sent != nil {
		inbox = inboxMark{sent.Life, sent.Seq, sent.At}
		raw, _ := json.Marshal(inbox) // its fields always encode
		want = string(raw)
	}
	if window[inboxKey] != want {
		return fmt.Errorf("the last message that it answered is %s; want %s", window[inboxKey], want)
	}
	forgets := func(c *simCommit) time.Time {
		if c.sent != nil {
			return inbox.At
		}
		return at
	}
	marks := map[string]uint64{}
	latest := map[string]bool{}
	ids := 0
	for w := v; w > 0; w-- {
		c := &h.commits[w-1]
		if c.session != nil {
			marks[c.session.Sender] = max(marks[c.session.Sender], c.session.M)
		}
	}
	for w := v; w > 0; w-- {
		c := &h.commits[w-1]
		var a *answer
		switch {
		case c.session != nil && c.session.N >= marks[c.session.Sender] && !c.session.Deadline.Before(forgets(c)):
			s, err := decoded(h.senders, window[senderKey(c.session.Sender)])
			if err != nil {
				return fmt.Errorf("it does not know the sender of request %d (version %d): %w", c.n, w, err)
			}
			if c.sent != nil && s.M != marks[c.session.Sender] {
				return fmt.Errorf("the publisher of request %d (version %d) has mark %d; want %d", c.n, w, s.M, marks[c.session.Sender])
			}
			if s.M > c.session.N { // told by a commit after this version: it is true whether or not that one is stored
				continue
			}
			if s.M < marks[c.session.Sender] || s.Deadline.Before(c.session.Deadline) {
				return fmt.Errorf("the sender of request %d has mark %d and deadline %v", c.n, s.M, s.Deadline)
			}
			if a = s.Answers[c.session.N]; a == nil {
				a = &answer{}
			}
		case c.id != "":
			if ids++; ids <= thingKeepIDsMax && !c.at.Add(thingKeepIDs).Before(at) && !latest[c.id] {
				var err error
				if a, err = decoded(h.answers, window[idKey(c.id)]); err != nil {
					return fmt.Errorf("it does not know the id %q of request %d (version %d): %w", c.id, c.n, w, err)
				}
			}
			latest[c.id] = true
		}
		if a == nil {
			continue
		}
		if a.Version != w || c.long && a.Seq != c.seq || !c.long && (a.Reply == nil || string(a.Reply.Body) != c.reply) {
			return fmt.Errorf("the answer to request %d (version %d) is %+v", c.n, w, *a)
		}
	}
	return nil
}
