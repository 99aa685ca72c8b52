package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway/feed"
)

// Config is what a [Gateway] is made of. Fields without a default are required.
type Config struct {
	// Transport carries requests to objects: an [engine.Client], which numbers and repeats them, or a [Client].
	Transport engine.Transport
	// Inspector looks at objects. Default: Transport, if it does, as a [Client].
	Inspector engine.Inspector
	// Feed tells what changes. Without it nothing can be followed: Unavailable.
	Feed *feed.Hub
	// Ready says why requests cannot be served just now. Default: they always can.
	Ready func() error
	// Metrics count the requests, and are what /metrics shows. Default: metrics of the gateway's own.
	Metrics *Metrics
	// BodyBytesMax is the largest body; a larger one is refused as tooLarge. Default and at most [engine.BodyBytesMax].
	BodyBytesMax int
	// ClientTimeout is how long a client may take to send its body, and to take each part of a reply. A body that takes
	// longer is refused as timeout. Default 30 s.
	ClientTimeout time.Duration
	// Log hears what no caller is told. Default: nobody.
	Log *slog.Logger
}

const clientTimeout = 30 * time.Second

// Gateway is an [http.Handler]: the routes of the package. Safe for concurrent use.
type Gateway struct {
	Config
}

// New checks the configuration; its error lists every problem.
func New(c Config) (*Gateway, error) {
	c.BodyBytesMax = cmp.Or(c.BodyBytesMax, engine.BodyBytesMax)
	c.ClientTimeout = cmp.Or(c.ClientTimeout, clientTimeout)
	if c.Ready == nil {
		c.Ready = func() error { return nil }
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics("dev")
	}
	if c.Inspector == nil {
		c.Inspector, _ = c.Transport.(engine.Inspector)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var problems []error
	if c.Transport == nil {
		problems = append(problems, errors.New("Transport is required"))
	}
	if c.Inspector == nil {
		problems = append(problems, errors.New("Inspector is required"))
	}
	if c.BodyBytesMax < 1 || c.BodyBytesMax > engine.BodyBytesMax {
		problems = append(problems, fmt.Errorf("BodyBytesMax is %d; want 1 to %d", c.BodyBytesMax, engine.BodyBytesMax))
	}
	if c.ClientTimeout < 0 {
		problems = append(problems, fmt.Errorf("ClientTimeout is %v; want more than 0", c.ClientTimeout))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return &Gateway{c}, nil
}

// ServeHTTP implements [http.Handler].
func (g *Gateway) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: rw, timeout: g.ClientTimeout}
	t, err := parse(r.Method, r.URL.EscapedPath())
	defer func() { g.Metrics.served(t.label(), w.outcome(r.Context())) }()
	if r.ContentLength != 0 {
		w.expectBody()
	}
	if err == nil {
		err = g.serve(w, r, &t)
	}
	if err != nil {
		g.fail(w, r, &t, err)
	}
	w.status = cmp.Or(w.status, http.StatusOK)
}

func (g *Gateway) serve(w *response, r *http.Request, t *target) (err error) {
	if !t.route.allows(r.Method) {
		w.Header().Set("Allow", t.route.allow())
		return notAllowed{engine.Errorf(engine.Invalid, "%s takes %s, not %s", t.route.path, t.route.allow(), r.Method)}
	}
	if t.query, err = t.route.parseQuery(r.URL.RawQuery); err != nil {
		return err
	}
	return t.route.serve(g, w, r, t)
}

// fail answers with an error, unless an answer has begun.
func (g *Gateway) fail(w *response, r *http.Request, t *target, err error) {
	if w.status != 0 {
		return // the client hears that the body ends early
	}
	e, known := errors.AsType[*engine.Error](err)
	if !known {
		g.Log.Error("request failed", "method", r.Method, "path", r.URL.EscapedPath(), "err", err)
		engine.WriteError(w, err)
		return
	}
	said := *e
	if t.name != "" {
		said.Object = cmp.Or(said.Object, t.class+"/"+t.name)
	}
	said.RequestID = cmp.Or(said.RequestID, t.id)
	if said.RequestID != "" {
		w.Header().Set(headerRequestID, said.RequestID)
	}
	if _, ok := errors.AsType[notAllowed](err); ok {
		writeNotAllowed(w, &said)
		return
	}
	engine.WriteError(w, &said)
}

// notAllowed is the one error whose status is not its code's.
type notAllowed struct{ error }

func (n notAllowed) Unwrap() error { return n.error }

func writeNotAllowed(w http.ResponseWriter, err error) {
	p := engine.ProblemOf(err)
	p.Status = http.StatusMethodNotAllowed
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may be gone
}

// response remembers the status, and gives up a client that does not take its reply.
type response struct {
	http.ResponseWriter
	timeout time.Duration
	status  int // 0: no reply has begun
}

// Unwrap is for [http.ResponseController].
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements [http.ResponseWriter]; the first one counts.
func (w *response) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		w.extend()
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.extend()
	return w.ResponseWriter.Write(b)
}

// extend gives the client another while to take what follows. A recorder in a test has no deadlines; a server has.
func (w *response) extend() {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.timeout))
}

// expectBody bounds how long a body may take, and gives up the connection unless it is read: before a reply on one that
// is kept, the server would wait for what is left of the body.
func (w *response) expectBody() {
	_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(w.timeout))
	w.Header().Set("Connection", "close")
}

// haveBody keeps the connection. The limit ends by itself: when the server has read a body it goes on reading without
// one, to notice a client that leaves.
func (w *response) haveBody() { w.Header().Del("Connection") }

// statusAbandoned counts requests whose caller left before the reply; nobody is sent it.
const statusAbandoned = 499

// outcome is the status to count. No status at the end means that the handler panicked.
func (w *response) outcome(ctx context.Context) int {
	if ctx.Err() != nil {
		return statusAbandoned
	}
	return cmp.Or(w.status, http.StatusInternalServerError)
}

// list is a list for people: a, b, c.
func list(words []string) string { return strings.Join(words, ", ") }
