package engine

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/perdure/perdure/snapshot/pebblestore"
)

// TestAnObjectOfAMillionEntriesWorksUnder64MiB fills one object over a real journal and a store on disk, evicts it,
// reads it, and rebuilds it from the journal alone.
func TestAnObjectOfAMillionEntriesWorksUnder64MiB(t *testing.T) {
	entries, perTurn := 1_000_000, 20_000
	if raceDetector {
		entries = 100_000
	}
	pl := realPlace(t)
	open := func() func(*Config) {
		store, err := pebblestore.Open(filepath.Join(t.TempDir(), "snapshots"), pebblestore.Options{Namespace: "test"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		return func(c *Config) { c.Store, c.MemoryBytes = store, 64<<20 }
	}
	big := registers.Get("big")
	worker := pl.worker(t, "w", nil, open())
	env := NewClient(worker).With(t.Context())
	peak := int64(0)
	for i := 0; i < entries; i += perTurn {
		must(Call(env, big, (*register).Fill, fill{i, perTurn, 60}))(t)
		peak = max(peak, worker.Status().Memory)
	}
	count := func(when string) {
		t.Helper()
		if n := must(Read(env, big, (*register).CountItems, nil, Limit(readTimeout*4)))(t); n != entries {
			t.Errorf("%s: %d entries", when, n)
		}
		peak = max(peak, worker.Status().Memory)
	}
	count("filled")
	o := residentObject(worker, "register", "big")
	o.chore(o.evict)
	count("evicted and woken")
	worker.Kill()
	worker = pl.worker(t, "w", nil, open())
	env = NewClient(worker).With(t.Context())
	count("rebuilt from the journal")
	if peak > 64<<20 {
		t.Errorf("the worker counted %d MiB", peak>>20)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("%d entries: the worker counted %d MiB at most; %d MiB of heap are live, the journal's server in it", entries, peak>>20, m.HeapAlloc>>20)
}
