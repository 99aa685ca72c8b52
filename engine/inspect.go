package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// Looking at objects. Nothing here wakes one: it reads the journal and the store, and runs no code of a class but the
// folding of events.

// Inspector looks at objects. A [*Worker] is one; over NATS there is another. Its errors are of type [*Error].
type Inspector interface {
	// State is an object's state as of its last record. An object that never changed has version 0.
	State(ctx context.Context, class, name string) (ObjectState, error)
	// Journal are the commits of an object from a position of the stream on, about limit of them (the commits of one
	// record are never parted), and the position to go on from, 0 at the end. What is in the journal and does not count
	// is there too, with its problem.
	Journal(ctx context.Context, class, name string, from journal.Seq, limit int) (entries []JournalEntry, next journal.Seq, err error)
	// Objects are up to limit objects whose names begin with prefix, of one class or (if class is empty) of all, in the
	// order of their escaped names, and the cursor to go on from, empty at the end. Until all names are known it is
	// Unavailable.
	Objects(ctx context.Context, class, prefix, cursor string, limit int) (list []ObjectInfo, next string, err error)
	// Sent is what became of the message to an object that is at a position of the inbox. It reads the object's journal.
	Sent(ctx context.Context, class, name string, seq journal.Seq) (SentState, error)
	// Classes are the classes that are served, by name.
	Classes(ctx context.Context) ([]ClassInfo, error)
}

// ClassInfo describes a class.
type ClassInfo struct {
	Name    string            `json:"name"`
	Methods map[string]Method `json:"methods"`
	Events  []string          `json:"events,omitempty"`
	HTTP    bool              `json:"http"` // it takes whole HTTP requests
	Limits  ClassLimits       `json:"limits"`
}

// ClassLimits are the [Limits] of a class as they are in force, for people: durations as Go writes them.
type ClassLimits struct {
	Idle       string `json:"idle"`
	Turn       string `json:"turn"`
	Queue      int    `json:"queue"`
	QueueBytes int    `json:"queue_bytes"`
	QueueAge   string `json:"queue_age"`
	KeepIDs    string `json:"keep_ids"`
	KeepIDsMax int    `json:"keep_ids_max"`
	ReadOnly   bool   `json:"read_only"`
	Purge      bool   `json:"purge"`
}

var _ Inspector = (*Worker)(nil)

// ObjectInfo is an object in a list.
type ObjectInfo struct {
	Class   string          `json:"class"`
	Name    string          `json:"name"`
	Version journal.Version `json:"version"`
	Changed time.Time       `json:"changed"`
	Seq     journal.Seq     `json:"seq"` // of its last record
	Active  bool            `json:"active"`
}

// ObjectState is an object's state as of its last record.
type ObjectState struct {
	Class   string                     `json:"class"`
	Name    string                     `json:"name"`
	Version journal.Version            `json:"version"`
	Changed time.Time                  `json:"changed,omitzero"`
	Seq     journal.Seq                `json:"seq"`
	State   json.RawMessage            `json:"state,omitempty"` // folded from events
	Storage map[string]json.RawMessage `json:"storage,omitempty"`
	More    bool                       `json:"more,omitempty"` // storage has more than is shown
}

// JournalEntry is one commit in an object's journal, or a message there that does not count.
type JournalEntry struct {
	Class   string           `json:"class"`
	Name    string           `json:"name"`
	Seq     journal.Seq      `json:"seq"` // of its record in the partition's stream
	Version journal.Version  `json:"version,omitempty"`
	At      time.Time        `json:"at"`
	Epoch   uint64           `json:"epoch,omitempty"`
	Source  string           `json:"source,omitempty"`
	Inbox   *journal.Sent    `json:"inbox,omitempty"` // the message that it answers
	Method  string           `json:"method,omitempty"`
	ID      string           `json:"id,omitempty"`
	Caller  Caller           `json:"caller,omitzero"`
	Trace   string           `json:"trace,omitempty"`
	Changes []journal.Change `json:"changes,omitempty"`
	Reply   *journal.Reply   `json:"reply,omitempty"`
	Problem string           `json:"problem,omitempty"` // why it does not count, or cannot be read
}

// Limits of what one question may ask for.
const (
	ListMax      = 1000
	stateKeysMax = 10000
)

// Classes implements [Inspector].
func (w *Worker) Classes(context.Context) ([]ClassInfo, error) {
	list := make([]ClassInfo, 0, len(w.classes))
	for _, name := range slices.Sorted(maps.Keys(w.classes)) {
		c := w.classes[name]
		l := c.Limits
		list = append(list, ClassInfo{c.Name, c.Methods, c.Events, c.HTTP, ClassLimits{l.Idle.String(), l.Turn.String(), l.Queue,
			l.QueueBytes, l.QueueAge.String(), l.KeepIDs.String(), l.KeepIDsMax, l.ReadOnly, l.Purge}})
	}
	return list, nil
}

func (w *Worker) owner(of, name string) (*class, *epoch, string, error) {
	c := w.classes[of]
	if c == nil {
		return nil, nil, "", Errorf(NotFound, "no class %q", of)
	}
	if err := wire.CheckName(name); err != nil {
		return nil, nil, "", Errorf(Invalid, "%w", err)
	}
	token := wire.Escape(name)
	p := w.partition(of, token)
	ep := w.epochs[p].Load()
	if ep == nil {
		return nil, nil, "", notOwned(p)
	}
	return c, ep, token, nil
}

// State implements [Inspector].
func (w *Worker) State(ctx context.Context, class, name string) (ObjectState, error) {
	c, ep, token, err := w.owner(class, name)
	if err != nil {
		return ObjectState{}, err
	}
	view, err := w.store.View()
	if err != nil {
		return ObjectState{}, asError(w.storeFailed(err))
	}
	defer func() { _ = view.Close() }() // of a store that failed it does not matter
	s := newState(view, snapshot.ID(class+"."+token), c)
	r, err := ep.replay(ctx, s, token, snapshot.NewMemory(), false)
	if err != nil {
		return ObjectState{}, ep.wakeError(class+"/"+name, err)
	}
	if err := ep.settle(ctx, r.at.seq); err != nil {
		return ObjectState{}, err
	}
	if err := ep.mayAnswer(); err != nil { // a deposed owner must not show what is no longer so
		return ObjectState{}, unavailable(err)
	}
	out := ObjectState{Class: class, Name: name, Version: r.at.version, Changed: r.at.at, Seq: r.at.seq}
	if out.State, err = foldOf(r.act); err != nil {
		return out, Errorf(Internal, "fold the state: %w", err)
	}
	for key, e := range r.state.entries("", "", false, nil) {
		if e.err != nil {
			return out, Errorf(Internal, "key %q: %w", key, e.err)
		}
		if out.Storage == nil {
			out.Storage = map[string]json.RawMessage{}
		}
		if out.More = len(out.Storage) == stateKeysMax; out.More {
			break
		}
		out.Storage[key] = e.data
	}
	return out, nil
}

// settle waits until what is shown is durable: nobody hears of a change that is then lost.
func (ep *epoch) settle(ctx context.Context, shown journal.Seq) error {
	if shown <= ep.committer.lasting() {
		return nil
	}
	if err := ep.w.settle(ctx, ep.log.Stream(), shown); err != nil {
		return unavailable(fmt.Errorf("what is there is not durable yet: %w", err))
	}
	return nil
}

// Living are the ids of the workers that are alive as far as this one knows, itself among them, by name.
func (w *Worker) Living() (ids []string) {
	s := w.ses.Load()
	if s == nil {
		return []string{w.cfg.ID}
	}
	now := w.clock.Boot()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(s.roster)) {
		if id == w.cfg.ID || s.roster[id].alive(now) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Durable returns when what a stream of this worker has up to a position is durable, so that it may be told of.
func (w *Worker) Durable(ctx context.Context, stream string, seq journal.Seq) error {
	for p := range w.epochs {
		if w.ns.Stream(p) != stream {
			continue
		}
		if ep := w.epochs[p].Load(); ep != nil {
			return ep.settle(ctx, seq)
		}
		return notOwned(p)
	}
	return Errorf(NotFound, "no stream %q", stream)
}

// Journal implements [Inspector].
func (w *Worker) Journal(ctx context.Context, class, name string, from journal.Seq, limit int) (entries []JournalEntry, next journal.Seq, err error) {
	_, ep, token, err := w.owner(class, name)
	if err != nil {
		return nil, 0, err
	}
	if limit < 1 || limit > ListMax {
		limit = ListMax
	}
	subject, last := w.ns.Journal(class, token), journal.Seq(0)
	for m, err := range ep.log.Read(ctx, subject, max(from, 1)) {
		if err != nil {
			return nil, 0, unavailable(fmt.Errorf("read the journal: %w", err))
		}
		if len(entries) >= limit {
			next = m.Seq
			break
		}
		entries = append(entries, ep.entriesOf(m, class, name)...)
		last = m.Seq
	}
	if err := ep.settle(ctx, last); err != nil {
		return nil, 0, err
	}
	if err := ep.mayAnswer(); err != nil { // records of a newer epoch would be shown as not counting
		return nil, 0, unavailable(err)
	}
	return entries, next, nil
}

func (ep *epoch) entriesOf(m journal.Message, class, name string) []JournalEntry {
	if id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch]); err != nil || id != ep.epochAt(m.Seq) {
		return []JournalEntry{{Class: class, Name: name, Seq: m.Seq, At: m.Time, Problem: "does not count: it is not of the epoch before it"}}
	}
	return Entries(m, class, name)
}

// Entries are the commits of an object's record whose epoch is the last one before it. One that cannot be read is one
// entry with its problem.
func Entries(m journal.Message, class, name string) []JournalEntry {
	e := JournalEntry{Class: class, Name: name, Seq: m.Seq, At: m.Time}
	if id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch]); err == nil {
		e.Epoch = id.Number
	}
	rec, err := journal.DecodeRecord(m.Data)
	if err != nil {
		e.Problem = err.Error()
		return []JournalEntry{e}
	}
	entries := make([]JournalEntry, len(rec.Commits))
	for i := range rec.Commits {
		c := &rec.Commits[i]
		e.Version, e.At, e.Source, e.Method, e.ID, e.Caller, e.Trace = rec.First+journal.Version(i), c.At, c.Source, c.Method, c.ID, c.Caller, c.Trace
		e.Inbox, e.Changes, e.Reply = c.Inbox, c.Changes, c.Reply
		if c.Session != nil && e.ID == "" {
			e.ID = (&Request{Session: c.Session}).requestID()
		}
		entries[i] = e
	}
	return entries
}

// Objects implements [Inspector].
func (w *Worker) Objects(ctx context.Context, class, prefix, cursor string, limit int) (list []ObjectInfo, next string, err error) {
	epochs := make([]*epoch, len(w.epochs))
	for p := range w.epochs {
		if epochs[p] = w.epochs[p].Load(); epochs[p] == nil {
			return nil, "", notOwned(p)
		}
	}
	list, ids, more, err := w.list(ctx, epochs, class, prefix, cursor, limit)
	if more && err == nil {
		next = ids[len(ids)-1]
	}
	return list, next, err
}

// ObjectsOf is [Worker.Objects] of one partition, for who puts the lists of several together: the order is that of ids, of which
// each is the cursor behind its object. more tells that there are others behind the last one.
func (w *Worker) ObjectsOf(ctx context.Context, partition int, class, prefix, cursor string, limit int) (list []ObjectInfo, ids []string, more bool, err error) {
	epochs := make([]*epoch, len(w.epochs))
	epochs[partition] = w.epochs[partition].Load()
	if epochs[partition] == nil {
		return nil, nil, false, notOwned(partition)
	}
	return w.list(ctx, epochs, class, prefix, cursor, limit)
}

// list lists the objects of the partitions of some epochs, which are by partition.
func (w *Worker) list(ctx context.Context, epochs []*epoch, class, prefix, cursor string, limit int) (list []ObjectInfo, ids []string, more bool, err error) {
	if class != "" && w.classes[class] == nil {
		return nil, nil, false, Errorf(NotFound, "no class %q", class)
	}
	if err := waitListed(ctx, slices.DeleteFunc(slices.Clone(epochs), func(ep *epoch) bool { return ep == nil })); err != nil {
		return nil, nil, false, err
	}
	if limit < 1 || limit > ListMax {
		limit = ListMax
	}
	start := ""
	if class != "" {
		start = class + "." + wire.Escape(prefix)
	}
	for id, err := range w.store.Names(start, cursor) {
		if err != nil {
			return nil, nil, false, asError(w.storeFailed(err))
		}
		of, token, _ := strings.Cut(string(id), ".")
		if class == "" && !strings.HasPrefix(token, wire.Escape(prefix)) || epochs[w.partition(of, token)] == nil {
			continue
		}
		if more = len(ids) == limit; more {
			break
		}
		ids = append(ids, string(id))
	}
	list, err = w.describe(ctx, epochs, ids)
	return list, ids, more, err
}

func (w *Worker) partition(class, token string) int {
	return wire.Partition(wire.Slot(class, token), w.cfg.Partitions)
}

func notOwned(p int) error { return unavailable(fmt.Errorf("partition %d is not owned", p)) }

// describe asks the streams for the last records of objects, each partition once.
func (w *Worker) describe(ctx context.Context, epochs []*epoch, ids []string) ([]ObjectInfo, error) {
	list := make([]ObjectInfo, len(ids))
	at := map[string]int{} // by subject
	subjects := map[int][]string{}
	for i, id := range ids {
		class, token, _ := strings.Cut(id, ".")
		name, err := wire.Unescape(token)
		if err != nil {
			name = token // somebody else's message in the stream: shown as it is
		}
		list[i] = ObjectInfo{Class: class, Name: name}
		p := w.partition(class, token)
		subject := w.ns.Journal(class, token)
		at[subject] = i
		subjects[p] = append(subjects[p], subject)
	}
	for p, of := range subjects {
		ep := epochs[p]
		tails, _, err := ep.log.Tails(ctx, ep.committer.high(), append(of, w.ns.Epoch(p))...)
		if err != nil {
			return nil, unavailable(fmt.Errorf("ask for the last records: %w", err))
		}
		last := journal.Seq(0)
		for _, m := range tails {
			i, ok := at[m.Subject]
			if !ok {
				continue
			}
			last = m.Seq
			list[i].Seq, list[i].Changed = m.Seq, m.Time
			if rec, err := journal.DecodeRecord(m.Data); err == nil {
				list[i].Version, list[i].Changed = rec.Last(), rec.At
			}
			ep.mu.Lock()
			list[i].Active = ep.objects[snapshot.ID(ids[i])] != nil
			ep.mu.Unlock()
		}
		if err := ep.settle(ctx, last); err != nil {
			return nil, err
		}
	}
	for _, ep := range epochs {
		if ep == nil {
			continue
		}
		if err := ep.mayAnswer(); err != nil { // the next owner may have made others
			return nil, unavailable(err)
		}
	}
	return list, nil
}
