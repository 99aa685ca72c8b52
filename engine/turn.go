package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/perdure/perdure/journal"
)

// Limits of what a turn may store.
const (
	// KeyBytesMax is the longest storage key.
	KeyBytesMax = 2 << 10
	// ValueBytesMax is the largest stored value and the largest event, as JSON.
	ValueBytesMax = 1 << 20
)

// turn is one request running in an object. Its changes are in changes until it ends well; then they are one commit.
type turn struct {
	o        *object
	act      Activation
	req      *Request
	now      time.Time
	ctx      *turnContext
	version  journal.Version // of the object before the turn
	calls    int
	rand     *rand.Rand
	failed   *Error
	emitted  bool
	onCommit []func()

	whenDurable []func()

	changes []journal.Change
	at      map[string]int // index in changes of a key's put or delete

	// mu is held at each touch of the object's state, and by whoever gives the turn up: once ended is set under it, a
	// method that still runs cannot reach the state any more.
	mu    sync.Mutex
	ended atomic.Bool
	lost  bool // its epoch is over, and the store perhaps closed
}

// end is the turn's end for whoever holds its Ctx.
func (t *turn) end() {
	t.mu.Lock()
	t.ended.Store(true)
	t.mu.Unlock()
	t.ctx.end()
}

// lose ends the turn because its epoch is over: a method that still runs finds its context ended, and the next touch of
// the object's state fails it.
func (t *turn) lose() {
	t.mu.Lock()
	t.lost = true
	t.mu.Unlock()
	t.ctx.end()
}

func (t *turn) late() {
	panic(fmt.Sprintf("engine: Ctx of %s used after its turn (%s) ended: do not keep a Ctx or use it in a goroutine", t.o, t.req.Method))
}

// fail ends the turn from within; a method that recovers does not save it.
func (t *turn) fail(code Code, format string, args ...any) {
	t.failed = Errorf(code, format, args...)
	panic(t.failed)
}

// locked runs f on the object's state unless the turn has been given up.
func (t *turn) locked(f func(*state)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.ended.Load():
		t.late()
	case t.lost:
		e := unavailable(errEpochOver)
		t.failed = e
		panic(e)
	}
	f(t.o.state)
}

func (t *turn) get(key string) (data []byte, ok bool) {
	if i, changed := t.at[key]; changed {
		data = t.changes[i].Data
		return data, data != nil
	}
	var err error
	t.locked(func(s *state) { data, ok, err = s.get(key) })
	if err != nil {
		t.fail(Internal, "%w", err)
	}
	return data, ok
}

func (t *turn) put(key string, data []byte) {
	switch {
	case len(key) > KeyBytesMax:
		t.fail(TooLarge, "key %.40q… has %d bytes; at most %d", key, len(key), KeyBytesMax)
	case !utf8.ValidString(key):
		t.fail(Invalid, "key %.80q is not UTF-8", key)
	case len(data) > ValueBytesMax:
		t.fail(TooLarge, "the value of key %.80q has %d bytes; at most %d", key, len(data), ValueBytesMax)
	}
	t.change(key, journal.Change{Kind: journal.Put, Key: key, Data: data})
}

func (t *turn) delete(key string) {
	if _, ok := t.get(key); ok {
		t.change(key, journal.Change{Kind: journal.Delete, Key: key})
	}
}

// change notes the last change of a key: of several in one turn only that one is recorded.
func (t *turn) change(key string, c journal.Change) {
	if i, ok := t.at[key]; ok {
		t.changes[i] = c
		return
	}
	if t.at == nil {
		t.at = map[string]int{}
	}
	t.at[key] = len(t.changes)
	t.changes = append(t.changes, c)
}

func (t *turn) emit(event string, data []byte) {
	if len(data) > ValueBytesMax {
		t.fail(TooLarge, "event %q has %d bytes; at most %d", event, len(data), ValueBytesMax)
	}
	t.emitted = true
	t.changes = append(t.changes, journal.Change{Kind: journal.Event, Type: event, Data: data})
}

func (t *turn) entries(from, to string, reverse bool) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		var seq iter.Seq2[string, entryOrError]
		t.locked(func(s *state) {
			above := make(map[string]cell, len(t.at))
			for key, i := range t.at {
				above[key] = cell{data: t.changes[i].Data}
			}
			seq = s.entries(from, to, reverse, above)
		})
		for key, e := range seq {
			t.locked(func(*state) {}) // it may have been given up in the loop's body
			if e.err != nil {
				t.fail(Internal, "%w", e.err)
			}
			if !yield(key, e.data) {
				return
			}
		}
	}
}

func (t *turn) log() *slog.Logger {
	return t.o.ep.w.log.With("object", t.o.String(), "method", t.req.Method, "request", t.req.requestID())
}

// callOut sends a request to another object. It leaves when the object's earlier commits are durable, so that nobody
// hears of a change that is then lost; its id is derived, so that a repeated turn gets recorded replies.
func (t *turn) callOut(ctx context.Context, r Request) (Reply, error) {
	t.calls++
	if r.ID == "" {
		r.ID = derivedID(t.req.requestID(), t.calls, t.o.String())
	}
	r.Caller = Caller{Claimed: t.o.String()}
	r.Chain = append(slices.Clone(t.req.Chain), t.o.String())
	r.Trace = t.req.Trace
	if r.Limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.Limit)
		defer cancel()
	}
	if err := t.o.waitDurable(ctx, t.version); err != nil {
		return Reply{}, err
	}
	if err := t.o.ep.mayAnswer(); err != nil { // what it asks for rests on a state that may be stale
		return Reply{}, unavailable(err)
	}
	return t.o.ep.w.client.Do(ctx, r)
}

// derivedID is the id of a turn's n-th call: <request id>/<n>@<hash of the caller>. It names the caller, since two objects
// may be sent the same id and make the same call to a third. One that is too long is a hash of itself.
func derivedID(request string, n int, caller string) string {
	id := fmt.Sprintf("%s/%d@%s", request, n, journal.HashOf([]byte(caller)).String()[:12])
	if len(id) > RequestIDBytesMax {
		return "derived/" + journal.HashOf([]byte(id)).String()
	}
	return id
}

// run runs the method and returns its reply. A panic is an error that the caller sees without its stack.
func (t *turn) run() (reply *journal.Reply, err error) {
	defer func() {
		p := recover()
		switch {
		case t.failed != nil:
			err = t.failed
		case p != nil:
			t.log().Error("method panicked", "panic", p, "stack", string(debug.Stack()))
			err = panicked{fmt.Errorf("panic: %v", p)}
		}
	}()
	c := &Ctx{t.ctx, t}
	if t.req.HTTP != nil {
		return t.serveHTTP(c)
	}
	out, err := t.act.Invoke(c, t.req.Method, t.req.Body)
	if err != nil {
		return nil, err
	}
	if len(out) > 0 {
		out = t.compact("reply of "+t.req.Method, out)
	}
	return &journal.Reply{Status: http.StatusOK, Body: out}, nil
}

// panicked marks what came out of a method as a panic: the activation is not to be trusted.
type panicked struct{ error }

func (p panicked) Unwrap() error { return p.error }

// errGivenUp says that another goroutine runs the object: what this one was in took too long.
var errGivenUp = errors.New("given up")

// wakeUp runs the class's OnWake as a read, for the request that wakes the object. It has a turn's time.
func wakeUp(o *object, act Activation, run int, tk *task) error {
	h, ok := act.Hooks().(WakeHandler)
	if !ok {
		return nil
	}
	req := &Request{Method: "OnWake", ID: tk.req.ID, Session: tk.req.Session, made: tk.req.made, read: true}
	t := &turn{o: o, act: act, req: req, now: o.now(), version: o.state.version,
		ctx: newTurnContext(tk.ctx, time.Now().Add(o.class.Limits.Turn))}
	o.arm(t, tk, o.ep.w.awake())
	err := t.wake(h)
	if !o.finish(run, t) {
		return errGivenUp
	}
	return err
}

func (t *turn) wake(h WakeHandler) (err error) {
	defer func() {
		p := recover()
		switch {
		case t.failed != nil:
			err = t.failed
		case p != nil:
			t.log().Error("OnWake panicked", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("OnWake: panic: %v", p)
		}
	}()
	return remote(h.OnWake(&Ctx{t.ctx, t}))
}

func (t *turn) serveHTTP(c *Ctx) (*journal.Reply, error) {
	h, ok := t.act.Hooks().(HTTPHandler)
	if !ok {
		return nil, Errorf(NotFound, "class %q takes no HTTP requests: it has no OnHTTP", t.o.class.Name)
	}
	in := t.req.HTTP
	u, err := url.ParseRequestURI(in.URL)
	if err != nil {
		return nil, Errorf(Invalid, "request URL: %w", err)
	}
	r := (&http.Request{Method: in.Method, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: in.Host,
		Header: in.Header.Clone(), RequestURI: in.URL, ContentLength: int64(len(t.req.Body)),
		Body: http.NoBody}).WithContext(c)
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if len(t.req.Body) > 0 {
		r.Body = readCloser{bytes.NewReader(t.req.Body)}
	}
	w := &responseBuffer{header: http.Header{}}
	if err := h.OnHTTP(c, w, r); err != nil {
		return nil, remote(err)
	}
	return w.reply(), nil
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// responseBuffer is where an OnHTTP writes: nothing leaves before the gate opens.
type responseBuffer struct {
	header http.Header
	sent   http.Header // as it was when the status was written
	status int
	body   bytes.Buffer
}

func (w *responseBuffer) Header() http.Header { return w.header }

func (w *responseBuffer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // informational ones have no meaning behind a gate
		w.status, w.sent = status, w.header.Clone()
	}
}

func (w *responseBuffer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

func (w *responseBuffer) reply() *journal.Reply {
	w.WriteHeader(http.StatusOK)
	r := &journal.Reply{Status: w.status, Header: w.sent, Body: w.body.Bytes(), Raw: true}
	if len(r.Body) > 0 && w.sent.Get("Content-Type") == "" {
		w.sent.Set("Content-Type", http.DetectContentType(r.Body))
	}
	return r
}

// turnContext is a turn's context. Most methods never ask for it, so it makes its channel when somebody does.
type turnContext struct {
	parent   context.Context
	deadline time.Time

	mu   sync.Mutex
	done context.Context // made on demand
	stop context.CancelFunc
	over bool
}

func newTurnContext(parent context.Context, deadline time.Time) *turnContext {
	return &turnContext{parent: parent, deadline: deadline}
}

func (c *turnContext) real() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		if c.deadline.IsZero() {
			c.done, c.stop = context.WithCancel(c.parent)
		} else {
			c.done, c.stop = context.WithDeadline(c.parent, c.deadline)
		}
		if c.over {
			c.stop()
		}
	}
	return c.done
}

func (c *turnContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.stop != nil {
		c.stop()
	}
}

func (c *turnContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }
func (c *turnContext) Done() <-chan struct{}       { return c.real().Done() }
func (c *turnContext) Err() error                  { return c.real().Err() }
func (c *turnContext) Value(key any) any           { return c.parent.Value(key) }

var errTurnLimit = errors.New("the method ran longer than its class allows")
