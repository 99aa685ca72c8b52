package pebblestore

import (
	"errors"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/perdure/perdure/snapshot"
)

// BenchmarkApply applies batches of three entries to 1024 objects in turn, on disk, with the log that the store writes
// and without one.
func BenchmarkApply(b *testing.B) {
	for _, wal := range []bool{true, false} {
		b.Run("wal="+strconv.FormatBool(wal), func(b *testing.B) {
			s := benchStore(b, wal)
			batch := snapshot.Batch{Entries: []snapshot.Entry{
				{Space: snapshot.Meta, Key: "position", Value: make([]byte, 48)},
				{Space: snapshot.KV, Key: "count", Value: make([]byte, 8)},
				{Space: snapshot.Window, Key: "01J8Z3T4V5W6X7Y8Z9A0B1C2D3", Value: make([]byte, 64)},
			}}
			ids := benchIDs()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.Apply(ids[i%len(ids)], batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGet gets one entry of 1024 objects in turn: from memory, from a file, and where there is none.
func BenchmarkGet(b *testing.B) {
	s := benchStore(b, true)
	ids := benchIDs()
	for _, id := range ids {
		err := s.Apply(id, snapshot.Batch{Entries: []snapshot.Entry{{Space: snapshot.KV, Key: "count", Value: make([]byte, 8)}}})
		if err != nil {
			b.Fatal(err)
		}
	}
	get := func(key string) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := s.Get(ids[i%len(ids)], snapshot.KV, key); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("memtable", get("count"))
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	b.Run("file", get("count"))
	b.Run("absent", get("none"))
}

func benchIDs() []snapshot.ID {
	ids := make([]snapshot.ID, 1024)
	for i := range ids {
		ids[i] = snapshot.ID("counter.checkout-cart-" + strconv.Itoa(i))
	}
	return ids
}

func benchStore(b *testing.B, wal bool) *Store {
	b.Helper()
	folder := filepath.Join(b.TempDir(), "pebble")
	opts := options(nil).withDefaults()
	lock, err := lockDir(folder, opts)
	if err != nil {
		b.Fatal(err)
	}
	f := newFatal(folder, opts)
	po := opts.pebbleOptions(lock, f)
	po.DisableWAL = !wal
	db, err := pebble.Open(folder, po)
	if err != nil {
		b.Fatal(errors.Join(err, lock.Close()))
	}
	s := &Store{reader: reader{from: db, fatal: f}, db: db, lock: lock}
	b.Cleanup(func() { mustClose(b, s) })
	return s
}
