// Package drill rehearses recovery: it drives a counted load over objects of its own, kills and pauses what runs them, and
// afterwards holds every answer against the journal and the objects. What decides is values in and values out: the plan
// ([NewPlan]), the [Ledger] of what was asked and told, the [Audit] of what the journal has. [Run] moves.
//
// # What is counted
//
//	acknowledged   a call that was answered: its change must be one commit, at the version that the answer said
//	refused        a call that certainly was not executed: its change must not be there
//	unknown        a call whose outcome nobody told before its deadline: it may be there, at most once
//	lost           an acknowledged call that the journal does not have
//	applied twice  a call that the journal has more than once
//	out of order   an answer that does not come behind those before it: a version that is not above each that was told
//	               before the call was sent, one where the journal has the call elsewhere, or a count that is not the version
//	unasked        a change of the drill's objects that no call asked for, or that a caller was told not to be done
//	state          an object that is not what its commits come to, or whose invariant does not hold
//	journal        what package journal/verify calls severe
//
// # Time without answer
//
// It is a time during which an object was asked and did not answer. It begins when a call is sent while none is under way, or
// at the disturbance if that is later; it ends at the next answer of that object to any call, and goes on while callers give
// up. Of each object the longest between a disturbance and the next one counts. The percentiles are over those objects that
// were asked in that time and whose partition changed owners in it; over all that were asked, if no partition did.
package drill
