package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// The description of the routes as OpenAPI 3.1: made of the table of routes and of the classes that are served, at each
// question, since a gateway keeps nothing.

// table is routes. One of them describes them all, and Go takes no circle.
var table []route

func init() { table = routes }

// object is a JSON object; its members are written by name, so that the same routes and classes have the same ETag.
type object = map[string]any

func (g *Gateway) openapi(w *response, r *http.Request, _ *target) error {
	classes, err := g.Inspector.Classes(r.Context())
	if err != nil {
		return err
	}
	b, err := json.Marshal(describeAPI(classes))
	if err != nil {
		return fmt.Errorf("describe the routes: %w", err)
	}
	sum := sha256.Sum256(b)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	w.Header().Set("ETag", tag)
	if matches(r.Header, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the client may be gone
	return nil
}

// described is what the table of routes does not say of a route.
type described struct {
	summary string
	content string
	result  reflect.Type // of JSON; nil: text
	etag    bool         // it has one, and knows If-None-Match
}

var descriptions = map[string]described{
	pathState:             {"The state as of the last record; nothing is woken", "application/json", reflect.TypeFor[engine.ObjectState](), true},
	pathJournal:           {"The commits, one a line", "application/x-ndjson", reflect.TypeFor[engine.JournalEntry](), false},
	pathCommit:            {"One commit, by the id of its event", "application/json", reflect.TypeFor[engine.JournalEntry](), false},
	pathSent:              {"What became of a message", "application/json", reflect.TypeFor[engine.SentState](), false},
	pathChanges:           {"What is committed, one event a line", "application/x-ndjson", reflect.TypeFor[changed](), false},
	"/v1/objects/{class}": {"The objects of a class, by name", "application/json", reflect.TypeFor[objectsPage](), false},
	"/v1/objects":         {"The objects of all classes", "application/json", reflect.TypeFor[objectsPage](), false},
	"/v1/classes":         {"The classes: methods with the schemas of argument and result, events, limits", "application/json", reflect.TypeFor[classesPage](), false},
	"/openapi.json":       {"This description", "application/json", reflect.TypeFor[map[string]any](), true},
	"/livez":              {"The process answers", "text/plain", nil, false},
	"/readyz":             {"It takes requests, or 503 and why not", "text/plain", nil, false},
	"/metrics":            {"Metrics, as Prometheus reads them", "text/plain", nil, false},
	pathCall:              {summary: "Run a method"},
	pathSend:              {summary: "Store a message to a method, which is applied once", result: reflect.TypeFor[accepted]()},
	pathHTTP:              {summary: "The whole request goes to the object, as does anything below this path"},
}

// changed is a line of /v1/changes.
type changed struct {
	Event string              `json:"event"`
	ID    string              `json:"id"`
	Data  engine.JournalEntry `json:"data"`
}

// parameters are those of paths and queries, by name.
var parameters = map[string]object{
	"class":       {"type": "string", "description": "a class; see /v1/classes"},
	"name":        {"type": "string", "minLength": 1, "description": "the object's name: any UTF-8 of 1 to 512 bytes, escaped as URLs are"},
	"cursor":      {"type": "string", "description": "next of the answer before"},
	"prefix":      {"type": "string", "description": "only names that begin with it"},
	"from":        {"type": "string", "description": "from this sequence of the stream on; of changes now, start, or the id of the last event that was seen"},
	"limit":       {"type": "integer", "minimum": 1, "description": "at most so many; of objects at most 1000"},
	"seq":         {"type": "integer", "minimum": 1, "description": "the position of a message, as the answer to it said"},
	"id":          {"type": "string", "description": "the id of an event"},
	"cloudevents": {"type": "string", "enum": []string{"binary", "structured"}, "description": "with the attributes of CloudEvents 1.0: binary of one commit, structured of a stream"},
	"verbose":     {"type": "string", "description": "for people"},
}

func describeAPI(classes []engine.ClassInfo) object {
	schemas := object{"problem": engine.ResultSchema(reflect.TypeFor[engine.Problem]())}
	paths := object{}
	for i := range table {
		switch r := &table[i]; {
		case strings.Contains(r.path, "{method}"):
			for j := range classes {
				r.addMethods(paths, schemas, &classes[j])
			}
		case r.path == pathHTTP:
			for j := range classes {
				if c := &classes[j]; c.HTTP {
					paths["/"+c.Name+"/{name}"] = wholeRequests(c.Name)
				}
			}
		default:
			paths[r.path] = object{strings.ToLower(r.method): r.operation(schemas)}
		}
	}
	return object{
		"openapi": "3.1.1",
		"info": object{"title": "Perdure", "version": wire.Version,
			"description": "Durable objects over HTTP. HEAD works where GET does. Parameters that a path does not have are refused."},
		"paths": paths,
		"components": object{"schemas": schemas, "parameters": requestHeaders(), "headers": replyHeaders(),
			"responses": object{"problem": object{
				"description": "Not done, unless the code is unknownOutcome. " + codes(),
				"headers":     references("headers", "Retry-After", headerRequestID),
				"content":     object{"application/problem+json": object{"schema": reference("schemas", "problem")}},
			}}},
	}
}

func reference(kind, name string) object { return object{"$ref": "#/components/" + kind + "/" + name} }

func references(kind string, names ...string) object {
	all := object{}
	for _, name := range names {
		all[name] = reference(kind, name)
	}
	return all
}

// codes are the codes of errors by status.
func codes() string {
	var words []string
	for _, c := range engine.Codes() {
		words = append(words, fmt.Sprintf("%d %s", c.Status(), c))
	}
	return list(words)
}

// operation describes a route that is there once, whatever the classes.
func (r *route) operation(schemas object) object {
	d := descriptions[r.path]
	content := object{"schema": object{"type": "string"}}
	if d.result != nil {
		content["schema"] = addSchema(schemas, strings.ToLower(d.result.Name()), engine.ResultSchema(d.result))
	}
	ok := object{"description": "Done", "content": object{d.content: content}}
	responses := object{"200": ok, "default": reference("responses", "problem")}
	var of []any
	for _, s := range r.segments {
		if name, is := strings.CutPrefix(s, "{"); is {
			of = append(of, parameter("path", strings.TrimSuffix(name, "}")))
		}
	}
	for _, name := range r.query {
		of = append(of, parameter("query", name))
	}
	if d.etag {
		ok["headers"] = references("headers", "ETag")
		responses["304"] = object{"description": "If-None-Match names it"}
		of = append(of, reference("parameters", "If-None-Match"))
	}
	op := object{"summary": d.summary, "responses": responses}
	if of != nil {
		op["parameters"] = of
	}
	return op
}

func parameter(in, name string) object {
	schema := maps.Clone(parameters[name])
	p := object{"name": name, "in": in, "description": schema["description"], "schema": schema}
	delete(schema, "description")
	if in == "path" {
		p["required"] = true
	}
	return p
}

// addSchema adds a schema and refers to it. Its references to parts of itself go to where it now stands.
func addSchema(schemas object, name string, schema json.RawMessage) object {
	if name == "" {
		name = "object"
	}
	var b bytes.Buffer
	if len(schema) == 0 || json.Compact(&b, schema) != nil {
		b.WriteString("true") // a class that does not say: anything
	}
	at := reference("schemas", name)
	moved := bytes.ReplaceAll(b.Bytes(), []byte(`"$ref":"#`), []byte(`"$ref":"`+at["$ref"].(string)))
	schemas[name] = json.RawMessage(moved)
	return at
}

// callHeaders are those of requests that reach an object.
var callHeaders = []string{headerIdempotencyKey, headerRequestID, headerDeadline, headerCaller, "traceparent"}

// readHeaders are those of reads besides.
var readHeaders = []string{wire.HeaderConsistency, wire.HeaderMinVersion}

// toObject are the parameters of a request to an object.
func toObject(besides ...string) []any {
	all := []any{parameter("path", "name")}
	for _, name := range slices.Concat(callHeaders, besides) {
		all = append(all, reference("parameters", name))
	}
	return all
}

// addMethods describes a route to methods for a class, each with a path of its own. What it answers is the method's result,
// unless descriptions says otherwise.
func (r *route) addMethods(paths, schemas object, c *engine.ClassInfo) {
	d, id, status := descriptions[r.path], "", "200"
	if r.path != pathCall {
		status = "2XX"
		id = strings.TrimSuffix(strings.TrimPrefix(r.path, "/v1/objects/{class}/{name}/"), "/{method}") + "."
	}
	for _, name := range slices.Sorted(maps.Keys(c.Methods)) {
		m, full := c.Methods[name], c.Name+"."+name
		if m.Read && r.path == pathSend {
			continue // there is nothing to apply
		}
		kind, besides := "may change the object", []string(nil)
		if m.Read {
			kind, besides = "only reads", readHeaders
		}
		json := func(what string, schema json.RawMessage) object {
			return object{"application/json": object{"schema": addSchema(schemas, full+"."+what, schema)}}
		}
		result := m.Out
		if d.result != nil {
			result = engine.ResultSchema(d.result)
		}
		path := strings.NewReplacer("{class}", c.Name, "{method}", name).Replace(r.path)
		paths[path] = object{strings.ToLower(r.method): object{
			"operationId": id + full, "tags": []string{c.Name}, "summary": d.summary + ": " + full + ", which " + kind, "parameters": toObject(besides...),
			"requestBody": object{"description": "The argument; without it, the zero one", "content": json("argument", m.In)},
			"responses": object{
				status: object{"description": "Done", "content": json(id+"result", result),
					"headers": references("headers", "ETag", wire.HeaderVersion, headerReplayed, headerRequestID)},
				"default": reference("responses", "problem"),
			},
		}}
	}
}

// wholeRequests describes what a class answers itself: it knows what, and nobody else.
func wholeRequests(class string) object {
	item := object{}
	for _, method := range []string{"get", "put", "post", "patch", "delete"} {
		item[method] = object{
			"operationId": class + ".http." + method, "tags": []string{class}, "summary": descriptions[pathHTTP].summary, "parameters": toObject(),
			"responses": object{
				"2XX":     object{"description": "What the class answers", "headers": references("headers", "ETag", wire.HeaderVersion, headerReplayed, headerRequestID)},
				"default": reference("responses", "problem"),
			},
		}
	}
	return item
}

// requestHeaders are the headers of requests, as parameters.
func requestHeaders() object {
	all := object{}
	for name, what := range map[string]string{
		headerIdempotencyKey:   "the caller's own id: quoted or bare, 1 to 256 bytes; a repeat gets the recorded reply",
		headerRequestID:        "the same as Idempotency-Key",
		headerDeadline:         "when the request must have begun: 2026-11-24T10:00:00Z, or 5s from receipt; at most 1h ahead",
		headerCaller:           "who the caller claims to be, for the journal; at most 256 bytes",
		"traceparent":          "W3C trace context",
		wire.HeaderConsistency: "eventual: a standby's copy may answer, which may be behind, and says as of which version; strong (the default)",
		wire.HeaderMinVersion:  "the version of the object that the reply has to know: a number, as Perdure-Version of a reply has it",
		"If-None-Match":        "304 if this is still the ETag",
	} {
		all[name] = object{"name": name, "in": "header", "description": what, "schema": object{"type": "string"}}
	}
	return all
}

// replyHeaders are the headers of replies.
func replyHeaders() object {
	all := object{}
	for name, what := range map[string]string{
		"ETag":             "the object's version, as \"17\"; of this description its hash",
		wire.HeaderVersion: "the object's version that the reply is true at",
		headerReplayed:     "true, if the reply was recorded when the request first ran",
		headerRequestID:    "the caller's own id",
		"Retry-After":      "seconds, if asking again makes sense then",
	} {
		all[name] = object{"description": what, "schema": object{"type": "string"}}
	}
	return all
}
