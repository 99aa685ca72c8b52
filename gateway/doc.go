// Package gateway is the stateless front by which HTTP callers reach objects. It turns a request into one
// [engine.Request], sends it through a [engine.Transport] and writes the reply; it keeps nothing between two requests.
// Programs in Go reach objects by [Client] instead, and so does a gateway that does not run beside the workers.
//
// # Routes
//
//	/{class}/{name}…                             any      the whole request, to the object's OnHTTP
//	/v1/classes                                  GET      {"classes":[…]}
//	/v1/objects                                  GET      {"objects":[…],"next":"…"}; ?prefix= &limit= &cursor=
//	/v1/objects/{class}                          GET      the same, of one class
//	/v1/objects/{class}/{name}/state             GET      the state as of the last record; nothing is woken
//	/v1/objects/{class}/{name}/journal           GET      one commit a line (NDJSON); ?from= &limit=
//	/v1/objects/{class}/{name}/call/{method}     POST     argument and result in JSON
//	/v1/objects/{class}/{name}/send/{method}     POST     a durable message: 202 and {"seq":…} when it is stored
//	/v1/objects/{class}/{name}/send/{seq}        GET      what became of it: waiting, applied, refused, repeat, notRun, dead
//	/livez                                       GET      the process answers; ?verbose
//	/readyz                                      GET      it takes requests, or 503 and why not; ?verbose
//	/metrics                                     GET      Prometheus
//
// HEAD works where GET does. Query parameters that a route does not have are refused, except below /{class}/{name},
// where query, method and headers are the class's own. There the class gets everything as it was sent, without the
// headers that concern one connection only.
//
// A name is any UTF-8 of 1 to 512 bytes, escaped as URLs are: a/b is a%2Fb. An object named . or .. is written %2E or
// %2E%2E; the bare dots are refused, because clients and proxies take them out of paths, each in its own way. Many do so
// with the escaped ones too: such objects are better called over NATS.
//
// The commits of one record come together in a journal: it can have a few lines more than limit, and the next question
// begins at the last line's seq plus one. If the journal cannot be read further after its first line, the last line is
// the problem: it has a code, which the others have not.
//
// # Headers of requests, for OnHTTP, call and send
//
//	Idempotency-Key      the caller's own id: quoted or bare, 1 to 256 bytes; a repeat gets the recorded reply
//	Perdure-Request-Id   the same
//	Perdure-Deadline     when the request must have begun: 2026-11-24T10:00:00Z or 5s from receipt, at most 1h ahead; a
//	                     message must be stored by then
//	Perdure-Caller       who the caller claims to be, for the journal; at most 256 bytes
//	traceparent          W3C trace context; ignored unless it is well-formed
//	Content-Type         of a call with a body: application/json or absent
//	If-None-Match        of state: 304 if the version is still the one named
//
// # Headers of replies
//
//	ETag                 the object's version, "17", unless the class set one
//	Idempotency-Replayed true, if the reply was recorded when the request first ran
//	Perdure-Request-Id   the caller's own id; of an error always, if it has one
//	Retry-After          of 429, 503 and 507, in seconds
//	Allow                of 405
//	Location             of 202: where to ask what became of the message
//
// # Codes
//
// Errors are problem+json (RFC 9457) with the members type, title, status, detail, code, object, request_id, retryable,
// overloaded, remote and retry_after. The status follows from the code, but for one exception: a method that a route
// does not have is invalid with status 405.
//
//	400  invalid         name, header, parameter or argument is malformed, or a call's Content-Type is not JSON
//	403  denied          the caller may not
//	404  notFound        no such path, class or method, or what the class does not find
//	409  conflict        the object is not in the state asked for
//	413  tooLarge        body, value or commit over its limit
//	422  idReused        the request id was used for another request
//	422  refused         a rule of the class says no
//	429  limited         a rate or quota is used up
//	500  internal        a fault of the class or of the engine
//	500  unknownOutcome  done or not done: repeat with the same id
//	503  overloaded      too much is waiting
//	503  unavailable     no owner just now
//	504  timeout         not begun by its deadline, a method beyond its limit, or a body that did not arrive in time
//	507  full            the disk is
package gateway
