package cmd

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal/jetstream"
)

func (a *app) drain() *cobra.Command {
	var undo bool
	c := &cobra.Command{
		Use:   "drain WORKER",
		Short: "Take all partitions from a worker; it goes on and owns nothing",
		Long: `Take all partitions from a worker, before its machine is worked on: the others take them over, callers notice a pause of each.
It gets none back, even after a restart, until --undo. The command returns when the worker owns nothing. To end a worker
needs no drain: SIGTERM hands over as well.`,
		Example:           "  perdure drain w-5f2c\n  perdure drain w-5f2c --undo",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWorker,
		RunE: func(c *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), max(a.nats.timeout, time.Minute))
			defer cancel()
			s, named, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer s.Close()
			if undo {
				return a.undrain(ctx, s, args[0])
			}
			return a.drainWorker(ctx, s, args[0], named.Partitions)
		},
	}
	c.Flags().BoolVar(&undo, "undo", false, "let it have its share again")
	return c
}

func (a *app) drainWorker(ctx context.Context, s *jetstream.Session, id string, partitions int) error {
	workers, err := a.readWorkers(ctx, s)
	if err != nil {
		return err
	}
	if _, err := findWorker(workers, id); err != nil {
		return err
	}
	if !slices.ContainsFunc(workers, func(w workerState) bool { return w.Worker != id && w.report != nil && w.State != workerDrained }) {
		return advise(engine.Errorf(engine.Conflict, "nobody could take the partitions of worker %s: no other one shares", id), "start another worker first")
	}
	err = engine.ChangePlacement(ctx, s.Meta(), func(pl *engine.Placement) {
		if !slices.Contains(pl.Drained, id) {
			pl.Drained = append(pl.Drained, id)
		}
	})
	if err != nil {
		return err
	}
	if err := a.waitDrained(ctx, s, id, partitions); err != nil {
		return fmt.Errorf("worker %s is drained, and has partitions yet: %w", id, err)
	}
	fmt.Fprintf(a.err, "worker %s owns nothing, and gets nothing until: perdure drain %s --undo\n", id, id)
	return nil
}

// waitDrained waits until a worker owns nothing by the log, and wants nothing: what it was about to begin it would own in a moment.
func (a *app) waitDrained(ctx context.Context, s *jetstream.Session, id string, partitions int) error {
	for wants := true; wants; {
		workers, err := a.readWorkers(ctx, s)
		if err != nil {
			return err
		}
		wants = slices.ContainsFunc(workers, func(w workerState) bool {
			return w.Worker == id && w.report != nil && slices.ContainsFunc(w.report.Owned, func(p engine.PartitionStatus) bool { return p.Share || p.Owned })
		})
		if !wants {
			break
		}
		select {
		case <-time.After(ownersEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	all := make([]int, partitions)
	for p := range all {
		all[p] = p
	}
	return a.waitOwners(ctx, s, func(_ int, owner string) bool { return owner != id }, all...)
}

func (a *app) undrain(ctx context.Context, s *jetstream.Session, id string) error {
	was := false
	err := engine.ChangePlacement(ctx, s.Meta(), func(pl *engine.Placement) {
		was = slices.Contains(pl.Drained, id)
		pl.Drained = slices.DeleteFunc(pl.Drained, func(d string) bool { return d == id })
	})
	switch {
	case err != nil:
		return err
	case was:
		fmt.Fprintf(a.err, "worker %s gets its share again\n", id)
		return nil
	}
	workers, err := a.readWorkers(ctx, s)
	if err != nil {
		return err
	}
	if _, err := findWorker(workers, id); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "worker %s is not drained\n", id)
	return nil
}
