package natsbus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// peers is the way to the other workers. It ends with its connection.
type peers struct {
	nc *nats.Conn
	ns wire.Subjects
}

// Peers makes the way from a life of a worker to the others: what [engine.Config] asks for. The connection has to be the one that
// [Listen] is given, or a probe says nothing about answers.
func Peers(nc *nats.Conn, ns wire.Subjects, worker string, life journal.Token, hear func(engine.Word)) (engine.Peers, error) {
	prefix := strings.TrimSuffix(ns.Words(), "*")
	if _, err := nc.Subscribe(ns.Words(), func(m *nats.Msg) {
		if w, ok := engine.ParseWord(strings.TrimPrefix(m.Subject, prefix)); ok {
			hear(w)
		}
	}); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", ns.Words(), err)
	}
	if _, err := nc.Subscribe(ns.Life(worker, life.String()), func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil { // the connection is gone then
		return nil, fmt.Errorf("listen to probes: %w", err)
	}
	return peers{nc, ns}, nil
}

// Tell implements [engine.Peers].
func (p peers) Tell(w engine.Word) {
	subject := strings.TrimSuffix(p.ns.Words(), "*") + w.String()
	if w.Kind == engine.WordOwned { // which is of use to callers, and to nobody else
		subject = p.ns.Owner(w.Partition, w.Of)
	}
	_ = p.nc.Publish(subject, nil) // the others look by themselves, later
}

// Probe implements [engine.Peers].
func (p peers) Probe(ctx context.Context, worker string, life journal.Token) engine.Presence {
	_, err := p.nc.RequestWithContext(ctx, p.ns.Life(worker, life.String()), nil)
	switch {
	case err == nil:
		return engine.Present
	case errors.Is(err, nats.ErrNoResponders):
		return engine.Gone
	}
	return engine.Unsure
}
