package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway/feed"
)

// frame is an event as a client sees it.
type frame struct {
	Event string
	ID    string
	Data  json.RawMessage
}

// follower is a client that follows.
type follower struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Reader
	sse  bool
	from string // its first place
}

// listenTo opens a stream of events; it has begun when it returns.
func listenTo(t *testing.T, url string, headers ...string) *follower {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	kind := resp.Header.Get("Content-Type")
	if resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s: %d %v", url, resp.StatusCode, resp.Header)
	}
	f := &follower{t: t, body: resp.Body, in: bufio.NewReader(resp.Body), sse: kind == typeSSE}
	first, err := f.next()
	if f.from = first.ID; err != nil || first.Event != "heartbeat" || first.ID == "" {
		t.Fatalf("the first event is %+v, %v", first, err)
	}
	return f
}

// next is the next event; a heartbeat, too.
func (f *follower) next() (e frame, err error) {
	for {
		line, err := f.in.ReadString('\n')
		if err != nil {
			return e, err
		}
		if !f.sse {
			return e, json.Unmarshal([]byte(line), &e)
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); name {
		case "":
			if value == "" {
				return e, nil
			}
			e.Event = value
		case "id":
			e.ID = value
		case "event":
			e.Event = value
		case "data":
			e.Data = json.RawMessage(value)
		default:
			return e, fmt.Errorf("line %q", line)
		}
	}
}

// change is the next event that is one, with its entry.
func (f *follower) change() (frame, engine.JournalEntry) {
	f.t.Helper()
	for {
		e, err := f.next()
		if err != nil {
			f.t.Fatal(err)
		}
		if e.Event == "heartbeat" {
			continue
		}
		var entry engine.JournalEntry
		if err := json.Unmarshal(e.Data, &entry); err != nil || e.Event != "change" {
			f.t.Fatalf("%+v: %v", e, err)
		}
		return e, entry
	}
}

// place puts something onto a shelf.
func place(t *testing.T, g http.Handler, shelf, item string) {
	t.Helper()
	got := send(t, g, "POST", "/v1/objects/shelf/"+shelf+"/call/place", `{"Item":"`+item+`"}`, "Idempotency-Key: "+item, "Perdure-Caller: tester")
	if body := read(t, got); got.StatusCode != 200 {
		t.Fatalf("%d %s", got.StatusCode, body)
	}
}

func TestChangesAreEvents(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	place(t, g, "a", "early")
	sse := listenTo(t, s.URL+"/v1/changes", "Accept: text/event-stream")
	lines := listenTo(t, s.URL+"/v1/changes?class=shelf&prefix=b")
	old := listenTo(t, s.URL+"/v1/changes?from=start")
	place(t, g, "a", "jam")
	place(t, g, "b%2Fc", "tea")
	if _, e := old.change(); e.ID != "early" {
		t.Errorf("from the start: %+v", e)
	}
	seen := map[string]engine.JournalEntry{}
	for range 2 {
		f, e := sse.change()
		seen[e.ID] = e
		if e.Reply != nil || strings.Contains(string(f.Data), "reply") {
			t.Errorf("a reply is told: %s", f.Data)
		}
	}
	e := seen["jam"]
	if e.Class != "shelf" || e.Name != "a" || e.Version != 2 || e.Method != "place" || e.Caller.Claimed != "tester" || e.At.IsZero() || len(e.Changes) != 1 || seen["tea"].Name != "b/c" {
		t.Errorf("%+v", seen)
	}
	if _, e := lines.change(); e.ID != "tea" || e.Name != "b/c" {
		t.Errorf("of one prefix: %+v", e)
	}
}

func TestAListenerGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	const n = 40
	for i := range n {
		place(t, g, fmt.Sprint(i%5), fmt.Sprint("item-", i))
	}
	var got []string
	from := "?from=start"
	header := "X: "
	for i := 0; len(got) < n; i++ {
		f := listenTo(t, s.URL+"/v1/changes"+from, "Accept: text/event-stream", header)
		last := frame{}
		for range min(7, n-len(got)) {
			var e engine.JournalEntry
			last, e = f.change()
			got = append(got, e.ID)
		}
		_ = f.body.Close()
		if from, header = "?from=now", "Last-Event-ID: "+last.ID; i%2 == 0 { // which comes first
			from, header = "?from="+last.ID, "X: "
		}
	}
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != n {
		t.Errorf("%d of %d: %v", len(got), n, got)
	}
}

func TestTheJournalOfAnObjectIsFollowed(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	const path = "/v1/objects/shelf/a/journal"
	place(t, g, "a", "one")
	place(t, g, "b", "other")
	place(t, g, "a", "two")
	f := listenTo(t, s.URL+path+"?from=0", "Accept: text/event-stream")
	place(t, g, "a", "three")
	var ids []string
	for _, want := range []string{"one", "two", "three"} {
		got, e := f.change()
		if e.ID != want || got.ID != fmt.Sprint(e.Seq) || e.Reply == nil {
			t.Errorf("want %s, got %+v with id %s", want, e, got.ID)
		}
		ids = append(ids, got.ID)
	}
	if _, e := listenTo(t, s.URL+path, "Accept: text/event-stream", "Last-Event-ID: "+ids[0]).change(); e.ID != "two" {
		t.Errorf("behind %s: %+v", ids[0], e)
	}
	if _, e := listenTo(t, s.URL+path+"?from="+ids[1], "Accept: text/event-stream").change(); e.ID != "two" {
		t.Errorf("from %s: %+v", ids[1], e)
	}
	now := listenTo(t, s.URL+path, "Accept: text/event-stream")
	place(t, g, "a", "four")
	if _, e := now.change(); e.ID != "four" {
		t.Errorf("from now: %+v", e)
	}

	one := send(t, g, "GET", path+"/"+ids[1]+"?cloudevents=binary", "")
	var e engine.JournalEntry
	if err := json.Unmarshal([]byte(read(t, one)), &e); err != nil || e.ID != "two" || e.Reply != nil {
		t.Errorf("%+v, %v", e, err)
	}
	for name, want := range map[string]string{"ce-id": "shelf/a@2", "ce-source": "/v1/objects/shelf/a", "ce-type": "perdure.change", "ce-specversion": "1.0",
		"ce-time": e.At.UTC().Format(time.RFC3339Nano), "Content-Type": "application/json"} {
		if got := one.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if one := send(t, g, "GET", path+"/"+ids[1], ""); one.Header.Get("ce-id") != "" || !strings.Contains(read(t, one), `"reply"`) {
		t.Errorf("without being asked for: %v", one.Header)
	}
	wantProblem(t, send(t, g, "GET", path+"/1", ""), 404, engine.NotFound, "id 1")
	wantProblem(t, send(t, g, "GET", path+"/x", ""), 400, engine.Invalid, "no place")
}

func TestCloudEventsOfAStreamAreStructured(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	place(t, g, "a%20%C3%BC", "jam")
	f, err := listenTo(t, s.URL+"/v1/changes?from=start&cloudevents=structured").next()
	var c cloudEvent
	if err2 := json.Unmarshal(f.Data, &c); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if c.ID != "shelf/a ü@1" || c.Source != "/v1/objects/shelf/a%20%C3%BC" || c.SpecVersion != "1.0" || c.Type != "perdure.change" || !strings.Contains(string(c.Data), `"jam"`) {
		t.Errorf("%+v", c)
	}
	if got := escapeHeader(c.ID); got != "shelf/a%20%C3%BC@1" {
		t.Error(got)
	}
}

func TestWhatCannotBeFollowedIsAProblem(t *testing.T) {
	t.Parallel()
	g := overAFeed(t, feed.Config{ListenersMax: 1})
	place(t, g, "a", "jam")
	const sse = "Accept: text/event-stream"
	for _, c := range []struct {
		url, header string
		status      int
		code        engine.Code
		says        string
	}{
		{"/v1/changes?since=1", sse, 400, engine.Invalid, `"since"`},
		{"/v1/changes?from=x", sse, 400, engine.Invalid, "no place"},
		{"/v1/changes?from=01234567.1", sse, 400, engine.Invalid, "another namespace"},
		{"/v1/changes?from=76543210.1.1", sse, 400, engine.Invalid, "another namespace"},
		{"/v1/changes?from=01234567.1.999999", sse, 409, engine.Conflict, "ends at"},
		{"/v1/changes?class=table", sse, 404, engine.NotFound, `"table"`},
		{"/v1/changes?cloudevents=binary", sse, 400, engine.Invalid, "structured"},
		{"/v1/changes", "Accept: text/html", 400, engine.Invalid, "text/html"},
		{"/v1/objects/shelf/a/journal?from=x", sse, 400, engine.Invalid, "or a sequence"},
		{"/v1/objects/shelf/a/journal?from=999999", sse, 409, engine.Conflict, "ends at"},
		{"/v1/objects/shelf/a/journal?limit=3", sse, 400, engine.Invalid, "no end"},
		{"/v1/objects/table/a/journal", sse, 404, engine.NotFound, `"table"`},
	} {
		wantProblem(t, send(t, g, "GET", c.url, "", c.header), c.status, c.code, c.says)
	}
	wantProblem(t, send(t, newGateway(t, Config{}), "GET", "/v1/changes", ""), 503, engine.Unavailable, "follows no journal")
	if got := send(t, g, "HEAD", "/v1/changes", "", sse); got.StatusCode != 200 || got.Header.Get("Content-Type") != typeSSE || read(t, got) != "" {
		t.Errorf("HEAD: %v", got)
	}
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	listenTo(t, s.URL+"/v1/changes")
	got := send(t, g, "GET", "/v1/changes", "", sse)
	if got.Header.Get("Retry-After") != "5" {
		t.Errorf("%v", got.Header)
	}
	wantProblem(t, got, 503, engine.Overloaded, "at most 1")
}

func TestHeartbeatsComeWhereNothingDoes(t *testing.T) {
	t.Parallel()
	g := overAFeed(t, feed.Config{Heartbeat: 5 * time.Millisecond})
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	f := listenTo(t, s.URL+"/v1/changes?prefix=none", "Accept: text/event-stream")
	place(t, g, "a", "jam")
	for range 1000 {
		e, err := f.next()
		if err != nil || e.Event != "heartbeat" {
			t.Fatalf("%+v, %v", e, err)
		}
		if e.ID != f.from {
			return // the place moves over what is not asked for
		}
	}
	t.Error("the place does not move")
}

func TestASlowListenerIsCutAndTheOthersAreNot(t *testing.T) {
	t.Parallel()
	g := overAFeed(t, feed.Config{MemoryBytes: 512 << 10})
	g.ClientTimeout = time.Hour // on a machine that is busy
	s := httptest.NewUnstartedServer(g)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if err := c.(*net.TCPConn).SetWriteBuffer(16 << 10); err != nil { // of the kernel, which would take it all
			t.Error(err)
		}
		return ctx
	}
	s.Start()
	t.Cleanup(s.Close)
	slow := listenTo(t, s.URL+"/v1/changes?class=shelf")
	quick := []*follower{listenTo(t, s.URL+"/v1/changes"), listenTo(t, s.URL+"/v1/changes", "Accept: text/event-stream")}
	const n = 60 // of 32 KiB: more than the buffers on the way hold
	items := strings.Repeat("x", 32<<10)
	for i := range n {
		got := send(t, g, "POST", "/v1/objects/shelf/a/call/place", fmt.Sprintf(`{"Item":"%d-%s"}`, i, items))
		if body := read(t, got); got.StatusCode != 200 {
			t.Fatalf("%d %s", got.StatusCode, body)
		}
		for _, f := range quick {
			if _, e := f.change(); int(e.Version) != i+1 {
				t.Fatalf("version %d behind %d", e.Version, i)
			}
		}
	}
	told, end := 0, frame{}
	for end.Event != "end" {
		var err error
		if end, err = slow.next(); err != nil {
			t.Fatal(err)
		}
		if end.Event == "change" {
			told++
		}
	}
	if e := engine.ParseProblem(end.Data); e.Code != engine.Overloaded || told >= n {
		t.Errorf("after %d: %s", told, end.Data)
	}
	if _, err := slow.next(); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
	again := listenTo(t, s.URL+"/v1/changes?class=shelf&from="+end.ID)
	for ; told < n; told++ {
		if _, e := again.change(); int(e.Version) != told+1 {
			t.Fatalf("version %d behind %d", e.Version, told)
		}
	}
}

func TestAThousandEventsReachEveryListener(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	const n, listeners = 1000, 10
	var following sync.WaitGroup
	for i := range listeners {
		f := listenTo(t, s.URL+"/v1/changes", []string{"Accept: text/event-stream", "Accept: application/x-ndjson"}[i%2])
		following.Go(func() {
			versions := map[string]int{}
			for range n {
				_, e := f.change()
				if versions[e.Name]++; versions[e.Name] != int(e.Version) {
					t.Errorf("%s: version %d behind %d", e.Name, e.Version, versions[e.Name]-1)
				}
			}
		})
	}
	for i := range 8 {
		following.Go(func() {
			for k := range n / 8 {
				place(t, g, fmt.Sprint(i), fmt.Sprint(i, "-", k))
			}
		})
	}
	following.Wait()
}

func TestStreamsEndAtOnceWithTheServer(t *testing.T) {
	t.Parallel()
	g := overAWorker(t)
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, g, time.Minute) }()
	f := listenTo(t, "http://"+l.Addr().String()+"/v1/changes")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := f.next(); err != io.EOF {
		t.Errorf("the stream ends with %v", err)
	}
}
