package verify

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

const ns = wire.DefaultNamespace

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// hand writes a stream of partition 0 of 1 by hand, as an engine would; tests spoil it.
type hand struct {
	messages []journal.Message
	seq      journal.Seq
	epoch    journal.EpochRecord
	objects  map[string]*written
	now      time.Time
}

// written is an object as it was written.
type written struct {
	version journal.Version
	seq     journal.Seq
	hash    journal.Hash
	at      time.Time
	storage map[string]string
	window  map[string]string
	ids     int
}

func newHand() *hand { return &hand{objects: map[string]*written{}, now: noon} }

func (h *hand) header() journal.Header {
	return journal.Header{wire.HeaderFormat: "1", wire.HeaderEpoch: h.epoch.Epoch.String()}
}

func (h *hand) store(subject string, data []byte) journal.Seq {
	h.seq++
	h.messages = append(h.messages, journal.Message{Subject: subject, Header: h.header(), Data: data, Seq: h.seq, Time: h.now})
	return h.seq
}

// begin begins an epoch, with its fence.
func (h *hand) begin() journal.Seq {
	n := h.epoch.Epoch.Number + 1
	h.epoch = journal.EpochRecord{Epoch: journal.EpochID{Number: n, Token: journal.Token(1000 + n)}, Before: n - 1, Worker: "w",
		Incarnation: journal.Incarnation{Revision: journal.Seq(n), Nonce: 7}, Window: journal.Window, Server: "s", At: h.now}
	at := h.store(ns.Epoch(0), h.epoch.Encode())
	for range journal.Window {
		h.store(ns.Fence(0), nil)
	}
	return at
}

func (h *hand) release() journal.Seq {
	r := h.epoch
	r.Release = true
	return h.store(ns.Epoch(0), r.Encode())
}

func (h *hand) of(name string) *written {
	if h.objects[name] == nil {
		h.objects[name] = &written{storage: map[string]string{}, window: map[string]string{}}
	}
	return h.objects[name]
}

func put(key, value string) journal.Commit {
	return journal.Commit{Source: "call", Method: "set", Changes: []journal.Change{{Kind: journal.Put, Key: key, Data: []byte(value)}}}
}

// answers makes a commit the answer to a message of the inbox, stored so long after noon.
func answers(life uint64, seq journal.Seq, after time.Duration, c journal.Commit) journal.Commit {
	c.Source, c.Inbox = "inbox", &journal.Sent{Life: life, Seq: seq, At: noon.Add(after)}
	return c
}

func outcome(what string, c journal.Commit) journal.Commit { c.Inbox.Outcome = what; return c }

// checkpoint stores one.
func (h *hand) checkpoint(life uint64, cursor journal.Seq, held ...journal.Held) journal.Seq {
	cp := journal.Checkpoint{At: h.now, Inbox: journal.InboxMark{Life: life, Cursor: cursor, At: h.now, Held: held}}
	return h.store(ns.Checkpoint(0), cp.Encode())
}

func withID(id string, c journal.Commit) journal.Commit { c.ID = id; return c }

func numbered(n, m uint64, deadline time.Time, c journal.Commit) journal.Commit {
	c.Session = &journal.SessionNumber{Sender: strings.Repeat("ab", 16), N: n, M: m, Deadline: deadline}
	return c
}

// record stores a record of an object; each commit is a second behind the one before unless it has its own time.
func (h *hand) record(name string, commits ...journal.Commit) journal.Seq {
	o := h.of(name)
	var encoded []journal.Encoded
	for i := range commits {
		c := &commits[i]
		if c.At.IsZero() {
			h.now = h.now.Add(time.Second)
			c.At = h.now
		}
		encoded = append(encoded, journal.Encoded{JSON: journal.AppendCommit(nil, c), At: c.At})
	}
	data := journal.AppendRecord(nil, o.version+1, o.hash, encoded)
	for i, c := range commits {
		o.note(c, o.version+journal.Version(i)+1)
	}
	o.version += journal.Version(len(commits))
	o.hash, o.at = journal.HashOf(data), commits[len(commits)-1].At
	o.seq = h.store(ns.Journal("c", wire.Escape(name)), data)
	return o.seq
}

func (o *written) note(c journal.Commit, v journal.Version) {
	for _, ch := range c.Changes {
		switch ch.Kind {
		case journal.Put:
			o.storage[ch.Key] = string(ch.Data)
		case journal.Delete:
			delete(o.storage, ch.Key)
		}
	}
	answer := func(order int) string {
		return fmt.Sprintf(`{"hash":"","version":%d,"at":%q,"order":%d}`, v, c.At.Format(time.RFC3339Nano), order)
	}
	if m := c.Inbox; m != nil {
		o.window["m"] = fmt.Sprintf(`{"life":%d,"seq":%d,"at":%q}`, m.Life, m.Seq, m.At.Format(time.RFC3339Nano))
	}
	switch {
	case !c.Inbox.Counts():
	case c.Session != nil:
		key := "s/" + c.Session.Sender
		if c.Inbox != nil {
			key = "s/inbox " + c.Session.Sender
		}
		was := client{Answers: map[uint64]answered{}}
		if o.window[key] != "" {
			_ = json.Unmarshal([]byte(o.window[key]), &was)
		}
		was.M, was.Deadline = c.Session.M, c.Session.Deadline
		maps.DeleteFunc(was.Answers, func(n uint64, _ answered) bool { return n < was.M })
		was.Answers[c.Session.N] = answered{Version: v}
		b, _ := json.Marshal(was)
		o.window[key] = string(b)
	case c.ID != "":
		o.window["i/"+journal.HashOf([]byte(c.ID)).String()] = answer(o.ids)
		o.ids++
		o.window["n"] = fmt.Sprint(o.ids)
	}
}

type answered = answer

// snap is a snapshot record of an object in so many parts, as of its last record; how may change it.
func (h *hand) snap(name string, parts int, how ...func(*journal.Snap)) journal.Seq {
	o := h.of(name)
	var entries []journal.SnapEntry
	for space, of := range map[string]map[string]string{"k": o.storage, "w": o.window} {
		for key, value := range of {
			entries = append(entries, journal.SnapEntry{Space: space, Key: key, Data: []byte(value)})
		}
	}
	entries = append(entries, journal.SnapEntry{Space: "s", Data: []byte(`{"Sum":1}`)})
	slices.SortFunc(entries, func(a, b journal.SnapEntry) int { return strings.Compare(a.Space+a.Key, b.Space+b.Key) })
	s := journal.Snap{Of: parts, Version: o.version, Seq: o.seq, Hash: o.hash, At: o.at, Entries: entries}
	for _, f := range how {
		f(&s)
	}
	first := h.seq + 1
	for part, rest := 1, s.Entries; part <= parts; part++ {
		n := len(rest)
		if part < parts {
			n = min(1, n)
		}
		s.Part, s.Entries, rest = part, rest[:n], rest[n:]
		data, err := s.Encode()
		if err != nil {
			panic(err)
		}
		h.store(ns.Snap("c", wire.Escape(name)), data)
	}
	return first
}

// drop takes a message away, as a purge or a damaged block does.
func (h *hand) drop(seqs ...journal.Seq) {
	h.messages = slices.DeleteFunc(h.messages, func(m journal.Message) bool { return slices.Contains(seqs, m.Seq) })
}

func (h *hand) at(seq journal.Seq) *journal.Message {
	i := slices.IndexFunc(h.messages, func(m journal.Message) bool { return m.Seq == seq })
	return &h.messages[i]
}

// story is a good log with everything in it; the positions are those of what tests spoil.
type story struct {
	*hand
	epoch1, a1, b1, a2, release1, epoch2, a3, snap1, b2, a4, snap2, a5 journal.Seq
}

func newStory() *story {
	s := &story{hand: newHand()}
	late := noon.Add(time.Hour)
	s.epoch1 = s.begin()
	s.a1 = s.record("a", withID("x", put("k", `1`)))
	s.b1 = s.record("b", put("k", `1`))
	s.a2 = s.record("a", put("l", `"<2>"`), numbered(5, 5, late, put("k", `2`)))
	s.release1 = s.release()
	s.epoch2 = s.begin()
	s.a3 = s.record("a", numbered(7, 5, late, put("m", `3`)))
	s.snap1 = s.snap("a", 3)
	s.b2 = s.record("b", put("k", `2`))
	s.a4 = s.record("a", journal.Commit{Source: "call", Method: "del", Changes: []journal.Change{{Kind: journal.Delete, Key: "l"}, {Kind: journal.Event, Type: "e", Data: []byte("1")}}})
	s.snap2 = s.snap("a", 1)
	s.a5 = s.record("a", withID("y", put("k", `5`)))
	return s
}

func partitioned(cfg Config) Config { cfg.Partitions = 1; return cfg }

func (h *hand) check(cfg Config) Report {
	c := New(partitioned(cfg))
	for _, m := range h.messages {
		c.Message(m)
	}
	return c.End(h.messages[len(h.messages)-1].Seq)
}

// brief are findings without their words: severity, position, object, rule.
func brief(fs []Finding) (out []string) {
	for _, f := range fs {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %d %s %s", f.Severity, f.Seq, f.Rule, f.Object)))
	}
	return out
}

func TestAGoodLogHasNoFindings(t *testing.T) {
	t.Parallel()
	r := newStory().check(Config{})
	if len(r.Findings) > 0 {
		t.Errorf("%v", r.Findings)
	}
	want := Report{Stream: "objects-0", Last: 526, Messages: 526, Records: 7, Commits: 8, Objects: 2, Epochs: 2, Snapshots: 2, Compared: 2}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
