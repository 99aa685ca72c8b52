package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"iter"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/perdure/perdure/journal"
)

// View is what a read gets: everything of the turn but what writes. A *Ctx is a View, so a call can use reads as helpers.
type View interface {
	CanRead
	Class() string
	Name() string
	Now() time.Time    // the turn's one time, recorded; never before that of an earlier turn of the object
	RequestID() string // the same when the request is repeated
	Caller() Caller    // who asked
	Chain() []string   // the objects that wait for this turn, outermost first
	Log() *slog.Logger // with object, method and request
	// Version is how many commits the object has, the turn's own not among them.
	Version() journal.Version
	live() *turn
}

// Ctx is one turn, and its context: cancelled at its deadline and when the caller leaves. It ends with its method;
// whoever uses it later panics with that message. It is for one goroutine.
type Ctx struct {
	context.Context
	t *turn
}

var _ View = (*Ctx)(nil)

// With is the same turn under another context, such as one with a span or a shorter deadline.
func (c *Ctx) With(ctx context.Context) *Ctx { c.live(); return &Ctx{ctx, c.t} }

// Class is the object's class.
func (c *Ctx) Class() string { return c.live().o.class.Name }

// Name is the object's name.
func (c *Ctx) Name() string { return c.live().o.name }

// Now is the turn's one time; see [View].
func (c *Ctx) Now() time.Time { return c.live().now }

// RequestID is the request's id, the caller's own or the one that its client made; see [View].
func (c *Ctx) RequestID() string { return c.live().req.requestID() }

// Caller says who asked.
func (c *Ctx) Caller() Caller { return c.live().req.Caller }

// Chain are the objects that wait for this turn, outermost first.
func (c *Ctx) Chain() []string { return c.live().req.Chain }

// Version is how many commits the object has, the turn's own not among them.
func (c *Ctx) Version() journal.Version { return c.live().version }

// Log is a logger with object, method and request.
func (c *Ctx) Log() *slog.Logger { return c.live().log() }

// Rand is seeded with object and request id: a repeated turn draws the same numbers.
func (c *Ctx) Rand() *rand.Rand {
	t := c.live()
	if t.rand == nil {
		h := fnv.New64a()
		fmt.Fprint(h, t.o.String(), 0, t.req.requestID())
		t.rand = rand.New(rand.NewPCG(h.Sum64(), 0))
	}
	return t.rand
}

// NewID is a new name or key: a UUID of version 7, so it sorts by time. A turn that repeats a request at another time
// draws the same random part.
func (c *Ctx) NewID() string {
	ms, a, b := c.Now().UnixMilli(), c.Rand().Uint64(), c.Rand().Uint64()
	return fmt.Sprintf("%08x-%04x-7%03x-%04x-%012x", ms>>16, ms&0xffff, a&0xfff, 0x8000|b>>50, b&0xffffffffffff)
}

// OnCommit runs f at the end of the turn if it succeeds, before the next one: the place to set cache fields.
func (c *Ctx) OnCommit(f func()) { t := c.writable(); t.onCommit = append(t.onCommit, f) }

// WhenDurable runs f, in a goroutine of its own, once the turn's changes are durable: a notification, a metric. Once at
// most; it is lost with the process.
func (c *Ctx) WhenDurable(f func()) { t := c.writable(); t.whenDurable = append(t.whenDurable, f) }

// Emit records that ev happened to self and applies it.
func Emit[T any](ctx *Ctx, self *T, ev Event[T]) {
	t := ctx.writable()
	own, ok := t.act.(*activation[T])
	if !ok || own.self != self {
		t.fail(Internal, "Emit: the event is for %T, which is not the object of this turn", self)
	}
	name, ok := own.binding.eventNames[reflect.TypeOf(ev)]
	if !ok {
		t.fail(Internal, "Emit: %T is not in Events of class %q", ev, t.o.class.Name)
	}
	data, err := json.Marshal(ev)
	if err != nil {
		t.fail(Internal, "Emit: event %q: %w", name, err)
	}
	t.emit(name, data)
	ev.Apply(self)
}

// Raw is the turn in bytes (JSON), for Behaviors that are no Go structs; their storage is the same as Key's and Map's.
func (c *Ctx) Raw() Raw { return Raw{c} }

// Raw is what [Key], [Map] and [Emit] stand on.
type Raw struct{ ctx *Ctx }

// Get is a stored value.
func (r Raw) Get(key string) ([]byte, bool) { return r.ctx.live().get(key) }

// Put stores a value, which must be JSON; another fails the turn.
func (r Raw) Put(key string, val []byte) {
	t := r.ctx.writable()
	t.put(key, t.compact("key "+key, val))
}

// Delete removes a key.
func (r Raw) Delete(key string) { r.ctx.writable().delete(key) }

// Entries are the stored entries with from <= key < to in order, or in reverse, as they are when the loop begins.
func (r Raw) Entries(from, to string, reverse bool) iter.Seq2[string, []byte] {
	return r.ctx.live().entries(from, to, reverse)
}

// Emit records an event and folds it with the activation's Apply.
func (r Raw) Emit(event string, data []byte) {
	t := r.ctx.writable()
	if !slices.Contains(t.o.class.Events, event) {
		t.fail(Internal, "Emit: %q is not in Events of class %q", event, t.o.class.Name)
	}
	data = t.compact("event "+event, data)
	t.emit(event, data)
	if err := t.act.Apply(event, data); err != nil {
		t.fail(Internal, "%w", err)
	}
}

// compact checks what another language hands over: a record holds it as it is.
func (t *turn) compact(what string, data []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, data); err != nil {
		t.fail(Internal, "%s: not JSON: %w", what, err)
	}
	return b.Bytes()
}

func (c *Ctx) mayCall(r Request) (Reply, error) {
	t := c.live()
	if t.req.read && !r.Read {
		return Reply{}, Errorf(Internal, "%s is a read and tried to call %s/%s %s", t.req.Method, r.Class, r.Name, r.Method)
	}
	return t.callOut(c, r)
}

func (c *Ctx) mayRead(r Request) (Reply, error) { r.Read = true; return c.live().callOut(c, r) }

func (c *Ctx) live() *turn {
	if c.t.ended.Load() {
		c.t.late()
	}
	return c.t
}

func (c *Ctx) writable() *turn {
	t := c.live()
	if t.o.class.Limits.ReadOnly {
		t.fail(Denied, "class %q serves reads only just now", t.o.class.Name)
	}
	if t.req.read {
		t.fail(Internal, "%s is a read and tried to write", t.req.Method)
	}
	return t
}
