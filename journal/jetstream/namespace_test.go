package jetstream

import (
	"errors"
	"slices"
	"strings"
	"testing"

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
	if err := s.openBucket(t.Context(), js, Settings{}); err != nil {
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
		"republish is true and must be false":          func(c *jetstream.StreamConfig) { c.RePublish = &jetstream.RePublish{Destination: "x.>"} },
		"compression is S2 and must be none":           func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression },
	} {
		have := want
		change(&have)
		if diffs := differences(want, have); !slices.EqualFunc(diffs, []string{difference}, strings.EqualFold) {
			t.Errorf("%q; want %q", diffs, difference)
		}
	}
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
