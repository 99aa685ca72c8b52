package jetstream

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/perdure/perdure/journal"
)

// log is a partition's stream.
type log struct {
	api
	directs *directs
	name    string
}

// Stream implements [journal.Log].
func (l *log) Stream() string { return l.name }

// Last implements [journal.Reader].
func (l *log) Last(ctx context.Context, subject string) (journal.Message, error) {
	m, _, err := l.get(ctx, l.name, map[string]string{"last_by_subj": subject})
	if err != nil {
		return m, fmt.Errorf("stream %s: last on %s: %w", l.name, subject, err)
	}
	return m, nil
}

// At implements [journal.Reader].
func (l *log) At(ctx context.Context, seq journal.Seq) (journal.Message, error) {
	m, _, err := l.get(ctx, l.name, map[string]uint64{"seq": uint64(seq)})
	if err != nil {
		return m, fmt.Errorf("stream %s: sequence %d: %w", l.name, seq, err)
	}
	return m, nil
}

// Range implements [journal.Log].
func (l *log) Range(ctx context.Context) (first, last journal.Seq, err error) {
	var info struct {
		answered
		State struct {
			First uint64 `json:"first_seq"`
			Last  uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := l.ask(ctx, "STREAM.INFO."+l.name, nil, &info); err != nil {
		return 0, 0, fmt.Errorf("stream %s: %w", l.name, err)
	}
	if err := info.byLeader(); err != nil {
		return 0, 0, fmt.Errorf("stream %s: %w", l.name, err)
	}
	return journal.Seq(info.State.First), journal.Seq(info.State.Last), nil
}

// Purge implements [journal.Log].
func (l *log) Purge(ctx context.Context, subject string, before journal.Seq) error {
	return l.purge(ctx, l.name, subject, before)
}

// Subjects implements [journal.Log].
func (l *log) Subjects(ctx context.Context, pattern string) iter.Seq2[string, error] {
	return l.subjects(ctx, l.name, pattern)
}

// ours are the headers of a stored message that are not the server's.
func ours(h nats.Header) journal.Header {
	var out journal.Header
	for name, values := range h {
		if !strings.HasPrefix(name, "Nats-") && len(values) > 0 && name != "Status" && name != "Description" {
			if out == nil {
				out = journal.Header{}
			}
			out[name] = values[0]
		}
	}
	return out
}

// Tails implements [journal.Reader]. It asks again while the replica that answers is behind.
func (l *log) Tails(ctx context.Context, atLeast journal.Seq, subjects ...string) ([]journal.Message, journal.Seq, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		tails, end, err := l.directs.get(ctx, l.name, map[string]any{"multi_last": subjects})
		if err != nil {
			return nil, 0, err
		}
		upTo, err := l.upTo(end)
		if err != nil {
			return nil, 0, err
		}
		if upTo >= atLeast {
			return tails, upTo, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, 0, fmt.Errorf("stream %s answers as of %d and not of %d: %w", l.name, upTo, atLeast, ctx.Err())
		}
	}
}

// upTo is the position that the answer to a multi_last is true at. An answer without messages does not say: it proves
// nothing of anything, so it counts as of position 0.
func (l *log) upTo(end nats.Header) (journal.Seq, error) {
	switch status, why := end.Get("Status"), end.Get("Description"); {
	case status == statusNotFound && why == noResults:
		return 0, nil
	case status == statusNotFound:
		return 0, fmt.Errorf("stream %s: %s: %w", l.name, why, journal.ErrDamaged)
	case status != statusEnd:
		return 0, fmt.Errorf("stream %s: direct get: %s %s", l.name, status, why)
	case end.Get(pending) != "0": // the server sends so many bytes at most, and a message that it left out looks absent
		return 0, fmt.Errorf("stream %s: direct get: %s messages are larger than the server's max_pending and were left out", l.name, end.Get(pending))
	}
	seq, err := strconv.ParseUint(end.Get("Nats-UpTo-Sequence"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("stream %s: direct get: Nats-UpTo-Sequence: %w", l.name, err)
	}
	return journal.Seq(seq), nil
}

// One direct get of Read brings so much at most.
const (
	readMessages = 256
	readBytes    = 4 << 20
)

// pending is the header that says how many messages there are behind an answer.
const pending = "Nats-Num-Pending"

// Read implements [journal.Reader].
func (l *log) Read(ctx context.Context, subject string, from journal.Seq) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		more := "0" // messages that the last answer left for the next
		for next := max(from, 1); ; {
			batch, end, err := l.directs.get(ctx, l.name,
				map[string]any{"next_by_subj": subject, "seq": next, "batch": readMessages, "max_bytes": readBytes})
			if err == nil && end.Get("Status") == statusNotFound && len(batch) == 0 {
				if more != "0" { // they were purged meanwhile, or this replica is behind the last, or it cannot read them
					yield(journal.Message{}, fmt.Errorf("stream %s: %s messages on %s from %d on were announced and did not come", l.name, more, subject, next))
				}
				return
			}
			if err == nil && end.Get("Status") != statusEnd {
				err = fmt.Errorf("stream %s: direct get: %s %s", l.name, end.Get("Status"), end.Get("Description"))
			}
			if err != nil {
				yield(journal.Message{}, err)
				return
			}
			for _, m := range batch {
				if !yield(m, nil) {
					return
				}
				next = m.Seq + 1
			}
			if more = end.Get(pending); more == "0" || len(batch) == 0 {
				return
			}
		}
	}
}

// Put implements [journal.Inbox].
func (l *log) Put(ctx context.Context, m journal.Message) (journal.Seq, error) {
	msg := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header{}}
	for k, v := range m.Header {
		msg.Header[k] = []string{v}
	}
	r, err := l.request(ctx, msg)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", l.name, err)
	}
	a, err := ParseAck(r.Data)
	if err != nil {
		return 0, fmt.Errorf("stream %s: %w", l.name, err)
	}
	if a.Stream != l.name {
		return 0, fmt.Errorf("stream %s: acknowledged by stream %q", l.name, a.Stream)
	}
	return a.Seq, nil
}

// Begin implements [journal.Log]: a batch as in ADR-50, whose first message carries the expectation.
func (l *log) Begin(ctx context.Context, last journal.Seq, messages ...journal.Message) (journal.Seq, error) {
	id := nuid.Next()
	for i, m := range messages[:len(messages)-1] {
		msg := batchMessage(m, id, i+1)
		if i == 0 {
			msg.Header.Set(nats.ExpectedLastSubjSeqHdr, strconv.FormatUint(uint64(last), 10))
		}
		if err := l.nc.PublishMsg(msg); err != nil {
			return 0, fmt.Errorf("stream %s: batch: %w", l.name, err)
		}
	}
	commit := batchMessage(messages[len(messages)-1], id, len(messages))
	commit.Header.Set(batchCommit, "1")
	if len(messages) == 1 {
		commit.Header.Set(nats.ExpectedLastSubjSeqHdr, strconv.FormatUint(uint64(last), 10))
	}
	r, err := l.request(ctx, commit)
	if err != nil {
		return 0, fmt.Errorf("stream %s: batch: %w", l.name, err)
	}
	a, err := ParseAck(r.Data)
	if err != nil {
		return 0, fmt.Errorf("stream %s: batch: %w", l.name, err)
	}
	if a.Stream != l.name {
		return 0, fmt.Errorf("stream %s: batch: acknowledged by stream %q", l.name, a.Stream)
	}
	return a.Seq, nil
}

const (
	batchID       = "Nats-Batch-Id"
	batchSequence = "Nats-Batch-Sequence"
	batchCommit   = "Nats-Batch-Commit"
)

func batchMessage(m journal.Message, id string, n int) *nats.Msg {
	msg := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header{batchID: {id}, batchSequence: {strconv.Itoa(n)}}}
	for k, v := range m.Header {
		msg.Header[k] = []string{v}
	}
	return msg
}

var errWriterClosed = errors.New("the writer is closed")
