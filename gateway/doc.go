// Package gateway is the stateless front by which HTTP callers reach objects. It turns a request into one
// [engine.Request], sends it through a [engine.Transport] and writes the reply; it keeps nothing between two requests.
// Programs in Go reach objects by [Client] instead, and so does a gateway that does not run beside the workers.
//
// # Routes
//
//	/{class}/{name}…                             any      the whole request, to the object's OnHTTP
//	/v1/classes                                  GET      {"classes":[…]}: methods, schemas, events, limits
//	/openapi.json                                GET      all of this and the classes' methods, as OpenAPI 3.1
//	/v1/objects                                  GET      {"objects":[…],"next":"…"}; ?prefix= &limit= &cursor=
//	/v1/objects/{class}                          GET      the same, of one class
//	/v1/objects/{class}/{name}/state             GET      the state as of the last record; nothing is woken
//	/v1/objects/{class}/{name}/journal           GET      one commit a line (NDJSON); ?from= &limit=
//	/v1/objects/{class}/{name}/journal           GET      with Accept: text/event-stream, what is committed to it; ?from=
//	/v1/objects/{class}/{name}/journal/{id}      GET      one commit, by the id of its event; ?cloudevents=binary
//	/v1/objects/{class}/{name}/call/{method}     POST     argument and result in JSON
//	/v1/objects/{class}/{name}/send/{method}     POST     a durable message: 202 and {"seq":…} when it is stored
//	/v1/objects/{class}/{name}/send/{seq}        GET      what became of it: waiting, applied, refused, repeat, notRun, dead
//	/v1/changes                                  GET      what is committed to all; ?class= &prefix= &from= &cloudevents=structured
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
// # What changes
//
// A stream of events has one for each commit, from the moment of its first line on, or from where it is told to begin: from=now
// is the default, from=start (or 0) what the journal still has, and from=<id>, or the header Last-Event-ID, which comes first,
// what is behind the event of that id. Of one object the id is the sequence of the record, with the number of the commit if more
// of the record follow, as in 260:2; there from=<sequence> is the first sequence, as it is without a stream. Of all objects it is
// opaque. The order is that of the versions of each object; between objects there is none.
//
// /v1/changes is NDJSON, or server-sent events with Accept: text/event-stream. Both have the same events:
//
//	change      data is a commit as in the journal, without the reply; for one object with it
//	heartbeat   at first, and each 15 s without another one; a comment among server-sent events. Its id counts like that of
//	            an event: nothing that is asked for is before it
//	end         data is a problem that ends the stream: overloaded, the client was too slow; conflict, what is next was
//	            purged; unavailable, the journal cannot be read. The id is where to go on
//
//	{"event":"change","id":"3f9a0c12.260.0.17.5","data":{"class":"counter","name":"x",…}}
//
// A stream that ends without an event goes on where it was, too: the gateway is shutting down, or the connection was lost.
//
// Attributes of CloudEvents 1.0 are there on request. In binary mode they are the headers of a message, so it is for one commit
// by itself; the events of a stream have no headers, and their data is a CloudEvent in structured mode. The id of the CloudEvent
// is <class>/<name>@<version>, its source the path of the object.
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
//	If-None-Match        of state and openapi.json: 304 if the version is still the one named
//	Accept               of journal and changes: application/x-ndjson or text/event-stream
//	Last-Event-ID        of streams of events: the id of the last one that was seen
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
// overloaded, remote, errors (the wrong fields of an argument) and retry_after. The status follows from the code, but for one exception: a method that a route
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
