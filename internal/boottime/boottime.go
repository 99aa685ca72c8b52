// Package boottime is a clock that goes on while the machine sleeps. What is trusted for a time, such as a lease, is
// measured by it: Go's monotonic clock stands still during a sleep, and the trust would outlive its term.
package boottime
