package engine

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// JSON Schema 2020-12 of Go types, as encoding/json reads and writes them. It is a walk of our own, since the engine
// imports nothing, and since the fields that it finds are also what argument.go looks for when an argument does not
// decode: schema and decoder cannot differ.
//
// A schema says what is right in one spelling. The decoder is more lenient in what it cannot be told to refuse: null for
// anything, names of fields in another case, bytes as an array of numbers. And to a schema 1.0 is a whole number.

// ResultSchema is the JSON Schema of what json.Marshal writes of a type. What a type's own MarshalJSON writes it cannot
// know: there anything goes.
func ResultSchema(t reflect.Type) json.RawMessage {
	return schemaOf(t, schemaMaker{custom: reflect.TypeFor[json.Marshaler](), text: reflect.TypeFor[encoding.TextMarshaler](), writes: true})
}

// argumentSchema is the JSON Schema of what [decodeArgument] takes for a type.
func argumentSchema(t reflect.Type) json.RawMessage {
	return schemaOf(t, schemaMaker{custom: reflect.TypeFor[json.Unmarshaler](), text: reflect.TypeFor[encoding.TextUnmarshaler]()})
}

func schemaOf(t reflect.Type, m schemaMaker) json.RawMessage {
	m.open, m.names, m.defs = map[reflect.Type]bool{}, map[reflect.Type]string{}, members{}
	root := append(members{{"title", t.String()}}, m.of(t)...)
	if len(m.defs) > 0 {
		root = append(root, member{"$defs", m.defs})
	}
	b, err := json.Marshal(root)
	if err != nil {
		panic(fmt.Sprintf("engine: schema of %s: %v", t, err)) // strings and numbers
	}
	return b
}

// members are a JSON object whose members keep their order, so that people read fields as they are declared.
type members []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements [json.Marshaler].
func (ms members) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range ms {
		name, err := json.Marshal(m.name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, name...), ':'), value...)
	}
	return append(b, '}'), nil
}

// schemaMaker walks a type. Types that contain themselves go to $defs; all others stand where they are used.
type schemaMaker struct {
	custom, text reflect.Type // what makes a type's JSON its own affair, or a string
	writes       bool         // what is written, not what is read
	open         map[reflect.Type]bool
	names        map[reflect.Type]string // of those in $defs, or to be there
	defs         members
}

func (m *schemaMaker) of(t reflect.Type) members {
	switch {
	case t.Kind() == reflect.Pointer:
		return nullable(m.of(t.Elem()))
	case t == reflect.TypeFor[time.Time]():
		return members{{"type", "string"}, {"format", "date-time"}}
	case t == reflect.TypeFor[json.Number]():
		return members{{"type", "number"}}
	case isOr(t, m.custom), t.Kind() == reflect.Interface:
		return members{}
	case isOr(t, m.text):
		return members{{"type", "string"}}
	}
	switch t.Kind() {
	case reflect.Bool:
		return members{{"type", "boolean"}}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		most := int64(math.MaxInt64) >> (64 - t.Bits())
		return members{{"type", "integer"}, {"format", fmt.Sprintf("int%d", t.Bits())}, {"minimum", -most - 1}, {"maximum", most}}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return members{{"type", "integer"}, {"format", fmt.Sprintf("uint%d", t.Bits())}, {"minimum", 0}, {"maximum", uint64(math.MaxUint64) >> (64 - t.Bits())}}
	case reflect.Float32:
		return members{{"type", "number"}, {"format", "float"}, {"minimum", -math.MaxFloat32}, {"maximum", math.MaxFloat32}}
	case reflect.Float64:
		return members{{"type", "number"}, {"format", "double"}}
	case reflect.String:
		return members{{"type", "string"}}
	case reflect.Slice, reflect.Array, reflect.Map, reflect.Struct:
		return m.composite(t)
	default: // channels, functions, complex numbers: JSON has none
		return members{{"not", members{}}}
	}
}

// isOr tells whether a type or a pointer to it implements an interface.
func isOr(t, i reflect.Type) bool { return t.Implements(i) || reflect.PointerTo(t).Implements(i) }

const base64 = `^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$`

// composite is the schema of what may contain itself.
func (m *schemaMaker) composite(t reflect.Type) members {
	if m.open[t] || m.defined(t) {
		if m.names[t] == "" {
			m.names[t] = m.newName(t)
		}
		return members{{"$ref", "#/$defs/" + m.names[t]}}
	}
	m.open[t] = true
	defer delete(m.open, t)
	var s members
	switch elem := func() any { return orAnything(m.of(t.Elem())) }; t.Kind() {
	case reflect.Slice:
		if e := t.Elem(); e.Kind() == reflect.Uint8 && !isOr(e, m.custom) && !isOr(e, m.text) {
			s = members{{"type", "string"}, {"contentEncoding", "base64"}, {"pattern", base64}}
		} else {
			s = members{{"type", "array"}, {"items", elem()}}
		}
		s = nullable(s)
	case reflect.Array:
		if s = (members{{"type", "array"}, {"items", elem()}}); m.writes { // the decoder takes more and fewer
			s = append(s, member{"minItems", t.Len()}, member{"maxItems", t.Len()})
		}
	case reflect.Map:
		s = nullable(m.mapOf(t, elem()))
	case reflect.Struct:
		s = m.object(t)
	}
	if name := m.names[t]; name != "" {
		m.defs = append(m.defs, member{name, s})
		return members{{"$ref", "#/$defs/" + name}}
	}
	return s
}

func (m *schemaMaker) mapOf(t reflect.Type, elem any) members {
	s := members{{"type", "object"}, {"additionalProperties", elem}}
	switch key := t.Key(); {
	case key.Kind() == reflect.String, isOr(key, m.text):
	case key.Kind() >= reflect.Int && key.Kind() <= reflect.Int64:
		s = append(s, member{"propertyNames", members{{"pattern", `^-?(0|[1-9][0-9]*)$`}}})
	case key.Kind() >= reflect.Uint && key.Kind() <= reflect.Uintptr:
		s = append(s, member{"propertyNames", members{{"pattern", `^(0|[1-9][0-9]*)$`}}})
	default: // such a key has no JSON
		s = members{{"not", members{}}}
	}
	return s
}

// object is a struct. What is read may lack any field, and has no other ones; what is written has all that it must, and
// a later version may add some.
func (m *schemaMaker) object(t reflect.Type) members {
	properties, required := members{}, []string{}
	for _, f := range jsonFields(t) {
		s := m.of(f.typ)
		if f.quoted {
			s = quoted(f.typ)
		}
		properties = append(properties, member{f.name, orAnything(s)})
		if !f.optional {
			required = append(required, f.name)
		}
	}
	s := members{{"type", "object"}, {"properties", properties}}
	switch {
	case !m.writes:
		s = append(s, member{"additionalProperties", false})
	case len(required) > 0:
		s = append(s, member{"required", required})
	}
	return s
}

// quoted is the schema of a field with the option string.
func quoted(t reflect.Type) members {
	pattern := map[bool]string{true: `^-?(0|[1-9][0-9]*)$`, false: `^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`}
	s := members{{"type", "string"}}
	elem := t
	if t.Kind() == reflect.Pointer {
		elem = t.Elem()
	}
	switch k := elem.Kind(); {
	case k == reflect.Bool:
		s = append(s, member{"pattern", `^(true|false)$`})
	case k >= reflect.Int && k <= reflect.Uintptr:
		s = append(s, member{"pattern", pattern[true]})
	case k == reflect.Float32 || k == reflect.Float64:
		s = append(s, member{"pattern", pattern[false]})
	}
	if elem != t {
		s = nullable(s)
	}
	return s
}

func (m *schemaMaker) defined(t reflect.Type) bool {
	name, ok := m.names[t]
	return ok && slices.ContainsFunc(m.defs, func(d member) bool { return d.name == name })
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// newName is a name for $defs that no other type there has.
func (m *schemaMaker) newName(t reflect.Type) string {
	name := strings.Trim(notInNames.ReplaceAllString(cmp.Or(t.Name(), t.Kind().String()), "_"), "_")
	for n := 2; ; n++ {
		taken := false
		for _, other := range m.names {
			taken = taken || other == name
		}
		if !taken {
			return name
		}
		name = fmt.Sprintf("%s_%d", strings.TrimSuffix(name, fmt.Sprintf("_%d", n-1)), n)
	}
}

// orAnything is true, the schema of anything, instead of an empty object.
func orAnything(s members) any {
	if len(s) == 0 {
		return true
	}
	return s
}

// nullable lets a schema take null too.
func nullable(s members) members {
	if len(s) == 0 {
		return s
	}
	if kind, ok := s[0].value.(string); ok && s[0].name == "type" {
		return append(members{{"type", []string{kind, "null"}}}, s[1:]...)
	}
	if s[0].name == "$ref" || s[0].name == "not" {
		return members{{"anyOf", []members{s, {{"type", "null"}}}}}
	}
	return s // it does already
}

// jsonField is a field as encoding/json sees it.
type jsonField struct {
	name     string
	typ      reflect.Type
	optional bool // it may be left out where a struct is written
	quoted   bool
	tagged   bool
	depth    int
}

// jsonFields are the fields of a struct in JSON, those of embedded structs included, in the order in which they are
// written. Of two with one name the less deep one counts, then the one with a tag, else none.
func jsonFields(t reflect.Type) []jsonField {
	all := collectFields(nil, t, 0, false, map[reflect.Type]bool{})
	return slices.DeleteFunc(slices.Clone(all), func(f jsonField) bool {
		same := 0
		for _, g := range all {
			switch {
			case g.name != f.name:
			case g.depth < f.depth, g.depth == f.depth && g.tagged && !f.tagged:
				return true
			case g.depth == f.depth && g.tagged == f.tagged:
				same++
			}
		}
		return same > 1
	})
}

func collectFields(all []jsonField, t reflect.Type, depth int, optional bool, open map[reflect.Type]bool) []jsonField {
	if open[t] {
		return all
	}
	open[t] = true
	defer delete(open, t)
	for i := range t.NumField() {
		f := t.Field(i)
		elem := f.Type
		if elem.Name() == "" && elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		tag := f.Tag.Get("json")
		if tag == "-" || !f.IsExported() && !(f.Anonymous && elem.Kind() == reflect.Struct) {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if strings.ContainsAny(name, "\"'\\`") {
			name = "" // encoding/json does not take it
		}
		if name == "" && f.Anonymous && elem.Kind() == reflect.Struct {
			all = collectFields(all, elem, depth+1, optional || elem != f.Type, open)
			continue
		}
		has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
		kind := elem.Kind()
		all = append(all, jsonField{name: cmp.Or(name, f.Name), typ: f.Type, depth: depth, tagged: name != "",
			optional: optional || has("omitempty") || has("omitzero"),
			quoted:   has("string") && (kind >= reflect.Bool && kind <= reflect.Float64 || kind == reflect.String)})
	}
	return all
}
