package doctor

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/engine"
)

// TestReportsAreJoinedByWhoKnowsMost of each partition: a former owner may not know yet that it is one.
func TestReportsAreJoinedByWhoKnowsMost(t *testing.T) {
	t.Parallel()
	owned := func(p int, epoch uint64) engine.PartitionStatus {
		return engine.PartitionStatus{Partition: p, Share: true, Owned: true, Epoch: epoch}
	}
	reports := []Report{
		{Status: engine.Status{ID: "b", Resident: 2, Memory: 20, Queued: 200, Owned: []engine.PartitionStatus{owned(0, 4), {Partition: 1}, {Partition: 2, Alarm: "journal went back"}, {Partition: 3}}}},
		{Status: engine.Status{ID: "a", Resident: 1, Memory: 10, Queued: 100, Owned: []engine.PartitionStatus{owned(0, 3), owned(1, 1), {Partition: 2, Share: true}, {Partition: 3}}}},
	}
	want := System{
		Partitions: []Partition{{owned(0, 4), "b"}, {owned(1, 1), "a"}, {engine.PartitionStatus{Partition: 2, Alarm: "journal went back"}, "b"}, {engine.PartitionStatus{Partition: 3}, ""}},
		Resident:   3, Memory: 30, Queued: 300, Silent: []string{"c"},
		Workers: []Report{{Status: engine.Status{ID: "a", Resident: 1, Memory: 10, Queued: 100}}, {Status: engine.Status{ID: "b", Resident: 2, Memory: 20, Queued: 200}}},
	}
	if diff := cmp.Diff(want, Join(4, reports, []string{"c"})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if reports[0].Owned == nil {
		t.Error("the reports were changed")
	}
}
