package gateway

import (
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// route is one kind of path and what serves it.
type route struct {
	path   string   // {word} stands for any one segment; also the route's name in metrics
	method string   // GET includes HEAD; empty: any
	query  []string // the parameters that it has; with any method, all
	serve  func(*Gateway, *response, *http.Request, *target) error

	segments []string // of path
	form     string   // the path, whatever its words in braces are
}

// Paths that openapi.go describes in its own way.
const (
	pathCall    = "/v1/objects/{class}/{name}/call/{method}"
	pathState   = "/v1/objects/{class}/{name}/state"
	pathJournal = "/v1/objects/{class}/{name}/journal"
	pathCommit  = "/v1/objects/{class}/{name}/journal/{id}"
	pathSend    = "/v1/objects/{class}/{name}/send/{method}"
	pathSent    = "/v1/objects/{class}/{name}/send/{seq}"
	pathChanges = "/v1/changes"
	pathHTTP    = "/{class}/{name}"
)

// routes are tried in this order: the classes, which cannot have the names of the others, come last.
var routes = withSegments(
	route{path: pathCall, method: "POST", serve: (*Gateway).call},
	route{path: pathSend, method: "POST", serve: (*Gateway).send},
	route{path: pathSent, method: "GET", serve: (*Gateway).sent},
	route{path: pathState, method: "GET", serve: (*Gateway).state},
	route{path: pathJournal, method: "GET", query: []string{"from", "limit"}, serve: (*Gateway).journal},
	route{path: pathCommit, method: "GET", query: []string{"cloudevents"}, serve: (*Gateway).commit},
	route{path: pathChanges, method: "GET", query: []string{"class", "cloudevents", "from", "prefix"}, serve: (*Gateway).changes},
	route{path: "/v1/objects/{class}", method: "GET", query: []string{"cursor", "limit", "prefix"}, serve: (*Gateway).objects},
	route{path: "/v1/objects", method: "GET", query: []string{"cursor", "limit", "prefix"}, serve: (*Gateway).objects},
	route{path: "/v1/classes", method: "GET", serve: (*Gateway).classes},
	route{path: "/openapi.json", method: "GET", serve: (*Gateway).openapi},
	route{path: "/livez", method: "GET", query: []string{"verbose"}, serve: (*Gateway).live},
	route{path: "/readyz", method: "GET", query: []string{"verbose"}, serve: (*Gateway).ready},
	route{path: "/metrics", method: "GET", serve: (*Gateway).metrics},
	route{path: pathHTTP, serve: (*Gateway).http},
)

var inBraces = regexp.MustCompile(`{\w+}`)

func withSegments(rs ...route) []route {
	for i := range rs {
		rs[i].segments = strings.Split(rs[i].path, "/")
		rs[i].form = inBraces.ReplaceAllString(rs[i].path, "{}")
	}
	return rs
}

// allPaths is what somebody is told who asks for another one.
var allPaths = func() string {
	var paths []string
	for _, r := range routes {
		paths = append(paths, r.path)
	}
	return list(paths)
}()

// target is what a request is for.
type target struct {
	route               *route
	class, name, method string
	seq                 string // of a message
	event               string // the id of one
	query               url.Values
	id                  string // the caller's own
}

// label is the route's name in metrics: whatever callers send, there are only so many.
func (t *target) label() string {
	if t.route == nil {
		return "unknown"
	}
	return t.route.path
}

// parse finds what an escaped path is for, with a method: of routes of one form the one that takes it. It is not http.ServeMux because that answers paths with empty or dotted
// segments, which names may be, with a redirect.
func parse(method, path string) (target, error) {
	segments := strings.Split(path, "/")
	var found *route
	for i := range routes {
		r := &routes[i]
		if !r.fits(segments) {
			continue
		}
		if found == nil || found.form == r.form && !found.allows(method) {
			found = r
		}
	}
	if found == nil {
		return target{}, noPath("there is nothing at this path")
	}
	return found.target(segments)
}

func noPath(why string) error {
	return engine.Errorf(engine.NotFound, "%s; paths are: %s", why, allPaths)
}

// fits tells whether the path is of the route's form. Below an object any rest is its class's.
func (r *route) fits(segments []string) bool {
	if len(segments) < len(r.segments) || len(segments) > len(r.segments) && r.method != "" {
		return false
	}
	for i, s := range r.segments {
		if !strings.HasPrefix(s, "{") && s != segments[i] {
			return false
		}
	}
	return true
}

func (r *route) target(segments []string) (target, error) {
	t := target{route: r}
	for i, s := range r.segments {
		value, err := url.PathUnescape(segments[i])
		if err != nil {
			return t, engine.Errorf(engine.Invalid, "path: %w", err)
		}
		switch s {
		case "{class}":
			if err := wire.CheckClass(value); err != nil {
				return target{}, noPath(err.Error())
			}
			t.class = value
		case "{name}":
			if err := checkName(segments[i], value); err != nil {
				return t, err
			}
			t.name = value
		case "{method}":
			t.method = value
		case "{seq}":
			t.seq = value
		case "{id}":
			t.event = value
		}
	}
	return t, nil
}

func checkName(segment, name string) error {
	if segment == "." || segment == ".." {
		escaped := strings.ReplaceAll(segment, ".", "%2E")
		return engine.Errorf(engine.Invalid, "the name %q is written %s in a path, where bare dots mean something else", name, escaped)
	}
	if err := wire.CheckName(name); err != nil {
		return engine.Errorf(engine.Invalid, "%w", err)
	}
	return nil
}

func (r *route) allows(method string) bool {
	return r.method == "" || method == r.method || method == http.MethodHead && r.method == http.MethodGet
}

func (r *route) allow() string {
	if r.method == http.MethodGet {
		return "GET, HEAD"
	}
	return r.method
}

// parseQuery refuses parameters that the route does not have: one that is misspelt would have no effect unnoticed.
func (r *route) parseQuery(raw string) (url.Values, error) {
	if r.method == "" || raw == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, engine.Errorf(engine.Invalid, "query: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(q)) {
		switch {
		case len(r.query) == 0:
			return nil, engine.Errorf(engine.Invalid, "parameter %q: %s has none", name, r.path)
		case !slices.Contains(r.query, name):
			return nil, engine.Errorf(engine.Invalid, "parameter %q: %s has only %s", name, r.path, list(r.query))
		case len(q[name]) > 1:
			return nil, engine.Errorf(engine.Invalid, "parameter %q is given %d times", name, len(q[name]))
		}
	}
	return q, nil
}
