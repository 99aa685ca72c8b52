package engine

import (
	"slices"
	"testing"
	"time"
)

// shrinkFor bounds how long a failing story is made shorter.
const shrinkFor = 20 * time.Second

// shrink takes steps from a story as long as the same property fails: by halves, then by ever smaller pieces, then one
// by one, until none can be left out or the time is over.
func shrink(t *testing.T, seed uint64, p profile, script []simStep, property string) []simStep {
	end := time.Now().Add(shrinkFor)
	fails := func(script []simStep) bool {
		out := simulate(t, seed, p, script, silent)
		return out.failure != nil && out.failure.property == property
	}
	for size := max(1, len(script)/2); ; {
		shorter := false
		for at := 0; at < len(script) && time.Now().Before(end); {
			try := slices.Delete(slices.Clone(script), at, min(at+size, len(script)))
			if fails(try) {
				script, shorter = try, true
			} else {
				at += size
			}
		}
		switch {
		case time.Now().After(end) || size == 1 && !shorter:
			return script
		case size > 1:
			size /= 2
		}
	}
}

// TestAFailingStoryIsShrunk: a property fails when an append is lost and a process is killed. What is left of a long
// story is one call, its way to the worker, and the loss: processes are killed at the end of every story.
func TestAFailingStoryIsShrunk(t *testing.T) {
	defer oneCore()()
	p, script := drawn(1)
	p.planted, p.partitions = true, 1
	p.immediate = [opKinds]bool{true, true, true, true, true, true, true}
	script = append([]simStep{{stepCall, 0}, {stepGo, 0}, {stepLose, 0}, {stepRun, 0}, {stepKill, 0}}, script...)
	fails := func(script []simStep) bool {
		f := simulate(t, 1, p, script, silent).failure
		return f != nil && f.property == "I0"
	}
	if !fails(script) {
		t.Fatal("the planted fault does not show")
	}
	short := shrink(t, 1, p, script, "I0")
	kinds := []stepKind{}
	for _, st := range short {
		kinds = append(kinds, st.kind)
	}
	if !slices.Equal(kinds, []stepKind{stepCall, stepGo, stepLose}) {
		t.Errorf("%d of %d steps are left: %v", len(short), len(script), short)
	}
}
