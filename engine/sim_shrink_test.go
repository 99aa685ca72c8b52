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
		out := simulate(t, seed, p, script, false)
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
