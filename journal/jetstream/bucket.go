package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/journal"
)

// bucket is the namespace's key-value bucket. Its stream has no direct gets, so what is read comes from the leader.
type bucket struct {
	api
	name string
}

func (b *bucket) stream() string            { return "KV_" + b.name }
func (b *bucket) subject(key string) string { return "$KV." + b.name + "." + key }

// Get implements [journal.Meta]. A key that somebody deleted with another tool is not there, and its revision is that
// of the deletion.
func (b *bucket) Get(ctx context.Context, key string) ([]byte, journal.Seq, error) {
	m, header, err := b.get(ctx, b.stream(), map[string]string{"last_by_subj": b.subject(key)})
	if err != nil {
		return nil, 0, fmt.Errorf("key %s: %w", key, err)
	}
	if op := header.Get("KV-Operation"); op == "DEL" || op == "PURGE" {
		return nil, m.Seq, fmt.Errorf("key %s: deleted: %w", key, journal.ErrNotFound)
	}
	return m.Data, m.Seq, nil
}

// Put implements [journal.Meta].
func (b *bucket) Put(ctx context.Context, key string, value []byte, rev journal.Seq) (journal.Seq, error) {
	m := nats.NewMsg(b.subject(key))
	m.Data = value
	m.Header.Set(nats.ExpectedLastSubjSeqHdr, strconv.FormatUint(uint64(rev), 10))
	r, err := b.request(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("put key %s: %w", key, err)
	}
	ack, err := ParseAck(r.Data)
	if err != nil {
		return 0, fmt.Errorf("put key %s: %w", key, err)
	}
	return ack.Seq, nil
}

// Remove implements [journal.Meta]. It is no deletion as key-value tools know it, which would leave a mark for ever.
func (b *bucket) Remove(ctx context.Context, key string, rev journal.Seq) error {
	return b.purge(ctx, b.stream(), b.subject(key), rev+1)
}

// Keys implements [journal.Meta].
func (b *bucket) Keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for subject, err := range b.subjects(ctx, b.stream(), b.subject(">")) {
			key := strings.TrimPrefix(subject, b.subject(""))
			if err == nil && !strings.HasPrefix(key, prefix) {
				continue
			}
			if !yield(key, err) || err != nil {
				return
			}
		}
	}
}

// purge removes the messages on a subject of a stream that are before a position.
func (a api) purge(ctx context.Context, stream, subject string, before journal.Seq) error {
	if before <= 1 {
		return nil // the server takes 0 and 1 for "all"
	}
	if err := a.askOnce(ctx, "STREAM.PURGE."+stream, map[string]any{"filter": subject, "seq": before}, nil); err != nil {
		return fmt.Errorf("stream %s: purge %s: %w", stream, subject, err)
	}
	return nil
}

// subjects yields the subjects of a stream that match a pattern, page by page.
func (a api) subjects(ctx context.Context, stream, pattern string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for offset := 0; ; {
			var info struct {
				answered
				Total int `json:"total"`
				State struct {
					Subjects map[string]uint64 `json:"subjects"`
				} `json:"state"`
			}
			err := a.ask(ctx, "STREAM.INFO."+stream, map[string]any{"subjects_filter": pattern, "offset": offset}, &info)
			if err == nil {
				err = info.byLeader()
			}
			if err != nil {
				yield("", fmt.Errorf("subjects of stream %s: %w", stream, err))
				return
			}
			for subject := range info.State.Subjects {
				if !yield(subject, nil) {
					return
				}
			}
			offset += len(info.State.Subjects)
			if len(info.State.Subjects) == 0 || offset >= info.Total {
				return
			}
		}
	}
}

// Ack is the server's acknowledgement of a message: the stream that has it, and where.
type Ack struct {
	Stream string      `json:"stream"`
	Seq    journal.Seq `json:"seq"`
}

// errNoAck is an answer that is no acknowledgement.
var errNoAck = errors.New("not an acknowledgement")

// ParseAck reads an acknowledgement; a refusal in its place is an [*APIError]. The common form is read without reflection.
func ParseAck(data []byte) (Ack, error) {
	if a, ok := quickAck(data); ok {
		return a, nil
	}
	var full struct {
		Ack
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &full); err != nil {
		return Ack{}, fmt.Errorf("%w: %.100q", errNoAck, data)
	}
	switch {
	case full.Error != nil:
		return Ack{}, full.Error
	case full.Stream == "" || full.Seq == 0:
		return Ack{}, fmt.Errorf("%w: %.100q", errNoAck, data)
	}
	return full.Ack, nil
}

// quickAck reads {"stream":"objects-1","seq":42} and {"stream":"objects-1", "seq":42}.
func quickAck(data []byte) (Ack, bool) {
	rest, ok := strings.CutPrefix(string(data), `{"stream":"`)
	if !ok {
		return Ack{}, false
	}
	stream, rest, ok := strings.Cut(rest, `"`)
	rest, comma := strings.CutPrefix(rest, ",")
	rest, ok2 := strings.CutPrefix(strings.TrimPrefix(rest, " "), `"seq":`)
	number, ok3 := strings.CutSuffix(rest, "}")
	seq, err := strconv.ParseUint(number, 10, 64)
	return Ack{stream, journal.Seq(seq)}, ok && comma && ok2 && ok3 && err == nil && stream != "" && seq > 0 && number[0] != '0'
}
