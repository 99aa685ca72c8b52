package verify

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
)

// once is what an object keeps so that no request is applied twice, by the object's own rules: an id until so many newer
// ones came or so much recorded time went by, a client's numbers from its mark on, until recorded time has passed the
// latest deadline of the client's requests.
type once struct {
	ids     []use            // by order
	index   map[uint64]int32 // into ids, once there are many
	order   uint64           // of the next id
	senders []sender
}

// use is an id that was used.
type use struct {
	id      uint64 // the first half of its hash
	order   uint64
	version journal.Version
	at      int64
}

// sender is a client that numbers its requests.
type sender struct {
	name     string
	mark     uint64 // its requests below are answered or abandoned
	deadline int64  // the latest of its requests
	numbers  []number
}

type number struct {
	n        uint64
	version  journal.Version
	deadline int64
}

// indexMin is from how many ids on they are found by an index: most objects have few.
const indexMin = 32

func half(h journal.Hash) uint64 { return binary.BigEndian.Uint64(h[:8]) }

// checkOnce says whether a commit's request was applied before. recorded is the object's time before the commit.
func (c *Checker) checkOnce(o *object, commit *journal.Commit, version journal.Version, recorded int64, seq journal.Seq, class, name string) {
	if !commit.Inbox.Counts() {
		return
	}
	if s := commit.Session; s != nil {
		deadline, at, client := s.Deadline.UnixNano(), commit.At.UnixNano(), s.Sender
		if m := commit.Inbox; m != nil { // what counts is when it was stored
			recorded, at, client = o.inbox.at, m.At.UnixNano(), inboxSender+client
		}
		if at > deadline {
			c.severe(seq, name, Once, "version %d is of %s, and its request expired at %s", version, stamp(at), stamp(deadline))
		}
		from := o.once.sender(client, recorded, o.inbox.at)
		if s.N < from.mark {
			c.severe(seq, name, Once, "version %d is request %d of client %s, which is below its mark %d: it was answered or abandoned", version, s.N, s.Sender, from.mark)
		}
		if i := slices.IndexFunc(from.numbers, func(k number) bool { return k.n == s.N }); i >= 0 {
			c.severe(seq, name, Once, "request %d of client %s made version %d, and again version %d", s.N, s.Sender, from.numbers[i].version, version)
			return
		}
		from.add(s, version, deadline)
		return
	}
	if commit.ID == "" {
		return
	}
	keep, known := c.cfg.Keep[class]
	keep = keep.withDefaults()
	next := use{half(journal.HashOf([]byte(commit.ID))), o.once.order, version, commit.At.UnixNano()}
	if u := o.once.find(next.id); u != nil && u.kept(o.once.order, recorded, keep) {
		if known {
			c.severe(seq, name, Once, "request id %q made version %d, and again version %d", commit.ID, u.version, version)
		} else {
			c.warn(seq, name, Once, "request id %q made version %d, and again version %d; the class may keep ids for a shorter time than the default", commit.ID, u.version, version)
		}
	}
	o.once.use(next, recorded, keep)
}

// kept tells whether the object still keeps an id, when the next one has that order and the recorded time is at.
func (u *use) kept(order uint64, at int64, keep Keep) bool {
	return u.order+uint64(keep.Max) >= order && time.Unix(0, u.at).Add(keep.For).UnixNano() >= at
}

func (o *once) find(id uint64) *use {
	if o.index != nil {
		if i, ok := o.index[id]; ok {
			return &o.ids[i]
		}
		return nil
	}
	for i := len(o.ids) - 1; i >= 0; i-- {
		if o.ids[i].id == id {
			return &o.ids[i]
		}
	}
	return nil
}

// use notes the next id, and forgets what the object forgets when there are twice as many as it keeps.
func (o *once) use(u use, recorded int64, keep Keep) {
	o.order++
	if len(o.ids) >= 2*keep.Max {
		o.ids = slices.DeleteFunc(o.ids, func(u use) bool { return !u.kept(o.order, recorded, keep) })
		o.index = nil
	}
	o.ids = append(o.ids, u)
	if len(o.ids) < indexMin {
		return
	}
	if o.index == nil {
		o.index = make(map[uint64]int32, len(o.ids))
		for i := range o.ids {
			o.index[o.ids[i].id] = int32(i)
		}
	}
	o.index[u.id] = int32(len(o.ids) - 1)
}

// sender is what is kept of a client, made if there is nothing. Clients that the object has forgotten are let go then.
func (o *once) sender(name string, recorded, inbox int64) *sender {
	forgotten := func(s sender) bool {
		if strings.HasPrefix(s.name, inboxSender) {
			return s.deadline < inbox
		}
		return s.deadline < recorded
	}
	for i := range o.senders {
		if o.senders[i].name == name && !forgotten(o.senders[i]) {
			return &o.senders[i]
		}
	}
	o.senders = append(slices.DeleteFunc(o.senders, forgotten), sender{name: name})
	return &o.senders[len(o.senders)-1]
}

// inboxSender stands before the name of a client whose numbers came by the inbox: what is forgotten there follows the time
// at which messages were stored.
const inboxSender = "inbox "

// sentMark is the last message of the inbox that an object answered.
type sentMark struct {
	life uint64
	seq  journal.Seq
	at   int64
}

func (m sentMark) before(o sentMark) bool {
	return cmp.Or(cmp.Compare(m.life, o.life), cmp.Compare(m.seq, o.seq)) < 0
}

// checkSent says whether messages were answered in order, and each once.
func (c *Checker) checkSent(o *object, commit *journal.Commit, version journal.Version, seq journal.Seq, name string) {
	m := commit.Inbox
	if m == nil {
		return
	}
	was, now := o.inbox, sentMark{m.Life, m.Seq, m.At.UnixNano()}
	switch {
	case now.life < was.life:
		c.severe(seq, name, Once, "version %d answers a message of the inbox's life %d, and an earlier one of life %d", version, now.life, was.life)
	case !was.before(now):
		c.severe(seq, name, Once, "version %d answers message %d of the inbox, and message %d was answered before it", version, now.seq, was.seq)
	case now.at < was.at:
		c.severe(seq, name, Time, "version %d answers a message of %s, after one of %s", version, stamp(now.at), stamp(was.at))
	}
	o.inbox = now
}

func (s *sender) add(n *journal.SessionNumber, version journal.Version, deadline int64) {
	if n.M > s.mark {
		s.mark = n.M
		s.numbers = slices.DeleteFunc(s.numbers, func(k number) bool { return k.n < s.mark })
	}
	s.deadline = max(s.deadline, deadline)
	s.numbers = append(s.numbers, number{n.N, version, deadline})
}
