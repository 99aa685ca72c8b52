package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// RecordBytesMax is where commits of one object stop being joined into one record.
const RecordBytesMax = 256 << 10

// Version counts an object's commits; the first has 1.
type Version uint64

// Hash is the first 16 bytes of a SHA-256. In JSON it is 32 hex digits, and empty if it is zero.
type Hash [16]byte

// HashOf is the hash of the concatenation of parts.
func HashOf(parts ...[]byte) Hash {
	if len(parts) == 1 {
		sum := sha256.Sum256(parts[0])
		return Hash(sum[:16])
	}
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return Hash(h.Sum(nil)[:16])
}

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText writes the hex digits, nothing for the zero hash.
func (h Hash) MarshalText() ([]byte, error) {
	if h == (Hash{}) {
		return nil, nil
	}
	return []byte(h.String()), nil
}

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(b []byte) error {
	*h = Hash{}
	if len(b) == 0 {
		return nil
	}
	if n, err := hex.Decode(h[:], b[:min(len(b), 32)]); err != nil || n != 16 || len(b) != 32 {
		return fmt.Errorf("hash %.40q is not 32 hex digits", b)
	}
	return nil
}

// Record is one journal message of one object: consecutive commits, the first of which makes version First.
//
//	{"v":1,"min_reader":1,"first":7,"prev":"…","at":"2026-11-24T10:00:00.000000001Z","commits":[
//	  {"id":"order-17","hash":"…","source":"call","method":"increment","caller":{"claimed":"shop"},
//	   "changes":[{"kind":"put","key":"count","value":3}],"reply":{"status":200,"body":3}}]}
//
// The fields part, of (a commit larger than one message), turn, last (a request of several turns) and enc (key id) are
// reserved. Fields that are not known are ignored; a kind of change that is not known is an error.
type Record struct {
	V         int       `json:"v"`
	MinReader int       `json:"min_reader"`
	First     Version   `json:"first"`
	Prev      Hash      `json:"prev"` // of the payload of the object's record before this one; zero for the first
	At        time.Time `json:"at"`   // of the last commit; never before that of an earlier record of the object
	Commits   []Commit  `json:"commits"`
}

// Last is the version that the record's last commit makes.
func (r *Record) Last() Version { return r.First + Version(len(r.Commits)) - 1 }

// Commit is the changes of one turn, all or nothing, with what caused it and what was answered.
type Commit struct {
	At      time.Time      `json:"at,omitzero"`       // zero: that of the record
	ID      string         `json:"id,omitempty"`      // the caller's own id of the request
	Session *SessionNumber `json:"session,omitempty"` // the number that our clients give a request
	Hash    Hash           `json:"hash,omitzero"`     // of method and body: a repeat must be the same request
	Source  string         `json:"source"`            // call, http, inbox; later outbox, alarm
	Inbox   *Sent          `json:"inbox,omitempty"`   // the message that it answers, if its source is inbox
	Method  string         `json:"method"`
	Caller  Caller         `json:"caller,omitzero"`
	Trace   string         `json:"trace,omitempty"` // W3C traceparent
	Changes []Change       `json:"changes"`
	Reply   *Reply         `json:"reply,omitempty"`
}

// Sent says which message of the inbox a commit answers, and how. An object answers its messages in order, each by one
// commit, whether or not that changes anything; so the highest one answered says which are.
type Sent struct {
	Life    uint64    `json:"life,omitempty"`    // of the inbox: it grows when a loss is accepted
	Seq     Seq       `json:"seq"`               // the message's position in the inbox
	At      time.Time `json:"at"`                // when the inbox stored it; never before that of an earlier message of the object
	Outcome string    `json:"outcome,omitempty"` // empty: the method ran and succeeded
	Tries   int       `json:"tries,omitempty"`   // how often it had failed before
}

// Outcomes of a message that changed nothing. The reply says why.
const (
	SentRefused = "refused" // the class said no, on purpose
	SentDead    = "dead"    // it failed too often: the dead letter
	SentRepeat  = "repeat"  // a request with its id or number was answered before
	SentNotRun  = "notRun"  // it was stored after its deadline, or its id or number cannot be answered
)

// Counts tells whether the commit answers its request's id or number for good. One that only says that a message was not
// applied does not: a dead letter that somebody sends again, under the id that it had, is tried again.
func (m *Sent) Counts() bool { return m == nil || m.Outcome == "" || m.Outcome == SentRefused }

// SessionNumber numbers a request: the N-th of its sender, of whose requests to this object all below M are answered or
// abandoned (client sessions of Ongaro's Raft thesis, 6.3).
type SessionNumber struct {
	Sender   string    `json:"sender"` // 32 hex digits
	N        uint64    `json:"n"`
	M        uint64    `json:"m"`
	Deadline time.Time `json:"deadline"` // after it the request is refused unexecuted
}

// Caller says who asked: what the request claims, and what a server or gateway knows.
type Caller struct {
	Claimed  string `json:"claimed,omitempty"`
	Verified string `json:"verified,omitempty"`
}

// Kinds of change. The set is open: a reader that meets one that it does not know stops at that record. [FormatOf] has those that
// are written.
const (
	Put    = "put"
	Delete = "delete"
	Event  = "event"
)

// Change is one change of an object's state.
type Change struct {
	Kind string
	Key  string // of put and delete
	Type string // of event
	Data []byte // of put and event: JSON, unless Raw
	Raw  bool   // Data is bytes, in base64 in the record
}

// Reply is what the caller was answered.
type Reply struct {
	Status int
	Header map[string][]string // Content-Type and what else the class set, for replies to HTTP requests
	Body   []byte              // JSON, unless Raw
	Raw    bool
}

// Why a payload is no record.
var (
	// ErrNewer says that the record is of a format, or holds a kind of change, that this program does not know.
	ErrNewer = errors.New("written by a newer version")
	errShape = errors.New("not a record")
)

// commit is a commit as it stands in a record. Its parts are read with it, and not by their UnmarshalJSON, so that the
// JSON is gone through once: a wake-up decodes the object's whole tail.
type commit struct {
	Commit
	Changes []change `json:"changes"`
	Reply   *reply   `json:"reply"`
}

func (f *commit) read() (Commit, error) {
	c := f.Commit
	if f.Changes != nil {
		c.Changes = make([]Change, len(f.Changes))
	}
	for i := range f.Changes {
		var err error
		if c.Changes[i], err = f.Changes[i].read(); err != nil {
			return c, err
		}
	}
	if f.Reply != nil {
		r := f.Reply.read()
		c.Reply = &r
	}
	return c, nil
}

// DecodeRecord reads a payload. What it cannot read whole is an error: [ErrNewer] if a newer program would read it.
func DecodeRecord(data []byte) (*Record, error) {
	var head struct {
		V         int `json:"v"`
		MinReader int `json:"min_reader"`
	}
	var f struct {
		Record
		Commits []commit `json:"commits"`
	}
	if err := json.Unmarshal(data, &f); err != nil {
		if json.Unmarshal(data, &head) == nil && head.MinReader > Format {
			return nil, newer(head.MinReader)
		}
		return nil, fmt.Errorf("record: %w", err)
	}
	r := &f.Record
	switch {
	case r.MinReader > Format:
		return nil, newer(r.MinReader)
	case r.V < 1 || r.MinReader < 1:
		return nil, fmt.Errorf("%w: %.60q has no v or min_reader", errShape, data)
	case r.First < 1:
		return nil, fmt.Errorf("%w: no first version", errShape)
	case len(f.Commits) == 0:
		return nil, fmt.Errorf("%w: no commits", errShape)
	case r.At.IsZero():
		return nil, fmt.Errorf("%w: no time", errShape)
	case r.First == 1 != (r.Prev == Hash{}):
		return nil, fmt.Errorf("%w: first is %d and prev %q", errShape, r.First, r.Prev)
	}
	r.Commits = make([]Commit, len(f.Commits))
	for i := range f.Commits {
		c, err := f.Commits[i].read()
		if err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
		if c.At.IsZero() {
			c.At = r.At
		}
		r.Commits[i] = c
	}
	f.Commits = nil // r is a part of f and keeps it
	return r, nil
}

// value is a value in JSON: as it is, or as bytes in base64.
type value struct {
	JSON  json.RawMessage `json:"value,omitempty"`
	Bytes *[]byte         `json:"base64,omitempty"`
}

func (v value) get() ([]byte, bool, error) {
	switch {
	case v.Bytes != nil && v.JSON != nil:
		return nil, false, fmt.Errorf("%w: both value and base64", errShape)
	case v.Bytes != nil:
		return *v.Bytes, true, nil
	case v.JSON != nil:
		return v.JSON, false, nil
	}
	return nil, false, fmt.Errorf("%w: neither value nor base64", errShape)
}

// change is a change as it stands in a record.
type change struct {
	Kind string
	Key  *string
	Type string
	value
}

// read refuses kinds that it does not know.
func (f *change) read() (c Change, err error) {
	c = Change{Kind: f.Kind, Type: f.Type}
	if f.Key != nil {
		c.Key = *f.Key
	}
	switch f.Kind {
	case Put:
		c.Data, c.Raw, err = f.get()
	case Event:
		if c.Data, c.Raw, err = f.get(); f.Type == "" {
			return c, fmt.Errorf("%w: an event without a type", errShape)
		}
	case Delete:
	case "":
		return c, fmt.Errorf("%w: a change without a kind", errShape)
	default:
		return c, fmt.Errorf("change of kind %q: %w", f.Kind, ErrNewer)
	}
	if (f.Kind == Put || f.Kind == Delete) && f.Key == nil {
		return c, fmt.Errorf("%w: a %s without a key", errShape, f.Kind)
	}
	return c, err
}

// UnmarshalJSON reads one change as it stands in a record, and refuses kinds that it does not know.
func (c *Change) UnmarshalJSON(data []byte) error {
	var f change
	err := json.Unmarshal(data, &f)
	if err == nil {
		*c, err = f.read()
	}
	return err
}

// MarshalJSON writes the change as it stands in a record.
func (c Change) MarshalJSON() ([]byte, error) { return appendChange(nil, &c), nil }

// reply is a reply as it stands in a record.
type reply struct {
	Status int
	Header map[string][]string
	Body   json.RawMessage
	Text   *string
	Bytes  *[]byte `json:"base64"`
}

func (f *reply) read() Reply {
	r := Reply{Status: f.Status, Header: f.Header, Body: f.Body}
	switch {
	case f.Text != nil:
		r.Body, r.Raw = []byte(*f.Text), true
	case f.Bytes != nil:
		r.Body, r.Raw = *f.Bytes, true
	}
	return r
}

// UnmarshalJSON reads a reply as it stands in a record.
func (r *Reply) UnmarshalJSON(data []byte) error {
	var f reply
	err := json.Unmarshal(data, &f)
	if err == nil {
		*r = f.read()
	}
	return err
}

// MarshalJSON writes the reply as it stands in a record.
func (r Reply) MarshalJSON() ([]byte, error) { return appendReply(nil, &r), nil }
