// Package journal is the truth about objects: records, epochs and snapshot records with their formats, and what the
// engine asks of a log that keeps them. It knows no objects and no server: journal/jetstream is the real log,
// journal/journaltest one in memory, and both pass the same tests.
//
// # The fence
//
// A partition's stream has one writer, the worker that its last epoch names. The writer predicts positions: every append
// says at which one it is to be stored, so up to [Window] of them are in flight, and one that finds another message
// there is refused. A new owner begins with one atomic batch: the epoch record, by compare-and-set against the epoch
// before it, and Window fillers behind it. Let m be the stream's last position before that batch. What the former owner
// has in flight expects at most m+Window-1; after the batch the last position is at least m+Window+1, and it only grows;
// so all of it is refused for ever, and no more can come, since a window opens with answers and ends with the first that
// is not "stored".
package journal
