// Package wiretap listens to what callers and owners say to each other over NATS, beside the queue group of the owners, and holds it against the
// journal: each call is answered once at most, by the one worker that owned its object then. [Tap] hears, [Check] judges, and knows nothing of
// NATS, so it can be given what was heard elsewhere.
//
// Who listens on a call's subject takes it, for the server: while somebody taps it no caller hears of "no responders". So a tap makes pauses
// longer, and nothing else different.
package wiretap
