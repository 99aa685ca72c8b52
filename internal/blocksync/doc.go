// Package blocksync makes durable what a NATS server in this process has stored: many messages with one sync.
//
// The server writes a message into its stream's newest block file before it acknowledges it. A [Syncer] then syncs the
// files that have grown, in rounds: what was acknowledged before a round began is durable after it. So one sync pays for
// all that came meanwhile, where the server's own "sync always" pays for each message.
//
// Why it is enough: a stream is a row of block files, written one after the other. A round syncs the newest that it knows
// and each newer one, with their folder; so whatever is told as durable has all that is before it in its stream on disk.
// A power cut leaves any part of what was written since. Of one file the server keeps the records up to the first that is
// not whole. Only a file whose predecessor was cut could stand behind a hole; [Repair] puts such files aside before the
// server starts: nothing in them was told.
//
// It relies on the server's layout (layout.go), which is its own business: tests hold it against the pinned version, and
// [New] refuses a folder that it does not recognise ([ErrLayout]).
package blocksync
