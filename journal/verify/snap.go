package verify

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
)

// Spaces of a snapshot record's entries. Events are folded into another, which only their class can do.
const (
	spaceStorage = "k"
	spaceWindow  = "w"
)

// run is a snapshot record whose parts are being read.
type run struct {
	subject string
	name    string // of the object
	of      *object
	first   journal.Seq
	head    journal.Snap // of the first part; each says the same
	part    int

	sum     uint64 // of its storage entries
	n       int
	entries map[uint64]uint64 // by key, where they will be the base
	differs string            // a key that is not as the records have it, if that can be told
	window  window
}

// cutRun says that a snapshot record lacks its end.
func (c *Checker) cutRun() {
	r := c.run
	c.run = nil
	c.missing(r.first, r.name, Snapshot, "part %d of %d is not behind the parts before it", r.part+1, r.head.Of)
}

// snapPart takes a message on an object's snapshot subject that counts by its epoch.
func (c *Checker) snapPart(m journal.Message, class, token, name string) {
	err := readable(m)
	var s *journal.Snap
	if err == nil {
		s, err = journal.DecodeSnap(m.Data)
	}
	if err != nil {
		c.run, c.useless = nil, m.Seq
		c.severe(m.Seq, name, Format, "%v", err)
		return
	}
	if r := c.run; r != nil && !r.goesOn(s, m.Seq) {
		c.cutRun()
	}
	if c.run == nil && s.Part != 1 {
		if c.useless == 0 || c.useless+1 != m.Seq {
			c.severe(m.Seq, name, Snapshot, "part %d of %d has no part %d before it", s.Part, s.Of, s.Part-1)
		}
		c.useless = m.Seq
		return
	}
	if c.run == nil {
		c.run = &run{subject: m.Subject, name: name, of: c.object(class, token), first: m.Seq, head: *s}
		c.run.head.Entries = nil
		if a := c.run.of.aside; a != nil && a.rec != nil && a.seq == s.Seq && a.hash == s.Hash && a.version == s.Version {
			c.goOn(c.run.of, class, name) // it counts: a state was made of it
		}
	}
	r := c.run
	r.part = s.Part
	if r.of.tracked {
		if err := r.add(c.seed, s.Entries); err != nil {
			c.severe(m.Seq, name, Snapshot, "%v", err)
		}
	}
	if r.part == r.head.Of {
		c.run = nil
		c.report.Snapshots++
		c.compareSnapshot(r, class)
	}
}

// goesOn tells whether a part is the next of the run.
func (r *run) goesOn(s *journal.Snap, seq journal.Seq) bool {
	h := &r.head
	return s.Part == r.part+1 && seq == r.first+journal.Seq(r.part) && s.Of == h.Of && s.Version == h.Version && s.Seq == h.Seq && s.Hash == h.Hash && s.At.Equal(h.At)
}

// add takes a part's entries.
func (r *run) add(seed maphash.Seed, entries []journal.SnapEntry) error {
	st := &r.of.storage
	for i := range entries {
		switch e := &entries[i]; e.Space {
		case spaceStorage:
			key, sum := maphash.String(seed, e.Key), sumOf(seed, e.Key, e.Data)
			r.sum += sum
			r.n++
			if !st.whole && !st.large {
				if r.entries == nil {
					r.entries = map[uint64]uint64{}
				}
				r.entries[key] = sum
			}
			if r.differs == "" && r.head.Seq == r.of.at.seq && st.whole && st.keys[key].sum != sum {
				r.differs = fmt.Sprintf(", such as key %q", e.Key)
			}
		case spaceWindow:
			if err := r.window.add(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// compareSnapshot holds a snapshot record against the record that it names, and what the records up to that come to.
func (c *Checker) compareSnapshot(r *run, class string) {
	o, h := r.of, &r.head
	if o.at.seq == 0 && o.aside == nil {
		o.early = r.first
		return
	}
	i, found := slices.BinarySearchFunc(o.marks, h.Seq, func(m mark, seq journal.Seq) int { return cmp.Compare(m.seq, seq) })
	if !found {
		if left := i == 0 && (o.cut || h.Seq < o.head); o.tracked && !left { // left: from before what is known of the chain
			c.severe(r.first, r.name, Snapshot, "it names the record at sequence %d, of version %d, which is not in the object's chain, or before one that was named already", h.Seq, h.Version)
		}
		return
	}
	m := o.marks[i]
	if m.hash != h.Hash || m.version != h.Version || m.at != h.At.UnixNano() {
		c.severe(r.first, r.name, Snapshot, "it is as of version %d of %s with hash %s, and the record at sequence %d that it names is version %d of %s with hash %s",
			h.Version, stamp(h.At.UnixNano()), h.Hash, h.Seq, m.version, stamp(m.at), m.hash)
		return
	}
	if o.head != 0 && h.Seq >= o.head {
		o.heirs++
	}
	o.marks, o.cut = slices.Clone(o.marks[i:]), false
	c.compareStorage(r, &o.marks[0])
	c.compareWindow(r, m, class)
	if o.head != 0 && o.heirs == 1 {
		o.once.base(&r.window, m)
		if o.inbox.before(r.window.inbox) {
			o.inbox = r.window.inbox
		}
	}
}

// compareStorage holds a snapshot record's storage against what the records up to the one that it names come to. Where
// those are not all there, it is from then on what is below the others.
func (c *Checker) compareStorage(r *run, m *mark) {
	st := &r.of.storage
	switch {
	case st.large:
	case m.whole:
		c.report.Compared++
		if m.sum != r.sum || m.n != r.n {
			c.severe(r.first, r.name, Snapshot, "its storage of %d keys is not what the records up to version %d come to, which have %d%s", r.n, m.version, m.n, r.differs)
		}
	case st.whole: // of a record between the last snapshot record and the one that it named
	case st.base(r.entries, m.version):
		m.whole, m.sum, m.n = true, r.sum, r.n
	default:
		c.severe(r.first, r.name, Snapshot, "its storage is not what the records up to version %d come to, so far as they are there", m.version)
	}
}

// window is what a snapshot record knows of requests that were answered.
type window struct {
	count   uint64 // how many commits had a caller's own id
	ids     map[uint64]answer
	senders map[string]client
	inbox   sentMark // the last message that was answered
}

// answer is a request that was answered.
type answer struct {
	Version journal.Version `json:"version"`
	At      time.Time       `json:"at"`
	Order   uint64          `json:"order"`
}

// client is one that numbers its requests.
type client struct {
	M        uint64            `json:"m"`
	Deadline time.Time         `json:"deadline"`
	Answers  map[uint64]answer `json:"answers"`
}

// add takes an entry of the space w: n, i/<hash of an id>, o/<order>, s/<sender>, m.
func (w *window) add(e *journal.SnapEntry) error {
	var err error
	kind, key, _ := strings.Cut(e.Key, "/")
	switch kind {
	case "n":
		err = json.Unmarshal(e.Data, &w.count)
	case "i":
		var a answer
		var id uint64
		if id, err = strconv.ParseUint(key[:min(len(key), 16)], 16, 64); err == nil {
			err = json.Unmarshal(e.Data, &a)
		}
		if w.ids == nil {
			w.ids = map[uint64]answer{}
		}
		w.ids[id] = a
	case "s":
		var s client
		err = json.Unmarshal(e.Data, &s)
		if w.senders == nil {
			w.senders = map[string]client{}
		}
		w.senders[key] = s
	case "m":
		var m journal.Sent
		err = json.Unmarshal(e.Data, &m)
		w.inbox = sentMark{m.Life, m.Seq, m.At.UnixNano()}
	}
	if err != nil {
		return fmt.Errorf("its entry %q of space %s: %w", e.Key, e.Space, err)
	}
	return nil
}

// compareWindow says whether a snapshot record lacks a request that the object kept at the record that it names.
func (c *Checker) compareWindow(r *run, m mark, class string) {
	const again = "it does not know of the request of version %d: a repeat would be applied again"
	w := &r.window
	if w.inbox.before(m.inbox) {
		c.severe(r.first, r.name, Snapshot, "it does not know that message %d of the inbox is answered: it would be applied again", m.inbox.seq)
		return
	}
	keep, known := c.cfg.Keep[class]
	keep = keep.withDefaults()
	for _, u := range r.of.once.ids {
		switch lacks := u.version <= m.version && u.kept(m.order, m.at, keep) && w.ids[u.id].Version != u.version; {
		case lacks && known:
			c.severe(r.first, r.name, Snapshot, again, u.version)
			return
		case lacks:
			c.warn(r.first, r.name, Snapshot, again+", unless the class keeps ids for a shorter time than the default", u.version)
			return
		}
	}
	for _, s := range r.of.once.senders {
		have, at := w.senders[s.name], m.at
		if strings.HasPrefix(s.name, inboxSender) {
			at = m.inbox.at
		}
		for _, k := range s.numbers {
			if k.version <= m.version && k.deadline >= at && k.n >= have.M && have.Answers[k.n].Version != k.version {
				c.severe(r.first, r.name, Snapshot, again, k.version)
				return
			}
		}
	}
}

// base takes what a snapshot record knows of requests before the records that were read.
func (o *once) base(w *window, m mark) {
	shift := w.count - m.order // how many ids were used before
	later := o.ids
	o.ids, o.index = nil, nil
	for id, a := range w.ids {
		if a.Order < shift {
			o.ids = append(o.ids, use{id, a.Order, a.Version, a.At.UnixNano()})
		}
	}
	slices.SortFunc(o.ids, func(a, b use) int { return cmp.Compare(a.order, b.order) })
	for _, u := range later {
		u.order += shift
		o.ids = append(o.ids, u)
	}
	o.order += shift
	for name, s := range w.senders {
		i := slices.IndexFunc(o.senders, func(k sender) bool { return k.name == name })
		if i < 0 {
			o.senders = append(o.senders, sender{name: name})
			i = len(o.senders) - 1
		}
		k := &o.senders[i]
		k.mark, k.deadline = max(k.mark, s.M), max(k.deadline, s.Deadline.UnixNano())
		for n, a := range s.Answers {
			if n >= k.mark && !slices.ContainsFunc(k.numbers, func(have number) bool { return have.n == n }) {
				k.numbers = append(k.numbers, number{n, a.Version, s.Deadline.UnixNano()})
			}
		}
	}
}
