package wire

// Version is the version of this contract, in [HeaderWire].
const Version = "1"

// Headers of requests and replies. nats.go looks headers up with their case, so these are the spellings.
const (
	HeaderWire        = "Perdure-Wire"        // version of the contract
	HeaderSession     = "Perdure-Session"     // <sender> <n> <m>: numbered requests of our clients
	HeaderRequestID   = "Perdure-Request-Id"  // a caller's own id
	HeaderDeadline    = "Perdure-Deadline"    // RFC 3339, or a duration from receipt such as 5s
	HeaderCaller      = "Perdure-Caller"      // who asks, as the caller claims
	HeaderChain       = "Perdure-Chain"       // the objects whose turns wait for this one, outermost first, with commas
	HeaderConsistency = "Perdure-Consistency" // of a read: "eventual" if a standby's copy may answer, which may be behind; or "strong"
	HeaderMinVersion  = "Perdure-Min-Version" // of a read: the least version of the object that the reply may be true at
	HeaderVersion     = "Perdure-Version"     // in replies: the object's version that the reply is true at
	HeaderReplayed    = "Perdure-Replayed"    // in replies: "true" for a recorded reply
	HeaderContentType = "Content-Type"        // application/json unless it says otherwise
	HeaderTrace       = "traceparent"         // W3C trace context; written lower case, read in any case
	HeaderError       = "Nats-Service-Error"  // ADR-32: text
	HeaderErrorCode   = "Nats-Service-Error-Code"
	HeaderRetryAfter  = "Retry-After" // seconds, as in HTTP
)

// Headers of journal messages. What a payload means must not depend on them beyond this list, so that a payload can be
// carried elsewhere unchanged.
const (
	HeaderFormat = "Perdure-Format" // version of the record's format
	HeaderEpoch  = "Perdure-Epoch"  // <number> <token>: the epoch under which it was written
	HeaderOrigin = "Perdure-Origin" // <stream> <seq> <hash>: a record that comes from elsewhere; reserved
	HeaderCodec  = "Perdure-Codec"  // absent: JSON; reserved
)
