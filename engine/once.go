package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// Limits of what an object keeps to answer repeats.
const (
	keptReplyBytesMax = 256   // a longer reply is read back from its record
	unansweredMax     = 1024  // requests of one client to one object whose answers it did not confirm
	keptMax           = 65536 // requests of all clients
)

// once is what an object remembers so that a request that is repeated applies once. It is part of the object's state:
// made by commits alone, so that replay makes it again, and kept in the space Window. It decides and waits for nothing.
//
// Requests of our clients are numbered per client, and forgotten by their marks: what is below the mark is answered or
// abandoned (client sessions: Ongaro's Raft thesis, 6.3). A caller's own ids are kept by age and number; of them only
// those of commits that the store does not have yet are in memory.
type once struct {
	keep    time.Duration
	keepMax uint64

	// Maps without an entry are nil: most objects have none most of the time.
	senders map[string]*sender
	kept    int                // answers of all senders
	recent  map[string]*answer // by own id, of the commits in the state's tail
	ids     uint64             // how many commits had an own id: the order of the next one
	changed map[string]bool    // senders that the store does not have as they are

	inbox  inboxMark // the last message of the inbox that a commit answered
	stored inboxMark // of the commits that the store has
}

// inboxMark is a message of the inbox. At is never before that of an earlier one.
type inboxMark struct {
	Life uint64      `json:"life,omitempty"`
	Seq  journal.Seq `json:"seq"`
	At   time.Time   `json:"at"`
}

// sender is one client process.
type sender struct {
	M        uint64             `json:"m"`        // all its requests below are answered or abandoned
	Deadline time.Time          `json:"deadline"` // the latest of its requests: then it is forgotten
	Answers  map[uint64]*answer `json:"answers"`
}

// above is how many of its answers a mark leaves.
func (s *sender) above(m uint64) (n int) {
	for k := range s.Answers {
		if k >= m {
			n++
		}
	}
	return n
}

// advance moves the mark, and returns how many answers are forgotten with it: all that are below, since none that is
// below its mark is added.
func (s *sender) advance(m uint64) (forgotten int) {
	before := len(s.Answers)
	if m-s.M <= uint64(before) {
		for k := s.M; k < m; k++ {
			delete(s.Answers, k)
		}
	} else {
		maps.DeleteFunc(s.Answers, func(k uint64, _ *answer) bool { return k < m })
	}
	s.M = m
	return before - len(s.Answers)
}

// put sets an entry of a map that may be nil.
func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// unless makes a map nil that has no entry.
func unless[K comparable, V any](m *map[K]V) {
	if len(*m) == 0 {
		*m = nil
	}
}

// answer is a request that was answered by a commit.
type answer struct {
	Hash    journal.Hash    `json:"hash"` // of method and body
	Version journal.Version `json:"version"`
	At      time.Time       `json:"at"`
	Order   uint64          `json:"order,omitempty"` // of own ids
	Seq     journal.Seq     `json:"seq,omitempty"`   // of the record that has the reply, if it is not here
	Reply   *journal.Reply  `json:"reply,omitempty"`

	commit *commit // in the tail: it has the reply, and later its record's position
}

func newOnce(l Limits) once { return once{keep: l.KeepIDs, keepMax: uint64(l.KeepIDsMax)} }

// Keys in the space Window: senders, own ids, and the order of own ids.
func senderKey(sender string) string { return "s/" + sender }
func idKey(id string) string         { return "i/" + journal.HashOf([]byte(id)).String() }
func orderKey(n uint64) string       { return fmt.Sprintf("o/%016x", n) }

const (
	idsKey   = "n" // how many commits had an own id
	inboxKey = "m" // the last message of the inbox that was answered
)

// inboxSender stands before the name of a client whose numbered messages came by the inbox. They are numbered apart from
// its calls, since another clock counts: when they were stored, and not when they are answered.
const inboxSender = "inbox "

// senderOf is the name under which an object knows the client of a numbered request.
func senderOf(n *SessionNumber, inbox bool) string {
	if inbox {
		return inboxSender + n.Sender
	}
	return n.Sender
}

// find looks for the answer of a request; store is nil if it has nothing of the object. recorded is the time of the object's last commit: what is forgotten is decided
// by it alone and not by the clock, which may go ahead and back while a copy of a request is under way. A nil answer and
// no error mean that the request is new.
func (o *once) find(store snapshot.Reader, id snapshot.ID, r *Request, hash journal.Hash, recorded, now time.Time) (*answer, error) {
	var found *answer
	var err error
	switch {
	case r.Session != nil:
		if l := r.letter; l != nil {
			if recorded, now = o.inbox.At, l.at; now.Before(recorded) {
				now = recorded
			}
		}
		found, err = o.findNumber(r.Session, r.letter != nil, recorded, now)
	case r.ID != "":
		found, err = o.findID(store, id, r.ID, recorded)
	}
	if err == nil && found != nil && found.Hash != hash {
		return nil, Errorf(IDReused, "request id %q was used for another request, which made version %d", r.requestID(), found.Version)
	}
	return found, err
}

func (o *once) findNumber(n *SessionNumber, inbox bool, recorded, now time.Time) (*answer, error) {
	s := o.senders[senderOf(n, inbox)]
	if s != nil && s.Deadline.Before(recorded) {
		s = nil // forgotten; it is removed when a record of that time is durable
	}
	switch {
	case s == nil && o.full(now):
		return nil, Errorf(Overloaded, "%d unconfirmed answers are kept for this object's callers", o.kept).RetryIn(time.Second)
	case s == nil:
		return nil, nil
	case n.N < s.M:
		return nil, Errorf(Conflict, "request %d of this client is below its mark %d: answered or abandoned", n.N, s.M)
	case s.Answers[n.N] != nil:
		return s.Answers[n.N], nil
	case len(s.Answers) >= unansweredMax && s.above(n.M) >= unansweredMax:
		return nil, Errorf(Limited, "this client has %d unconfirmed requests at this object", len(s.Answers)).RetryIn(time.Second)
	case o.full(now):
		return nil, Errorf(Overloaded, "%d unconfirmed answers are kept for this object's callers", o.kept).RetryIn(time.Second)
	}
	return nil, nil
}

// full tells whether no more fits. What a commit at that time will forget does not count, and is not forgotten yet.
func (o *once) full(now time.Time) bool {
	if o.kept < keptMax {
		return false
	}
	n := 0
	for _, s := range o.senders {
		if !s.Deadline.Before(now) {
			n += len(s.Answers)
		}
	}
	return n >= keptMax
}

func (o *once) findID(store snapshot.Reader, id snapshot.ID, own string, recorded time.Time) (*answer, error) {
	a := o.recent[own]
	if a == nil && store == nil {
		return nil, nil
	}
	if a == nil {
		raw, err := store.Get(id, snapshot.Window, idKey(own))
		if err != nil {
			return nil, err
		}
		if raw == nil {
			return nil, nil
		}
		a = new(answer)
		if err := json.Unmarshal(raw, a); err != nil {
			return nil, fmt.Errorf("kept reply of request %q: %w", own, err)
		}
	}
	if a.Order+o.keepMax < o.ids || a.At.Add(o.keep).Before(recorded) {
		return nil, nil // forgotten, whether or not it has been removed already
	}
	return a, nil
}

// ownIDs is how many of the commits count as requests with an own id.
func ownIDs(commits []*commit) (n uint64) {
	for _, c := range commits {
		if c.Session == nil && c.ID != "" && c.Inbox.Counts() {
			n++
		}
	}
	return n
}

// add notes the request that a commit answered.
func (o *once) add(c *commit) {
	if m := c.Inbox; m != nil {
		o.inbox = inboxMark{m.Life, m.Seq, m.At}
	}
	if c.Session == nil && c.ID == "" || !c.Inbox.Counts() {
		return
	}
	a := &answer{Hash: c.Hash, Version: c.version, At: c.At, commit: c}
	if n := c.Session; n != nil {
		name := senderOf(n, c.Inbox != nil)
		s := o.senders[name]
		if s == nil {
			s = &sender{Answers: map[uint64]*answer{}}
			put(&o.senders, name, s)
		}
		if n.M > s.M {
			o.kept -= s.advance(n.M)
		}
		if n.Deadline.After(s.Deadline) {
			s.Deadline = n.Deadline
		}
		if n.N >= s.M { // or it is refused before anybody looks for its answer
			if s.Answers[n.N] == nil {
				o.kept++
			}
			s.Answers[n.N] = a
		}
		put(&o.changed, name, true)
		return
	}
	a.Order = o.ids
	o.ids++
	put(&o.recent, c.ID, a)
}

// expire forgets the senders whose latest deadline has passed: by the time of a commit, or of a message of the inbox.
func (o *once) expire(now, inbox time.Time) {
	for name, s := range o.senders {
		if s.Deadline.Before(now) && !strings.HasPrefix(name, inboxSender) || s.Deadline.Before(inbox) && strings.HasPrefix(name, inboxSender) {
			o.drop(name)
		}
	}
}

func (o *once) drop(name string) {
	o.kept -= len(o.senders[name].Answers)
	delete(o.senders, name)
	put(&o.changed, name, true)
}

// stored makes an answer what the store keeps: with the reply, or with the position of the record that has it.
func (a *answer) stored() *answer {
	if c := a.commit; c != nil {
		a.Seq, a.Reply = 0, c.Reply
		if c.Reply != nil && len(c.Reply.Body) > keptReplyBytesMax {
			a.Seq, a.Reply = c.seq, nil
		}
	}
	return a
}

// flush appends the entries that bring the store's window to the end of the given commits, and lets go of them; later are the commits behind
// them. below is what the store has, nil if that is nothing of the object.
func (o *once) flush(entries []snapshot.Entry, below snapshot.Reader, id snapshot.ID, tail, later []*commit, at time.Time) ([]snapshot.Entry, error) {
	inbox := o.stored
	for _, c := range tail {
		if m := c.Inbox; m != nil {
			inbox = inboxMark{m.Life, m.Seq, m.At}
		}
	}
	o.expire(at, inbox.At)
	set := func(key string, v any) {
		raw, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("engine: a kept reply does not encode: %v", err)) // it is JSON already
		}
		entries = append(entries, snapshot.Entry{Space: snapshot.Window, Key: key, Value: raw})
	}
	remove := func(key string) {
		entries = append(entries, snapshot.Entry{Space: snapshot.Window, Key: key})
	}
	if inbox != o.stored {
		set(inboxKey, inbox)
		o.stored = inbox
	}
	last := uint64(0)
	for _, c := range tail {
		a := o.recent[c.ID]
		if c.ID == "" || a == nil || a.commit != c {
			continue
		}
		set(idKey(c.ID), a.stored())
		set(orderKey(a.Order), idKey(c.ID))
		last = max(last, a.Order+1)
		delete(o.recent, c.ID)
		a.commit = nil
	}
	if last > 0 {
		set(idsKey, last)
	}
	through := journal.Version(0)
	if len(tail) > 0 {
		through = tail[len(tail)-1].version
	}
	for name := range o.changed {
		s := o.senders[name]
		if s == nil {
			remove(senderKey(name))
			delete(o.changed, name)
			continue
		}
		as, whole := s.through(through), true
		if strings.HasPrefix(name, inboxSender) && slices.ContainsFunc(later, func(c *commit) bool { return c.inboxSender() == name }) {
			var err error
			if as, err = senderAsOf(below, id, name, tail); err != nil {
				return nil, err
			}
			whole = false
		}
		if len(as.Answers) > 0 || as.M > 0 {
			set(senderKey(name), as)
		}
		if whole && len(as.Answers) == len(s.Answers) {
			delete(o.changed, name)
		}
	}
	unless(&o.senders)
	unless(&o.recent)
	unless(&o.changed)
	return entries, nil
}

// through is a sender as of a version, for the store; but its mark is the latest: what a client says of its requests is true, whatever becomes
// of the commit that says it.
func (s *sender) through(v journal.Version) *sender {
	as := &sender{M: s.M, Deadline: s.Deadline, Answers: make(map[uint64]*answer, len(s.Answers))}
	for n, a := range s.Answers {
		if a.Version <= v {
			as.Answers[n] = a.stored()
			a.commit = nil
		}
	}
	return as
}

// senderAsOf is a sender of messages as of the last of the commits behind what the store has. Later ones may be lost with their epoch, and what
// lies in the inbox below their marks is then run again: for messages a mark counts from its place in the inbox on.
func senderAsOf(store snapshot.Reader, id snapshot.ID, name string, tail []*commit) (*sender, error) {
	then, s := once{}, &sender{Answers: map[uint64]*answer{}}
	if store != nil {
		raw, err := store.Get(id, snapshot.Window, senderKey(name))
		if err != nil {
			return nil, err
		}
		if raw != nil {
			if err := json.Unmarshal(raw, s); err != nil {
				return nil, fmt.Errorf("snapshot of %s: %s: %w", id, name, err)
			}
		}
	}
	put(&then.senders, name, s)
	for _, c := range tail {
		if c.inboxSender() == name {
			then.add(c)
		}
	}
	for _, a := range s.Answers {
		a.stored()
	}
	return s, nil
}

// inboxSender is the name under which the object knows the publisher of the numbered message that a commit answers; else empty.
func (c *commit) inboxSender() string {
	if c.Session == nil || c.Inbox == nil || !c.Inbox.Counts() {
		return ""
	}
	return senderOf(c.Session, true)
}

// load reads the window from the store.
func (o *once) load(store snapshot.Reader, id snapshot.ID) error {
	raw, err := store.Get(id, snapshot.Window, idsKey)
	if err != nil {
		return err
	}
	if raw != nil {
		if err := json.Unmarshal(raw, &o.ids); err != nil {
			return fmt.Errorf("snapshot of %s: %w", id, err)
		}
	}
	if raw, err = store.Get(id, snapshot.Window, inboxKey); err != nil {
		return err
	}
	if raw != nil {
		if err := json.Unmarshal(raw, &o.stored); err != nil {
			return fmt.Errorf("snapshot of %s: %w", id, err)
		}
		o.inbox = o.stored
	}
	for e, err := range store.Scan(id, snapshot.Window, "s/", "s0", false) {
		if err != nil {
			return err
		}
		s := new(sender)
		if err := json.Unmarshal(e.Value, s); err != nil {
			return fmt.Errorf("snapshot of %s: %s: %w", id, e.Key, err)
		}
		put(&o.senders, e.Key[2:], s)
		o.kept += len(s.Answers)
	}
	return nil
}

// prune are the entries to remove from the store: own ids beyond number or age, at most n of them. ids is how many there
// were when the store's entries will be true: what is not durable yet makes nobody forget anything.
func (o *once) prune(store snapshot.Reader, id snapshot.ID, ids uint64, now time.Time, n int) (entries []snapshot.Entry, err error) {
	remove := func(key string) { entries = append(entries, snapshot.Entry{Space: snapshot.Window, Key: key}) }
	for e, err := range store.Scan(id, snapshot.Window, "o/", "o0", false) {
		if err != nil {
			return nil, err
		}
		var key string
		var order uint64
		if _, err := fmt.Sscanf(e.Key, "o/%x", &order); err != nil {
			return nil, fmt.Errorf("snapshot of %s: %q: %w", id, e.Key, err)
		}
		if err := json.Unmarshal(e.Value, &key); err != nil {
			return nil, fmt.Errorf("snapshot of %s: %s: %w", id, e.Key, err)
		}
		raw, err := store.Get(id, snapshot.Window, key)
		if err != nil {
			return nil, err
		}
		a := answer{Order: order}
		if raw != nil {
			if err := json.Unmarshal(raw, &a); err != nil {
				return nil, fmt.Errorf("snapshot of %s: %s: %w", id, key, err)
			}
		}
		if order+o.keepMax >= ids && raw != nil && !a.At.Add(o.keep).Before(now) {
			break // it is kept, and so are all later ones
		}
		remove(e.Key)
		if raw != nil && a.Order == order { // not used again since
			remove(key)
		}
		if len(entries) >= n {
			break
		}
	}
	return entries, nil
}

// oldestNamed is the lowest position of a record that a kept answer of a sender names, 0 if there is none.
func (o *once) oldestNamed() (seq journal.Seq) {
	for _, s := range o.senders {
		for _, a := range s.Answers {
			if a.Seq != 0 && (seq == 0 || a.Seq < seq) {
				seq = a.Seq
			}
		}
	}
	return seq
}

func (o *once) bytes() int { return 200*o.kept + 100*len(o.senders) + 200*len(o.recent) }

// requestID is the id that the object sees: the caller's own, or one made of its client's number.
func (r *Request) requestID() string {
	switch {
	case r.ID != "":
		return r.ID
	case r.Session != nil:
		return r.Session.Sender + "-" + strconv.FormatUint(r.Session.N, 10)
	case r.letter != nil:
		return fmt.Sprintf("inbox-%d-%d", r.letter.life, r.letter.seq)
	}
	if r.made == 0 {
		return ""
	}
	return r.made.String()
}

// hash tells requests of one id apart.
func (r *Request) hash() journal.Hash {
	if h := r.HTTP; h != nil {
		return journal.HashOf([]byte("http "+h.Method+" "+h.URL+"\x00"), r.Body)
	}
	return journal.HashOf([]byte(r.Method+"\x00"), r.Body)
}

var errNoReply = errors.New("the record has no reply to this request")

// replyIn finds the reply of a version in its record.
func replyIn(data []byte, v journal.Version) (*journal.Reply, error) {
	rec, err := journal.DecodeRecord(data)
	if err != nil {
		return nil, err
	}
	if v < rec.First || v > rec.Last() || rec.Commits[v-rec.First].Reply == nil {
		return nil, errNoReply
	}
	return rec.Commits[v-rec.First].Reply, nil
}
