package natsbus

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

const (
	sender = "0123456789abcdef0123456789abcdef"
	trace  = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	until  = "2031-02-03T04:05:06.789Z"
)

var untilTime = time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.UTC)

func headersOf(pairs ...string) nats.Header {
	h := nats.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
	}
	return h
}

func decoded(h nats.Header) (engine.Request, error) {
	return decode("counter", "cart-99", "increment", &nats.Msg{Subject: "objects.part.1.call.counter.cart-99.increment", Header: h, Data: []byte(`{}`)})
}

func sameRequest(want, got engine.Request) string {
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(engine.Request{}))
}

func TestEveryHeaderIsRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		header nats.Header
		want   engine.Request
	}{
		{"none", nil, engine.Request{}},
		{"wire version", headersOf("Perdure-Wire", "1"), engine.Request{}},
		{"session", headersOf("Perdure-Session", sender+" 7 5", "Perdure-Deadline", until), engine.Request{
			Deadline: untilTime, Session: &engine.SessionNumber{Sender: sender, N: 7, M: 5, Deadline: untilTime}}},
		{"request id", headersOf("Perdure-Request-Id", "order 17, again"), engine.Request{ID: "order 17, again"}},
		{"deadline as a time", headersOf("Perdure-Deadline", until), engine.Request{Deadline: untilTime}},
		{"deadline as a duration", headersOf("Perdure-Deadline", "1m5s"), engine.Request{Limit: 65 * time.Second}},
		{"caller", headersOf("Perdure-Caller", "Zoë"), engine.Request{Caller: engine.Caller{Claimed: "Zoë"}}},
		{"chain", headersOf("Perdure-Chain", "cart/a%2Cb%20c,account/x/y"), engine.Request{Chain: []string{"cart/a,b c", "account/x/y"}}},
		{"read", headersOf("Perdure-Read", "true"), engine.Request{Read: true}},
		{"content type", headersOf("Content-Type", "application/json"), engine.Request{}},
		{"content type with parameters", headersOf("Content-Type", "Application/JSON; charset=utf-8"), engine.Request{}},
		{"trace", headersOf("traceparent", trace), engine.Request{Trace: trace}},
		{"those of others", headersOf("Nats-Msg-Id", "1", "Nats-Expected-Stream", "x", "User-Agent", "y", "User-Agent", "z"), engine.Request{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.Class, tt.want.Name, tt.want.Method, tt.want.Body = "counter", "cart-99", "increment", []byte(`{}`)
			got := must[engine.Request](t)(decoded(tt.header))
			if diff := sameRequest(tt.want, got); diff != "" {
				t.Error(diff)
			}
			other := nats.Header{}
			for name, v := range tt.header {
				other[strings.ToUpper(name)] = v
			}
			got = must[engine.Request](t)(decoded(other))
			if diff := sameRequest(tt.want, got); diff != "" {
				t.Error("in upper case:", diff)
			}
		})
	}
}

func TestMalformedHeaderIsRefusedWithWhatWouldBeRight(t *testing.T) {
	t.Parallel()
	session := func(v string) nats.Header { return headersOf("Perdure-Session", v, "Perdure-Deadline", until) }
	const sessionForm = "want <sender> <n> <m>: 32 lower-case hex digits"
	for _, tt := range []struct {
		name   string
		header nats.Header
		want   string
	}{
		{"wire version", headersOf("Perdure-Wire", "2"), `Perdure-Wire is "2": this worker speaks 1`},
		{"content type", headersOf("Content-Type", "text/plain"), `Content-Type is "text/plain": want application/json`},
		{"content type of another shape", headersOf("Content-Type", ";"), "want application/json"},
		{"read", headersOf("Perdure-Read", "yes"), "want true"},
		{"session and id", headersOf("Perdure-Session", sender+" 1 1", "Perdure-Request-Id", "x"), "want one of them"},
		{"id not UTF-8", headersOf("Perdure-Request-Id", "a\xff"), "want UTF-8"},
		{"caller not UTF-8", headersOf("Perdure-Caller", "a\xff"), "want UTF-8"},
		{"deadline", headersOf("Perdure-Deadline", "tomorrow"), "want a time such as 2026-01-02T15:04:05Z, or a duration from receipt such as 5s"},
		{"deadline without zone", headersOf("Perdure-Deadline", "2026-01-02T15:04:05"), "want a time such as"},
		{"deadline in the zero year", headersOf("Perdure-Deadline", "0001-01-01T00:00:00Z"), "want a time such as"},
		{"no time to begin", headersOf("Perdure-Deadline", "0s"), "want a time such as"},
		{"less than none", headersOf("Perdure-Deadline", "-5s"), "want a time such as"},
		{"a bare number", headersOf("Perdure-Deadline", "5"), "want a time such as"},
		{"session without deadline", headersOf("Perdure-Session", sender+" 1 1"), "want Perdure-Deadline with it, as a time"},
		{"session with a duration", headersOf("Perdure-Session", sender+" 1 1", "Perdure-Deadline", "5s"), "want Perdure-Deadline with it, as a time"},
		{"session without mark", session(sender + " 1"), sessionForm},
		{"session with more", session(sender + " 1 1 1"), sessionForm},
		{"session with other spaces", session(sender + "  1 1"), sessionForm},
		{"short sender", session("abc 1 1"), sessionForm},
		{"upper-case sender", session(strings.ToUpper(sender) + " 1 1"), sessionForm},
		{"number with sign", session(sender + " +1 1"), sessionForm},
		{"number too large", session(sender + " 18446744073709551616 1"), sessionForm},
		{"mark above number", session(sender + " 1 2"), "have n=1, m=2"},
		{"chain without name", headersOf("Perdure-Chain", "cart"), `want class/name, with commas between; have "cart"`},
		{"chain with an empty name", headersOf("Perdure-Chain", "cart/"), "name is empty"},
		{"chain with an empty place", headersOf("Perdure-Chain", "cart/a,"), "want class/name"},
		{"chain of no class", headersOf("Perdure-Chain", "9/a"), "is no identifier"},
		{"chain with another spelling", headersOf("Perdure-Chain", "cart/a b"), `want "a%20b"`},
		{"twice", headersOf("Perdure-Request-Id", "a", "Perdure-Request-Id", "b"), "Perdure-Request-Id is there more than once"},
		{"twice in different case", headersOf("Perdure-Request-Id", "a", "perdure-request-id", "b"), "Perdure-Request-Id is there more than once"},
		{"unknown of ours", headersOf("perdure-request", "x"), `requests have no header "perdure-request"; there are: Perdure-Wire, Perdure-Session`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := decoded(tt.header)
			if !errors.Is(err, engine.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want invalid with %q", err, tt.want)
			}
		})
	}
}

func TestRefusalNamesObjectAndRequest(t *testing.T) {
	t.Parallel()
	_, err := decoded(headersOf("Perdure-Request-Id", "a", "Perdure-Deadline", "x"))
	e, ok := errors.AsType[*engine.Error](err)
	if !ok || e.Object != "counter/cart-99" || e.RequestID != "a" {
		t.Errorf("got %#v", err)
	}
}

func TestHeadersBeyondTheirLimitAreTooLarge(t *testing.T) {
	t.Parallel()
	// NATS/1.0, the line and the empty line
	fits := strings.Repeat("x", engine.HeaderBytesMax-len("NATS/1.0\r\nPerdure-Caller: \r\n\r\n"))
	if _, err := decoded(headersOf("Perdure-Caller", fits)); err != nil {
		t.Error(err)
	}
	_, err := decoded(headersOf("Perdure-Caller", fits+"x"))
	if !errors.Is(err, engine.TooLarge) || !strings.Contains(err.Error(), "have 16385 bytes; at most 16384") {
		t.Errorf("got %v", err)
	}
}

func TestMalformedTraceIsLeftOut(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "x", trace + "-", strings.ToUpper(trace), strings.Replace(trace, "-", "_", 1), strings.Replace(trace, "a", "g", 1)} {
		r := must[engine.Request](t)(decoded(headersOf("traceparent", s)))
		if r.Trace != "" {
			t.Errorf("%q: got %q", s, r.Trace)
		}
	}
}

func TestAnotherSpellingOfANameIsRefusedWithTheRightOne(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]string{
		"a%2eb": `want "a%2Eb"`,
		"a%41":  `want "aA"`,
		"a%":    "a percent sign in a name is written %25",
		"a\xff": "is not UTF-8",
	} {
		_, err := decode("counter", token, "get", &nats.Msg{})
		if !errors.Is(err, engine.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want invalid with %s", token, err, want)
		}
	}
	r := must[engine.Request](t)(decode("counter", "a%2Eb%2520", "get", &nats.Msg{}))
	if r.Name != "a.b%20" {
		t.Errorf("got %q", r.Name)
	}
}

// FuzzHeaders: a request that is understood is sent on as one that is understood the same.
func FuzzHeaders(f *testing.F) {
	f.Add("", "", "", "", "", "", "", "")
	f.Add(sender+" 7 5", "", until, "zoe", "cart/a%2Cb,account/x", "", "application/json", trace)
	f.Add("", "order 17", "5s", "Zo\u00eb", "", "true", "text/plain; charset=x", "00-x")
	f.Add("", " ", "-1ns", "", ",", "false", "application/json; q", "")
	f.Add("", "a\nb", "2026-01-01", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, session, id, deadline, caller, chain, read, contentType, trace string) {
		h := nats.Header{}
		for name, v := range map[string]string{wire.HeaderWire: wire.Version, wire.HeaderSession: session, wire.HeaderRequestID: id, wire.HeaderDeadline: deadline,
			wire.HeaderCaller: caller, wire.HeaderChain: chain, "Perdure-Read": read, wire.HeaderContentType: contentType, wire.HeaderTrace: trace} {
			if v != strings.Trim(v, " \t") || strings.ContainsAny(v, "\r\n") {
				return // NATS does not carry it
			}
			if v != "" {
				h[name] = []string{v}
			}
		}
		r, err := decoded(h)
		if err != nil {
			if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.Invalid && e.Code != engine.TooLarge || !utf8.ValidString(e.Error()) {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		if y := r.Deadline.UTC().Year(); y < 0 || y > 9999 {
			return // too far ahead for any object
		}
		m, err := (&Client{ns: wire.DefaultNamespace}).encode(&r)
		if err != nil {
			t.Fatalf("%+v is not sent on: %v", r, err)
		}
		again, err := decode(r.Class, "cart-99", r.Method, m)
		if err != nil {
			t.Fatalf("%+v is sent on as %v: %v", r, m.Header, err)
		}
		if diff := cmp.Diff(r, again, cmpopts.IgnoreUnexported(engine.Request{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// fullMessage is a request as our clients send it.
func fullMessage() *nats.Msg {
	return &nats.Msg{
		Subject: "objects.part.1.call.counter.cart-99.increment", Reply: "_INBOX.x", Data: []byte(`{"by":2}`),
		Header: headersOf("Perdure-Wire", "1", "Perdure-Session", sender+" 7 5", "Perdure-Deadline", until, "Perdure-Caller", "zoe", "traceparent", trace),
	}
}

func TestDecodingAllocatesTheNumberOnly(t *testing.T) {
	bare, full := fullMessage(), fullMessage()
	bare.Header = nil
	for _, tt := range []struct {
		name string
		m    *nats.Msg
		want float64
	}{{"bare", bare, 0}, {"full", full, 1}} {
		got := testing.AllocsPerRun(100, func() {
			_, class, token, method, _ := wire.DefaultNamespace.SplitCall(tt.m.Subject)
			if r, err := decode(class, token, method, tt.m); err != nil || r.Name != "cart-99" {
				t.Fatal(r, err)
			}
		})
		if got > tt.want {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, got, tt.want)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	bare, full, chained := fullMessage(), fullMessage(), fullMessage()
	bare.Header = nil
	chained.Header = maps.Clone(full.Header)
	chained.Header["Perdure-Chain"] = []string{"cart/a%2Cb,account/x"}
	for name, m := range map[string]*nats.Msg{"bare": bare, "session": full, "chain": chained} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, class, token, method, _ := wire.DefaultNamespace.SplitCall(m.Subject)
				if _, err := decode(class, token, method, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
