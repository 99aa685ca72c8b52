package natsbus

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

func served(t testing.TB, ns wire.Subjects, classes ...engine.ClassInfo) *Service {
	t.Helper()
	s := NewService(ns, "worker-1", "0.1.0-dev", 4, classes)
	t.Cleanup(must[func()](t)(s.Serve(connect(t), ns, slog.New(slog.DiscardHandler))))
	return s
}

var counterClass = engine.ClassInfo{Name: "counter", Methods: map[string]engine.Method{
	"increment": {In: []byte(`{"type":"object"}`), Out: []byte(`{"type":"integer"}`)}, "value": {Read: true},
}}

// discover asks on a control subject, holds the answer against the schema of ADR-32 (testdata, from nats-io/jsm.go), and
// reads it as package micro does.
func discover[A any](t *testing.T, verb micro.Verb, name, id string) A {
	t.Helper()
	subject := must[string](t)(micro.ControlSubject(verb, name, id))
	m := must[*nats.Msg](t)(connect(t).Request(subject, nil, 10*time.Second))
	schema := must[any](t)(jsonschema.UnmarshalJSON(bytes.NewReader(must[[]byte](t)(os.ReadFile("testdata/" + strings.ToLower(verb.String()) + "_response.json")))))
	c := jsonschema.NewCompiler()
	check(t, c.AddResource("urn:schema", schema))
	if err := must[*jsonschema.Schema](t)(c.Compile("urn:schema")).Validate(must[any](t)(jsonschema.UnmarshalJSON(bytes.NewReader(m.Data)))); err != nil {
		t.Errorf("%s: %v\n%s", subject, err, m.Data)
	}
	var a A
	d := json.NewDecoder(bytes.NewReader(m.Data))
	d.DisallowUnknownFields()
	check(t, d.Decode(&a))
	return a
}

// TestNATSToolsSeeTheService on all control subjects, as `nats micro` asks them.
func TestNATSToolsSeeTheService(t *testing.T) {
	ns := namespace(t)
	s := served(t, ns, counterClass)
	s.Ran("counter", "increment", "", time.Second, 3*time.Millisecond)
	s.Ran("counter", "increment", engine.Refused, time.Second, time.Millisecond)
	s.Ran("counter", "http", "", 0, time.Hour)
	for _, to := range [][2]string{{string(ns), ""}, {string(ns), s.ID}} {
		if p := discover[micro.Ping](t, micro.PingVerb, to[0], to[1]); p.Name != string(ns) || p.ID != s.ID || p.Metadata["worker"] != "worker-1" || p.Metadata["partitions"] != "4" {
			t.Errorf("ping: %+v", p)
		}
		info := discover[micro.Info](t, micro.InfoVerb, to[0], to[1])
		want := micro.EndpointInfo{Name: "counter-increment", Subject: string(ns) + ".call.counter.*.increment", QueueGroup: "workers"}
		if len(info.Endpoints) != 2 || info.Endpoints[0].Name != want.Name || info.Endpoints[0].Subject != want.Subject || info.Endpoints[0].QueueGroup != want.QueueGroup ||
			info.Endpoints[0].Metadata["argument"] != `{"type":"object"}` || info.Endpoints[0].Metadata["kind"] != "call" || info.Endpoints[1].Metadata["kind"] != "read" {
			t.Errorf("info: %+v", info)
		}
		stats := discover[micro.Stats](t, micro.StatsVerb, to[0], to[1])
		e := stats.Endpoints[0]
		if e.NumRequests != 2 || e.NumErrors != 1 || e.LastError != "422:refused" || e.ProcessingTime != 4*time.Millisecond || e.AverageProcessingTime != 2*time.Millisecond ||
			stats.Endpoints[1].NumRequests != 0 || stats.Endpoints[1].LastError != "" || stats.Started.IsZero() {
			t.Errorf("stats: %+v", e)
		}
	}
	discover[micro.Ping](t, micro.PingVerb, "", "")
}

// TestTheServiceTakesNoCall: only owners do; and it publishes nowhere but to its caller.
func TestTheServiceTakesNoCall(t *testing.T) {
	ns := namespace(t)
	served(t, ns, counterClass)
	nc := connect(t)
	if _, err := nc.Request(ns.Call("counter", "a", "value"), nil, 10*time.Second); err != nats.ErrNoResponders {
		t.Errorf("without an owner: %v", err)
	}
	inside := must[*nats.Subscription](t)(nc.SubscribeSync(string(ns) + ".journal.>"))
	check(t, nc.PublishRequest("$SRV.PING."+string(ns), ns.Journal("counter", "a"), nil))
	must[*nats.Msg](t)(nc.Request("$SRV.PING."+string(ns), nil, 10*time.Second)) // the other one was before it
	if n, _, _ := inside.Pending(); n != 0 {
		t.Error("the service wrote into a journal")
	}
}

func TestSchemasThatDoNotFitAreLeftOut(t *testing.T) {
	ns := namespace(t)
	large := engine.ClassInfo{Name: "large", Methods: map[string]engine.Method{"m": {In: []byte(`"` + strings.Repeat("x", payloadMax) + `"`)}}}
	s := served(t, ns, large, counterClass)
	if info := discover[micro.Info](t, micro.InfoVerb, s.Name, ""); len(info.Endpoints) != 3 || info.Endpoints[0].Metadata["argument"] != "" || info.Endpoints[0].Metadata["kind"] != "call" {
		t.Errorf("%+v", info.Endpoints)
	}
}

// BenchmarkRan is what a turn pays for being counted.
func BenchmarkRan(b *testing.B) {
	s := NewService("objects", "w", "0.1.0", 4, []engine.ClassInfo{counterClass})
	b.ReportAllocs()
	for b.Loop() {
		s.Ran("counter", "increment", "", 0, time.Millisecond)
	}
}
