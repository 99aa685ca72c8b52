package verify

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

// server is the stream in a server, with holes where messages are gone.
func (h *hand) server() (*journaltest.Memory, *journaltest.MemorySession) {
	m := journaltest.NewMemory()
	s := m.Session(ns, 1)
	for _, msg := range h.messages {
		for msg.Seq > m.Publish(ns.Stream(0), msg) {
			_, last, _ := s.Log(0).Range(context.Background())
			m.Remove(ns.Stream(0), last)
		}
	}
	return m, s
}

func (h *hand) log(testing.TB) journal.Log {
	_, s := h.server()
	return s.Log(0)
}

// meta is a bucket that has a witness.
func (h *hand) meta(t testing.TB, w journal.Witness) journal.Meta {
	t.Helper()
	meta := journaltest.NewMemory().Session(ns, 1).Meta()
	if _, err := meta.Put(t.Context(), journal.WitnessKey(0), w.Encode(), 0); err != nil {
		t.Fatal(err)
	}
	return meta
}

func TestOneObjectIsReadByItsOwnSubjects(t *testing.T) {
	t.Parallel()
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStory()
			d.spoil(s)
			whole := s.check(d.cfg)
			cfg := partitioned(d.cfg)
			cfg.Class, cfg.Name = "c", "a"
			one, err := Partition(t.Context(), s.log(t), s.meta(t, d.cfg.Witness), cfg)
			if err != nil {
				t.Fatal(err)
			}
			of := func(fs []Finding) []string { // a lost epoch shows elsewhere, or only there
				return brief(slices.DeleteFunc(slices.Clone(fs), func(f Finding) bool { return f.Object != "c/a" || f.Rule == Subject || f.Rule == Epoch }))
			}
			if diff := cmp.Diff(of(whole.Findings), of(one.Findings)); diff != "" {
				t.Errorf("(-all +one):\n%s", diff)
			}
			for _, f := range one.Findings {
				if f.Object != "c/a" && f.Rule != Epoch && f.Rule != Format && f.Rule != Witness {
					t.Errorf("of another: %s", f)
				}
			}
			if one.Messages > 20 {
				t.Errorf("%d messages were read", one.Messages)
			}
		})
	}
}

func TestAClassIsCheckedAlone(t *testing.T) {
	t.Parallel()
	s := newStory()
	s.replace(s.b1, `"value":1`, `"value":7`)
	for class, want := range map[string]int{"c": 1, "d": 0} {
		cfg := partitioned(Config{Class: class})
		r, err := Partition(t.Context(), s.log(t), s.meta(t, journal.Witness{}), cfg)
		if err != nil || r.Severe != want || len(r.Findings) != want || r.Objects != 2*want || r.Epochs != 2 {
			t.Errorf("class %s: %+v, %v", class, r, err)
		}
	}
}

func TestAMessageInTheWrongPartitionIsFound(t *testing.T) {
	t.Parallel()
	s := newStory()
	of := wire.Partition(wire.Slot("c", "a"), 2)
	c := New(Config{Partition: 1 - of, Partitions: 2})
	for _, m := range s.messages {
		m.Subject = strings.NewReplacer(".epoch.0", fmt.Sprint(".epoch.", 1-of), ".fence.0", fmt.Sprint(".fence.", 1-of)).Replace(m.Subject)
		c.Message(m)
	}
	r := c.End(s.seq)
	for _, f := range r.Findings {
		if f.Rule != Subject || f.Severity != Severe || f.Object != "c/a" {
			t.Errorf("%s", f)
		}
	}
	if len(r.Findings) != 4+3+1+2-1 { // records, and parts of snapshot records
		t.Errorf("%v", brief(r.Findings))
	}
}

// edged is a log that does something at the edges of a read.
type edged struct {
	journal.Log
	last   journal.Seq                                                                                   // what Range says; 0: the truth
	during func(from journal.Seq, m iter.Seq2[journal.Message, error]) iter.Seq2[journal.Message, error] // instead of what Read yields
}

func (l edged) Range(ctx context.Context) (first, last journal.Seq, err error) {
	first, last, err = l.Log.Range(ctx)
	if l.last != 0 {
		last = l.last
	}
	return first, last, err
}

func (l edged) Read(ctx context.Context, subject string, from journal.Seq) iter.Seq2[journal.Message, error] {
	return l.during(from, l.Log.Read(ctx, subject, from))
}

func asItIs(_ journal.Seq, m iter.Seq2[journal.Message, error]) iter.Seq2[journal.Message, error] {
	return m
}

// TestAStreamIsReadUpToWhereItEnded, and an atomic batch to its end.
func TestAStreamIsReadUpToWhereItEnded(t *testing.T) {
	t.Parallel()
	s := newStory()
	for name, test := range map[string]struct {
		last     journal.Seq
		messages int
	}{
		"behind a record":          {s.a2, int(s.a2)},
		"in a fence":               {s.epoch2 + 100, int(s.epoch2) + journal.Window},
		"in a snapshot record":     {s.snap1, int(s.snap1) + 2},
		"at the end of the stream": {s.seq, int(s.seq)},
	} {
		r, err := Partition(t.Context(), edged{s.log(t), test.last, asItIs}, s.meta(t, journal.Witness{}), partitioned(Config{}))
		if err != nil || len(r.Findings) > 0 || r.Messages != test.messages || r.Last != test.last {
			t.Errorf("%s: %d messages up to %d, %v, %v; want %d", name, r.Messages, r.Last, r.Findings, err, test.messages)
		}
	}
}

// TestWhatIsPurgedMeanwhileIsNotMissing, and what is missing is, whatever is purged.
func TestWhatIsPurgedMeanwhileIsNotMissing(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{"purged": nil, "purged, and a record is lost": {"severe b2 head c/b"}} {
		s := newStory()
		s.snap("a", 1)
		if want != nil {
			s.drop(s.b1)
		}
		_, session := s.server()
		log := session.Log(0)
		purging := edged{log, 0, func(_ journal.Seq, m iter.Seq2[journal.Message, error]) iter.Seq2[journal.Message, error] {
			return func(yield func(journal.Message, error) bool) {
				for msg, err := range m {
					if msg.Seq >= s.epoch2 {
						break
					}
					if !yield(msg, err) {
						return
					}
				}
				err := errors.Join(log.Purge(t.Context(), ns.Journal("c", "a"), s.a4), log.Purge(t.Context(), ns.Snap("c", "a"), s.snap2))
				if err != nil {
					t.Error(err)
				}
				log.Read(t.Context(), ">", s.epoch2)(yield)
			}
		}}
		r, err := Partition(t.Context(), purging, s.meta(t, journal.Witness{}), partitioned(Config{}))
		if diff := cmp.Diff(s.positions(want), brief(r.Findings)); diff != "" || err != nil {
			t.Errorf("%s: %v, %v\n%s", name, r.Findings, err, diff)
		}
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	t.Parallel()
	s := newStory()
	server, session := s.server()
	server.Damage(ns.Stream(0), s.a3)
	for _, name := range []string{"", "a"} {
		cfg := partitioned(Config{Name: name})
		if name != "" {
			cfg.Class = "c"
		}
		r, err := Partition(t.Context(), session.Log(0), session.Meta(), cfg)
		if !errors.Is(err, journal.ErrDamaged) || r.Records != 3-len(name) {
			t.Errorf("object %q: %+v, %v", name, r, err)
		}
	}
	session.Close()
	if _, err := Partition(t.Context(), session.Log(0), session.Meta(), partitioned(Config{})); err == nil {
		t.Error("a closed session is read")
	}
}

func TestAReplicaThatIsBehindIsAnError(t *testing.T) {
	t.Parallel()
	s := newStory()
	behind := edged{s.log(t), 0, func(_ journal.Seq, m iter.Seq2[journal.Message, error]) iter.Seq2[journal.Message, error] {
		return func(yield func(journal.Message, error) bool) {
			for msg, err := range m {
				if msg.Seq >= s.a4 || !yield(msg, err) {
					return
				}
			}
		}
	}}
	for _, cfg := range []Config{{}, {Class: "c", Name: "a"}} {
		if r, err := Partition(t.Context(), behind, s.meta(t, journal.Witness{}), partitioned(cfg)); err == nil || !strings.Contains(err.Error(), "behind") {
			t.Errorf("%+v, %v", r, err)
		}
	}
	s = newStory()
	server, session := s.server()
	server.Remove(ns.Stream(0), s.a5)
	r, err := Partition(t.Context(), session.Log(0), s.meta(t, journal.Witness{}), partitioned(Config{}))
	if diff := cmp.Diff(s.positions([]string{"severe last witness"}), brief(r.Findings)); diff != "" || err != nil {
		t.Errorf("the last message is gone: %v\n%s", err, diff)
	}
}

func TestOfManyFindingsTheFirstAreTold(t *testing.T) {
	t.Parallel()
	s := newStory()
	for range FindingsMax + 5 {
		s.store("objects.other", nil)
	}
	if r := s.check(Config{}); r.Warnings != FindingsMax+5 || len(r.Findings) != FindingsMax {
		t.Errorf("%d warnings, %d findings", r.Warnings, len(r.Findings))
	}
}
