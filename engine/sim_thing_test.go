package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/perdure/perdure/journal"
)

// thing is the class of the simulation: fields folded from events, storage, and methods that change one or the other,
// both or nothing, fail before and after a change, and call another object. Each answer tells the whole state, so that
// whoever reads it knows whether it is the right one.
type thing struct{ Count, Last int64 }

type noted struct{ N int64 }

func (e noted) Apply(t *thing) { t.Count++; t.Last = e.N }

const (
	thingTotal = Key[int64]("total")
	thingItems = Map[string, int64]("items")
)

// ask is the argument of all methods: the number of the request, and what it is about.
type ask struct {
	N   int64
	Key string `json:",omitempty"`
	To  string `json:",omitempty"` // whom Pass calls
}

// told is what all methods answer.
type told struct {
	N       int64
	Version journal.Version
	Total   int64
	Count   int64
	Last    int64
	Items   map[string]int64 `json:",omitempty"`
	Pad     string           `json:",omitempty"`
}

// Limits of the simulated class: small, so that they are reached.
const (
	thingKeepIDs    = 40 * time.Second
	thingKeepIDsMax = 8
	thingTries      = 3
)

// things is the class, with or without purging. It is bound once: a story starts many workers.
func things(purge bool) boundThing {
	b, err := bindThing()
	return boundThing{b, purge, err}
}

type boundThing struct {
	*Behavior
	purge bool
	err   error
}

// Bind implements [AnyClass].
func (c boundThing) Bind() (*Behavior, error) {
	b := *c.Behavior
	b.Limits.Purge = c.purge
	return &b, c.err
}

var bindThing = sync.OnceValues(Class[thing]{Name: "thing", Events: Events[thing]{"noted": noted{}}, Limits: Limits{Idle: 2 * time.Second,
	Turn: simTurn, KeepIDs: thingKeepIDs, KeepIDsMax: thingKeepIDsMax, Tries: thingTries}}.Bind)

func (t *thing) tell(v View, in ask, version journal.Version) told {
	out := told{N: in.N, Version: version, Total: thingTotal.Get(v), Count: t.Count, Last: t.Last}
	for key, n := range thingItems.All(v) {
		if out.Items == nil {
			out.Items = map[string]int64{}
		}
		out.Items[key] = n
	}
	return out
}

func (t *thing) Look(v View, in ask) (told, error) { return t.tell(v, in, v.Version()), nil }

// Peek is a call that changes nothing.
func (t *thing) Peek(ctx *Ctx, in ask) (told, error) { return t.tell(ctx, in, ctx.Version()), nil }

func (t *thing) Put(ctx *Ctx, in ask) (told, error) {
	thingTotal.Put(ctx, thingTotal.Get(ctx)+1)
	thingItems.Put(ctx, in.Key, in.N)
	return t.tell(ctx, in, ctx.Version()+1), nil
}

func (t *thing) Drop(ctx *Ctx, in ask) (told, error) {
	thingTotal.Put(ctx, thingTotal.Get(ctx)+1)
	thingItems.Delete(ctx, in.Key)
	return t.tell(ctx, in, ctx.Version()+1), nil
}

func (t *thing) Note(ctx *Ctx, in ask) (told, error) {
	Emit(ctx, t, noted{in.N})
	return t.tell(ctx, in, ctx.Version()+1), nil
}

func (t *thing) Both(ctx *Ctx, in ask) (told, error) {
	Emit(ctx, t, noted{in.N})
	return t.Put(ctx, in)
}

// Long has a reply that is read back from its record.
func (t *thing) Long(ctx *Ctx, in ask) (told, error) {
	out, err := t.Put(ctx, in)
	out.Pad = strings.Repeat("x", keptReplyBytesMax)
	return out, err
}

// Fail changes something and fails; its error tells the state like a read.
func (t *thing) Fail(ctx *Ctx, in ask) (told, error) {
	out, err := json.Marshal(t.tell(ctx, in, ctx.Version()))
	thingTotal.Put(ctx, -1)
	if err != nil {
		return told{}, err
	}
	return told{}, Errorf(Refused, "%s", out)
}

// Dare is refused now and then, as a withdrawal is: by the state, and tells it like a read.
func (t *thing) Dare(ctx *Ctx, in ask) (told, error) {
	if thingTotal.Get(ctx)%2 == 0 {
		return t.Fail(ctx, in)
	}
	return t.Put(ctx, in)
}

// Spoil emits and then fails or panics: the activation is rebuilt.
func (t *thing) Spoil(ctx *Ctx, in ask) (told, error) {
	Emit(ctx, t, noted{-1})
	if in.N%2 == 0 {
		panic("spoilt")
	}
	return told{}, Errorf(Denied, "spoilt")
}

// Shy fails now and then: so that it is tried again, or waits.
func (t *thing) Shy(ctx *Ctx, in ask) (told, error) {
	switch sec := time.Now().Unix() + in.N; {
	case sec%3 == 0 && in.N%2 == 0:
		return told{}, Errorf(Overloaded, "later").RetryIn(300 * time.Millisecond)
	case sec%3 > 0 && in.N%2 > 0:
		return told{}, errors.New("shy")
	}
	return t.Put(ctx, in)
}

// Pass calls another object and keeps the version that it was told.
func (t *thing) Pass(ctx *Ctx, in ask) (told, error) {
	r, err := Call(ctx, Ref[*thing]{"thing", in.To}, (*thing).Put, ask{N: in.N, Key: "from"})
	if err != nil {
		return told{}, err
	}
	thingTotal.Put(ctx, thingTotal.Get(ctx)+1)
	thingItems.Put(ctx, "to-"+in.To, int64(r.Version))
	return t.tell(ctx, in, ctx.Version()+1), nil
}

// model is what a thing is after some of its commits. It is not changed once it is made.
type model struct {
	total, count, last int64
	items              map[string]int64
}

// refuses tells whether the model refuses a method.
func (m *model) refuses(method string) bool {
	return method == "fail" || method == "dare" && m.total%2 == 0
}

// next is the model after a method; passed is the version that Pass was told.
func (m *model) next(method string, in ask, passed int64) *model {
	n := &model{m.total, m.count, m.last, maps.Clone(m.items)}
	if n.items == nil {
		n.items = map[string]int64{}
	}
	if method != "note" {
		n.total++
	}
	switch method {
	case "put", "long", "both", "shy", "dare":
		n.items[in.Key] = in.N
	case "drop":
		delete(n.items, in.Key)
	case "pass":
		n.items["to-"+in.To] = passed
	}
	if method == "note" || method == "both" {
		n.count, n.last = n.count+1, in.N
	}
	return n
}

// tell is what a method answers at a version.
func (m *model) tell(method string, in ask, version journal.Version) string {
	out := told{N: in.N, Version: version, Total: m.total, Count: m.count, Last: m.last, Items: m.items}
	if method == "long" {
		out.Pad = strings.Repeat("x", keptReplyBytesMax)
	}
	b, err := json.Marshal(out)
	if err != nil {
		panic(err) // its fields always encode
	}
	return string(b)
}

// apply is the model after the changes of a record, whatever they say.
func (m *model) apply(changes []journal.Change) (*model, error) {
	n := &model{m.total, m.count, m.last, maps.Clone(m.items)}
	if n.items == nil {
		n.items = map[string]int64{}
	}
	for _, c := range changes {
		var err error
		item, isItem := strings.CutPrefix(c.Key, "items/")
		switch {
		case c.Kind == journal.Event:
			var e noted
			err = json.Unmarshal(c.Data, &e)
			n.count, n.last = n.count+1, e.N
		case c.Kind == journal.Put && c.Key == "total":
			err = json.Unmarshal(c.Data, &n.total)
		case c.Kind == journal.Put && isItem:
			var v int64
			err = json.Unmarshal(c.Data, &v)
			n.items[item] = v
		case c.Kind == journal.Delete && isItem:
			delete(n.items, item)
		default:
			err = fmt.Errorf("a change %s of %q", c.Kind, c.Key)
		}
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (m *model) equal(o *model) bool {
	return m.total == o.total && m.count == o.count && m.last == o.last && maps.Equal(m.items, o.items)
}

func (m *model) String() string {
	return fmt.Sprintf("total %d, count %d, last %d, items %v", m.total, m.count, m.last, m.items)
}
