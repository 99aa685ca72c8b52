package jetstream

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/journal"
)

// newStreams opens a session on a namespace that is not made, and what changes it behind the session's back.
func newStreams(t *testing.T) (*Session, jetstream.JetStream) {
	t.Helper()
	s := dial(t, newNamespace(t))
	return s, must[jetstream.JetStream](t)(jetstream.New(s.Conn()))
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestLookingForANamespaceMakesNothing(t *testing.T) {
	t.Parallel()
	s, js := newStreams(t)
	if _, err := s.Find(t.Context()); !errors.Is(err, journal.ErrMissing) {
		t.Errorf("found before there was a bucket: %v", err)
	}
	if _, err := js.Stream(t.Context(), "KV_"+s.ns.Bucket()); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the bucket: %v", err)
	}
	if _, err := s.openBucket(t.Context(), js, Settings{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context()); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("found before its key was there: %v", err)
	}
	made := must[Namespace](t)(s.Open(t.Context(), Settings{Partitions: 2}))
	if found := must[Namespace](t)(s.Find(t.Context())); found != made {
		t.Errorf("%+v is not %+v", found, made)
	}
}

func TestALostBucketIsNotMadeAnewOverAJournal(t *testing.T) {
	t.Parallel()
	s, js := newStreams(t)
	must[Namespace](t)(s.Open(t.Context(), Settings{Partitions: 2}))
	must[journal.Seq](t)(s.Log(1).Begin(t.Context(), 0, journal.Message{Subject: s.ns.Epoch(1)}))
	if err := js.DeleteStream(t.Context(), "KV_"+s.ns.Bucket()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first refusal has not made it look whole
		if _, err := s.Open(t.Context(), Settings{Partitions: 2}); !errors.Is(err, journal.ErrMissing) || !strings.Contains(err.Error(), s.ns.Bucket()) {
			t.Errorf("opened without what the bucket knew: %v", err)
		}
	}
}

func TestEverySettingThatCouldLoseARecordIsADifference(t *testing.T) {
	t.Parallel()
	want := (&Session{ns: "objects"}).streamConfig(1, Namespace{Partitions: 2, Replicas: 1})
	for difference, change := range map[string]func(*jetstream.StreamConfig){
		"max messages is 5 and must be -1":             func(c *jetstream.StreamConfig) { c.MaxMsgs = 5 },
		"discard is DiscardOld and must be DiscardNew": func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld },
		"atomic publish is false and must be true":     func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false },
		"direct gets is false and must be true":        func(c *jetstream.StreamConfig) { c.AllowDirect = false },
		"message expiry is true and must be false":     func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true },
		"message counter is true and must be false":    func(c *jetstream.StreamConfig) { c.AllowMsgCounter = true },
		"persistence is async and must be default":     func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
		"purge denied is true and must be false":       func(c *jetstream.StreamConfig) { c.DenyPurge = true },
		"republish is > to x.> and must be none": func(c *jetstream.StreamConfig) {
			c.RePublish = &jetstream.RePublish{Source: ">", Destination: "x.>"}
		},
		"compression is S2 and must be none": func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression },
	} {
		have := want
		change(&have)
		if diffs := differences(want, have); !slices.EqualFunc(diffs, []string{difference}, strings.EqualFold) {
			t.Errorf("%q; want %q", diffs, difference)
		}
	}
}

func TestChangesArePublishedAgainWhereTheNamespaceAsksForIt(t *testing.T) {
	t.Parallel()
	s, js := newStreams(t)
	on, off := true, false
	open := func(want *bool, republish bool) {
		t.Helper()
		if ns := must[Namespace](t)(s.Open(t.Context(), Settings{Partitions: 2, Republish: want})); ns.Republish != republish {
			t.Fatalf("%+v", ns)
		}
	}
	sub, err := s.Conn().SubscribeSync(string(s.ns) + ".change.>")
	if err != nil {
		t.Fatal(err)
	}
	last := journal.Seq(0)
	store := func() {
		t.Helper()
		last = must[journal.Seq](t)(s.Log(0).Begin(t.Context(), last, journal.Message{Subject: string(s.ns) + ".journal.0.counter.a%2Eb", Data: []byte("{}")}))
		if _, _, err := s.Log(0).Range(t.Context()); err != nil { // what was published again came before this answer
			t.Fatal(err)
		}
	}
	open(nil, false)
	store()
	if n, _, _ := sub.Pending(); n != 0 {
		t.Errorf("%d changes and nobody asked", n)
	}
	open(&on, true)
	open(nil, true)
	store()
	m, err := sub.NextMsg(5 * time.Second)
	if err != nil || m.Subject != s.ns.Change("counter", "a%2Eb") || m.Header.Get("Nats-Sequence") != "2" || m.Header.Get("Nats-Stream") != s.ns.Stream(0) {
		t.Fatalf("%+v, %v", m, err)
	}

	// A change that was begun and not ended is refused, and ended by asking for it again.
	cfg := s.streamConfig(1, Namespace{Partitions: 2, Replicas: 1})
	must[jetstream.Stream](t)(js.UpdateStream(t.Context(), cfg))
	if _, err := s.Open(t.Context(), Settings{}); err == nil || !strings.Contains(err.Error(), "republish is none and must be") {
		t.Errorf("%v", err)
	}
	open(&off, false)
	store()
	if n, _, _ := sub.Pending(); n != 0 {
		t.Errorf("%d changes, and they are off", n)
	}
	open(nil, false)
}

func TestABucketWithDirectGetsIsRefused(t *testing.T) {
	t.Parallel()
	s, js := newStreams(t)
	must[jetstream.KeyValue](t)(js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: s.ns.Bucket()}))
	_, err := s.Open(t.Context(), Settings{})
	if other, ok := errors.AsType[*SettingsError](err); !ok || other.Stream != "KV_"+s.ns.Bucket() || !strings.Contains(other.Error(), "direct gets is") {
		t.Errorf("%v", err)
	}
}
