package engine

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Code is the kind of an [Error]. The list is closed: every wire and every client knows all of it.
// A Code is itself an error, so that errors.Is(err, engine.Refused) asks for it.
type Code string

const (
	Invalid        Code = "invalid"        // 400 malformed: name, method, argument; the same request never succeeds
	Denied         Code = "denied"         // 403 the caller may not
	NotFound       Code = "notFound"       // 404 no such class or method, or what the class does not find
	Conflict       Code = "conflict"       // 409 not in the state asked for: version, existence, a call that came back in a circle
	TooLarge       Code = "tooLarge"       // 413 request, value or commit over its limit
	Refused        Code = "refused"        // 422 a rule of the class says no
	IDReused       Code = "idReused"       // 422 the request id was used for another request
	Limited        Code = "limited"        // 429 a rate or quota is used up; see RetryAfter
	Internal       Code = "internal"       // 500 a fault of the class (panic, plain error) or of the engine
	UnknownOutcome Code = "unknownOutcome" // 500 done or not done: repeat with the same request id
	Overloaded     Code = "overloaded"     // 503 too much is waiting: nothing done; see RetryAfter
	Unavailable    Code = "unavailable"    // 503 no owner just now: nothing done
	Timeout        Code = "timeout"        // 504 not begun by its deadline, or a method beyond its limit: nothing changed
	Full           Code = "full"           // 507 the disk is: nothing done
)

var status = map[Code]int{
	Invalid: 400, Denied: 403, NotFound: 404, Conflict: 409, TooLarge: 413, Refused: 422, IDReused: 422, Limited: 429,
	Internal: 500, UnknownOutcome: 500, Overloaded: 503, Unavailable: 503, Timeout: 504, Full: 507,
}

var title = map[Code]string{
	Invalid: "Invalid request", Denied: "Denied", NotFound: "Not found", Conflict: "Conflict", TooLarge: "Too large",
	Refused: "Refused", IDReused: "Request id reused", Limited: "Limited", Internal: "Internal error",
	UnknownOutcome: "Unknown outcome", Overloaded: "Overloaded", Unavailable: "Unavailable", Timeout: "Timeout", Full: "Disk full",
}

// Codes are all codes, by status and name: the table of docs/errors.md.
func Codes() []Code {
	codes := slices.Collect(maps.Keys(status))
	slices.SortFunc(codes, func(a, b Code) int { return cmp.Or(a.Status()-b.Status(), strings.Compare(string(a), string(b))) })
	return codes
}

func (c Code) Error() string { return string(c) }

// Status is the code's HTTP status and its Nats-Service-Error-Code.
func (c Code) Status() int { return status[c] }

// Error is every failure that leaves an object, on every wire.
type Error struct {
	Code       Code          `json:"code"`
	Detail     string        `json:"detail"`
	Object     string        `json:"object,omitempty"`     // class/name
	RequestID  string        `json:"request_id,omitempty"` // find it in log and journal; repeat with it
	RetryAfter time.Duration `json:"-"`
	Remote     bool          `json:"remote"`           // the class's code returned it, not the machinery around it
	Errors     []FieldError  `json:"errors,omitempty"` // the fields of an argument that are wrong
	cause      error         // stays in this process
}

// Errorf makes a class's refusal. It takes %w; what it wraps stays in this process.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: err.Error(), cause: errors.Unwrap(err)}
}

// RetryIn says when asking again makes sense: Retry-After on HTTP.
func (e *Error) RetryIn(d time.Duration) *Error { e.RetryAfter = d; return e }

func (e *Error) Error() string {
	text := string(e.Code) + ": " + e.Detail
	if e.Object != "" {
		text = e.Object + ": " + text
	}
	if e.Detail == faulty && e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap is what the class wrapped, in the process where it did.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, engine.Refused) ask for the code.
func (e *Error) Is(target error) bool { c, ok := target.(Code); return ok && c == e.Code }

// Overloaded is true when repeating at once makes matters worse.
func (e *Error) Overloaded() bool { return e.Code == Overloaded || e.Code == Limited }

// Retryable is true when a repeat with the same request id may succeed and cannot apply twice. Clients do it by themselves.
func (e *Error) Retryable() bool { return e.Code == Unavailable || e.Code == UnknownOutcome }

// faulty is what callers are told of an error that is no *Error: its text is for the log.
const faulty = "the object failed; its log has the reason under this request id"

// asError is err as it may leave an object.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Detail: faulty, cause: err}
}

// remote marks what a class's own code returned.
func remote(err error) error {
	if err == nil {
		return nil
	}
	e := *asError(err)
	e.Remote = true
	return &e
}

// WriteJSON answers an HTTP request with v.
func WriteJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		w.Header().Set("Content-Type", "application/json")
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

// Problem is an error as problem+json (RFC 9457), the body that all wires carry.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	*Error
	Retryable  bool    `json:"retryable"`
	Overloaded bool    `json:"overloaded"`
	RetryAfter float64 `json:"retry_after,omitempty"` // seconds
}

// ProblemOf is err for a caller. The text of an error that is no [*Error] stays behind.
func ProblemOf(err error) Problem {
	e := asError(err)
	return Problem{
		Type: "urn:perdure:" + string(e.Code), Title: title[e.Code], Status: e.Code.Status(), Error: e,
		Retryable: e.Retryable(), Overloaded: e.Overloaded(), RetryAfter: e.RetryAfter.Seconds(),
	}
}

// ParseProblem is the error that a problem+json body tells; it is an Internal one that quotes the body if it is none.
func ParseProblem(body []byte) *Error {
	p := Problem{Error: new(Error)}
	if err := json.Unmarshal(body, &p); err != nil || status[p.Code] == 0 {
		return Errorf(Internal, "not a problem of this service: %.200q", body)
	}
	p.Error.RetryAfter = time.Duration(p.RetryAfter * float64(time.Second))
	return p.Error
}

// WriteError answers an HTTP request with err as problem+json.
func WriteError(w http.ResponseWriter, err error) {
	p := ProblemOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	if after := p.Error.RetryAfter; after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((after+time.Second-1)/time.Second)))
	}
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // the client may be gone
}
