package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Seq is a position in a stream; the first message has 1, and 0 is before all.
type Seq uint64

// Window is how many messages of a writer may be in flight, and how many fillers an epoch begins with. The two are one
// number by the argument in the package's comment; an epoch record states it, for owners of another version.
const Window = 256

// WindowBytes bounds the bytes in flight: the server's ingest queue holds 128 MiB.
const WindowBytes = 32 << 20

// BatchMax is how many messages an atomic batch may hold.
const BatchMax = 1000

// Outcome is what became of an append. The zero value is the cautious one.
type Outcome uint8

const (
	Unknown Outcome = iota // no answer, or one that does not say: it may or may not be in the stream
	Stored                 // the log acknowledged it
	Refused                // the log holds something else at that position; it is not stored and never will be
)

func (o Outcome) String() string {
	switch o {
	case Stored:
		return "stored"
	case Refused:
		return "refused"
	}
	return "unknown"
}

// Errors of a log.
var (
	// ErrNotFound says that there is no such message or key.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that a compare-and-set found something else than was expected. Nothing was stored.
	ErrConflict = errors.New("changed by another")
	// ErrDamaged says that the log names a message that it cannot deliver. It is never absence.
	ErrDamaged = errors.New("the log is damaged")
	// ErrMissing says that a stream or bucket that the namespace is known to have is not there.
	ErrMissing = errors.New("missing")
)

// CorruptError is a journal message that cannot be what the object's history needs at its place.
type CorruptError struct {
	Stream string
	Seq    Seq
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("stream %s, sequence %d: %v", e.Stream, e.Seq, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }

// Header are the few headers of a journal message; their names are in internal/wire.
type Header map[string]string

// Message is a message in a stream, or on its way into one; then Seq and Time are zero.
type Message struct {
	Subject string
	Header  Header
	Data    []byte
	Seq     Seq
	Time    time.Time // when the log stored it
}

// Size is what the message counts for in [WindowBytes].
func (m Message) Size() int {
	n := len(m.Subject) + len(m.Data)
	for k, v := range m.Header {
		n += len(k) + len(v)
	}
	return n
}

// Answer tells what became of an [Writer.Append]: the position that its last message was to have, and the outcome.
type Answer struct {
	Seq     Seq
	Outcome Outcome
	Err     error // why it was not stored, for the log
}

// A Writer appends to one partition's stream for one epoch. Append is called by one goroutine at a time.
type Writer interface {
	// Append sends messages that may be stored only directly behind position last, and does not wait: one as a plain
	// message, several as an atomic batch. The answer comes through the function that the writer was opened with,
	// from another goroutine, in whatever order the log answers; it may never come. An error means that the
	// outcome is unknown and that no answer will come. subject is the position that the last message on the (first)
	// message's subject must have besides, 0 if there must be none; [NoSubjectCheck] leaves that unchecked. The messages are
	// the caller's again when it returns.
	Append(last Seq, subject Seq, messages ...Message) error
	// Close ends the answers. It does not take back what is in flight.
	Close()
}

// NoSubjectCheck is for [Writer.Append]: any last message on the subject will do.
const NoSubjectCheck = Seq(1<<64 - 1)

// A Reader reads one stream. Safe for concurrent use.
type Reader interface {
	// Last is the last message on a subject, or on the subjects that a pattern matches, from the stream's leader; ErrNotFound if there is none, or if it is damaged
	// (a server does not tell one from the other).
	// It may still be old: nothing is decided by it that a compare-and-set does not confirm.
	Last(ctx context.Context, subject string) (Message, error)
	// At is the message at a position, from the stream's leader; ErrNotFound likewise.
	At(ctx context.Context, seq Seq) (Message, error)
	// Tails are the last messages of the given subjects (without wildcards; those that there are, by position), all
	// as of one position of the stream, which it also returns and which is at least atLeast.
	Tails(ctx context.Context, atLeast Seq, subjects ...string) ([]Message, Seq, error)
	// Read yields the messages on a subject, or on the subjects that a pattern matches, from a position on, in order, and
	// ends where the stream ended when the last batch was read. Nothing says that the replica that answers is up to date:
	// the caller compares with Tails.
	Read(ctx context.Context, subject string, from Seq) iter.Seq2[Message, error]
	// Follow yields the messages on subjects that the patterns match, from a position on, in order and each once, and then
	// waits for further ones. It ends with an error: that of ctx, or why the stream cannot be followed any more. What is
	// under way to the caller is bounded in messages and bytes, however far behind it is.
	Follow(ctx context.Context, from Seq, patterns ...string) iter.Seq2[Message, error]
}

// A Log is one partition's stream.
type Log interface {
	Reader
	Kept
	// Begin appends messages as one atomic batch if the last message on the first one's subject is at position last
	// (0: there is none), and returns the position of the last of them. ErrConflict means that another was first
	// and nothing was stored; any other error, that the outcome is unknown.
	Begin(ctx context.Context, last Seq, messages ...Message) (Seq, error)
	// Writer opens a writer. answer is called for each append, one call at a time.
	Writer(answer func(Answer)) (Writer, error)
	// Subjects yields the subjects that match a pattern and have messages, in no order.
	Subjects(ctx context.Context, pattern string) iter.Seq2[string, error]
}

// Kept is what a stream keeps.
type Kept interface {
	// Stream is its name.
	Stream() string
	// Range is the first and the last position of the stream, from its leader; last only grows.
	Range(ctx context.Context) (first, last Seq, err error)
	// Purge removes the messages on a subject, or on the subjects that a pattern matches, that are before a position.
	Purge(ctx context.Context, subject string, before Seq) error
}

// An Inbox is the namespace's stream of messages to objects, which anybody may write: what was sent and is not purged yet.
type Inbox interface {
	Reader
	Kept
	// Put stores a message behind the last one and returns its position when that is acknowledged; if it is not, the outcome
	// is unknown.
	Put(ctx context.Context, m Message) (Seq, error)
	// Subjects yields the subjects that match a pattern and have messages, in no order.
	Subjects(ctx context.Context, pattern string) iter.Seq2[string, error]
}

// Meta is the namespace's bucket of keys, each changed by compare-and-set only. Safe for concurrent use.
type Meta interface {
	// Get is a key's value and revision, from the leader. A key that is not there has revision 0 and ErrNotFound.
	Get(ctx context.Context, key string) (value []byte, rev Seq, err error)
	// Put sets a key whose revision is rev, 0 if it must not be there, and returns the new revision. ErrConflict
	// means that it has another revision and nothing was stored; any other error, that the outcome is unknown.
	Put(ctx context.Context, key string, value []byte, rev Seq) (Seq, error)
	// Remove removes a key whose revision is rev or was before it; one that has a later revision stays, and is no error. A key that
	// was removed is as one that never was.
	Remove(ctx context.Context, key string, rev Seq) error
	// Keys yields the keys that begin with prefix.
	Keys(ctx context.Context, prefix string) iter.Seq2[string, error]
}

// A Session is a worker's presence at the log: one connection for requests, replies and appends, a second one for Meta,
// so that renewals of its lease do not wait behind anything, and a third for what is read, so that nothing waits behind a
// long search. None connects again by itself: when one has ended, Done is closed and the session is over.
type Session interface {
	Meta() Meta
	// Log is the stream of a partition; making one asks nobody.
	Log(partition int) Log
	// Inbox is the stream of messages to objects; making it asks nobody.
	Inbox() Inbox
	// Server is the id of the server's present run.
	Server() string
	// PayloadMax is the largest message that the server takes, in bytes.
	PayloadMax() int
	Done() <-chan struct{}
	Close()
}
