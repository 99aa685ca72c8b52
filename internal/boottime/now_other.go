//go:build !linux

package boottime

import (
	"sync"
	"time"
)

var (
	start = time.Now()

	mu      sync.Mutex
	elapsed progress // guarded by mu
)

// Now is the time since the process began to measure, the time the machine slept included as far as its wall clock
// shows it. It never goes back. Only differences between two values of one process mean anything.
func Now() time.Duration {
	mu.Lock()
	defer mu.Unlock()
	now := time.Now()
	// Round(0) strips the monotonic reading, so that the second difference is by the wall clock.
	return elapsed.advance(now.Sub(start), now.Round(0).Sub(start.Round(0)))
}
