package boottime

import "time"

// progress makes one clock of two where the system has no CLOCK_BOOTTIME. The monotonic clock stands still while a
// machine sleeps, the wall clock can be set; between two readings the one that moved more is believed. So the result
// is never slower than the monotonic clock, whatever is done to the wall clock, and trust measured by it can only end
// too early. (The larger of the two totals would not do: after the wall clock was set ahead and back, it would stand
// still for as long as that.)
type progress struct {
	total, monotonic, wall time.Duration
}

// advance takes the readings of both clocks and returns the sum of the larger steps so far.
func (p *progress) advance(monotonic, wall time.Duration) time.Duration {
	p.total += max(monotonic-p.monotonic, wall-p.wall)
	p.monotonic, p.wall = monotonic, wall
	return p.total
}
