// Package feed tells whoever listens what changes: one event per commit, from the journal.
//
// A [Hub] follows the streams of a namespace, with one consumer for each, while somebody listens. It decodes a record once,
// keeps the last ones in memory, and every listener reads them there: however many listen, the streams are read once, and
// the owners of the partitions do not notice.
//
// # What holds
//
//  1. A listener is told each commit that counts once, and those of a partition in the order of its stream; so those of an
//     object in the order of their versions. Between partitions there is no order.
//  2. What is told counts: the record is of the last epoch before it in its stream (docs/design.md, "Second line"). That
//     versions follow one another is not checked: it would take the last version of every object. Who keeps something by
//     object and version finds out.
//  3. What is told is durable: where the acknowledgement of the journal is not all that it takes, the hub waits for the rest.
//  4. After each event there is a place, in its id, and whoever begins there is told what is behind it.
//  5. A listener that is too slow is cut: the memory of the hub does not wait for it. It is told so, with its place.
//
// # From the past to the present
//
// The memory of a partition is the records behind position low, up to position high. A listener is at a position of each
// partition: all that it asked for is told up to there. If that is low or more, what is behind it is in memory. If it is
// less, the listener follows the stream itself, up to low and no farther: what is behind low it will find in memory. So there
// is no gap and nothing twice where the two meet, whatever happens meanwhile: low only grows, and then the listener follows on.
//
// The message at low is among those that a listener asks the stream for, whatever else it filters, so it finds its end. If it
// was purged there is a later one on its subject: a purge leaves the last record of an object. What was purged between the
// place where a listener left and the present cannot be told, and is an error ([Listener.Run]).
package feed
