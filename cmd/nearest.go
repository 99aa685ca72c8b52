package cmd

import (
	"context"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/journal"
)

// nearest looks at objects from a process with a worker that owns some partitions: there if it owns the object's, else over
// NATS. engine.Worker.Nearest is the same for calls.
type nearest struct {
	worker     *engine.Worker
	bus        *natsbus.Client
	partitions int
}

var _ engine.Inspector = (*nearest)(nil)

// looks is where to ask about an object.
func (n *nearest) looks(class, name string) engine.Inspector {
	if n.worker.Owns(class, name) {
		return n.worker
	}
	return n.bus
}

// State implements engine.Inspector.
func (n *nearest) State(ctx context.Context, class, name string) (engine.ObjectState, error) {
	return n.looks(class, name).State(ctx, class, name)
}

// Journal implements engine.Inspector.
func (n *nearest) Journal(ctx context.Context, class, name string, from journal.Seq, limit int) ([]engine.JournalEntry, journal.Seq, error) {
	return n.looks(class, name).Journal(ctx, class, name, from, limit)
}

// Sent implements engine.Inspector.
func (n *nearest) Sent(ctx context.Context, class, name string, seq journal.Seq) (engine.SentState, error) {
	return n.looks(class, name).Sent(ctx, class, name, seq)
}

// Objects implements engine.Inspector.
func (n *nearest) Objects(ctx context.Context, class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
	return n.bus.Objects(ctx, class, prefix, cursor, limit)
}

// Classes implements engine.Inspector.
func (n *nearest) Classes(ctx context.Context) ([]engine.ClassInfo, error) {
	return n.worker.Classes(ctx)
}

// reachWithin is how long a worker may take to show that it listens.
const reachWithin = time.Second

// ready says why no object can be reached just now.
func (n *nearest) ready() error {
	if n.worker.Ready() == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), reachWithin)
	defer cancel()
	return n.bus.Reach(ctx, n.partitions)
}
