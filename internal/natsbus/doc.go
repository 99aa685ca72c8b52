// Package natsbus carries requests and their answers over NATS. [Listen] is the owner's intake: it takes requests off the
// subjects of a partition's slots. [Client] is the other end: an engine.Transport, and an engine.Inspector for looking,
// which [ServeAdmin] answers on any worker by asking the owners, who answer for their partitions ([ServePart]). [RelayCalls] stands
// in for a server's subject mapping. The subjects and the names of the headers are package wire's; what the headers say is
// written and read here, so that a request that cannot be understood is refused with what would be right.
//
// # What may be lost
//
// A message is delivered at most once. A request that gets lost on the way, or whose answer does, ends as
// engine.UnknownOutcome, and engine.Client repeats it under the same number. Messages are handed on without blocking, so
// they pile up in the NATS client only while the process gets no time to run. Should a subscription ever reach its limits
// the client drops what comes, and reports nats.ErrSlowConsumer to the connection's error handler: treat that as an alarm.
//
// # Whom to believe
//
// Everything in a request is a claim. The caller's name becomes Caller.Claimed and never Verified. A reply subject inside
// the namespace or of the server's own is treated as none: otherwise a caller could have the worker write its answer into
// a journal for which the caller itself has no permission.
package natsbus
