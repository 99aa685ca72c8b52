package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
)

func TestWhoOwnsAPartitionIsReadWithoutOwningIt(t *testing.T) {
	places(t, func(t *testing.T, pl place) {
		session := must(pl.session(t.Context()))(t)
		defer session.Close()
		read := func() Ownership { return must(ReadOwnership(t.Context(), session, pl.ns, 0))(t) }
		if o := read(); o.Worker != "" || o.Epoch != 0 || o.Loss != nil || !o.Recorded.IsZero() {
			t.Errorf("before anybody came: %+v", o)
		}

		worker := pl.worker(t, "w", nil, func(c *Config) { c.Version = "1.2.3" })
		(&world{t: t}).ready(worker)
		name := "a"
		for partitionOf("register", name) != 0 {
			name += "a"
		}
		must(Call(NewClient(worker).With(t.Context()), registers.Get(name), (*register).Add, 1))(t)
		before := pl.messages(0)
		o := read()
		if o.Worker != "w" || o.Epoch != 1 || o.Software != "1.2.3" || o.Released || o.LeaseTerm != 10*time.Second || len(o.Begun) != 1 || o.Loss != nil {
			t.Errorf("%+v", o)
		}
		if d := o.Stored.Sub(o.Recorded); o.Recorded.IsZero() || d < 0 || d > time.Minute {
			t.Errorf("recorded %v, stored %v", o.Recorded, o.Stored)
		}
		if after := pl.messages(0); len(after) != len(before) {
			t.Errorf("reading has stored something: %d messages, then %d", len(before), len(after))
		}

		worker.Stop()
		if o := read(); !o.Released || len(o.Begun) != 1 {
			t.Errorf("after a clean stop: %+v", o)
		}

		// A witness that knows more than the stream has.
		w, rev, err := journal.ReadWitness(t.Context(), session.Meta(), 0)
		if err != nil {
			t.Fatal(err)
		}
		w.Acked += 1000
		must(session.Meta().Put(t.Context(), journal.WitnessKey(0), w.Encode(), rev))(t)
		last := slices.MaxFunc(pl.messages(0), func(a, b journal.Message) int { return int(a.Seq) - int(b.Seq) }).Seq
		if o := read(); o.Loss == nil || o.Loss.Known != w.Acked || o.Loss.Have != last {
			t.Errorf("loss %+v; want %d known, %d there", o.Loss, w.Acked, last)
		}
	})
}
