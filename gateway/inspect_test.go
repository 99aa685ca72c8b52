package gateway

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

func TestStateHasItsVersionAsETag(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Inspector: inspector{state: func(class, name string) (engine.ObjectState, error) {
		return engine.ObjectState{Class: class, Name: name, Version: 17, State: json.RawMessage(`{"count":3}`)}, nil
	}}})
	for _, c := range []struct {
		method, ifNoneMatch string
		status              int
	}{
		{"GET", "", 200}, {"HEAD", "", 200}, {"GET", `"16"`, 200}, {"GET", `17`, 200}, {"GET", `"17"`, 304}, {"HEAD", `"17"`, 304},
		{"GET", `W/"17"`, 304}, {"GET", `"16", "17"`, 304}, {"GET", "*", 304},
	} {
		got := send(t, g, c.method, "/v1/objects/counter/a%2Fb/state", "", "If-None-Match: "+c.ifNoneMatch)
		body := read(t, got)
		if got.StatusCode != c.status || got.Header.Get("ETag") != `"17"` {
			t.Errorf("%+v: got %d, ETag %s", c, got.StatusCode, got.Header.Get("ETag"))
		}
		want := ""
		if c.status == 200 {
			want = `{"class":"counter","name":"a/b","version":17,"seq":0,"state":{"count":3}}` + "\n"
		}
		if body != want {
			t.Errorf("%+v: got %q", c, body)
		}
	}
}

// commits is an inspector of an object with n commits, one a record, that reads pages of at most 3.
func commits(n int, fails journal.Seq) inspector {
	return inspector{journal: func(from journal.Seq, limit int) (list []engine.JournalEntry, next journal.Seq, err error) {
		for seq := max(from, 1); seq <= journal.Seq(n); seq++ {
			if seq == fails {
				return nil, 0, engine.Errorf(engine.Unavailable, "the journal is gone")
			}
			if len(list) == min(limit, 3) {
				return list, seq, nil
			}
			list = append(list, engine.JournalEntry{Class: "counter", Name: "x", Seq: seq, Version: journal.Version(seq)})
		}
		return list, 0, nil
	}}
}

// sequences are those of the lines, 0 for a line that has none.
func sequences(t *testing.T, body string) (seqs []uint64) {
	t.Helper()
	for line := range strings.Lines(body) {
		var e struct{ Seq uint64 }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

func TestJournalIsOneCommitALine(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Inspector: commits(7, 0)})
	for query, want := range map[string][]uint64{
		"": {1, 2, 3, 4, 5, 6, 7}, "?from=0": {1, 2, 3, 4, 5, 6, 7}, "?from=6": {6, 7}, "?from=8": nil, "?limit=4": {1, 2, 3, 4},
		"?from=3&limit=2": {3, 4}, "?limit=100": {1, 2, 3, 4, 5, 6, 7},
	} {
		got := send(t, g, "GET", "/v1/objects/counter/x/journal"+query, "")
		if diff := cmp.Diff(want, sequences(t, read(t, got))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
		if got.StatusCode != 200 || got.Header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%s: got %d %s", query, got.StatusCode, got.Header.Get("Content-Type"))
		}
	}
}

func TestCommitsOfOneRecordAreNotTornApart(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Inspector: inspector{journal: func(from journal.Seq, limit int) ([]engine.JournalEntry, journal.Seq, error) {
		return []engine.JournalEntry{{Seq: 5, Version: 1}, {Seq: 5, Version: 2}, {Seq: 5, Version: 3}}, 9, nil
	}}})
	got := sequences(t, read(t, send(t, g, "GET", "/v1/objects/counter/x/journal?limit=2", "")))
	if diff := cmp.Diff([]uint64{5, 5, 5}, got); diff != "" {
		t.Error(diff)
	}
}

func TestJournalThatBreaksOffEndsWithAProblem(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Inspector: commits(7, 5)})
	got := send(t, g, "GET", "/v1/objects/counter/x/journal", "")
	body := read(t, got)
	lines := strings.Split(strings.TrimSpace(body), "\n")
	if diff := cmp.Diff([]uint64{1, 2, 3, 0}, sequences(t, body)); diff != "" || got.StatusCode != 200 {
		t.Fatalf("%d (-want +got):\n%s", got.StatusCode, diff)
	}
	if e := engine.ParseProblem([]byte(lines[3])); e.Code != engine.Unavailable || e.Detail != "the journal is gone" {
		t.Errorf("the last line is %s", lines[3])
	}
	wantProblem(t, send(t, g, "GET", "/v1/objects/counter/x/journal?from=5", ""), 503, engine.Unavailable, "the journal is gone")
}

func TestJournalIsFlushedPageByPage(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	g := newGateway(t, Config{Inspector: inspector{journal: func(from journal.Seq, _ int) ([]engine.JournalEntry, journal.Seq, error) {
		if from == 2 {
			<-more
			return nil, 0, nil
		}
		return []engine.JournalEntry{{Seq: 1}}, 2, nil
	}}})
	s := httptest.NewServer(g)
	defer s.Close()
	got, err := http.Get(s.URL + "/v1/objects/counter/x/journal")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if err := json.NewDecoder(got.Body).Decode(new(engine.JournalEntry)); err != nil { // while the second page is held back
		t.Error(err)
	}
	close(more)
}

func TestClientThatDoesNotReadIsGivenUp(t *testing.T) {
	t.Parallel()
	big := journal.Change{Kind: journal.Put, Key: "k", Data: []byte(`"` + strings.Repeat("v", 1<<20) + `"`)}
	g := newGateway(t, Config{ClientTimeout: 50 * time.Millisecond, Inspector: inspector{
		journal: func(from journal.Seq, _ int) ([]engine.JournalEntry, journal.Seq, error) {
			return []engine.JournalEntry{{Seq: from, Changes: []journal.Change{big}}}, from + 1, nil
		}}})
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		g.ServeHTTP(w, r)
	}))
	defer s.Close()
	got, err := http.Get(s.URL + "/v1/objects/counter/x/journal")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	<-ended // the journal has no end
}

func TestHeadOfAJournalReadsOnePage(t *testing.T) {
	t.Parallel()
	pages := 0
	g := newGateway(t, Config{Inspector: inspector{journal: func(from journal.Seq, _ int) ([]engine.JournalEntry, journal.Seq, error) {
		pages++
		return []engine.JournalEntry{{Seq: from}}, from + 1, nil
	}}})
	if got := send(t, g, "HEAD", "/v1/objects/counter/x/journal", ""); got.StatusCode != 200 || pages != 1 {
		t.Errorf("got %d after %d pages", got.StatusCode, pages)
	}
}

func TestObjectsAreListedByPages(t *testing.T) {
	t.Parallel()
	type asked struct {
		Class, Prefix, Cursor string
		Limit                 int
	}
	var got asked
	next := "counter.b"
	g := newGateway(t, Config{Inspector: inspector{objects: func(class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
		got = asked{class, prefix, cursor, limit}
		if next == "" {
			return nil, "", nil
		}
		return []engine.ObjectInfo{{Class: "counter", Name: "b", Version: 2, Seq: 9, Active: true}}, next, nil
	}}})
	const page = `{"objects":[{"class":"counter","name":"b","version":2,"changed":"0001-01-01T00:00:00Z","seq":9,"active":true}],"next":"counter.b"}`
	for url, want := range map[string]asked{
		"/v1/objects":         {"", "", "", engine.ListMax},
		"/v1/objects/counter": {"counter", "", "", engine.ListMax},
		"/v1/objects/counter?prefix=ca%20r&limit=2&cursor=c.a%2525": {"counter", "ca r", "c.a%25", 2},
	} {
		r := send(t, g, "GET", url, "")
		if body := read(t, r); body != page+"\n" || got != want || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: asked %+v, got %s", url, got, body)
		}
	}
	next = ""
	if body := read(t, send(t, g, "GET", "/v1/objects", "")); body != `{"objects":[]}`+"\n" {
		t.Errorf("of none: %s", body)
	}
}

func TestClassesAreListed(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Inspector: inspector{classes: []engine.ClassInfo{{Name: "counter", HTTP: true,
		Methods: map[string]engine.Method{"value": {Read: true, Out: []byte(`{"type":"integer"}`)}}}}}})
	const want = `{"classes":[{"name":"counter","methods":{"value":{"read":true,"out":{"type":"integer"}}},"http":true,` +
		`"limits":{"idle":"","turn":"","queue":0,"queue_bytes":0,"queue_age":"","keep_ids":"","keep_ids_max":0,"read_only":false,"purge":false}}]}`
	if body := read(t, send(t, g, "GET", "/v1/classes", "")); body != want+"\n" {
		t.Errorf("got %s", body)
	}
	if body := read(t, send(t, newGateway(t, Config{}), "GET", "/v1/classes", "")); body != `{"classes":[]}`+"\n" {
		t.Errorf("of none: %s", body)
	}
}

func TestInspectionErrorsAreProblems(t *testing.T) {
	t.Parallel()
	no := engine.Errorf(engine.NotFound, "no class")
	g := newGateway(t, Config{Inspector: inspector{
		state:   func(string, string) (engine.ObjectState, error) { return engine.ObjectState{}, no },
		journal: func(journal.Seq, int) ([]engine.JournalEntry, journal.Seq, error) { return nil, 0, no },
		objects: func(string, string, string, int) ([]engine.ObjectInfo, string, error) { return nil, "", no },
	}})
	for _, url := range []string{"/v1/objects/c/x/state", "/v1/objects/c/x/journal", "/v1/objects/c"} {
		wantProblem(t, send(t, g, "GET", url, ""), 404, engine.NotFound, "no class")
	}
}

func TestProbes(t *testing.T) {
	t.Parallel()
	var why error
	g := newGateway(t, Config{Ready: func() error { return why }})
	text := func(url string, status int, want string) {
		t.Helper()
		got := send(t, g, "GET", url, "")
		if body := read(t, got); got.StatusCode != status || body != want {
			t.Errorf("%s: got %d %q", url, got.StatusCode, body)
		}
	}
	text("/livez", 200, "ok\n")
	text("/livez?verbose", 200, "ok\n")
	text("/readyz", 200, "ok\n")
	text("/readyz?verbose", 200, "[+] objects can be reached\nready\n")
	why = errors.New("partition 3 is not owned yet")
	text("/livez", 200, "ok\n")
	text("/readyz?verbose", 503, "[-] objects can be reached: partition 3 is not owned yet\nnot ready\n")
	got := send(t, g, "GET", "/readyz", "")
	if after := got.Header.Get("Retry-After"); after != "1" {
		t.Errorf("Retry-After is %q", after)
	}
	wantProblem(t, got, 503, engine.Unavailable, "not ready: partition 3 is not owned yet")
	if got := send(t, g, "HEAD", "/readyz", ""); got.StatusCode != 503 {
		t.Errorf("HEAD: %d", got.StatusCode)
	}
}
