package engine

import (
	"encoding/json"
	"net/http"
	"time"
)

// Class declares a class whose objects are of the Go type T, a struct. Nothing is checked before start, when every
// problem of every class is reported at once.
type Class[T any] struct {
	Name    string            // on the wire and in the journal, for ever; an identifier
	Events  Events[T]         // the events that fold into T
	Renamed map[string]string // former wire name of a method -> its present one
	Limits  Limits
}

// Get addresses the object of that name: the same name is the same object, every time and everywhere.
func (c Class[T]) Get(name string) Ref[*T] { return Ref[*T]{c.Name, name} }

// Limits of a class. Zero means the default. What happens beyond each stands in docs/limits.md.
type Limits struct {
	Idle       time.Duration // leaves memory after that long without work; 10 s
	Turn       time.Duration // a method's context ends then; a tenth later it is given up and its activation dropped; 30 s
	Queue      int           // requests waiting for one object; 1,000
	QueueBytes int           // their bytes; 8 MiB
	QueueAge   time.Duration // how long one may wait; 10 s
	KeepIDs    time.Duration // how long the reply to a request with a caller's own id is kept; 24 h
	KeepIDsMax int           // and how many of them an object keeps; 10,000
	Tries      int           // how often a message is tried before it is a dead letter; 7
	ReadOnly   bool          // only reads are served: a class that is being moved or looked at
	Purge      bool          // records that two complete snapshots cover are purged; default: every record is kept
}

// Event is something that happened to a T. Apply is a pure function of both: no clock, no chance, no failure.
type Event[T any] interface{ Apply(*T) }

// Events gives each type of event the name that the journal keeps. A name is for ever: when a type changes so that old
// records no longer fit, the new type gets a new name and the old name an [Upcast].
type Events[T any] map[string]Event[T]

// Upcast reads events of a former form: Events[T]{"added.v1": engine.Upcast(func(old addedV1) engine.Event[Tally] {…})}.
func Upcast[Old, T any](f func(Old) Event[T]) Event[T] { return upcast[Old, T]{f} }

// Hooks. A class takes part in more than calls by having methods of these forms. The prefix On is theirs alone: an
// exported method On… that is no hook, or not of its form, fails at start.
type (
	// WakeHandler hears that the object is in memory again, before its first turn: the place to fill a cache. An
	// error fails the request that woke the object, and the next one tries again.
	WakeHandler interface{ OnWake(v View) error }
	// HTTPHandler takes whole HTTP requests for /<class>/<name>/…: it is a call, alone in the object. What it writes
	// leaves when its changes are durable; an error that it returns is answered as problem+json instead.
	HTTPHandler interface {
		OnHTTP(ctx *Ctx, w http.ResponseWriter, r *http.Request) error
	}
)

// AnyClass is a class in whatever language. Bind checks it, once, at start.
type AnyClass interface{ Bind() (*Behavior, error) }

// Behavior is a class in bytes: what the engine runs. [Class] is bound to one by reflection; classes in other languages
// and other processes are Behaviors of their own.
type Behavior struct {
	Name     string
	Methods  map[string]Method // by wire name
	Events   []string          // names it can apply; an event of another name stops the object, not the worker
	Renamed  map[string]string
	Limits   Limits
	HTTP     bool                                   // its activations' Hooks have [HTTPHandler]
	Activate func(state []byte) (Activation, error) // state: nil for a new object, else what State returned

	compact bool // what its activations return is compact JSON: encoding/json made it
}

// Method describes one method. In and Out are JSON Schemas (2020-12) of argument and result; none: anything. Nobody checks
// by them, they tell: what is wrong with an argument the class says itself, when it decodes it.
type Method struct {
	Read     bool            `json:"read"`
	In       json.RawMessage `json:"in,omitempty"`
	Out      json.RawMessage `json:"out,omitempty"`
	GoMethod string          `json:"-"`
}

// Activation is one object in memory. The engine calls it from one goroutine at a time.
type Activation interface {
	// Invoke runs a method; storage is ctx.Raw(). A read gets a Ctx that refuses to write.
	Invoke(ctx *Ctx, method string, in []byte) (out []byte, err error)
	// Apply folds one event at replay.
	Apply(event string, data []byte) error
	// State is the folded state as JSON, for a snapshot; nil if the class folds nothing.
	State() ([]byte, error)
	// Hooks is what implements [WakeHandler] and [HTTPHandler].
	Hooks() any
}
