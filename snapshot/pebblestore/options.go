package pebblestore

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The defaults of [Options]. They suit a worker with a budget of 64 MiB: Pebble takes the memory of its tables in
// memory, of which there are up to two, out of that of the cache, so the cache is about all that it uses.
const (
	CacheBytesDefault    = 16 << 20
	MemTableBytesDefault = 4 << 20
)

// Options are how a store is opened.
type Options struct {
	// Namespace is the random id of the namespace's life whose objects the store keeps. Required. A folder with another
	// one is refused with [ErrNamespace].
	Namespace string

	// FS is where the folder is. Default: the disk.
	FS vfs.FS

	// CacheBytes is the memory for blocks of files and for tables in memory, in bytes. Default [CacheBytesDefault].
	CacheBytes int64

	// MemTableBytes is the size of a table in memory, in bytes: what is written to a file at once. Two can exist, and
	// writes wait when both are full. From 64 KiB to 1 GiB; default [MemTableBytesDefault].
	MemTableBytes int

	// Logger gets what Pebble tells: its news at debug, its errors at warn. Default [slog.Default].
	Logger *slog.Logger

	// OnFatal is called once, at the first error after which the store cannot be used: a failed write, damage, or failed
	// work in the background. All methods return [ErrFailed] from then on. It is called from any goroutine and with
	// Pebble's locks held, so it must return quickly and not use the store. Default: the error is logged.
	OnFatal func(error)
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.CacheBytes = cmp.Or(o.CacheBytes, CacheBytesDefault)
	o.MemTableBytes = cmp.Or(o.MemTableBytes, MemTableBytesDefault)
	o.Logger = cmp.Or(o.Logger, slog.Default())
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { o.Logger.Error("snapshot store cannot be used any more", "err", err) }
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Namespace == "" {
		errs = append(errs, errors.New("Namespace is required"))
	}
	if o.CacheBytes < 0 {
		errs = append(errs, fmt.Errorf("CacheBytes is %d; want at least 0", o.CacheBytes))
	}
	if o.MemTableBytes < 64<<10 || o.MemTableBytes > 1<<30 {
		errs = append(errs, fmt.Errorf("MemTableBytes is %d; want %d to %d", o.MemTableBytes, 64<<10, 1<<30))
	}
	return errors.Join(errs...)
}

// pebbleOptions has what differs from Pebble's own defaults. The format is pinned, so that a newer Pebble does not
// upgrade folders by itself.
func (o Options) pebbleOptions(lock *pebble.Lock, f *fatal) *pebble.Options {
	return &pebble.Options{
		FS:                 newFreezingFS(o.FS, f),
		Lock:               lock,
		CacheSize:          o.CacheBytes,
		MemTableSize:       uint64(o.MemTableBytes),
		FormatMajorVersion: pebble.FormatTableFormatV6,
		Logger:             f,
		EventListener:      f.listener(),
	}
}
