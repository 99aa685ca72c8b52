package pebblestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/perdure/perdure/snapshot"
	"github.com/perdure/perdure/snapshot/snapshottest"
)

const (
	dir       = "data/pebble"
	namespace = "life-1"
)

func options(fs vfs.FS) Options {
	return Options{Namespace: namespace, FS: fs, Logger: slog.New(slog.DiscardHandler)}
}

func mustOpen(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestPebbleStoreIsAStore(t *testing.T) {
	t.Parallel()
	snapshottest.Test(t, func(t *testing.T) snapshot.Store {
		return mustOpen(t, dir, options(vfs.NewMem()))
	})
}

func TestPebbleStoreIsAStoreWhenItFlushesAllTheTime(t *testing.T) {
	t.Parallel()
	snapshottest.Test(t, func(t *testing.T) snapshot.Store {
		opts := options(vfs.NewMem())
		opts.MemTableBytes = 64 << 10
		return mustOpen(t, dir, opts)
	})
}

func TestReopeningKeepsState(t *testing.T) {
	t.Parallel()
	opts := options(nil)
	folder := t.TempDir() + "/pebble"
	s := mustOpen(t, folder, opts)
	writeSteps(t, s, 1, 20)
	if err := s.Index("cart.a"); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)

	s = mustOpen(t, folder, opts)
	defer mustClose(t, s)
	if got := readSteps(t, s); got != 20 {
		t.Errorf("%d steps are left of 20", got)
	}
	for id, err := range s.Names("", "") {
		if id != "cart.a" || err != nil {
			t.Errorf("Names yields %q, %v", string(id), err)
		}
	}
}

// writeSteps applies batches first to last. Each step adds an entry and says in two others how many there are.
func writeSteps(t testing.TB, s *Store, first, last int) {
	t.Helper()
	if err := applySteps(s, first, last); err != nil {
		t.Fatal(err)
	}
}

func applySteps(s *Store, first, last int) error {
	for i := first; i <= last; i++ {
		if err := s.Apply("cart.a", step(i)); err != nil {
			return err
		}
	}
	return nil
}

func step(i int) snapshot.Batch {
	n := []byte(strconv.Itoa(i))
	noise := make([]byte, 400) // that does not compress
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(noise)
	return snapshot.Batch{Entries: []snapshot.Entry{
		{Space: snapshot.Meta, Key: "count", Value: n},
		{Space: snapshot.KV, Key: fmt.Sprintf("step%06d", i), Value: noise},
		{Space: snapshot.Window, Key: "count", Value: n},
	}}
}

// readSteps is how many steps the store has. It fails the test if they are not whole and the first ones.
func readSteps(t testing.TB, s *Store) int {
	t.Helper()
	steps, err := countSteps(s)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func countSteps(s *Store) (int, error) {
	meta, err1 := s.Get("cart.a", snapshot.Meta, "count")
	window, err2 := s.Get("cart.a", snapshot.Window, "count")
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	steps, want := 0, ""
	for e, err := range s.Scan("cart.a", snapshot.KV, "", "", false) {
		if err != nil {
			return 0, err
		}
		steps++
		want = strconv.Itoa(steps)
		if e.Key != fmt.Sprintf("step%06d", steps) {
			return 0, fmt.Errorf("entry %d is %q", steps, e.Key)
		}
	}
	if string(meta) != want || string(window) != want {
		return 0, fmt.Errorf("half a batch is left: %d steps, counts %q and %q", steps, meta, window)
	}
	return steps, nil
}

// A killed process leaves the files as they are; a power cut any part of what was not synced. Either way a first part of
// the batches is left.
func TestCrashLosesAtMostATailAndNeverHalfABatch(t *testing.T) {
	t.Parallel()
	kept := map[int]int{}
	for _, percent := range []int{0, 50, 90, 100} {
		for seed := range uint64(8) {
			fs := vfs.NewCrashableMem()
			opts := options(fs)
			opts.MemTableBytes = 64 << 10
			s := mustOpen(t, dir, opts)
			syncParents(t, fs)
			last := 50 + 40*int(seed)
			writeSteps(t, s, 1, last)
			rng := rand.New(rand.NewPCG(seed, uint64(percent)))
			crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			mustClose(t, s)

			opts.FS = crashed
			s = mustOpen(t, dir, opts)
			steps := readSteps(t, s)
			if steps > last {
				t.Errorf("percent %d, seed %d: %d steps were written and %d read", percent, seed, last, steps)
			}
			if aside := asides(t, crashed); percent == 100 && len(aside) > 0 {
				t.Errorf("seed %d: a killed process left a damaged folder", seed)
			}
			kept[percent] += steps
			writeSteps(t, s, steps+1, steps+10)
			if got := readSteps(t, s); got != steps+10 {
				t.Errorf("percent %d, seed %d: %d steps after the crash, want %d", percent, seed, got, steps+10)
			}
			mustClose(t, s)
		}
	}
	if kept[100] == 0 || kept[0] == 0 {
		t.Errorf("steps left by percent of unsynced data kept: %v; want some, or the test proves nothing", kept)
	}
}

// syncParents has a crash keep the folder itself, so that something is left to look at.
func syncParents(t testing.TB, fs vfs.FS) {
	t.Helper()
	for _, parent := range []string{"", "data"} {
		d, err := fs.OpenDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func asides(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		if strings.HasPrefix(name, "pebble.corrupt-") {
			found = append(found, name)
		}
	}
	return found
}

// failures are what a full disk can refuse first, and whether the log with the first ten steps was complete by then.
var failures = map[string]struct {
	fails func(op errorfs.Op) bool
	keeps bool
}{
	"everything":   {func(op errorfs.Op) bool { return op.Kind.ReadOrWrite() == errorfs.OpIsWrite }, false},
	"the log":      {on(".log", errorfs.OpFileWrite), false},
	"a new log":    {on(".log", errorfs.OpCreate, errorfs.OpReuseForWrite), true},
	"syncs":        {on("", errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo), true},
	"a new table":  {on(".sst", errorfs.OpCreate), true},
	"a table":      {on(".sst", errorfs.OpFileWrite), true},
	"the manifest": {on("MANIFEST-", errorfs.OpFileWrite), true},
}

func on(name string, kinds ...errorfs.OpKind) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool { return slices.Contains(kinds, op.Kind) && strings.Contains(op.Path, name) }
}

func TestFailedWriteIsFatalOnceAndTheProcessGoesOn(t *testing.T) {
	t.Parallel()
	for what, tt := range failures {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			var full errorfs.Toggle
			full.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
				if tt.fails(op) {
					return syscall.ENOSPC
				}
				return nil
			})
			opts := options(errorfs.Wrap(vfs.NewMem(), &full))
			opts.MemTableBytes = 64 << 10
			told := make(chan error, 10)
			opts.OnFatal = func(err error) { told <- err }
			s := mustOpen(t, dir, opts)
			writeSteps(t, s, 1, 10)
			full.On()
			writeUntilFailure(t, s)
			if err := <-told; !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("told: %v; want ErrFailed and ENOSPC", err)
			}
			wantFailed(t, s)
			if len(told) > 0 {
				t.Errorf("told again: %v", <-told)
			}

			full.Off()
			s = mustOpen(t, dir, opts)
			defer mustClose(t, s)
			if steps := readSteps(t, s); steps > 10 || tt.keeps && steps < 10 {
				t.Errorf("%d steps are left of 10", steps)
			}
			if aside := asides(t, opts.FS); len(aside) > 0 {
				t.Errorf("the folder was set aside: %q", aside)
			}
		})
	}
}

func TestFailedReadInTheBackgroundIsFatal(t *testing.T) {
	t.Parallel()
	var broken errorfs.Toggle
	broken.Injector = errorfs.InjectorFunc(func(op errorfs.Op) error {
		if on(".sst", errorfs.OpFileReadAt)(op) {
			return syscall.EIO
		}
		return nil
	})
	opts := options(errorfs.Wrap(vfs.NewMem(), &broken))
	told := make(chan error, 10)
	opts.OnFatal = func(err error) { told <- err }
	s := mustOpen(t, dir, opts)
	broken.On()
	for s.fatal.failure() == nil { // until Pebble compacts what was flushed
		if err := errors.Join(applySteps(s, 1, 10), s.db.Flush()); err != nil && !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
	}
	if err := <-told; !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("told: %v; want ErrFailed and EIO", err)
	}
	wantFailed(t, s)
}

// writeUntilFailure has four writers, each of which has to see the failure.
func writeUntilFailure(t *testing.T, s *Store) {
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 1; ; i++ {
				if err := s.Apply(snapshot.ID("room."+strconv.Itoa(w)), step(i)); err != nil {
					if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
						t.Errorf("apply: %v; want ErrFailed and ENOSPC", err)
					}
					return
				}
			}
		})
	}
	wg.Wait()
}

// wantFailed wants the failure from all methods, Close among them.
func wantFailed(t *testing.T, s *Store) {
	t.Helper()
	_, getErr := s.Get("cart.a", snapshot.Meta, "count")
	_, viewErr := s.View()
	var scanErr, namesErr error
	for _, scanErr = range s.Scan("cart.a", snapshot.KV, "", "", false) {
	}
	for _, namesErr = range s.Names("", "") {
	}
	for what, err := range map[string]error{
		"Get": getErr, "View": viewErr, "Scan": scanErr, "Names": namesErr, "Index": s.Index("cart.a"), "Close": s.Close(),
	} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v, want ErrFailed", what, err)
		}
	}
}

func TestPebbleTalksAtDebugAndComplainsAtWarn(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	opts := options(vfs.NewMem())
	opts.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	mustClose(t, mustOpen(t, dir, opts))
	if log := out.String(); !strings.Contains(log, "level=DEBUG msg=pebble") || strings.Contains(log, "level=INFO") {
		t.Errorf("want Pebble's news at debug and nothing at info:\n%s", log)
	}
	out.Reset()
	newFatal(dir, opts).Errorf("disk %s", "slow")
	if log := out.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "disk slow") {
		t.Errorf("want a warning:\n%s", log)
	}
}
