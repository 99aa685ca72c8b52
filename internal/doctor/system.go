package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
)

// Report is what a worker says of itself and of where it runs, as JSON on <ns>.control.worker.<id>.status.
type Report struct {
	engine.Status
	Host *Host `json:"host,omitempty"`
}

// System is what all workers say together, as JSON on <ns>.admin.status.
type System struct {
	Partitions []Partition `json:"partitions"` // all of the namespace
	Resident   int         `json:"resident"`
	Memory     int64       `json:"memory_bytes"`
	Queued     int64       `json:"queued_bytes"`
	Workers    []Report    `json:"workers"`          // by name; what they say of partitions is above
	Silent     []string    `json:"silent,omitempty"` // workers that may be alive, and do not answer
}

// Partition is what its owner says of a partition, or, if nobody owns it, whoever knows why.
type Partition struct {
	engine.PartitionStatus
	Worker string `json:"worker,omitempty"` // the owner, or whose share it is
}

// Join puts the reports of workers together. A partition of which none of them knows is not owned.
func Join(partitions int, reports []Report, silent []string) System {
	s := System{Partitions: make([]Partition, partitions), Workers: slices.Clone(reports), Silent: silent}
	for p := range s.Partitions {
		s.Partitions[p].Partition = p
	}
	slices.SortFunc(s.Workers, func(a, b Report) int { return cmp.Compare(a.ID, b.ID) })
	for i := range s.Workers {
		r := &s.Workers[i]
		for _, of := range r.Owned {
			if of.Partition < partitions && knows(of) > knows(s.Partitions[of.Partition].PartitionStatus) {
				s.Partitions[of.Partition] = Partition{of, r.ID}
			}
		}
		s.Resident += r.Resident
		s.Memory += r.Memory
		s.Queued += r.Queued
		r.Owned = nil
	}
	return s
}

// knows is how much a worker has to do with a partition. Of two that say that they own it the later epoch is right.
func knows(p engine.PartitionStatus) uint64 {
	switch {
	case p.Owned:
		return 3 + p.Epoch
	case p.Alarm != "" || p.Inbox.Alarm != "":
		return 2
	case p.Share:
		return 1
	}
	return 0
}

// reportWithin is how long a worker may take to say what it does.
const reportWithin = time.Second

// Ask asks workers what they do, all at once. Who does not answer is silent.
func Ask(ctx context.Context, c *natsbus.Client, workers []string) (reports []Report, silent []string) {
	ctx, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	answers := make([]*Report, len(workers))
	var wg sync.WaitGroup
	for i, id := range workers {
		wg.Go(func() {
			raw, err := c.StatusOf(ctx, id)
			if r := new(Report); err == nil && json.Unmarshal(raw, r) == nil {
				answers[i] = r
			}
		})
	}
	wg.Wait()
	for i, id := range workers {
		if answers[i] == nil {
			silent = append(silent, id)
		} else {
			reports = append(reports, *answers[i])
		}
	}
	return reports, silent
}

// ReadSystem asks any worker what all of them do.
func ReadSystem(ctx context.Context, c *natsbus.Client) (System, error) {
	var s System
	raw, err := c.Status(ctx)
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return s, fmt.Errorf("status: %w", err)
	}
	return s, nil
}
