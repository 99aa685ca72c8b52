package natsbus

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Owner is who answers questions about the objects of a partition: a [*engine.Worker] is one.
type Owner interface {
	State(ctx context.Context, class, name string) (engine.ObjectState, error)
	Journal(ctx context.Context, class, name string, from journal.Seq, limit int) (entries []engine.JournalEntry, next journal.Seq, err error)
	Sent(ctx context.Context, class, name string, seq journal.Seq) (engine.SentState, error)
	ObjectsOf(ctx context.Context, partition int, class, prefix, cursor string, limit int) (list []engine.ObjectInfo, ids []string, more bool, err error)
	// Durable returns when what a stream has up to a position is durable.
	Durable(ctx context.Context, stream string, seq journal.Seq) error
}

// ServePart answers questions about the objects of a partition for its owner, on <ns>.control.part.<p>.state, journal, sent, objects
// and durable: other workers ask, for who asked them ([ServeAdmin]). Of a journal there are fewer entries if the server does not
// carry all; other answers are TooLarge then.
//
// stop ends the answering, and returns when no question is in work.
func ServePart(nc *nats.Conn, ns wire.Subjects, p int, of Owner, log *slog.Logger) (stop func(), err error) {
	a := &partAnswers{newAnswerer(nc, ns, log), p, of}
	return a.stop, a.serve(map[string]answerTo{
		ns.AskPart(p, "state"):   a.state,
		ns.AskPart(p, "journal"): a.journal,
		ns.AskPart(p, "sent"):    a.sent,
		ns.AskPart(p, "objects"): a.objects,
		ns.AskPart(p, "durable"): a.durable,
	})
}

type partAnswers struct {
	*answerer
	p  int
	of Owner
}

func (a *partAnswers) state(ctx context.Context, q question) (any, error) {
	return a.of.State(ctx, q.Class, q.Name)
}

func (a *partAnswers) sent(ctx context.Context, q question) (any, error) {
	return a.of.Sent(ctx, q.Class, q.Name, q.Seq)
}

func (a *partAnswers) durable(ctx context.Context, q question) (any, error) {
	return struct{}{}, a.of.Durable(ctx, q.Stream, q.From)
}

func (a *partAnswers) objects(ctx context.Context, q question) (any, error) {
	list, ids, more, err := a.of.ObjectsOf(ctx, a.p, q.Class, q.Prefix, q.Cursor, q.Limit)
	return partObjects{list, ids, more}, err
}

// journal answers with as many entries as fit. Those of one record stay together, since one asks on from a record.
func (a *partAnswers) journal(ctx context.Context, q question) (any, error) {
	entries, next, err := a.of.Journal(ctx, q.Class, q.Name, q.From, q.Limit)
	if err != nil {
		return nil, err
	}
	out := entriesAnswer{Entries: make([]json.RawMessage, len(entries)), Next: next}
	size, whole := len(`{"entries":[],"next":18446744073709551615}`), 0
	for i, e := range entries {
		if i > 0 && e.Seq != entries[i-1].Seq {
			whole = i
		}
		if out.Entries[i], err = json.Marshal(e); err != nil {
			return nil, engine.Errorf(engine.Internal, "journal at %d: %w", e.Seq, err)
		}
		size += len(out.Entries[i]) + len(",")
		if size <= a.answerBytesMax() {
			continue
		}
		if whole == 0 {
			return nil, tooLarge(size, a.answerBytesMax(), q)
		}
		return entriesAnswer{out.Entries[:whole], entries[whole].Seq}, nil
	}
	return out, nil
}
