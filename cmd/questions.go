package cmd

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/natsbus"
)

// answer has the worker answer questions: about itself, and, by asking the owners, about all objects.
func (n *node) answer(nc *nats.Conn) (silence func(), err error) {
	others := natsbus.NewClient(nc, n.ns)
	stop, err := natsbus.ServeAdmin(nc, n.ns, natsbus.Admin{
		Worker: n.worker.Status().ID, Partitions: n.kept.Partitions, Classes: n.worker.Classes,
		Report: func() any { return n.report() },
		Status: func(ctx context.Context) (any, error) { return n.system(ctx, others), nil },
	}, n.log)
	if err != nil {
		others.Close()
		return nil, err
	}
	return func() { stop(); others.Close() }, nil
}

// system is what all workers say.
func (n *node) system(ctx context.Context, others *natsbus.Client) doctor.System {
	me := n.report()
	ids := slices.DeleteFunc(n.worker.Living(), func(id string) bool { return id == me.ID })
	reports, silent := doctor.Ask(ctx, others, ids)
	return doctor.Join(n.kept.Partitions, append(reports, me), silent)
}
