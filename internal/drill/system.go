package drill

import "context"

// System is what a drill disturbs. One thing is done to it at a time.
type System interface {
	// Targets are the processes that may be disturbed, always the same.
	Targets() []Target
	// Do does something to a target and returns when it is done: a killed process is gone.
	Do(ctx context.Context, act Act, t Target) error
}
