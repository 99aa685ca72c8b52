package boottime

import (
	"testing"
	"time"
)

func TestNowNeverGoesBackAndFollowsTheMonotonicClock(t *testing.T) {
	t.Parallel()
	first := Now()
	start := time.Now()
	for last := first; time.Since(start) < 10*time.Millisecond; {
		now := Now()
		if now < last {
			t.Fatalf("Now went back from %v to %v", last, now)
		}
		last = now
	}
	inner := time.Since(start) // within the two readings of Now
	if got := Now() - first; got < inner {
		t.Errorf("Now advanced by %v while the monotonic clock advanced by %v", got, inner)
	}
}

func TestProgressBelievesTheClockThatMovedMore(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name            string
		monotonic, wall []time.Duration
		want            time.Duration
	}{
		{"both go on alike", []time.Duration{1, 2, 3}, []time.Duration{1, 2, 3}, 3},
		{"the machine sleeps", []time.Duration{1, 2, 3}, []time.Duration{1, 102, 103}, 103},
		{"the wall clock is set back", []time.Duration{1, 2, 3}, []time.Duration{1, -98, -97}, 3},
		{"it is set ahead and back", []time.Duration{1, 2, 3, 4}, []time.Duration{1, 102, 3, 4}, 104},
		{"it is set back, then the machine sleeps", []time.Duration{1, 2, 3}, []time.Duration{1, -98, 2}, 102},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var p progress
			var got, last time.Duration
			for i := range test.monotonic {
				got = p.advance(test.monotonic[i], test.wall[i])
				if i > 0 && got-last < test.monotonic[i]-test.monotonic[i-1] {
					t.Errorf("step %d: advanced by %v, slower than the monotonic clock", i, got-last)
				}
				last = got
			}
			if got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
