package engine

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// FieldError is what is wrong with one field of an argument.
type FieldError struct {
	Pointer string `json:"pointer"` // JSON pointer as a fragment: #/lines/2/quantity
	Detail  string `json:"detail"`
}

// Limits of what a caller is told: the paths are the caller's own words, and could be as long as the argument.
const (
	fieldErrorsMax  = 16
	pointerBytesMax = 1024
)

// wrongArgument says which fields of an argument do not decode. The decoder knows them by half, and is to be fast, so they
// are looked for by reading the argument once more, when it has failed.
func wrongArgument(method string, in []byte, t reflect.Type, err error) *Error {
	e := Errorf(Invalid, "argument of %s: %w", method, err)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		e.Detail = fmt.Sprintf("argument of %s: byte %d: %v", method, syntax.Offset, err)
	}
	if !json.Valid(in) {
		return e
	}
	f := &fieldFinder{dec: json.NewDecoder(bytes.NewReader(in)), fields: map[reflect.Type][]jsonField{}}
	f.value(t)
	if f.found == 0 {
		return e // a type's own UnmarshalJSON thought otherwise
	}
	e.Errors = f.wrong
	e.Detail = fmt.Sprintf("argument of %s: %s", method, f.first)
	switch more := f.found - 1; {
	case f.full():
		e.Detail += " (and more)"
	case more > 0:
		e.Detail += fmt.Sprintf(" (and %d more)", more)
	}
	return e
}

// fieldFinder reads valid JSON beside a type, each byte once, and keeps what does not fit.
type fieldFinder struct {
	dec    *json.Decoder
	fields map[reflect.Type][]jsonField
	path   []any // strings and numbers
	wrong  []FieldError
	first  string // the first of them with its path
	found  int
}

func (f *fieldFinder) value(t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	own := isOr(t, reflect.TypeFor[json.Unmarshaler]()) || isOr(t, reflect.TypeFor[encoding.TextUnmarshaler]())
	kind := t.Kind()
	if own || kind != reflect.Struct && kind != reflect.Map && kind != reflect.Slice && kind != reflect.Array {
		f.leaf(t, own)
		return
	}
	if kind == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
		f.leaf(t, false)
		return
	}
	token, _ := f.dec.Token() // it is valid
	switch open, ok := token.(json.Delim); {
	case token == nil: // null is taken for anything
	case ok && open == '{' && kind == reflect.Struct:
		if f.fields[t] == nil {
			f.fields[t] = jsonFields(t)
		}
		f.object(f.fields[t])
	case ok && open == '{' && kind == reflect.Map:
		f.entries(t)
	case ok && open == '[' && kind != reflect.Struct && kind != reflect.Map:
		f.elements(t)
	default:
		f.skipRest(ok)
		f.say("want %s, have %s", wanted(t, ""), had(token))
	}
}

// full ends the search: what is wrong in many places costs a caller's mistake no more than what is wrong in some.
func (f *fieldFinder) full() bool { return f.found > fieldErrorsMax }

// at reads what is behind one more step of the path.
func (f *fieldFinder) at(step any, read func()) {
	f.path = append(f.path, step)
	read()
	f.path = f.path[:len(f.path)-1]
}

func (f *fieldFinder) object(fields []jsonField) {
	for !f.full() && f.dec.More() {
		key := f.key()
		field, ok := fieldNamed(fields, key)
		f.at(key, func() {
			switch {
			case !ok:
				f.skip()
				f.say("unknown field; known: %s", namesOf(fields))
			case field.quoted:
				f.quoted(field)
			default:
				f.value(field.typ)
			}
		})
	}
	_, _ = f.dec.Token()
}

// fieldNamed finds a field as the decoder does: by its name, or else by its name in another case.
func fieldNamed(fields []jsonField, name string) (jsonField, bool) {
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, strings.EqualFold} {
		for _, f := range fields {
			if same(f.name, name) {
				return f, true
			}
		}
	}
	return jsonField{}, false
}

func namesOf(fields []jsonField) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return shortened(cmp.Or(strings.Join(names, ", "), "none"))
}

func (f *fieldFinder) entries(t reflect.Type) {
	for !f.full() && f.dec.More() {
		key := f.key()
		f.at(key, func() {
			f.name(t.Key(), key)
			f.value(t.Elem())
		})
	}
	_, _ = f.dec.Token()
}

// name checks the name of a map's entry, as the decoder does.
func (f *fieldFinder) name(t reflect.Type, key string) {
	if t == reflect.TypeFor[string]() {
		return
	}
	quoted, _ := json.Marshal(key)
	alone := []byte(`{` + string(quoted) + `:null}`)
	if err := json.Unmarshal(alone, reflect.New(reflect.MapOf(t, reflect.TypeFor[any]())).Interface()); err != nil {
		f.say("a name here is %s", wanted(t, key))
	}
}

func (f *fieldFinder) elements(t reflect.Type) {
	for i := 0; !f.full() && f.dec.More(); i++ {
		f.at(i, func() {
			if t.Kind() == reflect.Array && i >= t.Len() {
				f.skip() // as the decoder does
				return
			}
			f.value(t.Elem())
		})
	}
	_, _ = f.dec.Token()
}

func (f *fieldFinder) key() string {
	token, _ := f.dec.Token()
	key, _ := token.(string)
	return key
}

func (f *fieldFinder) skip() json.RawMessage {
	var raw json.RawMessage
	_ = f.dec.Decode(&raw) // it is valid
	return raw
}

// skipRest skips what is left of an array or object whose beginning was read.
func (f *fieldFinder) skipRest(open bool) {
	for depth := 1; open && depth > 0; {
		switch token, _ := f.dec.Token(); token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

func (f *fieldFinder) leaf(t reflect.Type, own bool) {
	raw := f.skip()
	err := json.Unmarshal(raw, reflect.New(t).Interface())
	switch {
	case err == nil:
	case own:
		f.say("have %s: %v", shortened(string(raw)), err)
	default:
		f.say("want %s, have %s", wanted(t, string(raw)), haveRaw(raw))
	}
}

// quoted reads a field with the option string.
func (f *fieldFinder) quoted(field jsonField) {
	raw := f.skip()
	alone := reflect.StructOf([]reflect.StructField{{Name: "V", Type: field.typ, Tag: `json:"v,string"`}})
	if err := json.Unmarshal([]byte(`{"v":`+string(raw)+`}`), reflect.New(alone).Interface()); err != nil {
		f.say("want a string that holds %s, have %s", wanted(field.typ, ""), haveRaw(raw))
	}
}

func (f *fieldFinder) say(format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	if f.found++; f.found == 1 {
		f.first = detail
		if len(f.path) > 0 {
			f.first = pathText(f.path) + ": " + detail
		}
	}
	if len(f.wrong) == fieldErrorsMax {
		return
	}
	if at := pointer(f.path); len(at) <= pointerBytesMax {
		f.wrong = append(f.wrong, FieldError{at, detail})
	}
}

// wanted is a type in the words of JSON. Of a whole number its bounds are said where they are what is wrong.
func wanted(t reflect.Type, have string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch k := t.Kind(); {
	case k == reflect.Bool:
		return "true or false"
	case k >= reflect.Int && k <= reflect.Uintptr && !wholeNumber.MatchString(have):
		return "a whole number"
	case k >= reflect.Int && k <= reflect.Int64:
		most := int64(math.MaxInt64) >> (64 - t.Bits())
		return fmt.Sprintf("a whole number from %d to %d", -most-1, most)
	case k >= reflect.Uint && k <= reflect.Uintptr:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	case k == reflect.Float32 || k == reflect.Float64:
		return "a number"
	case k == reflect.String:
		return "a string"
	case k == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return "a string in base64"
	case k == reflect.Slice || k == reflect.Array:
		return "an array"
	case k == reflect.Map || k == reflect.Struct:
		return "an object"
	default:
		return "nothing, which " + t.String() + " is in JSON"
	}
}

var wholeNumber = regexp.MustCompile(`^-?[0-9]+$`)

func had(token json.Token) string {
	switch token {
	case json.Delim('{'):
		return "an object"
	case json.Delim('['):
		return "an array"
	}
	b, _ := json.Marshal(token) // a string, a number, true or false
	return shortened(string(b))
}

func haveRaw(raw json.RawMessage) string {
	switch raw[0] {
	case '{', '[':
		return had(json.Delim(raw[0]))
	}
	return shortened(string(raw))
}

// shortened keeps what a caller sent from filling the answer.
func shortened(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_-]*$`)

// pathText is a path for people: lines[2].quantity.
func pathText(path []any) string {
	var b strings.Builder
	for i, step := range path {
		switch step := step.(type) {
		case string:
			switch {
			case !plainName.MatchString(step):
				fmt.Fprintf(&b, "[%s]", shortened(strconv.Quote(step)))
			case i > 0:
				b.WriteString("." + shortened(step))
			default:
				b.WriteString(shortened(step))
			}
		default:
			fmt.Fprintf(&b, "[%v]", step)
		}
	}
	if text := b.String(); len(text) > pointerBytesMax {
		return "…" + strings.ToValidUTF8(text[len(text)-pointerBytesMax/4:], "")
	}
	return b.String()
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is a path as RFC 6901 has it, in a URI's fragment.
func pointer(path []any) string {
	var b strings.Builder
	for _, step := range path {
		b.WriteString("/" + pointerEscapes.Replace(fmt.Sprint(step)))
	}
	return "#" + (&url.URL{Fragment: b.String()}).EscapedFragment()
}
