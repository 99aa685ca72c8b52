package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

func (a *app) partitions() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:   "partitions",
		Short: "Show who owns each partition; move one to a worker, or free it",
		Long: `Show the partitions of the namespace: whom the log says to own each, under which epoch and since when, whose share it is (with a
pin, if somebody moved it there), objects in memory, messages that wait, how far the owner's acknowledgements are behind the
end of the log, and alarms. It reads the streams, as the role worker.`,
		Example: "  perdure partitions\n  perdure partitions --watch\n  perdure partitions move 3 w-5f2c\n  perdure partitions free 3",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.look(c.Context(), watch, func(ctx context.Context, s *jetstream.Session, named jetstream.Namespace) (func() error, error) {
				list, err := a.readPartitions(ctx, s, named.Partitions)
				return func() error { return a.printPartitions(list) }, err
			})
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again each second")
	c.AddCommand(a.partitionsMove(), a.partitionsFree())
	return c
}

// partitionState is a partition as the log, the placement and its owner say.
type partitionState struct {
	Partition int         `json:"partition"`
	State     string      `json:"state"`            // served, silent, paused or free
	Worker    string      `json:"worker,omitempty"` // the owner, by the log
	Epoch     uint64      `json:"epoch,omitempty"`
	Since     time.Time   `json:"since,omitzero"`
	Share     string      `json:"share,omitempty"` // whose it is to be
	Pinned    bool        `json:"pinned"`          // somebody moved it there
	Resident  int         `json:"resident"`
	Waiting   int         `json:"messages_waiting"`
	Lag       journal.Seq `json:"lag"`
	Alarm     string      `json:"alarm,omitempty"`
}

// States of a partition.
const (
	partServed = "served"
	partSilent = "silent" // its owner does not answer
	partPaused = "paused" // its owner begins, or cannot
	partFree   = "free"   // it was released, or never owned
)

// readAtOnce is how many partitions are read at a time.
const readAtOnce = 16

// readPartitions reads the log of each partition, and asks the workers.
func (a *app) readPartitions(ctx context.Context, s *jetstream.Session, partitions int) ([]partitionState, error) {
	ns := wire.Subjects(a.nats.namespace)
	pl, _, err := engine.ReadPlacement(ctx, s.Meta())
	if err != nil {
		return nil, err
	}
	list, ends, errs := make([]partitionState, partitions), make([]journal.Seq, partitions), make([]error, partitions)
	var wg sync.WaitGroup
	turn := make(chan struct{}, readAtOnce)
	for p := range list {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			if _, ends[p], errs[p] = s.Log(p).Range(ctx); errs[p] != nil { // before the owner tells how far it is
				return
			}
			o, err := engine.ReadOwnership(ctx, s, ns, p)
			errs[p] = err
			list[p] = ownedBy(o)
			list[p].Pinned = pl.Moved[p] != ""
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	workers, err := a.readWorkers(ctx, s)
	if err != nil {
		return nil, err
	}
	for p := range list {
		list[p].hear(workers, ends[p])
	}
	return list, nil
}

func ownedBy(o engine.Ownership) partitionState {
	st := partitionState{Partition: o.Partition, State: partFree}
	if o.Loss != nil {
		st.Alarm = o.Loss.Why
	}
	if o.Worker != "" && !o.Released {
		st.State, st.Worker, st.Epoch = partSilent, o.Worker, o.Epoch
		if len(o.Begun) > 0 {
			st.Since = o.Begun[len(o.Begun)-1]
		}
	}
	return st
}

// hear takes what the workers say of a partition whose log ended there.
func (st *partitionState) hear(workers []workerState, end journal.Seq) {
	for _, w := range workers {
		if w.report == nil || st.Partition >= len(w.report.Owned) {
			continue
		}
		p := w.report.Owned[st.Partition]
		if p.Share {
			st.Share = w.Worker
		}
		st.Alarm = cmp.Or(st.Alarm, p.Alarm, p.Inbox.Alarm)
		if w.Worker != st.Worker {
			continue
		}
		if st.State = partPaused; p.Owned {
			st.State, st.Resident, st.Waiting = partServed, p.Resident, p.Inbox.Open
			st.Lag = max(end, p.High) - p.High
		}
	}
}

func (a *app) printPartitions(list []partitionState) error {
	if a.json {
		for _, p := range list {
			if err := a.printJSON(p); err != nil {
				return err
			}
		}
		return nil
	}
	r := a.rows("partition", "worker", "state", "epoch", "since", "share", "resident", "messages waiting", "lag", "alarm")
	for _, p := range list {
		share := cmp.Or(p.Share, "-")
		if p.Pinned {
			share += " (pinned)"
		}
		r.add(fmt.Sprint(p.Partition), cmp.Or(p.Worker, "-"), p.State, fmt.Sprint(p.Epoch), r.when(p.Since), share, fmt.Sprint(p.Resident),
			fmt.Sprint(p.Waiting), fmt.Sprint(p.Lag), p.Alarm)
	}
	return r.end()
}

func (a *app) partitionsMove() *cobra.Command {
	return &cobra.Command{
		Use:   "move PARTITION WORKER",
		Short: "Move a partition to a worker, and pin it there as long as the worker is there",
		Long: `Move a partition to a worker. Its owner hands it over: callers notice a pause. It stays with the worker while that is there, until
perdure partitions free. The command returns when the worker owns it.`,
		Example:           "  perdure partitions move 3 w-5f2c",
		Args:              countArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: a.completeMove,
		RunE: func(c *cobra.Command, args []string) error {
			return a.onPartition(c, args[0], func(ctx context.Context, s *jetstream.Session, p int) error {
				workers, err := a.readWorkers(ctx, s)
				if err != nil {
					return err
				}
				w, err := findWorker(workers, args[1])
				if err != nil {
					return err
				}
				switch w.State {
				case workerSilent:
					return engine.Errorf(engine.Unavailable, "worker %s does not answer", w.Worker)
				case workerDrained:
					return advise(engine.Errorf(engine.Conflict, "worker %s is drained", w.Worker), "perdure drain %s --undo", w.Worker)
				}
				err = engine.ChangePlacement(ctx, s.Meta(), func(pl *engine.Placement) { pl.Moved[p] = w.Worker })
				if err != nil {
					return err
				}
				if err := a.waitOwners(ctx, s, func(p int, of string) bool { return of == w.Worker }, p); err != nil {
					return fmt.Errorf("partition %d is to be worker %s's, and is not yet: %w", p, w.Worker, err)
				}
				fmt.Fprintf(a.err, "worker %s owns partition %d, and keeps it until: perdure partitions free %d\n", w.Worker, p, p)
				return nil
			})
		},
	}
}

func (a *app) partitionsFree() *cobra.Command {
	return &cobra.Command{
		Use:     "free PARTITION",
		Short:   "Give a partition that was moved back to the share that the workers settle by themselves",
		Example: "  perdure partitions free 3", Args: countArgs(cobra.ExactArgs(1)), ValidArgsFunction: a.completePartition,
		RunE: func(c *cobra.Command, args []string) error {
			return a.onPartition(c, args[0], func(ctx context.Context, s *jetstream.Session, p int) error {
				was := ""
				err := engine.ChangePlacement(ctx, s.Meta(), func(pl *engine.Placement) {
					was = pl.Moved[p]
					delete(pl.Moved, p)
				})
				switch {
				case err != nil:
					return err
				case was == "":
					fmt.Fprintf(a.err, "partition %d is not pinned to a worker\n", p)
				default:
					fmt.Fprintf(a.err, "partition %d is not pinned to worker %s any more\n", p, was)
				}
				return nil
			})
		},
	}
}

// onPartition runs do with a partition that there is.
func (a *app) onPartition(c *cobra.Command, arg string, do func(ctx context.Context, s *jetstream.Session, p int) error) error {
	p, err := strconv.Atoi(arg)
	if err != nil || p < 0 || p >= wire.Slots {
		return usage(c, "%q is no partition; see: perdure partitions", arg)
	}
	ctx, cancel := context.WithTimeout(c.Context(), max(a.nats.timeout, time.Minute))
	defer cancel()
	s, named, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if p >= named.Partitions {
		return usage(c, "there is no partition %d; there are %d, from 0", p, named.Partitions)
	}
	return do(ctx, s, p)
}

// ownersEvery is how often a command looks whether a partition has changed hands.
const ownersEvery = 100 * time.Millisecond

// waitOwners waits until the owners of partitions by the log are as they are wanted; nobody is "".
func (a *app) waitOwners(ctx context.Context, s *jetstream.Session, wanted func(p int, owner string) bool, partitions ...int) error {
	ns := wire.Subjects(a.nats.namespace)
	for {
		var err error
		partitions = slices.DeleteFunc(partitions, func(p int) bool {
			m, failed := s.Log(p).Last(ctx, ns.Epoch(p))
			if errors.Is(failed, journal.ErrNotFound) {
				return wanted(p, "")
			}
			var r journal.EpochRecord
			if failed == nil {
				r, failed = journal.DecodeEpoch(m.Data)
			}
			if failed != nil {
				err = failed
				return false
			}
			if r.Release {
				r.Worker = ""
			}
			return wanted(p, r.Worker)
		})
		if err != nil || len(partitions) == 0 {
			return err
		}
		select {
		case <-time.After(ownersEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
