package gateway

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

// FuzzHTTP: whatever a client sends, there is an answer from the list, and what reaches an object is within the limits.
func FuzzHTTP(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"POST /counter/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		"POST /v1/objects/counter/a%2Fb/call/add HTTP/1.1\r\nIdempotency-Key: \"a \\\" b\"\r\nContent-Length: 8\r\n\r\n{\"by\":2}",
		"POST /v1/objects/counter/a/call/add HTTP/1.1\r\nIdempotency-Key: x\r\nPerdure-Request-Id: \"x\"\r\nPerdure-Deadline: 5s\r\n\r\n",
		"POST /v1/objects/counter/a/call/add HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{ }\r\n0\r\n\r\n",
		"POST /v1/objects/counter/a/call/add HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n{",
		"GET /v1/objects/counter/a/journal?from=1&limit=0 HTTP/1.1\r\n\r\n",
		"GET /v1/objects/counter?prefix=%zz&limit=x HTTP/1.1\r\nAccept: */*\r\n\r\n",
		"PUT /v1/classes HTTP/1.0\r\nPerdure-Caller: \xff\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
	} {
		f.Add(s)
	}
	empty := inspector{
		state: func(class, name string) (engine.ObjectState, error) {
			return engine.ObjectState{Class: class, Name: name}, nil
		},
		journal: func(journal.Seq, int) ([]engine.JournalEntry, journal.Seq, error) { return nil, 0, nil },
		objects: func(string, string, string, int) ([]engine.ObjectInfo, string, error) { return nil, "", nil },
	}
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return // net/http's own answer
		}
		asked := answers(engine.Reply{Status: 200, Body: []byte(`null`)}, nil)
		g := newGateway(t, Config{Transport: asked, Inspector: empty, BodyBytesMax: 64})
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code >= 400 {
			if e := engine.ParseProblem(w.Body.Bytes()); r.Method != http.MethodHead && (e == nil || e.Code == "") && w.Code != http.StatusServiceUnavailable {
				t.Errorf("%d without a problem: %s", w.Code, w.Body)
			}
		}
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%q: %s", raw, w.Body)
		}
		for _, r := range asked.requests() {
			if len(r.Body) > 64 || len(r.ID) > idBytesMax || !utf8.ValidString(r.ID) || !utf8.ValidString(r.Name) || r.Name == "" || !utf8.ValidString(r.Caller.Claimed) {
				t.Errorf("%q reaches an object as %+v", raw, r)
			}
		}
	})
}

// FuzzRequestID: an id means the same quoted and bare.
func FuzzRequestID(f *testing.F) {
	for _, s := range []string{"", "a", `"a"`, `"a\"b\\"`, `"`, `""`, `a"b`, "\xff", "ü", `"ü"`, `"a" `, strings.Repeat("x", 257)} {
		f.Add(s)
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	f.Fuzz(func(t *testing.T, v string) {
		id, err := requestID(http.Header{headerIdempotencyKey: {v}})
		if err != nil {
			return
		}
		if id == "" || len(id) > idBytesMax || !utf8.ValidString(id) {
			t.Fatalf("%q is taken as %q", v, id)
		}
		if strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
			return // it cannot be quoted
		}
		both := http.Header{headerIdempotencyKey: {v}, headerRequestID: {`"` + quote.Replace(id) + `"`}}
		if again, err := requestID(both); err != nil || again != id {
			t.Fatalf("%q is %q, and with its quoted form beside it %q, %v", v, id, again, err)
		}
	})
}

// FuzzDeadline: what is taken is ahead, and not too far.
func FuzzDeadline(f *testing.F) {
	for _, s := range []string{"", "5s", "1h", "1h1ns", "-5s", "0", "2026-11-24T12:00:30Z", "2026-11-24T13:00:30+01:00", "9999999h", "1e9s"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, v string) {
		at, err := deadline(http.Header{headerDeadline: {v}}, now)
		if err == nil && (!at.After(now) || at.After(now.Add(deadlineMax))) {
			t.Fatalf("%q is taken as %v", v, at)
		}
	})
}
