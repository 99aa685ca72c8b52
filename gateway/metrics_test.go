package gateway

import (
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

func scrape(t testing.TB, g *Gateway) string {
	t.Helper()
	got := send(t, g, "GET", "/metrics", "")
	if got.StatusCode != 200 || !strings.HasPrefix(got.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("got %d %s", got.StatusCode, got.Header)
	}
	return read(t, got)
}

func wantMetric(t testing.TB, g *Gateway, line string) {
	t.Helper()
	text := scrape(t, g)
	if !strings.Contains(text, "\n"+line) {
		t.Errorf("no %s in:\n%s", line, strings.Join(regexp.MustCompile(`(?m)^perdure.*$`).FindAllString(text, -1), "\n"))
	}
}

func TestMetricsOfTurns(t *testing.T) {
	t.Parallel()
	m := NewMetrics("1.2.3")
	g := newGateway(t, Config{Metrics: m})
	o := m.Observer()
	o.Turn("counter", "increment", "", time.Millisecond, 2*time.Second)
	o.Turn("counter", "increment", engine.Refused, time.Millisecond, 2*time.Second)
	o.Wake("counter", 3*time.Millisecond, 7)
	o.Gate(4 * time.Millisecond)
	o.Append(2 * time.Millisecond)
	o.Unstored(journal.Refused)
	o.Stray(journal.Message{})
	o.Dead(journal.Message{})
	o.CopyRead(true)
	o.Incarnation(journal.Incarnation{})
	o.Renewed(time.Millisecond)
	o.Unrenewed(errors.New("late"))
	o.Begun(time.Second)
	o.Ended(engine.EndReleased)
	o.HandedOver(20 * time.Millisecond)
	m.Watch(func() engine.Status {
		return engine.Status{Resident: 5, Memory: 4096, Queued: 512, Lease: 1500 * time.Millisecond, DiskFull: "it is", Owned: []engine.PartitionStatus{
			{Owned: true, Share: true, Inbox: engine.InboxStatus{Open: 3, Held: 1}}, {Partition: 1, Share: true, Alarm: "went back"},
			{Partition: 2, Owned: true, Share: true, Inbox: engine.InboxStatus{Open: 4, Alarm: "went back"}}}}
	})
	for _, line := range []string{
		`perdure_calls_total{class="counter",code="ok",method="increment"} 1`,
		`perdure_calls_total{class="counter",code="refused",method="increment"} 1`,
		`perdure_call_duration_seconds_sum{class="counter",method="increment"} 4`,
		`perdure_call_duration_seconds_bucket{class="counter",method="increment",le="2.5"} 2`,
		`perdure_queue_wait_seconds_count{class="counter"} 2`,
		`perdure_activation_duration_seconds_bucket{class="counter",le="0.005"} 1`,
		`perdure_objects_resident 5`,
		`perdure_memory_bytes 4096`,
		`perdure_activation_records_bucket{class="counter",le="10"} 1`,
		`perdure_activation_records_bucket{class="counter",le="1"} 0`,
		`perdure_commit_duration_seconds_bucket{le="0.005"} 1`,
		`perdure_commit_duration_seconds_bucket{le="0.0025"} 0`,
		`perdure_append_duration_seconds_sum 0.002`,
		`perdure_appends_failed_total{outcome="refused"} 1`,
		`perdure_appends_failed_total{outcome="unknown"} 0`,
		`perdure_strays_total 1`,
		`perdure_dead_letters_total 1`,
		`perdure_copy_reads_total{outcome="answered"} 1`,
		`perdure_copy_reads_total{outcome="passed_on"} 0`,
		`perdure_lease_incarnations_total 1`,
		`perdure_lease_renewal_duration_seconds_count 1`,
		`perdure_lease_renewals_failed_total 1`,
		`perdure_lease_validity_seconds 1.5`,
		`perdure_epoch_begin_duration_seconds_sum 1`,
		`perdure_epochs_ended_total{cause="released"} 1`,
		`perdure_epochs_ended_total{cause="journal_back"} 0`,
		`perdure_handover_duration_seconds_count 1`,
		`perdure_requests_passed_on_total `,
		`perdure_requests_relayed_total `,
		`perdure_slow_consumers_total `,
		`perdure_partitions_owned 2`,
		`perdure_partitions_share 3`,
		`perdure_alarms{kind="journal"} 1`,
		`perdure_alarms{kind="inbox"} 1`,
		`perdure_queued_bytes 512`,
		`perdure_disk_full 1`,
		`perdure_messages_open 7`,
		`perdure_objects_held 1`,
		`go_goroutines `,
	} {
		wantMetric(t, g, line)
	}
	if !regexp.MustCompile(`perdure_build_info\{go="go[^"]+",version="1\.2\.3"\} 1`).MatchString(scrape(t, g)) {
		t.Error("no perdure_build_info")
	}
}

func TestCallersCannotMakeLabels(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Transport: answers(engine.Reply{}, engine.Errorf(engine.NotFound, "no class"))})
	for _, url := range []string{"/unknown-class/x", "/v1/objects/unknown-class/x/call/unknown-method", "/nowhere", "/counter/unknown-name"} {
		send(t, g, "POST", url, "")
		send(t, g, "BREW", url, "")
	}
	if text := scrape(t, g); strings.Contains(text, "unknown-") || strings.Contains(text, "nowhere") || strings.Contains(text, "BREW") {
		t.Error(text)
	}
	wantMetric(t, g, `perdure_http_requests_total{route="/{class}/{name}",status="404"} 4`)
	wantMetric(t, g, `perdure_http_requests_total{route="/v1/objects/{class}/{name}/call/{method}",status="404"} 1`)
	wantMetric(t, g, `perdure_http_requests_total{route="/v1/objects/{class}/{name}/call/{method}",status="405"} 1`)
	wantMetric(t, g, `perdure_http_requests_total{route="unknown",status="404"} 2`)
}

func TestHandlerThatPanicsCountsAsAFault(t *testing.T) {
	t.Parallel()
	g := newGateway(t, Config{Transport: &transport{do: func(context.Context, engine.Request) (engine.Reply, error) { panic(http.ErrAbortHandler) }}})
	func() {
		defer func() {
			if got := recover(); got != http.ErrAbortHandler {
				t.Errorf("recovered %v", got)
			}
		}()
		send(t, g, "GET", "/counter/x", "")
	}()
	wantMetric(t, g, `perdure_http_requests_total{route="/{class}/{name}",status="500"} 1`)
}

// A turn is observed while its object waits, and what is durable while the partition's answers do.
func TestObservingWhatIsFrequentAllocatesNothing(t *testing.T) {
	o := NewMetrics("dev").Observer()
	for name, f := range map[string]func(){
		"a turn":   func() { o.Turn("counter", "increment", "", 0, 0) },
		"the gate": func() { o.Gate(time.Millisecond) },
		"append":   func() { o.Append(time.Millisecond) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkObserveTurn(b *testing.B) {
	turn := NewMetrics("dev").Observer().Turn
	b.ReportAllocs()
	for b.Loop() {
		turn("counter", "increment", "", time.Microsecond, time.Microsecond)
	}
}

func BenchmarkObserveCommit(b *testing.B) {
	o := NewMetrics("dev").Observer()
	b.ReportAllocs()
	for b.Loop() {
		o.Gate(time.Microsecond)
		o.Append(time.Microsecond)
	}
}

// TestMetricsOfAWorker: what a running worker does is there, a foreign message in its stream included.
func TestMetricsOfAWorker(t *testing.T) {
	t.Parallel()
	m, j := NewMetrics("dev"), journaltest.NewMemory()
	w, err := engine.New(engine.Config{ID: "test", Partitions: 1, Store: snapshot.NewMemory(), Observe: m.Observer(),
		Classes: []engine.AnyClass{engine.Class[shelf]{Name: "shelf", Events: engine.Events[shelf]{"placed": placed{}}}},
		Connect: func(context.Context) (journal.Session, error) { return j.Session("objects", 1), nil }})
	if err != nil {
		t.Fatal(err)
	}
	m.Watch(w.Status)
	go func() { _ = w.Run(context.Background()) }() // ends with Kill
	t.Cleanup(w.Kill)
	g := newGateway(t, Config{Transport: engine.NewClient(w), Ready: w.Ready, Metrics: m})
	place := func(item string) {
		t.Helper()
		if got := send(t, g, "POST", "/v1/objects/shelf/a/call/place", `{"Item":"`+item+`"}`); got.StatusCode != 200 {
			t.Fatal(got.StatusCode, read(t, got))
		}
	}
	eventually := func(line string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !strings.Contains(scrape(t, g), "\n"+line); <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				wantMetric(t, g, line)
				return
			}
		}
	}
	eventually(`perdure_partitions_owned 1`)
	place("jam")
	place("tea")
	for _, line := range []string{
		`perdure_commit_duration_seconds_count 2`,
		`perdure_append_duration_seconds_count 2`,
		`perdure_activation_records_sum{class="shelf"} 0`,
		`perdure_lease_incarnations_total 1`,
		`perdure_epoch_begin_duration_seconds_count 1`,
		`perdure_epochs_ended_total{cause="refused"} 0`,
		`perdure_partitions_share 1`,
		`perdure_alarms{kind="journal"} 0`,
	} {
		eventually(line)
	}
	if v := regexp.MustCompile(`(?m)^perdure_lease_validity_seconds (0\.\d+|1\.\d+|2)$`); !v.MatchString(scrape(t, g)) {
		t.Error("the lease is good for less than nothing, or for more than its term")
	}
	j.Publish("objects-0", journal.Message{Subject: "objects.journal.0.shelf.a"})
	place("salt")
	for _, line := range []string{
		`perdure_appends_failed_total{outcome="refused"} 1`,
		`perdure_epochs_ended_total{cause="refused"} 1`,
		`perdure_epoch_begin_duration_seconds_count 2`,
		`perdure_activation_records_sum{class="shelf"} 2`,
	} {
		eventually(line)
	}
}

// TestMetricsAreListed: docs/operate.md names all metrics and no others, in its list and in the queries of its alerts.
func TestMetricsAreListed(t *testing.T) {
	t.Parallel()
	m := NewMetrics("dev")
	g := newGateway(t, Config{Metrics: m})
	m.Watch(func() engine.Status { return engine.Status{} })
	m.served("/", 200)
	o := m.Observer()
	o.Turn("counter", "increment", "", 0, 0)
	o.Wake("counter", 0, 0)
	page, err := os.ReadFile("../docs/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile("(?m)^\\| `perdure_.*$").FindAllString(string(page), -1)
	name := regexp.MustCompile(`\bperdure_[a-z_]+[a-z]`)
	listed, there := map[string]bool{}, map[string]bool{}
	for _, line := range list {
		first, _, _ := strings.Cut(line[1:], " | ")
		for _, n := range name.FindAllString(first, -1) {
			listed[n] = true
		}
	}
	for _, line := range regexp.MustCompile(`(?m)^# TYPE (perdure_[a-z_]+)`).FindAllStringSubmatch(scrape(t, g), -1) {
		if there[line[1]] = true; !listed[line[1]] {
			t.Errorf("docs/operate.md does not list %s", line[1])
		}
	}
	for _, n := range name.FindAllString(string(page), -1) {
		if !there[strings.TrimSuffix(n, "_bucket")] {
			t.Errorf("docs/operate.md names %s, which is not there", n)
		}
	}
}
