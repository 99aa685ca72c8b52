package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/perdure/perdure/internal/wire"
)

// Bind checks T and makes its Behavior. The error lists every problem.
func (c Class[T]) Bind() (*Behavior, error) {
	b := &binding[T]{
		behavior: Behavior{Name: c.Name, Methods: map[string]Method{}, Renamed: c.Renamed, Limits: c.Limits, compact: true},
		methods:  map[string]bound{}, events: c.Events, eventNames: map[reflect.Type]string{},
	}
	b.behavior.Activate = b.activate
	_, b.behavior.HTTP = any(new(T)).(HTTPHandler)
	if err := wire.CheckClass(c.Name); err != nil {
		b.problem("%w", err)
	}
	b.bindMethods()
	b.bindState()
	return &b.behavior, errors.Join(b.problems...)
}

type binding[T any] struct {
	behavior   Behavior
	methods    map[string]bound
	events     Events[T]
	eventNames map[reflect.Type]string
	problems   []error
}

// bound is a method, ready to be called.
type bound struct {
	f    reflect.Value
	in   reflect.Type
	read bool
}

var (
	ctxType   = reflect.TypeFor[*Ctx]()
	viewType  = reflect.TypeFor[View]()
	errorType = reflect.TypeFor[error]()
	hooks     = []reflect.Type{
		reflect.TypeFor[WakeHandler](), reflect.TypeFor[HTTPHandler](),
	}
	// notServed are hooks that have a meaning in the design but are not served by this version: a class that has one
	// must not start as if it were.
	notServed = []string{"OnAlarm", "OnConnect", "OnMessage", "OnClose"}
	ignored   = map[string]bool{"String": true, "MarshalJSON": true, "UnmarshalJSON": true, "LogValue": true}
)

const forms = `a method has one of the forms
	func (ctx *engine.Ctx, in I) (O, error)   for engine.Call: may change the object
	func (v engine.View, in I) (O, error)     for engine.Read
with engine.None for nothing; one that is not to be called from outside has a lower-case name`

func (b *binding[T]) problem(format string, args ...any) {
	b.problems = append(b.problems, fmt.Errorf("class %q: "+format, append([]any{b.behavior.Name}, args...)...))
}

func (b *binding[T]) bindMethods() {
	t := reflect.TypeFor[*T]()
	if t.Elem().Kind() != reflect.Struct {
		b.problem("%s is not a struct", t.Elem())
	}
	for i := range t.NumMethod() {
		m := t.Method(i)
		form := m.Type
		name := wireName(m.Name)
		other, taken := b.behavior.Methods[name]
		switch {
		case ignored[m.Name]:
		case len(m.Name) > 2 && strings.HasPrefix(m.Name, "On") && m.Name[2] < 'a':
			b.bindHook(t, m.Name)
		case form.NumIn() != 3 || form.NumOut() != 2 || form.Out(1) != errorType || form.In(1) != ctxType && form.In(1) != viewType:
			b.problem("(%s).%s is %s\n%s", t, m.Name, receiverless(m), forms)
		case taken:
			b.problem("%s and %s have the same name on the wire, %q", other.GoMethod, m.Name, name)
		default:
			read := form.In(1) == viewType
			b.methods[name] = bound{m.Func, form.In(2), read}
			b.behavior.Methods[name] = Method{read, argumentSchema(form.In(2)), ResultSchema(form.Out(0)), m.Name}
		}
	}
	for old, now := range b.behavior.Renamed {
		if _, ok := b.methods[now]; !ok {
			b.problem("Renamed: %q -> %q, but there is no method %q", old, now, now)
		}
	}
}

func (b *binding[T]) bindHook(t reflect.Type, name string) {
	var names []string
	for _, hook := range hooks {
		if hook.Method(0).Name == name {
			if !t.Implements(hook) {
				m, _ := t.MethodByName(name)
				b.problem("(%s).%s is %s\na class's %s is %s", t, name, receiverless(m), name, hook.Method(0).Type)
			}
			return
		}
		names = append(names, hook.Method(0).Name)
	}
	if slices.Contains(notServed, name) {
		b.problem("(%s).%s: this version does not serve this hook, so it would never run", t, name)
		return
	}
	b.problem("(%s).%s: there is no such hook, and the prefix On is for hooks only: %s", t, name, strings.Join(names, " "))
}

func receiverless(m reflect.Method) string {
	have := strings.Replace(m.Type.String(), m.Type.In(0).String(), "", 1)
	return strings.Replace(have, "(, ", "(", 1)
}

func (b *binding[T]) bindState() {
	for _, name := range slices.Sorted(maps.Keys(b.events)) {
		ev := b.events[name]
		b.behavior.Events = append(b.behavior.Events, name)
		if _, old := ev.(interface {
			from(json.RawMessage) (Event[T], error)
		}); old {
			continue
		}
		if other, twice := b.eventNames[reflect.TypeOf(ev)]; twice {
			b.problem("Events: %T has two names, %q and %q: give the former one an Upcast", ev, other, name)
		}
		b.eventNames[reflect.TypeOf(ev)] = name
	}
	if t := reflect.TypeFor[T](); t.Kind() == reflect.Struct && len(b.events) == 0 {
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				b.problem("%s.%s is exported, so it is folded state, but there are no Events to change it\n"+
					"make it an engine.Key (stored), or lower-case (a cache), or list Events", t, f.Name)
			}
		}
	}
	if _, err := json.Marshal(new(T)); err != nil {
		b.problem("its state cannot be stored: %w", err)
	}
}

func (b *binding[T]) activate(state []byte) (Activation, error) {
	a := &activation[T]{b, new(T)}
	if state == nil {
		return a, nil
	}
	return a, json.Unmarshal(state, a.self)
}

type activation[T any] struct {
	binding *binding[T]
	self    *T
}

func (a *activation[T]) Hooks() any { return a.self }

func (a *activation[T]) State() ([]byte, error) {
	if len(a.binding.events) == 0 {
		return nil, nil
	}
	return json.Marshal(a.self)
}

func (a *activation[T]) Apply(name string, data []byte) error {
	proto, ok := a.binding.events[name]
	if !ok {
		return fmt.Errorf("event %q is unknown to this version of the class", name)
	}
	if old, ok := proto.(interface {
		from(json.RawMessage) (Event[T], error)
	}); ok {
		ev, err := old.from(data)
		if err != nil {
			return fmt.Errorf("event %q does not decode: %w", name, err)
		}
		ev.Apply(a.self)
		return nil
	}
	ev := reflect.New(reflect.TypeOf(proto))
	if err := json.Unmarshal(data, ev.Interface()); err != nil {
		return fmt.Errorf("event %q does not decode: %w", name, err)
	}
	ev.Elem().Interface().(Event[T]).Apply(a.self)
	return nil
}

func (a *activation[T]) Invoke(ctx *Ctx, method string, in []byte) ([]byte, error) {
	m := a.binding.methods[method]
	arg := reflect.New(m.in)
	if err := decodeArgument(in, arg.Interface()); err != nil {
		return nil, wrongArgument(method, in, m.in, err)
	}
	in0 := reflect.ValueOf(ctx)
	if m.read { // as it is asked for, or Call would look through the methods of both
		var v View = ctx
		in0 = reflect.ValueOf(&v).Elem()
	}
	out := m.f.Call([]reflect.Value{reflect.ValueOf(a.self), in0, arg.Elem()})
	if err, _ := out[1].Interface().(error); err != nil {
		return nil, remote(err)
	}
	reply, err := json.Marshal(out[0].Interface())
	if err != nil {
		return nil, fmt.Errorf("result of %s: %w", method, err)
	}
	return reply, nil
}

// decodeArgument reads an argument. No body is the zero argument; a field that the type does not have is refused, since
// a misspelt one must not count as absent.
func decodeArgument(in []byte, into any) error {
	if len(in) == 0 {
		return nil
	}
	d := decoders.Get().(*argumentDecoder)
	d.in.Reset(in)
	if err := d.dec.Decode(into); err != nil {
		return err // and the decoder keeps it, so it is not used again
	}
	if _, err := d.dec.Token(); err != io.EOF {
		return errors.New("there is more behind the JSON value")
	}
	if d.in.Reset(nil); len(in) <= decoderKeepMax {
		decoders.Put(d)
	}
	return nil
}

// argumentDecoder decodes one argument after the other. A decoder that has read all of its input, and no error, is as new.
type argumentDecoder struct {
	in  bytes.Reader
	dec *json.Decoder
}

var decoders = sync.Pool{New: func() any {
	d := new(argumentDecoder)
	d.dec = json.NewDecoder(&d.in)
	d.dec.DisallowUnknownFields()
	return d
}}

// decoderKeepMax is the largest argument after which a decoder is used again: it keeps a buffer of that size.
const decoderKeepMax = 16 << 10

type upcast[Old, T any] struct{ f func(Old) Event[T] }

func (u upcast[Old, T]) Apply(*T) { panic("engine: an Upcast reads events, it is none") }
func (u upcast[Old, T]) from(data json.RawMessage) (Event[T], error) {
	var old Old
	err := json.Unmarshal(data, &old)
	return u.f(old), err
}
