package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// Messages to objects: publishers, the inbox as the workers see it, and what must be so. The audit knows each message that
// was ever stored, and which commit answered it.

// theInbox stands for the inbox where partitions have their numbers.
const theInbox = -1

// simPublisher numbers what it sends: below m it repeats nothing any more, but a copy may still come.
type simPublisher struct{ n, m int }

// simLetter is a message in the inbox; without a request it is a dead letter.
type simLetter struct {
	seq      journal.Seq
	at       time.Time
	hash     journal.Hash
	slot     int
	id       snapshot.ID // its object
	request  *simRequest
	header   journal.Header
	own      string
	session  *journal.SessionNumber
	deadline time.Time
	of       *simLetter      // whose dead letter it is
	version  journal.Version // the commit that answers it; 0: none does
	buried   journal.Seq     // the last dead letter that says that it is not tried any more
	purged   bool
	gone     bool // it was purged, and then the journal lost its answer
}

func (l *simLetter) String() string {
	if l.request == nil {
		return fmt.Sprintf("message %d, the dead letter of %s", l.seq, l.of)
	}
	return fmt.Sprintf("message %d: %s", l.seq, l.request)
}

// nobodys is a class that there is not.
func (l *simLetter) nobodys() bool { return strings.HasPrefix(string(l.id), "nobody.") }

// answered tells whether nothing is to be done for it any more.
func (l *simLetter) answered() bool {
	return l.request == nil || l.version > 0 || l.gone || l.nobodys() && l.buried > 0
}

// lastingly tells whether no power cut can change that. Called with mu held.
func (s *sim) lastingly(l *simLetter) bool {
	switch {
	case !l.answered():
		return false
	case !s.durable || l.request == nil || l.gone:
		return true
	case l.version > 0:
		return s.histories[l.id].commits[l.version-1].seq <= s.synced[l.request.partition]
	}
	return l.buried <= s.syncedInbox
}

var simSends = []string{"put", "put", "note", "both", "drop", "long", "fail", "shy", "shy", "spoil", "nosuch"}

// publish has a publisher send a message.
func (s *sim) publish(a uint32) *simLetter {
	name := string(rune('a' + int(a)%s.objects))
	a /= 64
	class, method := "thing", simSends[int(a)%len(simSends)]
	a /= uint32(len(simSends))
	s.mu.Lock()
	defer s.mu.Unlock()
	if a%37 == 0 {
		class, name = "nobody", "a"
	}
	a /= 37
	id := snapshot.ID(class + "." + name)
	r := &simRequest{method: method, how: "sent", tries: 1, copies: 1, done: true, object: id, under: map[journal.EpochID]*tries{}, header: journal.Header{},
		partition: wire.Partition(wire.Slot(class, name), s.partitions)}
	r.in = ask{N: int64(len(s.requests) + 1), Key: fmt.Sprint("k", a%4)}
	s.requests = append(s.requests, r)
	deadline := time.Now().Add([]time.Duration{time.Second, 7 * time.Second, 40 * time.Second, 10 * time.Minute}[a/4%4])
	switch a /= 16; a % 4 {
	case 0:
		if r.header[wire.HeaderDeadline] = deadline.UTC().Format(time.RFC3339Nano); a/4%2 == 0 {
			delete(r.header, wire.HeaderDeadline)
		}
	case 1:
		r.how, r.header[wire.HeaderRequestID] = "sent, own id", fmt.Sprint("id-", r.in.N)
	default:
		p := a / 4 % 2 // the publisher
		pub := &s.publishers[p]
		pub.n++
		pub.m = max(1, pub.m, pub.n-int(a/8%4))
		r.how = "sent, numbered"
		r.header[wire.HeaderSession] = fmt.Sprintf("%032x %d %d", p+1, pub.n, pub.m)
		deadline = time.Now().Add([]time.Duration{7 * time.Second, 40 * time.Second}[p]) // later numbers have later ones
		r.header[wire.HeaderDeadline] = deadline.UTC().Format(time.RFC3339Nano)
	}
	s.mails = append(s.mails, r)
	return s.send(r)
}

// send stores a message, or a copy of it. Called with mu held.
func (s *sim) send(r *simRequest) *simLetter {
	class, name, _ := strings.Cut(string(r.object), ".")
	body, _ := json.Marshal(r.in) // its fields always encode
	seq := s.mem.Send(s.ns, class, name, r.method, r.header, body)
	m, err := s.direct.Inbox().At(context.Background(), seq)
	if err != nil || int(seq) != len(s.letters)+1 {
		panic(fmt.Sprint("the inbox is at ", seq, " and the audit at ", len(s.letters), ": ", err))
	}
	l := &simLetter{seq: seq, at: m.Time, hash: journal.MessageHash(m), slot: wire.Slot(class, name), id: r.object, request: r, header: r.header, own: r.header[wire.HeaderRequestID]}
	if d := r.header[wire.HeaderDeadline]; d != "" {
		l.deadline, _ = time.Parse(time.RFC3339Nano, d) // as it was written above
	}
	if n := r.header[wire.HeaderSession]; n != "" {
		l.session = &journal.SessionNumber{Deadline: l.deadline}
		_, _ = fmt.Sscan(n, &l.session.Sender, &l.session.N, &l.session.M) // likewise
		l.session.Sender = inboxSender + l.session.Sender
	}
	s.letters = append(s.letters, l)
	if h := s.history(r.object); !l.nobodys() {
		h.letters = append(h.letters, l)
	}
	return l
}

// simInbox is the inbox as a worker sees it.
type simInbox struct{ simLog }

func (b simInbox) Put(ctx context.Context, m journal.Message) (journal.Seq, error) {
	m = copied([]journal.Message{m})[0]
	return askFor(ctx, b.c, opDead, b.key("put "+m.Subject), func(int) (journal.Seq, error) {
		seq, err := b.c.direct.Inbox().Put(context.Background(), m)
		if err == nil {
			b.c.s.deadStored(seq, m)
		}
		return seq, err
	})
}

// deadStored: a dead letter is a whole copy of a message that is there.
func (s *sim) deadStored(seq journal.Seq, m journal.Message) {
	dead := &simLetter{seq: seq}
	s.letters = append(s.letters, dead)
	var d journal.DeadLetter
	err := json.Unmarshal(m.Data, &d)
	if err != nil || d.Seq == 0 || int(d.Seq) > len(s.letters) || s.letters[d.Seq-1].request == nil {
		s.failed("I2", "the dead letter at %d (%v): %s", seq, err, m.Data)
		return
	}
	dead.of = s.letters[d.Seq-1]
	dead.of.buried = seq
	body, _ := json.Marshal(dead.of.request.in)
	if d.Class+"."+d.Token != string(dead.of.id) || d.Method != dead.of.request.method || string(d.Body) != string(body) || d.Tries < thingTries || d.Error == "" ||
		fmt.Sprint(d.Header) != fmt.Sprint(dead.of.header) {
		s.failed("I2", "the dead letter of %s says %s", dead.of, m.Data)
	}
	s.count("dead letters")
}

// letterAnswered holds a commit that names a message against what is in the inbox. Called with mu held.
func (s *sim) letterAnswered(h *history, v journal.Version, c *journal.Commit) *simLetter {
	m := c.Inbox
	if m.Seq == 0 || int(m.Seq) > len(s.letters) || s.letters[m.Seq-1].id != h.id || s.letters[m.Seq-1].request.method != c.Method {
		s.failed("I3", "%s version %d answers message %d, which is not there or another one", h.id, v, m.Seq)
		return nil
	}
	l := s.letters[m.Seq-1]
	at, life := l.at, uint64(0)
	if last := h.mark(v - 1); last != nil {
		life = last.Life
		if last.At.After(at) {
			at = last.At
		}
	}
	switch {
	case l.version != 0:
		s.failed("I3", "%s version %d answers %s, and so does version %d", h.id, v, l, l.version)
	case s.durable && l.seq > s.syncedInbox:
		s.failed("I2", "%s version %d answers %s, which a power cut can take", h.id, v, l)
	case !m.At.Equal(at) || m.Life < life || m.Life > s.inboxLife || c.Source != "inbox":
		s.failed("I3", "%s version %d answers %s: %+v, by %s; want time %v, life %d to %d", h.id, v, l, *m, c.Source, at, life, s.inboxLife)
	}
	for _, before := range h.letters {
		if before.seq < l.seq && !before.answered() {
			s.failed("I2", "%s version %d answers %s, and %s is not answered", h.id, v, l, before)
		}
	}
	l.version = v
	return l
}

// mark is the last message that was answered up to a version.
func (h *history) mark(v journal.Version) *journal.Sent {
	for ; v > 0; v-- {
		if sent := h.commits[v-1].sent; sent != nil {
			return sent
		}
	}
	return nil
}

// outcome: whether a message was applied, and if not, rightly so. Called with mu held.
func (s *sim) outcome(h *history, v journal.Version, c *journal.Commit, l *simLetter) {
	m, method := c.Inbox, l.request.method
	expired := !l.deadline.IsZero() && l.deadline.Before(m.At)
	repeated, below := false, false
	for w := range h.commits[:v-1] {
		o := &h.commits[w]
		repeated = repeated || o.n == l.request.in.N && (l.own != "" && o.id == l.own || l.session != nil && o.session != nil && *o.session == *l.session)
		below = below || l.session != nil && o.session != nil && o.session.Sender == l.session.Sender && o.session.M > l.session.N
	}
	right := false
	switch m.Outcome {
	case "":
		right = !expired
	case journal.SentRefused:
		right = !expired && (method == "fail" || method == "spoil" && l.request.in.N%2 > 0)
	case journal.SentRepeat:
		right = repeated
		s.count("repeats of publishers")
	case journal.SentNotRun:
		right = expired || below
		s.count("messages not run")
	case journal.SentDead:
		right = m.Tries >= thingTries && (method == "nosuch" || method == "spoil" || method == "shy") && l.buried > 0 && (!s.durable || l.buried <= s.syncedInbox)
	}
	if !right || m.Outcome != "" && len(c.Changes) > 0 {
		s.failed("I3", "%s version %d answers %s: %q after %d tries (expired %v, repeated %v, below the mark %v, dead letter %d), with %d changes",
			h.id, v, l, m.Outcome, m.Tries, expired, repeated, below, l.buried, len(c.Changes))
	}
	s.count("messages answered")
}

// checkpointStored: what a checkpoint says is answered for good, or of an object that waits. Called with mu held.
func (s *sim) checkpointStored(p int, seq journal.Seq, data []byte) {
	cp, err := journal.DecodeCheckpoint(data)
	part, m := &s.parts[p], cp.Inbox
	if err != nil || m.Cursor == 0 || int(m.Cursor) > len(s.letters) {
		s.failed("I2", "the checkpoint at %d: %s (%v)", seq, data, err)
		return
	}
	switch last := s.letters[m.Cursor-1]; {
	case m.Life < part.check.Life || m.Life == part.check.Life && m.Cursor < part.check.Cursor:
		s.failed("I2", "the checkpoint at %d goes back from %d to %d", seq, part.check.Cursor, m.Cursor)
	case last.request == nil || last.request.partition != p || last.hash != m.Hash || last.purged:
		s.failed("I2", "the checkpoint at %d names %s with hash %s, purged: %v", seq, last, m.Hash, last.purged)
	}
	held := map[snapshot.ID]journal.Held{}
	for _, k := range m.Held {
		held[snapshot.ID(k.Class+"."+k.Token)] = k
		if s.count("objects held"); k.Error == "" {
			s.count("slow objects held")
		}
	}
	for _, l := range s.letters[:m.Cursor] {
		if l.request == nil || l.request.partition != p {
			continue
		}
		k, waits := held[l.id]
		switch {
		case waits && l.seq >= k.First:
			if l.seq > k.Last {
				s.failed("I2", "the checkpoint at %d holds %s from %d to %d, and passes %s", seq, l.id, k.First, k.Last, l)
			}
		case !s.lastingly(l):
			s.failed("I2", "the checkpoint at %d has its cursor at %d, and %s is not answered for good", seq, m.Cursor, l)
		}
	}
	part.check = m
	s.count("checkpoints")
}

// inboxPurged: nothing is purged that is not answered for good, nor what a checkpoint names. Called with mu held.
func (s *sim) inboxPurged(subject string, before journal.Seq) {
	for _, l := range s.letters[:min(max(before, 1)-1, journal.Seq(len(s.letters)))] {
		if l.request == nil || l.purged || subject != s.ns.InboxSlot(l.slot) && subject != s.ns.InboxAll() {
			continue
		}
		l.purged = true
		s.count("messages purged")
		if !s.lastingly(l) || l.seq == s.parts[l.request.partition].check.Cursor && s.counts["power cuts"] == 0 {
			s.failed("I2", "%s is purged, up to %d; answered: %v", l, before, l.answered())
		}
	}
}

// acceptInbox accepts that the inbox went back, if a worker tells of that.
func (s *sim) acceptInbox() {
	for p := range s.parts {
		for _, l := range s.alive() {
			st := l.w.Status().Owned[p]
			if !st.Owned || st.Inbox.Alarm == "" {
				continue
			}
			if !s.lossy || s.counts["power cuts"] == 0 || s.durable {
				s.failed("I2", "an alarm, and nothing was lost: %s", st.Inbox.Alarm)
			}
			if time.Since(s.acceptedAt) < 2*wentBackRetry {
				return // it has not looked since
			}
			admin := &simSession{s: s, life: &life{s: s}, direct: s.direct, done: make(chan struct{})}
			to, err := AcceptInbox(s.ctx, admin, "simulation")
			if err != nil {
				s.failed("I9", "accept the loss of the inbox: %v", err)
				return
			}
			s.say("the inbox begins life %d: %s", to, st.Inbox.Alarm)
			s.mu.Lock()
			s.count("alarms of the inbox accepted")
			s.inboxLife, s.acceptedAt = to, time.Now()
			for _, l := range s.letters {
				l.gone = l.gone || l.request != nil && l.purged && !l.answered() // its dead letter was lost, and that was told
			}
			s.mu.Unlock()
			s.rest()
			return
		}
	}
}

// loseInbox takes the last n messages of the inbox away, but none that is durable. Called with mu held.
func (s *sim) loseInbox(n int) {
	end := len(s.letters) - min(n, len(s.letters))
	if s.durable {
		end = max(end, int(s.syncedInbox))
	}
	s.mem.Truncate(s.ns.Inbox(), len(s.letters)-end)
	for _, l := range s.letters[end:] {
		if l.version > 0 {
			s.count("answered messages lost")
		}
		if l.of != nil && l.of.buried == l.seq {
			l.of.buried = 0
			// With a checkpoint that knows of it its loss is an alarm; without one the loss of that checkpoint is.
			dead := s.parts[l.of.request.partition].check.Dead
			l.of.gone = l.of.purged && (dead == nil || dead.Seq < l.seq)
		}
		if h := s.histories[l.id]; h != nil {
			h.letters = without(h.letters, l)
		}
	}
	s.letters = s.letters[:end:end]
	s.line("  the inbox ends at %d", end)
}

// unanswered: the journal has lost commits, and a partition's checkpoint. Called with mu held.
func (s *sim) unanswered(p int, lost []simCommit) {
	for _, c := range lost {
		if l := c.letter; l != nil {
			l.version, l.gone = 0, l.purged
		}
	}
	s.parts[p].check = journal.InboxMark{}
	if m, err := s.direct.Log(p).Last(s.ctx, s.ns.Checkpoint(p)); err == nil {
		cp, _ := journal.DecodeCheckpoint(m.Data)
		s.parts[p].check = cp.Inbox
	}
}

// waiting are the messages that are not answered, and may be. Called with mu held.
func (s *sim) waiting() (list []*simLetter) {
	return slices.DeleteFunc(slices.Clone(s.letters), func(l *simLetter) bool { return l.answered() || s.stopped[l.id] })
}
