package gateway

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
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
	o.Wake("counter", 3*time.Millisecond)
	m.Watch(func() engine.Status {
		return engine.Status{Resident: 5, Memory: 4096, Owned: []engine.PartitionStatus{{Owned: true}, {Partition: 1}, {Partition: 2, Owned: true}}}
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
		`perdure_partitions_owned 2`,
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

// A turn is observed while its object waits.
func TestObservingATurnAllocatesNothing(t *testing.T) {
	turn := NewMetrics("dev").Observer().Turn
	turn("counter", "increment", "", 0, 0)
	if n := testing.AllocsPerRun(100, func() { turn("counter", "increment", "", 0, 0) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserveTurn(b *testing.B) {
	turn := NewMetrics("dev").Observer().Turn
	b.ReportAllocs()
	for b.Loop() {
		turn("counter", "increment", "", time.Microsecond, time.Microsecond)
	}
}
