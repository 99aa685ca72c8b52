package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// transport is a fake: what it was asked last, and what it answers.
type transport struct {
	noPost
	do func(context.Context, engine.Request) (engine.Reply, error)

	mu    sync.Mutex
	asked []engine.Request
}

func (f *transport) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	f.mu.Unlock()
	return f.do(ctx, r)
}

func (f *transport) requests() []engine.Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func answers(reply engine.Reply, err error) *transport {
	return &transport{do: func(context.Context, engine.Request) (engine.Reply, error) { return reply, err }}
}

// inspector is a fake whose answers are functions; those that are nil must not be asked.
type inspector struct {
	sent    func(class, name string, seq journal.Seq) (engine.SentState, error)
	state   func(class, name string) (engine.ObjectState, error)
	journal func(from journal.Seq, limit int) ([]engine.JournalEntry, journal.Seq, error)
	objects func(class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error)
	classes []engine.ClassInfo
}

func (f inspector) State(_ context.Context, class, name string) (engine.ObjectState, error) {
	return f.state(class, name)
}

func (f inspector) Sent(_ context.Context, class, name string, seq journal.Seq) (engine.SentState, error) {
	return f.sent(class, name, seq)
}

func (f inspector) Journal(_ context.Context, _, _ string, from journal.Seq, limit int) ([]engine.JournalEntry, journal.Seq, error) {
	return f.journal(from, limit)
}

func (f inspector) Objects(_ context.Context, class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
	return f.objects(class, prefix, cursor, limit)
}

func (f inspector) Classes(context.Context) ([]engine.ClassInfo, error) { return f.classes, nil }

func newGateway(t testing.TB, c Config) *Gateway {
	t.Helper()
	if c.Transport == nil {
		c.Transport = answers(engine.Reply{Status: 200, Body: []byte(`null`)}, nil)
	}
	if c.Inspector == nil {
		c.Inspector = inspector{}
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// send answers a request without a connection. Headers are "Name: value".
func send(t testing.TB, h http.Handler, method, url, body string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, url, strings.NewReader(body))
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func read(t testing.TB, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantProblem checks an answer to be the problem of a code, with the words in its detail.
func wantProblem(t testing.TB, r *http.Response, status int, code engine.Code, words string) {
	t.Helper()
	body := read(t, r)
	e := engine.ParseProblem([]byte(body))
	if r.StatusCode != status || e.Code != code || !strings.Contains(e.Detail, words) {
		t.Errorf("got %d %s, want %d %s with %q", r.StatusCode, body, status, code, words)
	}
	if got := r.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type is %q", got)
	}
	var p struct{ Status int }
	if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != status {
		t.Errorf("the problem says status %d, the answer %d (%v)", p.Status, status, err)
	}
}

func TestConfigProblemsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	_, err := New(Config{BodyBytesMax: engine.BodyBytesMax + 1, ClientTimeout: -1})
	for _, want := range []string{"Transport is required", "Inspector is required", "BodyBytesMax is 1048577", "ClientTimeout is -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
}

func TestWholeRequestReachesItsClass(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{Status: 201, Header: http.Header{"X-Reply": {"a", "b"}, "Connection": {"X-Hop"}, "X-Hop": {"gone"},
		"Content-Length": {"999"}}, Body: []byte("made"), Version: 7}, nil)
	g := newGateway(t, Config{Transport: f})
	got := send(t, g, "PATCH", "http://shop.example/counter/a%2Fb/rest/../%20x//?q=1&q=%32&unknown", "the body",
		"X-Own: 1", "Connection: keep-alive, X-Private", "X-Private: secret", "Te: trailers", "Upgrade: websocket")

	want := engine.Request{Class: "counter", Name: "a/b", Body: []byte("the body"), HTTP: &engine.HTTPRequest{Method: "PATCH",
		URL: "/counter/a%2Fb/rest/../%20x//?q=1&q=%32&unknown", Host: "shop.example", Header: http.Header{"X-Own": {"1"}}}}
	if diff := cmp.Diff([]engine.Request{want}, f.requests(), unexported); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	header := http.Header{"X-Reply": {"a", "b"}, "Etag": {`"7"`}, "Perdure-Version": {"7"}, "Content-Length": {"4"}}
	if diff := cmp.Diff(header, got.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if body := read(t, got); got.StatusCode != 201 || body != "made" {
		t.Errorf("got %d %q", got.StatusCode, body)
	}
}

var unexported = cmpopts.IgnoreUnexported(engine.Request{})

func TestClassKeepsItsOwnETag(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Transport: answers(engine.Reply{Status: 200, Header: http.Header{"Etag": {`"mine"`}}, Version: 7}, nil)})
	if got := send(t, g, "GET", "/counter/x", "").Header.Get("ETag"); got != `"mine"` {
		t.Errorf("ETag is %s", got)
	}
}

func TestHeadKeepsTheLengthThatTheClassNames(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Transport: answers(engine.Reply{Status: 200, Header: http.Header{"Content-Length": {"99"}}}, nil)})
	if got := send(t, g, "HEAD", "/counter/x", "").Header.Get("Content-Length"); got != "99" {
		t.Errorf("Content-Length is %q", got)
	}
}

func TestReadSaysHowOldItMayBe(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{Status: 200, Body: []byte("3"), Version: 3}, nil)
	g := newGateway(t, Config{Transport: f})
	const value = "/v1/objects/counter/x/call/value"
	send(t, g, "POST", value, "", "Perdure-Consistency: eventual", "Perdure-Min-Version: 2")
	send(t, g, "POST", value, "", "Perdure-Consistency: strong")
	eventual := engine.Request{Class: "counter", Name: "x", Method: "value", Eventual: true, MinVersion: 2}
	strong := engine.Request{Class: "counter", Name: "x", Method: "value"}
	if diff := cmp.Diff([]engine.Request{eventual, strong}, f.requests(), unexported); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	wantProblem(t, send(t, g, "POST", value, "", "Perdure-Consistency: evental"), 400, engine.Invalid, "want eventual or strong")
	wantProblem(t, send(t, g, "POST", value, "", "Perdure-Min-Version: W/7"), 400, engine.Invalid, "want a version")
	wantProblem(t, send(t, g, "POST", value, "", "Perdure-Min-Version: 1", "Perdure-Min-Version: 2"), 400, engine.Invalid, "2 times")
}

func TestStatusThatHTTPDoesNotHaveIsAFaultOfTheClass(t *testing.T) {
	t.Parallel()
	for _, status := range []int{0, 101, 1000} {
		g := newGateway(t, Config{Transport: answers(engine.Reply{Status: status}, nil)})
		wantProblem(t, send(t, g, "GET", "/counter/x", ""), 500, engine.Internal, "status "+strconv.Itoa(status))
	}
}

func TestCallCarriesJSON(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{Status: 200, Body: []byte(`{"count":3}`), Version: 3}, nil)
	g := newGateway(t, Config{Transport: f})
	got := send(t, g, "POST", "/v1/objects/counter/cart-99/call/increment", `{"by":2}`, "Content-Type: application/json; charset=utf-8")
	if body := read(t, got); got.StatusCode != 200 || body != "{\"count\":3}\n" {
		t.Errorf("got %d %q", got.StatusCode, body)
	}
	header := http.Header{"Etag": {`"3"`}, "Perdure-Version": {"3"}, "Content-Length": {"12"}, "Content-Type": {"application/json"}}
	if diff := cmp.Diff(header, got.Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	want := engine.Request{Class: "counter", Name: "cart-99", Method: "increment", Body: []byte(`{"by":2}`)}
	if diff := cmp.Diff([]engine.Request{want}, f.requests(), unexported); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestCallWithoutBodyNeedsNoContentType(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{})
	for _, header := range []string{"X: y", "Content-Type: application/x-www-form-urlencoded"} {
		if got := send(t, g, "POST", "/v1/objects/counter/x/call/increment", "", header); got.StatusCode != 200 {
			t.Errorf("%s: %d %s", header, got.StatusCode, read(t, got))
		}
	}
}

func TestCallTakesOnlyJSON(t *testing.T) {
	t.Parallel()
	f := answers(engine.Reply{}, nil)
	g := newGateway(t, Config{Transport: f})
	for _, contentType := range []string{"application/x-www-form-urlencoded", "text/plain", "a/b/c;"} {
		got := send(t, g, "POST", "/v1/objects/counter/x/call/increment", `{}`, "Content-Type: "+contentType)
		wantProblem(t, got, 400, engine.Invalid, "want Content-Type: application/json")
	}
	if n := len(f.requests()); n != 0 {
		t.Errorf("%d requests reached the object", n)
	}
}

func TestWrongPathsMethodsAndParametersAreRefused(t *testing.T) {
	t.Parallel()
	const object = "/v1/objects/counter/x"
	for _, c := range []struct {
		method, url string
		status      int
		code        engine.Code
		words       string
		allow       string
	}{
		{"GET", "/", 404, engine.NotFound, "/v1/objects/{class}/{name}/call/{method}", ""},
		{"GET", "/counter", 404, engine.NotFound, "/{class}/{name}", ""},
		{"GET", "/favicon.ico", 404, engine.NotFound, "paths are", ""},
		{"GET", "/not.a.class/x", 404, engine.NotFound, "is no identifier", ""},
		{"GET", "/v1/nothing", 404, engine.NotFound, "the gateway uses /v1 itself", ""},
		{"GET", "/%76%31/objects", 404, engine.NotFound, "the gateway uses /v1 itself", ""},
		{"GET", object, 404, engine.NotFound, "paths are", ""},
		{"GET", object + "/state/more", 404, engine.NotFound, "paths are", ""},
		{"GET", "/v1/objects/", 404, engine.NotFound, "is no identifier", ""},
		{"GET", "/livez/x", 404, engine.NotFound, "the gateway uses /livez itself", ""},
		{"GET", "/counter/", 400, engine.Invalid, "name is empty", ""},
		{"GET", "/counter//x", 400, engine.Invalid, "name is empty", ""},
		{"GET", "/counter/..", 400, engine.Invalid, "%2E%2E", ""},
		{"GET", "/counter/./x", 400, engine.Invalid, "%2E", ""},
		{"GET", "/counter/%FF", 400, engine.Invalid, "not UTF-8", ""},
		{"GET", "/counter/" + strings.Repeat("n", 513), 400, engine.Invalid, "513 bytes", ""},
		{"GET", object + "/call/increment", 405, engine.Invalid, "takes POST, not GET", "POST"},
		{"DELETE", object + "/state", 405, engine.Invalid, "takes GET, HEAD, not DELETE", "GET, HEAD"},
		{"OPTIONS", object + "/journal", 405, engine.Invalid, "", "GET, HEAD"},
		{"PUT", "/v1/objects", 405, engine.Invalid, "", "GET, HEAD"},
		{"POST", "/v1/objects/counter", 405, engine.Invalid, "", "GET, HEAD"},
		{"POST", "/v1/classes", 405, engine.Invalid, "", "GET, HEAD"},
		{"POST", "/readyz", 405, engine.Invalid, "", "GET, HEAD"},
		{"POST", "/livez", 405, engine.Invalid, "", "GET, HEAD"},
		{"POST", "/metrics", 405, engine.Invalid, "", "GET, HEAD"},
		{"POST", object + "/call/increment?by=2", 400, engine.Invalid, `"by": /v1/objects/{class}/{name}/call/{method} has none`, ""},
		{"GET", object + "/state?version=3", 400, engine.Invalid, "has none", ""},
		{"GET", object + "/journal?form=3", 400, engine.Invalid, `"form": /v1/objects/{class}/{name}/journal has only from, limit`, ""},
		{"GET", object + "/journal?from=-1", 400, engine.Invalid, `"from" is "-1"`, ""},
		{"GET", object + "/journal?limit=0", 400, engine.Invalid, `"limit" is "0"`, ""},
		{"GET", object + "/journal?limit=1&limit=2", 400, engine.Invalid, "given 2 times", ""},
		{"GET", object + "/journal?limit=%zz", 400, engine.Invalid, "query", ""},
		{"GET", "/v1/objects?limit=1001", 400, engine.Invalid, "from 1 to 1000", ""},
		{"GET", "/v1/objects/counter?page=2", 400, engine.Invalid, "cursor, limit, prefix", ""},
		{"GET", "/v1/classes?x", 400, engine.Invalid, "has none", ""},
		{"GET", "/readyz?exclude=x", 400, engine.Invalid, "has only verbose", ""},
		{"GET", "/metrics?x=1", 400, engine.Invalid, "has none", ""},
	} {
		t.Run(c.method+" "+c.url, func(t *testing.T) {
			t.Parallel()
			f := answers(engine.Reply{}, nil)
			got := send(t, newGateway(t, Config{Transport: f}), c.method, c.url, "")
			wantProblem(t, got, c.status, c.code, c.words)
			if allow := got.Header.Get("Allow"); allow != c.allow {
				t.Errorf("Allow is %q, want %q", allow, c.allow)
			}
			if n := len(f.requests()); n != 0 {
				t.Errorf("%d requests reached an object", n)
			}
		})
	}
}

// The statuses as they are promised; the engine's table and the documentation must agree.
var statusOf = map[engine.Code]int{
	"invalid": 400, "denied": 403, "notFound": 404, "conflict": 409, "tooLarge": 413, "idReused": 422, "refused": 422, "limited": 429,
	"internal": 500, "unknownOutcome": 500, "overloaded": 503, "unavailable": 503, "timeout": 504, "full": 507,
}

func TestEveryCodeHasItsStatusAndComesBackFromTheWire(t *testing.T) {
	t.Parallel()
	if got, want := len(engine.Codes()), len(statusOf); got != want {
		t.Errorf("the engine has %d codes, the table %d", got, want)
	}
	for _, code := range engine.Codes() {
		sent := engine.Errorf(code, "why not").RetryIn(1500 * time.Millisecond)
		sent.RequestID, sent.Remote = "id-1", true
		for _, url := range []string{"/counter/x", "/v1/objects/counter/x/call/m"} {
			got := send(t, newGateway(t, Config{Transport: answers(engine.Reply{}, sent)}), "POST", url, "")
			if got.StatusCode != statusOf[code] {
				t.Errorf("%s: status %d, want %d", code, got.StatusCode, statusOf[code])
			}
			if after, id := got.Header.Get("Retry-After"), got.Header.Get("Perdure-Request-Id"); after != "2" || id != "id-1" {
				t.Errorf("%s: Retry-After is %q, Perdure-Request-Id %q", code, after, id)
			}
			want := *sent
			want.Object = "counter/x"
			if diff := cmp.Diff(&want, engine.ParseProblem([]byte(read(t, got))), cmp.FilterPath(func(p cmp.Path) bool {
				return p.Last().String() == ".cause"
			}, cmp.Ignore())); diff != "" {
				t.Errorf("%s (-want +got):\n%s", code, diff)
			}
		}
		if sent.Object != "" {
			t.Errorf("%s: the transport's error was changed", code)
		}
	}
}

func TestDocumentedCodesAreTheEngines(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	got := map[engine.Code]int{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(\d{3})  (\w+) `).FindAllSubmatch(doc, -1) {
		got[engine.Code(m[2])], _ = strconv.Atoi(string(m[1]))
	}
	if diff := cmp.Diff(statusOf, got); diff != "" {
		t.Errorf("codes in doc.go (-want +got):\n%s", diff)
	}
	for _, r := range routes {
		if r.method != "" && !regexp.MustCompile(`(?m)^//\t`+regexp.QuoteMeta(r.path)+` +`+r.method+` `).Match(doc) {
			t.Errorf("doc.go has no %s %s", r.method, r.path)
		}
	}
}

func TestProblemShape(t *testing.T) {
	t.Parallel()
	failure := engine.Errorf(engine.Overloaded, "1000 requests wait for this object; at most 1000 may").RetryIn(time.Second)
	failure.RequestID = "order-17"
	g := newGateway(t, Config{Transport: answers(engine.Reply{}, failure)})
	for file, r := range map[string]*http.Response{
		"problem.json":     send(t, g, "POST", "/v1/objects/counter/cart%2F99/call/increment", ""),
		"not_allowed.json": send(t, g, "GET", "/v1/objects/counter/cart%2F99/call/increment", ""),
		"no_path.json":     send(t, g, "GET", "/nowhere", ""),
	} {
		var got bytes.Buffer
		if err := json.Indent(&got, []byte(read(t, r)), "", "  "); err != nil {
			t.Fatal(err)
		}
		golden(t, file, got.Bytes())
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", file, diff)
	}
}

func TestTextOfAStrangeErrorStaysBehind(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Transport: answers(engine.Reply{}, errors.New("password is 123"))})
	got := send(t, g, "GET", "/counter/x", "")
	if body := read(t, got); got.StatusCode != 500 || strings.Contains(body, "123") {
		t.Errorf("got %d %s", got.StatusCode, body)
	}
}

func BenchmarkCall(b *testing.B) {
	g := newGateway(b, Config{Transport: discard{}})
	body := []byte(`{"by":2}`)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/objects/counter/cart-99/call/increment", bytes.NewReader(body))
		g.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// BenchmarkTestHarness is what of BenchmarkCall is not the gateway's.
func BenchmarkTestHarness(b *testing.B) {
	body := []byte(`{"by":2}`)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/objects/counter/cart-99/call/increment", bytes.NewReader(body))
		fmt.Fprint(httptest.NewRecorder(), r.ContentLength)
	}
}

type discard struct{ noPost }

func (discard) Do(context.Context, engine.Request) (engine.Reply, error) {
	return engine.Reply{Status: 200, Body: []byte(`{"count":3}`), Version: 3}, nil
}

// noPost is the part of a transport that is not asked for.
type noPost struct{}

func (noPost) Post(context.Context, engine.Request) (journal.Seq, error) {
	return 0, engine.Errorf(engine.Unavailable, "no inbox")
}
