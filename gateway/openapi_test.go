package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/perdure/perdure/engine"
)

// openapi is the description as a client gets it.
func openapi(t *testing.T, g *Gateway) map[string]any {
	t.Helper()
	r := send(t, g, "GET", "/openapi.json", "")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(read(t, r)))
	if err != nil {
		t.Fatal(err)
	}
	return doc.(map[string]any)
}

// TestTheDescriptionIsOpenAPI holds it against the official schema (spec.openapis.org/oas/3.1/schema/2022-10-07), each of its
// schemas against that of JSON Schema, and each reference against what is there.
func TestTheDescriptionIsOpenAPI(t *testing.T) {
	t.Parallel()
	doc := openapi(t, overAWorker(t))
	official, err := os.ReadFile("testdata/openapi-3.1-schema.json")
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	compile := func(at string, schema any) *jsonschema.Schema {
		if schema != nil {
			if err := c.AddResource(at, schema); err != nil {
				t.Fatal(err)
			}
		}
		s, err := c.Compile(at)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		return s
	}
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(official))
	if err != nil {
		t.Fatal(err)
	}
	oas := compile("https://spec.openapis.org/oas/3.1/schema/2022-10-07", schema)
	if err := oas.Validate(doc); err != nil {
		t.Errorf("%v", err)
	}
	if err := oas.Validate(map[string]any{"openapi": "3.1.1"}); err == nil {
		t.Error("the official schema takes anything")
	}
	compile("urn:doc", doc)
	for name := range doc["components"].(map[string]any)["schemas"].(map[string]any) {
		compile("urn:doc#/components/schemas/"+name, nil)
	}
	references := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				references++
				if !there(doc, ref) {
					t.Errorf("nothing is at %s", ref)
				}
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	if walk(doc); references < 20 {
		t.Errorf("%d references", references)
	}
}

func there(doc any, ref string) bool {
	for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
		in, ok := doc.(map[string]any)
		if !ok {
			return false
		}
		if doc, ok = in[step]; !ok {
			return false
		}
	}
	return true
}

// TestEveryRouteIsDescribed, with its parameters.
func TestEveryRouteIsDescribed(t *testing.T) {
	t.Parallel()
	doc := openapi(t, overAWorker(t))
	paths := doc["paths"].(map[string]any)
	for _, r := range routes {
		if descriptions[r.path].summary == "" {
			t.Errorf("%s has no words in descriptions", r.path)
		}
		path := strings.NewReplacer("{class}", "shelf", "{method}", "place").Replace(r.path)
		if r.path != pathCall && r.path != pathSend && r.path != pathHTTP {
			path = r.path
		}
		item, _ := paths[path].(map[string]any)
		op, _ := item[strings.ToLower(r.method)].(map[string]any)
		if r.method == "" {
			op, _ = item["post"].(map[string]any)
		}
		if op["summary"] == "" || op["responses"] == nil {
			t.Errorf("%s %s: %v", r.method, path, op)
			continue
		}
		for _, q := range r.query {
			if _, known := parameters[q]; !known || !strings.Contains(fmt.Sprint(op["parameters"]), "name:"+q) {
				t.Errorf("%s: parameter %s is not described", path, q)
			}
		}
	}
	reads := 0
	for path, item := range paths {
		op, _ := item.(map[string]any)["post"].(map[string]any)
		read := strings.Contains(fmt.Sprint(op["summary"]), "only reads")
		if read {
			reads++
		}
		for _, header := range readHeaders {
			if strings.Contains(fmt.Sprint(op["parameters"]), header) != read {
				t.Errorf("%s: %v; parameter %s is that of reads", path, op["summary"], header)
			}
		}
	}
	if reads == 0 {
		t.Error("no method reads")
	}
	for path := range descriptions {
		if !slices.ContainsFunc(routes, func(r route) bool { return r.path == path }) {
			t.Errorf("there is no route %s any more", path)
		}
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	argument, _ := json.Marshal(schemas["shelf.place.argument"])
	if want := `{"additionalProperties":false,"properties":{"Item":{"type":"string"}},"title":"gateway.placed","type":"object"}`; string(argument) != want {
		t.Errorf("%s", argument)
	}
}

func TestTheDescriptionHasATag(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	tag := send(t, g, "GET", "/openapi.json", "").Header.Get("ETag")
	if again := send(t, g, "GET", "/openapi.json", "", "If-None-Match: "+tag); again.StatusCode != 304 || read(t, again) != "" || again.Header.Get("ETag") != tag {
		t.Errorf("%d %v", again.StatusCode, again.Header)
	}
	other := newGateway(t, Config{Inspector: inspector{classes: []engine.ClassInfo{{Name: "other"}}}})
	if r := send(t, other, "GET", "/openapi.json", "", "If-None-Match: "+tag); r.StatusCode != 200 || r.Header.Get("ETag") == tag {
		t.Errorf("other classes: %d %v", r.StatusCode, r.Header)
	}
}

// TestSchemasOfOtherLanguagesKeepTheirParts: a class may give any schema, or none.
func TestSchemasOfOtherLanguagesKeepTheirParts(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Inspector: inspector{classes: []engine.ClassInfo{{Name: "js", Methods: map[string]engine.Method{
		"set": {In: []byte(`{"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref" : "#"}}}}`)},
	}}}}})
	schemas := openapi(t, g)["components"].(map[string]any)["schemas"].(map[string]any)
	got, _ := json.Marshal([]any{schemas["js.set.argument"], schemas["js.set.result"]})
	const want = `[{"$defs":{"a":{"items":{"$ref":"#/components/schemas/js.set.argument"}}},"$ref":"#/components/schemas/js.set.argument/$defs/a"},true]`
	if string(got) != want {
		t.Errorf("%s", got)
	}
}

// TestAWrongArgumentIsToldByItsPath, in words and as pointers.
func TestAWrongArgumentIsToldByItsPath(t *testing.T) {
	t.Parallel()
	r := send(t, overAWorker(t), "POST", "/v1/objects/shelf/a/call/place", `{"Item":["x"],"shelf":1}`)
	e := engine.ParseProblem([]byte(read(t, r)))
	want := []engine.FieldError{{Pointer: "#/Item", Detail: "want a string, have an array"}, {Pointer: "#/shelf", Detail: "unknown field; known: Item"}}
	if r.StatusCode != 400 || !strings.Contains(e.Detail, "Item: want a string, have an array (and 1 more)") || !slices.Equal(e.Errors, want) {
		t.Errorf("%d %+v", r.StatusCode, e)
	}
}
