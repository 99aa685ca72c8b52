package journal

import (
	"encoding/json"
	"fmt"
	"time"
)

// Checkpoint is a message on a partition's checkpoint subject, written by its owner now and then: what it has done that is
// no object's commit. The last one counts; a new owner goes on from there.
type Checkpoint struct {
	V         int       `json:"v"`
	MinReader int       `json:"min_reader"`
	At        time.Time `json:"at"`
	Inbox     InboxMark `json:"inbox"`
}

// InboxMark is how far the messages to a partition's objects are answered.
type InboxMark struct {
	Life   uint64    `json:"life,omitempty"` // of the inbox: it grows when a loss is accepted
	Cursor Seq       `json:"cursor"`         // the last message up to which all are answered, but those of held objects
	Hash   Hash      `json:"hash"`           // of that message: a witness of what the inbox had
	At     time.Time `json:"at"`             // the latest time at which one up to it was stored
	Held   []Held    `json:"held,omitempty"`
	Dead   *DeadMark `json:"dead,omitempty"` // the last dead letter that the partition's owner kept; nil: none in this life
}

// DeadMark is where a dead letter was kept in the inbox: another witness of how far that went. For a message to a class that
// nobody has, which no object's commit answers, it is the only one.
type DeadMark struct {
	Seq  Seq  `json:"seq"`
	Hash Hash `json:"hash"` // of its payload
}

// Held is an object whose messages from First on wait, because the first of them failed or takes long.
type Held struct {
	Class string    `json:"class"`
	Token string    `json:"token"` // the name, escaped
	First Seq       `json:"first"`
	Last  Seq       `json:"last"`            // the last one up to the cursor: whoever reads them again must find it
	Tries int       `json:"tries,omitempty"` // how often the first one failed
	Error string    `json:"error,omitempty"` // how it failed last
	Due   time.Time `json:"due,omitzero"`    // when it is tried again
}

// Encode is the checkpoint as a payload.
func (c Checkpoint) Encode() []byte {
	c.V, c.MinReader = FormatBase, FormatBase
	b, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("journal: a checkpoint does not encode: %v", err)) // its fields always do
	}
	return b
}

// DecodeCheckpoint reads a checkpoint.
func DecodeCheckpoint(data []byte) (c Checkpoint, err error) {
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("checkpoint: %w", err)
	}
	switch {
	case c.MinReader > Format:
		return c, newer(c.MinReader)
	case c.V < 1 || c.At.IsZero():
		return c, fmt.Errorf("%w: checkpoint %.80q lacks v or at", errShape, data)
	}
	return c, nil
}

// DeadLetter is a message that its object could not answer so often that it is not tried any more. It is kept in the inbox,
// on a subject of its own, until somebody takes it away.
type DeadLetter struct {
	Class   string    `json:"class"`
	Token   string    `json:"token"` // the object's name, escaped
	Method  string    `json:"method"`
	Life    uint64    `json:"life,omitempty"`
	Seq     Seq       `json:"seq"` // the message's position in the inbox
	At      time.Time `json:"at"`  // when the inbox stored it
	Tries   int       `json:"tries"`
	Error   string    `json:"error"`  // how it failed last
	Buried  time.Time `json:"buried"` // when it was given up
	Subject string    `json:"subject"`
	Header  Header    `json:"header,omitempty"`
	Body    []byte    `json:"body,omitempty"` // in base64
}

// Encode is the dead letter as a payload.
func (d DeadLetter) Encode() []byte {
	b, err := json.Marshal(d)
	if err != nil {
		panic(fmt.Sprintf("journal: a dead letter does not encode: %v", err)) // its fields always do
	}
	return b
}

// DecodeDeadLetter reads a dead letter.
func DecodeDeadLetter(data []byte) (d DeadLetter, err error) {
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("dead letter: %w", err)
	}
	return d, nil
}

// MessageHash tells a message of the inbox from another one at its position, which may say the same: by its time too.
func MessageHash(m Message) Hash {
	return HashOf(fmt.Appendf(nil, "%s\x00%d\x00", m.Subject, m.Time.UnixNano()), m.Data)
}

// InboxKey is the key of the bucket that says which life the inbox is in.
const InboxKey = "inbox"

// InboxWentBackError is the alarm "inbox went back": the inbox has another message, or none, where one was answered, or where
// a dead letter was kept. What comes after it cannot be told from what was answered, so a partition answers no messages until that is accepted.
type InboxWentBackError struct {
	Stream    string
	Partition int
	Seq       Seq    // of the message that was answered, or of the dead letter
	Dead      bool   // it is that of a dead letter
	Witness   string // who knows that it was
}

func (e *InboxWentBackError) Error() string {
	what := fmt.Sprintf("message %d of stream %s was answered", e.Seq, e.Stream)
	if e.Dead {
		what = fmt.Sprintf("a dead letter was kept at %d of stream %s", e.Seq, e.Stream)
	}
	return fmt.Sprintf("inbox went back: %s knows that %s, which has something else there, or ends before it; "+
		"no message to objects of partition %d is applied until `perdure accept-inbox` takes the loss", e.Witness, what, e.Partition)
}
