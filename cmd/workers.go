package cmd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/jetstream"
)

func (a *app) workers() *cobra.Command {
	var watch, all bool
	c := &cobra.Command{
		Use:   "workers",
		Short: "Show who works: state, version, partitions, objects in memory",
		Long: `Show the workers of the namespace. A worker is sharing; joining, when it ended too often of late and waits for its share; leaving,
when it is about to end; drained, when perdure drain took its share away; silent, when its lease is not closed and it does not
answer. Others take over from a silent one when its lease has run out. It reads the bucket, as the role worker.`,
		Example: "  perdure workers\n  perdure workers --watch\n  perdure workers --all --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.look(c.Context(), watch, func(ctx context.Context, s *jetstream.Session, _ jetstream.Namespace) (func() error, error) {
				list, err := a.readWorkers(ctx, s)
				if !all {
					list = slices.DeleteFunc(list, func(w workerState) bool { return w.State == workerEnded })
				}
				return func() error { return a.printWorkers(list) }, err
			})
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it again each second")
	c.Flags().BoolVar(&all, "all", false, "those that have ended, too")
	return c
}

// workerState is a worker as its lease, the placement and it itself say.
type workerState struct {
	Worker     string    `json:"worker"`
	State      string    `json:"state"`
	Version    string    `json:"version"`
	Since      time.Time `json:"since"` // its present life
	Partitions []int     `json:"partitions"`
	Resident   int       `json:"resident"`
	Memory     int64     `json:"memory_bytes"`
	Queued     int64     `json:"queued_bytes"`

	report *doctor.Report // nil: it does not answer
}

// States of a worker, beside what its lease says of its place in the share.
const (
	workerEnded   = "ended"
	workerSilent  = "silent"
	workerDrained = "drained"
)

// readWorkers reads the leases, and asks all that are not closed.
func (a *app) readWorkers(ctx context.Context, s *jetstream.Session) ([]workerState, error) {
	members, err := engine.ReadMembers(ctx, s.Meta())
	if err != nil {
		return nil, err
	}
	pl, _, err := engine.ReadPlacement(ctx, s.Meta())
	if err != nil {
		return nil, err
	}
	var open []string
	for _, m := range members {
		if !m.Closed {
			open = append(open, m.Worker)
		}
	}
	to := natsbus.NewClient(s.Conn(), wire.Subjects(a.nats.namespace))
	defer to.Close()
	reports, _ := doctor.Ask(ctx, to, open)
	list := make([]workerState, len(members))
	for i, m := range members {
		w := workerState{Worker: m.Worker, State: m.Standing, Version: m.Software, Since: m.Began, Partitions: []int{}}
		at := slices.IndexFunc(reports, func(r doctor.Report) bool { return r.ID == m.Worker })
		switch {
		case m.Closed:
			w.State = workerEnded
		case at < 0:
			w.State = workerSilent
		default:
			w.tell(&reports[at])
			if slices.Contains(pl.Drained, m.Worker) {
				w.State = workerDrained
			}
		}
		list[i] = w
	}
	return list, nil
}

// tell takes what the worker says of itself.
func (w *workerState) tell(r *doctor.Report) {
	w.report, w.Resident, w.Memory, w.Queued = r, r.Resident, r.Memory, r.Queued
	for _, p := range r.Owned {
		if p.Owned {
			w.Partitions = append(w.Partitions, p.Partition)
		}
	}
}

func (a *app) printWorkers(list []workerState) error {
	if a.json {
		for _, w := range list {
			if err := a.printJSON(w); err != nil {
				return err
			}
		}
		return nil
	}
	r := a.rows("worker", "state", "version", "since", "partitions", "resident", "memory MiB", "queued KiB")
	for _, w := range list {
		r.add(w.Worker, w.State, cmp.Or(w.Version, "-"), r.when(w.Since), fmt.Sprint(len(w.Partitions)), fmt.Sprint(w.Resident),
			fmt.Sprint(w.Memory>>20), fmt.Sprint(w.Queued>>10))
	}
	return r.end()
}

// findWorker is a worker that has not ended.
func findWorker(list []workerState, id string) (workerState, error) {
	var names []string
	for _, w := range list {
		if w.State == workerEnded {
			continue
		}
		if w.Worker == id {
			return w, nil
		}
		names = append(names, w.Worker)
	}
	return workerState{}, advise(engine.Errorf(engine.NotFound, "there is no worker %q; there are: %s", id, cmp.Or(strings.Join(names, ", "), "none")),
		"see: perdure workers")
}

// lookEvery is how often --watch shows a thing again.
const lookEvery = time.Second

// look shows what read finds: once, or again and again, on a terminal in the same place.
func (a *app) look(ctx context.Context, watch bool, read func(context.Context, *jetstream.Session, jetstream.Namespace) (show func() error, err error)) error {
	once := func(s *jetstream.Session, named jetstream.Namespace) error {
		timed, cancel := context.WithTimeout(ctx, a.nats.timeout)
		defer cancel()
		show, err := read(timed, s, named)
		if err != nil {
			return err
		}
		if watch && isTerminal(a.out) {
			fmt.Fprint(a.out, "\x1b[H\x1b[2J")
		}
		return show()
	}
	opening, cancel := context.WithTimeout(ctx, a.nats.timeout)
	defer cancel()
	s, named, err := a.open(opening)
	if err != nil {
		return err
	}
	defer s.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := once(s, named); err != nil || !watch {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
