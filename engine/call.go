package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/perdure/perdure/journal"
)

// None is nothing: the argument of a method that takes none, the result of one that gives none. Its only value is nil.
type None *struct{}

// Ref addresses an object. It is a plain value: comparable, printable, fit for state, events and arguments; making one
// costs nothing and touches nobody. R is *T for a class, or a contract: an interface with some of its methods.
type Ref[R any] struct {
	Class string `json:"class"`
	Name  string `json:"name"`
}

func (r Ref[R]) String() string { return r.Class + "/" + r.Name }

// Remote is a class that this program calls but does not hold, known by its contract R.
type Remote[R any] string

// Get addresses the object of that name: the same name is the same object, every time and everywhere.
func (c Remote[R]) Get(name string) Ref[R] { return Ref[R]{string(c), name} }

// CanRead is what [Read] goes through: the View or Ctx of a turn, or an [Env].
type CanRead interface {
	context.Context
	mayRead(Request) (Reply, error)
}

// CanCall is what [Call] goes through: the Ctx of a turn, or an [Env]. A View is none: a read has no effects.
type CanCall interface {
	CanRead
	mayCall(Request) (Reply, error)
}

// Call runs an exclusive method and waits until what it changed is durable. The method is written as a method
// expression: Call(ctx, Counters.Get("cart-99"), (*Counter).Increment, By{5}). Its errors are of type [*Error].
//
// From a turn it leaves when all earlier commits of the caller are durable, and its request id is derived from the
// turn's; the turn's own changes are not durable yet, so if the turn fails the callee's effect stands.
func Call[R, I, O any](c CanCall, to Ref[R], method func(R, *Ctx, I) (O, error), in I, opts ...CallOption) (O, error) {
	return roundTrip[O](c.mayCall, to.Class, to.Name, method, in, CallOption.call, opts)
}

// Read runs a read method.
func Read[R, I, O any](c CanRead, to Ref[R], method func(R, View, I) (O, error), in I, opts ...ReadOption) (O, error) {
	return roundTrip[O](c.mayRead, to.Class, to.Name, method, in, ReadOption.read, opts)
}

// Post stores a message to a method in the inbox and returns when it is stored: the object applies it once, in the order of
// its messages, even if no worker runs just now. What comes of it nobody waits for: see `perdure dead` for messages that the
// object could not answer. Its errors are of type [*Error].
func Post[R, I, O any](c CanPost, to Ref[R], method func(R, *Ctx, I) (O, error), in I, opts ...SendOption) error {
	r, err := request(to.Class, to.Name, method, in)
	if err != nil {
		return err
	}
	for _, o := range opts {
		o.send(&r)
	}
	_, err = c.mayPost(r)
	return err
}

// Fetch hands a whole HTTP request to the object's OnHTTP and writes the reply, or the problem: an HTTP server of your
// own in front of objects. The body may have [BodyBytesMax] bytes.
func Fetch[R any](e Env, to Ref[R], w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, BodyBytesMax))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			err = Errorf(TooLarge, "the body has more than %d bytes", BodyBytesMax)
		} else {
			err = Errorf(Invalid, "read the body: %w", err)
		}
		WriteError(w, err)
		return
	}
	reply, err := e.transport.Do(e, Request{Class: to.Class, Name: to.Name, Body: body,
		HTTP: &HTTPRequest{Method: r.Method, URL: r.URL.RequestURI(), Host: r.Host, Header: r.Header}})
	if err != nil {
		WriteError(w, err)
		return
	}
	maps.Copy(w.Header(), reply.Header)
	w.WriteHeader(reply.Status)
	_, _ = w.Write(reply.Body) // the client may be gone
}

// CanPost is what [Post] goes through: an [Env]. A Ctx is none: what a turn sends is to be part of its commit.
type CanPost interface {
	mayPost(Request) (journal.Seq, error)
}

// CallOption is given behind the argument of [Call], ReadOption behind that of [Read], SendOption behind that of [Post].
type (
	CallOption interface{ call(*Request) }
	ReadOption interface{ read(*Request) }
	SendOption interface{ send(*Request) }
)

type (
	// RequestID is the caller's own id: a repeat of the same request gets the recorded reply, another request under
	// the same id is refused with [IDReused]. At most 256 bytes.
	RequestID string
	// Limit is how long to wait, at most.
	Limit time.Duration
	// Eventual is a read that a standby's copy of the object may answer: as it was a moment ago, and not after what its caller
	// has just heard of, unless AtLeast says of which version that was. Such reads of one object are spread over all that have it.
	Eventual struct {
		AtLeast Version
	}
	// TellVersion is where the version is put that the reply is true at.
	TellVersion struct{ To *Version }
)

func (o RequestID) call(r *Request) { r.ID = string(o) }
func (o RequestID) send(r *Request) { r.ID = string(o) }
func (o RequestID) read(r *Request) { r.ID = string(o) }
func (o Limit) call(r *Request)     { r.Limit = time.Duration(o) }
func (o Limit) read(r *Request)     { r.Limit = time.Duration(o) }
func (o Eventual) read(r *Request)  { r.Eventual, r.MinVersion = true, o.AtLeast }

func (o TellVersion) call(r *Request) { r.tell = o.To }
func (o TellVersion) read(r *Request) { r.tell = o.To }

// Request is a request in bytes, as it crosses a wire.
type Request struct {
	Class, Name, Method string
	Read                bool            // refuse a method that may change the object
	Eventual            bool            // a read that a standby's copy may answer too
	MinVersion          journal.Version // of a read: the object is to have it
	Body                []byte          // argument in JSON; empty: the zero argument
	HTTP                *HTTPRequest    // instead of Method: the whole request, for the class's OnHTTP
	ID                  string          // the caller's own id
	Session             *SessionNumber  // or the number that a [Client] gives; neither: a repeat runs again
	Caller              Caller
	Chain               []string // the objects whose turns wait for this one, outermost first
	Trace               string   // W3C traceparent
	Deadline            time.Time
	Limit               time.Duration // from receipt, if Deadline is not set; zero: 30 s

	ctx    context.Context  // nil: its caller does not leave
	read   bool             // the method is a read
	made   journal.Token    // an id for a request that came without one
	letter *letter          // it is a message of the inbox
	tell   *journal.Version // where its caller wants the reply's version
}

// WithContext is the request of a caller that leaves when ctx ends, for [Config.Listen]: it does not begin then, and the
// context of its turn ends.
func (r Request) WithContext(ctx context.Context) Request { r.ctx = ctx; return r }

// Context ends when the caller has left.
func (r *Request) Context() context.Context {
	if r.ctx == nil {
		return context.Background()
	}
	return r.ctx
}

// Version is the number of an object's commits.
type Version = journal.Version

// SessionNumber numbers a request of a [Client], so that a repeat of it applies once.
type SessionNumber = journal.SessionNumber

// Caller says who asked. Claimed is what the request says, Verified what the server or gateway knows.
type Caller = journal.Caller

// HTTPRequest is an HTTP request whose body has been read.
type HTTPRequest struct {
	Method string
	URL    string // path and query, as the client sent them
	Host   string
	Header http.Header
}

// Reply is the answer to a request, on its way out.
type Reply struct {
	Status   int         // of HTTP; 200 for calls
	Header   http.Header // of replies to HTTP requests
	Body     []byte
	Version  journal.Version // of the object, that the reply is true at; what it says is durable
	Replayed bool            // recorded when the request first ran
}

// ErrClosed is in the errors of a [Transport] that was closed and carries no more requests: a [Client] does not ask it again.
var ErrClosed = errors.New("the client is closed")

// Transport carries requests to objects. A [*Worker] is one, in process.
type Transport interface {
	// Do returns the reply, or an [*Error]. It does not repeat; a [Client] does.
	Do(ctx context.Context, r Request) (Reply, error)
	// Post stores a request in the inbox and returns its position there when it is stored, or an [*Error]. It does not
	// repeat; a [Client] does.
	Post(ctx context.Context, r Request) (journal.Seq, error)
}

// Env is a context from which objects can be reached, outside any turn.
type Env struct {
	context.Context
	transport Transport
}

// Via joins a context and a transport; usually through [Client.With].
func Via(ctx context.Context, t Transport) Env { return Env{ctx, t} }

func (e Env) mayCall(r Request) (Reply, error)       { return e.transport.Do(e, r) }
func (e Env) mayPost(r Request) (journal.Seq, error) { return e.transport.Post(e, r) }
func (e Env) mayRead(r Request) (Reply, error)       { r.Read = true; return e.transport.Do(e, r) }

func roundTrip[O, P any](do func(Request) (Reply, error), class, name string, method, in any, apply func(P, *Request), opts []P) (out O, err error) {
	r, err := request(class, name, method, in)
	if err != nil {
		return out, err
	}
	for _, o := range opts {
		apply(o, &r)
	}
	reply, err := do(r)
	if err != nil {
		return out, err
	}
	if r.tell != nil {
		*r.tell = reply.Version
	}
	if err := json.Unmarshal(reply.Body, &out); err != nil {
		return out, Errorf(Internal, "reply of %s/%s %s: %w", class, name, r.Method, err)
	}
	return out, nil
}

func request(class, name string, method, in any) (Request, error) {
	wire, full := methodName(method)
	if wire == "" {
		return Request{}, Errorf(Invalid, "want a method expression like (*Counter).Increment, have the function %s", full)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return Request{}, Errorf(Invalid, "argument of %s/%s %s: %w", class, name, wire, err)
	}
	return Request{Class: class, Name: name, Method: wire, Body: body}, nil
}

// methodNames remembers the wire names of method expressions by their code's address.
var methodNames sync.Map // uintptr -> string

// methodName is the wire name of a method expression, empty if it is another function, and the symbol it comes from:
// pkg.(*Counter).Increment, or pkg.Contract.Increment.
func methodName(method any) (wire, full string) {
	pc := reflect.ValueOf(method).Pointer()
	if name, ok := methodNames.Load(pc); ok {
		return name.(string), ""
	}
	full = runtime.FuncForPC(pc).Name()
	short := full[strings.LastIndexByte(full, '.')+1:]
	if !unicode.IsUpper(rune(short[0])) {
		return "", full
	}
	wire = wireName(short)
	methodNames.Store(pc, wire)
	return wire, full
}

// wireName is the lower camel case of a Go name: Increment is increment, AddItem addItem, HTTPGet httpGet, ID id.
func wireName(s string) string {
	n := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsUpper(r) })
	switch {
	case n < 0:
		n = len(s)
	case n > 1:
		n--
	}
	return strings.ToLower(s[:n]) + s[n:]
}
