// Package engine runs objects: it gives every class/name one memory, one mailbox and one log.
//
// A class is a Go struct with methods. A method has one of two forms, with [None] for nothing:
//
//	func (*T) Name(ctx *engine.Ctx, in I) (O, error)   // a call: alone in the object, may change it
//	func (*T) Name(v engine.View, in I) (O, error)     // a read: may not, and does not compile if it tries
//
// [Call] and [Read] reach objects and wait for the answer. One rule says what may change what: whatever writes takes a
// *Ctx.
//
// # State
//
// Exported fields of T are folded from [Events] and change only in an event's Apply; unexported fields are a cache of
// the activation. [Key] and [Map] are storage. A turn is one commit: all of it or nothing.
//
//	error before any Put or Emit       free: nothing happens, the activation stays
//	error after Put only               the turn's changes are dropped, the activation stays, cache fields keep what
//	                                   was assigned to them (so assign them last, or in Ctx.OnCommit)
//	error after Emit, panic, time-out  the activation is dropped and rebuilt at the next turn
//
// What cannot be encoded, decoded or stored fails the turn, whether or not the method goes on: nothing that writes
// returns an error, and no value that is there is ever read as absent.
//
// # The way of a request
//
//	do.go          a request is checked and finds its partition's epoch, its object and its mailbox
//	object.go      one goroutine at a time runs an object; a repeat is answered from once.go
//	replay.go      an object that is not in memory is rebuilt: snapshot, then the records after it
//	turn.go        the method runs on memory; its changes are one commit
//	committer.go   commits become records, up to a window of them in flight (window.go), each at a predicted position
//	object.go      when a record is durable its replies leave: the output gate is object.gate and object.stored
//	persist.go     states go into the snapshot store, and now and then into the journal
//
// Ownership is session.go (the lease, the epoch's beginning and release), lease.go (what may follow what) and epoch.go
// (what is owned, until the first append that is not stored). witness.go knows when a journal came back shorter. What
// decides is plain values without clock, goroutine or channel: [window], [trust], [mayFollow], [once].
//
// # Concurrency
//
//  1. Turns of one object run one after the other, in the order in which their requests came.
//  2. A turn sees every change of the turns before it, acknowledged or not.
//  3. No reply leaves before the commits that it may tell of are durable; and a reply without a record of its own leaves
//     only under a valid lease.
//  4. Turns of different objects run side by side.
//  5. A [Ctx] belongs to its turn and to one goroutine.
package engine
