// Package verify reads a partition's log as a stranger does: without the engine, its memory or its snapshots, by what the
// formats promise alone. It says what is wrong, and where.
//
// [Partition] reads a [journal.Log]. A [Checker] is the same for messages from elsewhere: values in, values out, no
// goroutine, clock or I/O. It reads a stream once, in order, and keeps for each object where its chain ends and which
// requests it may not apply again; for objects that have snapshot records also a hash of each storage key.
//
// What holds of a log, by [Rule]:
//
//	format    every record, snapshot record and epoch record decodes, in a format that this program reads
//	subject   a subject names the slot that class and name give, and a slot of this partition
//	epoch     numbers grow and name the one before; a release names the epoch that it ends; what names an epoch that is
//	          not in the log shows that its epoch record was lost
//	fence     behind an epoch record stand as many fillers as the former owner could have in flight, or, once a later
//	          owner purged them, nothing: a place in it that something else has was open to the former owner
//	stray     a message names the last epoch before it; what does not counts for nothing
//	version   a record begins with the version behind that of the object's record before it
//	prev      and names the hash of its payload
//	time      an object's recorded times never decrease
//	once      no request is applied twice: an id while it is kept, a client's number ever; nor after its deadline. An object
//	          answers the messages of the inbox in their order, each once, within a life of the inbox, which only grows
//	snapshot  a snapshot record has all parts in one run, names a record that is there, and holds what the puts and
//	          deletes up to it come to, and the requests and messages that must not be applied again
//	head      an object's chain begins with version 1, or where two snapshot records cover what was purged
//	checkpoint  its cursor does not go back within a life of the inbox, and what it holds is not behind the cursor
//	witness   the stream has what the key part.<p> knows of it
//
// A chain goes on behind a fault: one record that does not fit is one finding, not as many as there are behind it.
//
// # What it cannot see
//
// From the log alone it does not follow that a lease was closed before another worker's epoch began, nor what events fold
// to: a snapshot's space s is not compared. The last record of an object that no snapshot names can be exchanged
// unnoticed: nothing has its hash yet.
package verify
