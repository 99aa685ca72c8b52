package drill

import "context"

// System is what a drill disturbs. One thing is done to it at a time.
type System interface {
	// Targets are the processes that may be disturbed, always the same.
	Targets() []Target
	// Do does something to a target and returns when it is done: a killed process is gone.
	Do(ctx context.Context, act Act, t Target) error
}

// Own is a system that a drill starts itself.
type Own interface {
	System
	// Start starts it. Partitions may have no owners yet when it returns.
	Start(ctx context.Context) error
	// Stop ends all of it at once.
	Stop() error
	// NATS is where its servers listen; HTTP are its gateways, if calls go through them.
	NATS() string
	HTTP() []string
}
