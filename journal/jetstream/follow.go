package jetstream

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/journal"
)

// What is under way to whoever follows a stream, at most.
const (
	followMessages = 512
	followBytes    = 4 << 20
)

// followedFor is how long the server keeps the consumer of a process that is gone.
const followedFor = 30 * time.Second

// Follow implements [journal.Reader] with an ordered consumer, which the client makes anew where a message is missing.
func (l *log) Follow(ctx context.Context, from journal.Seq, patterns ...string) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		err := l.follow(ctx, from, patterns, func(m journal.Message) bool { return yield(m, nil) })
		if err != nil {
			yield(journal.Message{}, fmt.Errorf("follow stream %s: %w", l.name, err))
		}
	}
}

// follow gives take what comes until it has enough, and returns nil then.
func (l *log) follow(ctx context.Context, from journal.Seq, patterns []string, take func(journal.Message) bool) error {
	js, err := jetstream.New(l.nc, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return err
	}
	c, err := js.OrderedConsumer(ctx, l.name, jetstream.OrderedConsumerConfig{FilterSubjects: patterns,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: uint64(max(from, 1)), InactiveThreshold: followedFor})
	if err != nil {
		return err
	}
	messages, err := c.Messages(jetstream.PullMaxMessagesWithBytesLimit(followMessages, followBytes))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for next := from; ; {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		seq := journal.Seq(meta.Sequence.Stream)
		if seq < next {
			continue // it came before the consumer was made anew
		}
		next = seq + 1
		if !take(journal.Message{Subject: m.Subject(), Seq: seq, Header: ours(m.Headers()), Data: m.Data(), Time: meta.Timestamp}) {
			return nil
		}
	}
}
