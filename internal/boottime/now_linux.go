package boottime

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Now is the time since the machine was started, the time it slept included. It never goes back. Only differences
// between two values of one machine mean anything.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// No other clock can stand in for it: the values of two clocks have no difference.
		panic(fmt.Sprintf("boottime: read CLOCK_BOOTTIME, which every Linux since 2.6.39 has: %v", err))
	}
	return time.Duration(ts.Nano())
}
