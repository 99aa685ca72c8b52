package pebblestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrFailed is in every error of a store that has met a fatal error. Close it, and open the folder again.
var ErrFailed = errors.New("the snapshot store has failed")

// damageFile is a file that marks a folder that was found damaged while it was open. Opening alone does not read all
// files and would find nothing, so without the mark a worker would start, meet the damage and stop, again and again.
const damageFile = "DAMAGED"

// fatal is the first fatal error of a database, and what tells Pebble's news. It is Pebble's logger: its Fatalf is
// expected to end the process, but here it returns, and each method of the store looks for the error instead.
type fatal struct {
	log *slog.Logger
	fs  vfs.FS
	dir string

	done chan struct{} // closed when err is set

	// mu is held to set the fields below. Whoever has seen done closed may read err without it.
	mu   sync.Mutex
	err  error
	tell func(error) // nil while Open runs
}

func newFatal(dir string, opts Options) *fatal {
	return &fatal{log: opts.Logger, fs: opts.FS, dir: dir, done: make(chan struct{})}
}

// arm has a later error told. It returns the one that is there already.
func (f *fatal) arm(tell func(error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tell = tell
	return f.err
}

// failure is the fatal error, nil as long as there is none.
func (f *fatal) failure() error {
	select {
	case <-f.done:
		return f.err
	default:
		return nil
	}
}

// fail keeps the first error and tells it. Pebble may hold locks while it calls.
func (f *fatal) fail(err error) {
	f.mu.Lock()
	if f.err != nil {
		f.mu.Unlock()
		return
	}
	f.err = fmt.Errorf("%w: %w", ErrFailed, err)
	close(f.done)
	tell := f.tell
	f.mu.Unlock()

	if pebble.IsCorruptionError(err) {
		f.markDamaged()
	}
	if tell != nil {
		tell(f.err)
	}
}

// read is the error of a read: the fatal one, if the read met damage.
func (f *fatal) read(err error) error {
	if err == nil {
		return nil
	}
	return cmp.Or(f.failure(), err)
}

func (f *fatal) markDamaged() {
	file, err := f.fs.Create(f.fs.PathJoin(f.dir, damageFile), vfs.WriteCategoryUnspecified)
	if err == nil {
		err = errors.Join(file.Sync(), file.Close())
	}
	if err != nil {
		f.log.Warn("snapshot store cannot be marked as damaged: delete its folder before the next start", "dir", f.dir, "err", err)
	}
}

// listener has Pebble's events logged, and takes those as fatal after which Pebble would retry for ever.
func (f *fatal) listener() *pebble.EventListener {
	l := pebble.MakeLoggingEventListener(f)
	l.BackgroundError = func(err error) { f.fail(fmt.Errorf("work in the background: %w", err)) }
	l.DataCorruption = func(info pebble.DataCorruptionInfo) {
		f.fail(fmt.Errorf("read %s: %w", info.Path, info.Details))
	}
	return &l
}

// Infof implements Pebble's logger.
func (f *fatal) Infof(format string, args ...any) { f.logf(slog.LevelDebug, format, args) }

// Errorf implements Pebble's logger.
func (f *fatal) Errorf(format string, args ...any) { f.logf(slog.LevelWarn, format, args) }

// Fatalf implements Pebble's logger. It returns.
func (f *fatal) Fatalf(format string, args ...any) { f.fail(fmt.Errorf(format, args...)) }

func (f *fatal) logf(level slog.Level, format string, args []any) {
	if ctx := context.Background(); f.log.Enabled(ctx, level) {
		f.log.Log(ctx, level, "pebble", "dir", f.dir, "event", fmt.Sprintf(format, args...))
	}
}
