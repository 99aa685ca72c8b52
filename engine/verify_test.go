package engine

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/verify"
)

// TestASnapshotRecordIsWhatTheRecordsComeTo (I7): storage, and the requests that were answered, under ids and numbers. A
// reader that knows nothing of the engine finds a snapshot record that is not.
func TestASnapshotRecordIsWhatTheRecordsComeTo(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	idle := registers
	idle.Limits.Idle = time.Millisecond
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{idle} })
	w.ready(worker)
	env := NewClient(worker).With(t.Context())
	s := stream(registers.Get("a"))
	snap := func() (last journal.Message) {
		for _, m := range w.server.Messages(s) {
			if m.Subject == wire.DefaultNamespace.Snap("register", "a") {
				last = m
			}
		}
		return last
	}
	for i := 0; snap().Seq == 0; i++ {
		must(worker.Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1"), ID: fmt.Sprint("id", i)}))(t)
		must(Call(env, registers.Get("a"), (*register).Set, item{fmt.Sprint(i % 7), "<v>"}))(t)
		if i%20 == 19 {
			eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
		}
	}
	worker.Kill()
	if r := w.check(t); r.Compared == 0 || r.Compared != r.Snapshots {
		t.Errorf("%d of %d snapshot records were compared", r.Compared, r.Snapshots)
	}
	good := snap()
	for what, change := range map[string]func(journal.SnapEntry) (journal.SnapEntry, bool){
		"a value": func(e journal.SnapEntry) (journal.SnapEntry, bool) {
			if e.Key == "total" {
				e.Data = []byte("7")
			}
			return e, true
		},
		"no item":    func(e journal.SnapEntry) (journal.SnapEntry, bool) { return e, e.Key != "items/3" },
		"no ids":     func(e journal.SnapEntry) (journal.SnapEntry, bool) { return e, !strings.HasPrefix(e.Key, "i/") },
		"no clients": func(e journal.SnapEntry) (journal.SnapEntry, bool) { return e, !strings.HasPrefix(e.Key, "s/") },
	} {
		bad := must(journal.DecodeSnap(good.Data))(t)
		entries := bad.Entries
		bad.Entries = nil
		for _, e := range entries {
			if e, kept := change(e); kept {
				bad.Entries = append(bad.Entries, e)
			}
		}
		data := must(bad.Encode())(t)
		if bytes.Equal(data, good.Data) {
			t.Fatalf("%s: nothing is changed in %s", what, data)
		}
		w.server.Overwrite(s, good.Seq, data)
		session := w.server.Session(wire.DefaultNamespace, worldPartitions)
		p := partitionOf("register", "a")
		r := must(verify.Partition(t.Context(), session.Log(p), session.Meta(), verify.Config{Partition: p, Partitions: worldPartitions, Keep: w.keep}))(t)
		if !slices.ContainsFunc(r.Findings, func(f verify.Finding) bool { return f.Rule == verify.Snapshot && f.Seq == good.Seq }) || r.Severe != 1 {
			t.Errorf("%s: %v", what, r.Findings)
		}
	}
}

// TestVerifyHasTheDefaultsOfAClass: it cannot import them.
func TestVerifyHasTheDefaultsOfAClass(t *testing.T) {
	t.Parallel()
	if l := must(Limits{}.withDefaults("c"))(t); l.KeepIDs != verify.KeepFor || l.KeepIDsMax != verify.KeepMax {
		t.Errorf("%v and %d; verify has %v and %d", l.KeepIDs, l.KeepIDsMax, verify.KeepFor, verify.KeepMax)
	}
}

// BenchmarkVerify reads what 100,000 increments of 1,000 objects left on a real server; an operation is all of it.
func BenchmarkVerify(b *testing.B) {
	w := benchWorker(b, true)
	const records, objects = 100_000, 1_000
	var filling sync.WaitGroup
	for o := range objects {
		filling.Go(func() {
			for i := range records / objects {
				r := Request{Class: "register", Name: fmt.Sprint("o", o), Method: "add", Body: []byte("1"), ID: fmt.Sprint(i)}
				if _, err := w.Do(b.Context(), r); err != nil {
					b.Error(err)
				}
			}
		})
	}
	filling.Wait()
	s, err := w.cfg.Connect(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	read := 0
	for b.Loop() {
		read += checkStreams(b, s, w.ns, nil).Records
	}
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "records/s")
}
