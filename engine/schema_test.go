package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

type (
	line struct {
		Item     string `json:"item"`
		Quantity int8   `json:"quantity"`
		note     string //lint:ignore U1000 a field that is not exported is in no schema
	}
	order struct {
		Lines  []line            `json:"lines"`
		Labels map[string]string `json:"labels,omitempty"`
		Paid   *bool             `json:"paid"`
		Hidden string            `json:"-"`
		Dash   uint16            `json:"-,"` //lint:ignore SA5008 it names the field "-"
		Plain  float32
	}
	basic struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	Base2 struct {
		Name  string `json:"name"` // hides, and is hidden: no field of that name
		Other int    `json:"other"`
	}
	embedding struct {
		basic
		*Base2
		Own   int       `json:"id"` // hides that of basic
		Since time.Time `json:"since,omitzero"`
	}
	tree struct {
		Value    int              `json:"value"`
		Children []*tree          `json:"children,omitempty"`
		Named    map[string]*tree `json:"named,omitempty"`
	}
	mutualA struct {
		B *mutualB `json:"b,omitempty"`
		C *mutualA `json:"c,omitempty"`
	}
	mutualB struct {
		A []mutualA `json:"a"`
	}
	listed    []listed
	odd       struct{ v string } //lint:ignore U1000 as above
	textual   struct{ v string }
	different struct {
		Bytes  []byte             `json:"bytes"`
		Raw    json.RawMessage    `json:"raw,omitempty"`
		Any    any                `json:"any"`
		Fixed  [2]int             `json:"fixed"`
		ByID   map[int16]bool     `json:"by_id"`
		ByAddr map[netip.Addr]int `json:"by_addr"`
		Odd    *odd               `json:"odd,omitempty"`
		Text   textual            `json:"text"`
		Took   time.Duration      `json:"took"`
		Ref    Ref[*register]     `json:"ref"`
		Big    *big.Int           `json:"big,omitempty"`
		Num    json.Number        `json:"num,omitempty"`
		Uints  []uint64           `json:"uints"`
		Quoted int                `json:"quoted,string"`
		Truth  *bool              `json:"truth,string"`
		A      struct {
			B bool `json:"b"`
		} `json:"a/b~c d"`
	}
)

func (odd) MarshalJSON() ([]byte, error) { return []byte(`[1,"odd"]`), nil }
func (*odd) UnmarshalJSON(b []byte) error {
	if string(b) != `[1,"odd"]` && string(b) != "null" {
		return fmt.Errorf("that is not odd")
	}
	return nil
}
func (t textual) MarshalText() ([]byte, error)  { return []byte(t.v), nil }
func (t *textual) UnmarshalText(b []byte) error { t.v = string(b); return nil }

var argumentTypes = []reflect.Type{
	reflect.TypeFor[None](), reflect.TypeFor[int](), reflect.TypeFor[*uint8](), reflect.TypeFor[string](), reflect.TypeFor[bool](),
	reflect.TypeFor[float32](), reflect.TypeFor[float64](), reflect.TypeFor[[]string](), reflect.TypeFor[map[string][]int32](),
	reflect.TypeFor[line](), reflect.TypeFor[order](), reflect.TypeFor[*order](), reflect.TypeFor[embedding](), reflect.TypeFor[tree](),
	reflect.TypeFor[mutualA](), reflect.TypeFor[listed](), reflect.TypeFor[different](), reflect.TypeFor[struct{}](), reflect.TypeFor[time.Time](),
}

func compileSchema(t testing.TB, schema []byte) *jsonschema.Schema {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler() // 2020-12
	c.AssertFormat()
	if err := c.AddResource("urn:schema", v); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("urn:schema")
	if err != nil {
		t.Fatalf("%v: %s", err, schema)
	}
	return s
}

// TestTheSchemaTakesWhatTheDecoderTakes, and nothing else, and what does not fit is found in its place; and what is written
// of what was read is what the schema of results says.
func TestTheSchemaTakesWhatTheDecoderTakes(t *testing.T) {
	for _, typ := range argumentTypes {
		t.Run(typ.String(), func(t *testing.T) {
			in, out := compileSchema(t, argumentSchema(typ)), compileSchema(t, ResultSchema(typ))
			taken, refused := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				doc := drawJSON(t, typ, whole)
				v := reflect.New(typ)
				err := decodeArgument([]byte(doc), v.Interface())
				parsed, bad := jsonschema.UnmarshalJSON(strings.NewReader(doc))
				if bad != nil {
					t.Fatal(bad)
				}
				if invalid := in.Validate(parsed); (invalid == nil) != (err == nil) {
					t.Fatalf("%s\ndecoder: %v\nschema: %v\n%s", doc, err, invalid, argumentSchema(typ))
				}
				if err != nil {
					refused++
					fields := wrongArgument("m", []byte(doc), typ, err)
					if len(fields.Errors) == 0 {
						t.Fatalf("%s: no field is named: %v", doc, fields)
					}
					for _, e := range fields.Errors {
						if !resolves(parsed, e.Pointer) {
							t.Fatalf("%s has nothing at %s", doc, e.Pointer)
						}
					}
					return
				}
				taken++
				written, err := json.Marshal(v.Elem().Interface())
				if err != nil {
					t.Fatal(err)
				}
				result, _ := jsonschema.UnmarshalJSON(bytes.NewReader(written))
				if err := out.Validate(result); err != nil {
					t.Fatalf("%s is written\n%s\n%v\n%s", doc, written, err, ResultSchema(typ))
				}
			})
			if taken == 0 || refused == 0 {
				t.Errorf("%d taken, %d refused: that shows nothing", taken, refused)
			}
		})
	}
}

func resolves(doc any, pointer string) bool {
	path, err := url.PathUnescape(strings.TrimPrefix(pointer, "#"))
	if err != nil {
		return false
	}
	for _, step := range strings.Split(path, "/")[1:] {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch at := doc.(type) {
		case map[string]any:
			next, ok := at[step]
			if !ok {
				return false
			}
			doc = next
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(at) {
				return false
			}
			doc = at[i]
		default:
			return false
		}
	}
	return true
}

var wrongJSON = []string{`"three"`, `3`, `-1`, `true`, `[]`, `{}`, `[1,"odd"]`, `1e39`, `300`, `70000`, `18446744073709551616`, `1.5`, `"2026-11-24T10:00:00Z"`, `"AAA="`, `"A"`, `"7"`}

// ownJudgement have types that decide by themselves what they take: a schema does not know.
var ownJudgement = map[reflect.Type]bool{reflect.TypeFor[json.Number](): true, reflect.TypeFor[big.Int](): true, reflect.TypeFor[odd](): true}

const whole = 3 // the depth of a whole argument

// drawJSON is JSON for a type, mostly: now and then it is something else, somewhere. Where the decoder is known to be more
// lenient than a schema can be, it is not tried: null where there is no null, other case, bytes as an array.
func drawJSON(t *rapid.T, typ reflect.Type, depth int) string {
	if typ.Kind() == reflect.Pointer {
		if depth < 0 || rapid.IntRange(0, 3).Draw(t, "null") == 0 {
			return "null"
		}
		return drawJSON(t, typ.Elem(), depth)
	}
	bytesLike := typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Uint8
	rare := 12
	if depth == whole {
		rare = 2 // so that each type is refused, too, in a hundred draws
	}
	if rapid.IntRange(0, rare).Draw(t, "wrong") == 0 && !ownJudgement[typ] {
		wrong := rapid.SampledFrom(wrongJSON).Draw(t, "other")
		if bytesLike && wrong == `[]` {
			wrong = `{}`
		}
		return wrong
	}
	switch typ {
	case reflect.TypeFor[time.Time]():
		return `"2026-11-24T10:00:00.5+01:00"`
	case reflect.TypeFor[odd]():
		return `[1,"odd"]`
	case reflect.TypeFor[textual]():
		return `"x"`
	case reflect.TypeFor[json.RawMessage]():
		return `{"a":[1]}`
	case reflect.TypeFor[big.Int](), reflect.TypeFor[json.Number]():
		return `123456789012345678901234567890`
	}
	switch typ.Kind() {
	case reflect.Interface:
		return rapid.SampledFrom(wrongJSON).Draw(t, "any")
	case reflect.Bool:
		return rapid.SampledFrom([]string{"true", "false"}).Draw(t, "bool")
	case reflect.String:
		return strconv.Quote(rapid.StringMatching(`[a-z ü]{0,5}`).Draw(t, "string"))
	case reflect.Float32, reflect.Float64:
		return rapid.SampledFrom([]string{"0", "-1.5", "3e5", "1e39"}).Draw(t, "float")
	case reflect.Slice, reflect.Array:
		if bytesLike {
			return rapid.SampledFrom([]string{`"AAAA"`, `"+/8="`, `"QQ=="`, `""`, `null`, `"QQ"`, `"Q==="`}).Draw(t, "base64")
		}
		return drawArray(t, typ, depth)
	case reflect.Map:
		return drawMap(t, typ, depth)
	case reflect.Struct:
		return drawObject(t, typ, depth)
	default:
		return rapid.SampledFrom([]string{"0", "1", "-1", "127", "-128", "128", "255", "256", "32768", "65535", "65536", "2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551615"}).Draw(t, "number")
	}
}

func drawArray(t *rapid.T, typ reflect.Type, depth int) string {
	n := rapid.IntRange(0, max(0, min(3, depth))).Draw(t, "n")
	if typ.Kind() == reflect.Array {
		n = min(n, typ.Len()) // what is beyond its end the decoder does not look at
	} else if n == 0 && rapid.Bool().Draw(t, "nil") {
		return "null"
	}
	parts := make([]string, n)
	for i := range parts {
		parts[i] = drawJSON(t, typ.Elem(), depth-1)
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func drawMap(t *rapid.T, typ reflect.Type, depth int) string {
	keys := map[reflect.Kind][]string{reflect.String: {"a", "a/b", "x y~"}, reflect.Int16: {"1", "-7", "zwei"}, reflect.Struct: {"10.0.0.1", "::1"}}[typ.Key().Kind()]
	if depth < 0 || rapid.IntRange(0, 4).Draw(t, "nil") == 0 {
		return "null"
	}
	var parts []string
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom(keys), 0, len(keys), rapid.ID[string]).Draw(t, "keys") {
		parts = append(parts, strconv.Quote(k)+":"+drawJSON(t, typ.Elem(), depth-1))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func drawObject(t *rapid.T, typ reflect.Type, depth int) string {
	var parts []string
	absent := rapid.SampledFrom([]int{1, 9}).Draw(t, "absent") // of ten: a type with many fields is taken, too
	for _, f := range jsonFields(typ) {
		switch how := rapid.IntRange(0, 9).Draw(t, f.name); {
		case how < absent:
		case f.quoted:
			parts = append(parts, strconv.Quote(f.name)+":"+rapid.SampledFrom([]string{`"7"`, `"true"`, `"x"`, `7`}).Draw(t, "quoted"))
		default:
			parts = append(parts, strconv.Quote(f.name)+":"+drawJSON(t, f.typ, depth-1))
		}
	}
	if rapid.IntRange(0, 20).Draw(t, "more") == 0 {
		parts = append(parts, `"no such":1`)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// TestFieldsAreThoseOfTheDecoder: which fields a struct has in JSON is encoding/json's to say.
func TestFieldsAreThoseOfTheDecoder(t *testing.T) {
	for _, v := range []any{line{}, order{Labels: map[string]string{"a": "b"}}, embedding{Base2: new(Base2), Since: time.Unix(0, 0)}, tree{}, different{Raw: []byte("1"), Odd: new(odd), Big: new(big.Int), Num: "1"}} {
		written, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []string
		dec := json.NewDecoder(bytes.NewReader(written))
		_, _ = dec.Token()
		for dec.More() {
			key, _ := dec.Token()
			want = append(want, key.(string))
			_ = dec.Decode(new(json.RawMessage))
		}
		for _, f := range jsonFields(reflect.TypeOf(v)) {
			if _, ok := v.(tree); !ok || !f.optional {
				got = append(got, f.name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%T (-json +ours):\n%s", v, diff)
		}
	}
}

func TestSchemasReadWell(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{string(argumentSchema(reflect.TypeFor[line]())), `{"title":"engine.line","type":"object","properties":{"item":{"type":"string"},"quantity":{"type":"integer","format":"int8","minimum":-128,"maximum":127}},"additionalProperties":false}`},
		{string(ResultSchema(reflect.TypeFor[[]line]())), `{"title":"[]engine.line","type":["array","null"],"items":{"type":"object","properties":{"item":{"type":"string"},"quantity":{"type":"integer","format":"int8","minimum":-128,"maximum":127}},"required":["item","quantity"]}}`},
		{string(argumentSchema(reflect.TypeFor[*mutualB]())), `{"title":"*engine.mutualB","anyOf":[{"$ref":"#/$defs/mutualB"},{"type":"null"}],"$defs":{"mutualA":{"type":"object","properties":{"b":{"anyOf":[{"$ref":"#/$defs/mutualB"},{"type":"null"}]},"c":{"anyOf":[{"$ref":"#/$defs/mutualA"},{"type":"null"}]}},"additionalProperties":false},"mutualB":{"type":"object","properties":{"a":{"type":["array","null"],"items":{"$ref":"#/$defs/mutualA"}}},"additionalProperties":false}}}`},
		{string(ResultSchema(reflect.TypeFor[chan int]())), `{"title":"chan int","not":{}}`},
		{string(ResultSchema(reflect.TypeFor[any]())), `{"title":"interface {}"}`},
	} {
		if c.got != c.want {
			t.Errorf("%s\nwant\n%s", c.got, c.want)
		}
	}
}

func TestAWrongArgumentIsToldByItsPath(t *testing.T) {
	for _, c := range []struct {
		typ  reflect.Type
		in   string
		want string
		at   string
	}{
		{reflect.TypeFor[order](), `{"lines":[{},{},{"quantity":"three"}]}`, `lines[2].quantity: want a whole number, have "three"`, "#/lines/2/quantity"},
		{reflect.TypeFor[order](), `{"lines":[{"quantity":300}],"-":-1}`, `lines[0].quantity: want a whole number from -128 to 127, have 300 (and 1 more)`, "#/lines/0/quantity #/-"},
		{reflect.TypeFor[uint64](), `-1`, `want a whole number from 0 to 18446744073709551615, have -1`, "#"},
		{reflect.TypeFor[int](), `9223372036854775808`, `want a whole number from -9223372036854775808 to 9223372036854775807, have 9223372036854775808`, "#"},
		{reflect.TypeFor[order](), `{"lines":[{"Item":1,"colour":"red"}],"paid":7}`, `lines[0].Item: want a string, have 1 (and 2 more)`, "#/lines/0/Item #/lines/0/colour #/paid"},
		{reflect.TypeFor[order](), `{"lines":[{"colour":{"r":[1,2]}}]}`, `lines[0].colour: unknown field; known: item, quantity`, "#/lines/0/colour"},
		{reflect.TypeFor[struct{}](), `{"x":1}`, `x: unknown field; known: none`, "#/x"},
		{reflect.TypeFor[order](), `[[1],{"a":2}]`, `want an object, have an array`, "#"},
		{reflect.TypeFor[order](), `{"lines":{"a":[1]},"labels":{"a b":{}}}`, `lines: want an array, have an object (and 1 more)`, "#/lines #/labels/a%20b"},
		{reflect.TypeFor[order](), `{"Plain":"x"}`, `Plain: want a number, have "x"`, "#/Plain"},
		{reflect.TypeFor[different](), `{"a/b~c d":{"b":"` + strings.Repeat("ü", 100) + `"}}`, `["a/b~c d"].b: want true or false, have "` + strings.Repeat("ü", 29) + `…`, "#/a~1b~0c%20d/b"},
		{reflect.TypeFor[different](), `{"by_id":{"zwei":true},"quoted":3,"odd":{},"bytes":"?"}`, `by_id.zwei: a name here is a whole number (and 3 more)`, "#/by_id/zwei #/quoted #/odd #/bytes"},
		{reflect.TypeFor[different](), `{"odd":{}}`, `odd: have {}: that is not odd`, "#/odd"},
		{reflect.TypeFor[different](), `{"any":[1,2],"quoted":"x"}`, `quoted: want a string that holds a whole number, have "x"`, "#/quoted"},
		{reflect.TypeFor[tree](), `{"children":[null,{"named":{"a":{"value":1.5}}}]}`, `children[1].named.a.value: want a whole number, have 1.5`, "#/children/1/named/a/value"},
		{reflect.TypeFor[[]int](), `[` + strings.Repeat(`"x",`, 40) + `1]`, `[0]: want a whole number, have "x" (and more)`, ""},
		{reflect.TypeFor[[]int](), `[` + strings.Repeat(`"x",`, 15) + `"x"]`, `[0]: want a whole number, have "x" (and 15 more)`, ""},
		{reflect.TypeFor[int](), `{`, `unexpected EOF`, ""},
		{reflect.TypeFor[int](), `{"a" 1}`, `byte 6: invalid character '1' after object key`, ""},
		{reflect.TypeFor[int](), `1 2`, `there is more behind the JSON value`, ""},
		{reflect.TypeFor[map[string]int](), `{"` + strings.Repeat("k", 2000) + `":"x"}`, strings.Repeat("k", 60) + `…: want a whole number, have "x"`, ""},
	} {
		err := decodeArgument([]byte(c.in), reflect.New(c.typ).Interface())
		if err == nil {
			t.Errorf("%s: taken", c.in)
			continue
		}
		e := wrongArgument("add", []byte(c.in), c.typ, err)
		if want := "argument of add: " + c.want; e.Detail != want || e.Code != Invalid || len(e.Errors) > fieldErrorsMax {
			t.Errorf("%s:\n%s\nwant\n%s", c.in, e.Detail, want)
		}
		var at []string
		for _, f := range e.Errors {
			at = append(at, f.Pointer)
		}
		if got := strings.Join(at, " "); c.at != "" && got != c.at {
			t.Errorf("%s: at %s, want %s", c.in, got, c.at)
		}
	}
}

// TestWhereTheDecoderIsMoreLenient holds what the comment over the schemas says.
func TestWhereTheDecoderIsMoreLenient(t *testing.T) {
	for _, c := range []struct {
		typ             reflect.Type
		in              string
		decoder, schema bool
	}{
		{reflect.TypeFor[int](), `null`, true, false},
		{reflect.TypeFor[line](), `{"ITEM":"x"}`, true, false},
		{reflect.TypeFor[[]byte](), `[1,2]`, true, false},
		{reflect.TypeFor[int](), `1.0`, false, true},
	} {
		parsed, _ := jsonschema.UnmarshalJSON(strings.NewReader(c.in))
		decoder := decodeArgument([]byte(c.in), reflect.New(c.typ).Interface()) == nil
		schema := compileSchema(t, argumentSchema(c.typ)).Validate(parsed) == nil
		if decoder != c.decoder || schema != c.schema {
			t.Errorf("%s as %s: decoder %v, schema %v", c.in, c.typ, decoder, schema)
		}
	}
}

func TestASchemaThatIsNoJSONFailsAtStart(t *testing.T) {
	bad := script{Behavior{Name: "js", Methods: map[string]Method{"set": {In: []byte("{")}}}}
	if err := CheckClasses(bad); err == nil || !strings.Contains(err.Error(), `class "js": a schema of "set" is not JSON`) {
		t.Error(err)
	}
}
