// Package bench measures how fast the system is, each figure beside a yardstick that is measured in the same run.
//
// # What is fair
//
// The system runs in a process of its own: the real `perdure dev`, on a folder and ports of its own. The same process also
// serves the yardsticks ([Serve]), so that figure and yardstick have the same server, the same disk and the same
// callers, who are in another process. The rounds alternate: yardstick, figure, yardstick, figure. Whatever else the
// machine does meets both.
//
// # Yardsticks
//
// The pipe is what a log costs without an engine: a request over NATS, one append of the bytes that the engine would
// write for it, the reply on its acknowledgement. It has streams like the journal's, the writer of package
// journal/jetstream, the same window, and one connection inside the server's process, as the engine has. Its requests
// go to the slot's subject, without the server's mapping. A request is a record of its own, or joined: requests that wait
// for the same object while eight of its records are in flight become one record, as in the engine. Or it is only
// answered: request and reply, and nothing else.
//
// # What is checked
//
// A figure of a system that loses or repeats something is worth nothing: behind every row each object must have exactly
// the increments that were acknowledged, and no call may have failed.
package bench
