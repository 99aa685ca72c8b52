// Package pebblestore is the [snapshot.Store] on disk, on Pebble.
//
// It writes a write-ahead log and never syncs it. A killed process loses at most the end of the log that Pebble had not
// yet given to the system, which it does in blocks of 32 KiB. A power cut loses at most what was applied since Pebble last
// began a new log, for which it syncs the one before, or, if the disk kept a later page of the log and not an earlier one,
// everything: the store is a cache, so a damaged folder is no error, [Open] moves it aside and begins empty.
package pebblestore

import (
	"errors"
	"fmt"
	"iter"

	"github.com/cockroachdb/pebble/v2"

	"github.com/perdure/perdure/snapshot"
)

// Store is a [snapshot.Store] in a folder. [Open] makes one. Safe for concurrent use.
type Store struct {
	reader
	db   *pebble.DB
	lock *pebble.Lock
}

var _ snapshot.Store = (*Store)(nil)

// Apply applies a batch; see [snapshot.Store].
func (s *Store) Apply(id snapshot.ID, b snapshot.Batch) error {
	if err := id.Check(); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if len(b.Entries) == 0 && !b.Clear {
		return nil
	}
	batch := s.db.NewBatch()
	if err := fill(batch, id, b); err != nil {
		return fmt.Errorf("apply to object %s: %w", id, errors.Join(err, batch.Close()))
	}
	if err := s.commit(batch); err != nil {
		return fmt.Errorf("apply to object %s: %w", id, err)
	}
	return nil
}

// fill writes a batch of ours into one of Pebble's. There a later operation wins over an earlier one, so that the
// deleted range spares what follows.
func fill(batch *pebble.Batch, id snapshot.ID, b snapshot.Batch) error {
	if b.Clear {
		lower, upper := objectBounds(id)
		if err := batch.DeleteRange(lower, upper, nil); err != nil {
			return err
		}
	}
	for _, e := range b.Entries {
		var op *pebble.DeferredBatchOp
		if e.Value == nil {
			op = batch.DeleteDeferred(keySize(id, e.Key))
		} else {
			op = batch.SetDeferred(keySize(id, e.Key), len(e.Value))
			copy(op.Value, e.Value)
		}
		appendKey(op.Key[:0], id, e.Space, e.Key)
		if err := op.Finish(); err != nil {
			return err
		}
	}
	return nil
}

// commit writes the batch and closes it.
func (s *Store) commit(batch *pebble.Batch) error {
	if err := s.fatal.failure(); err != nil {
		return errors.Join(err, batch.Close())
	}
	if err := s.db.Apply(batch, pebble.NoSync); err != nil {
		s.fatal.fail(err)
	}
	// Pebble tells some failures to its logger only.
	return errors.Join(s.fatal.failure(), batch.Close())
}

// View is the store as it is now; see [snapshot.Store].
func (s *Store) View() (snapshot.View, error) {
	if err := s.fatal.failure(); err != nil {
		return nil, fmt.Errorf("view: %w", err)
	}
	return view{reader{from: s.db.NewSnapshot(), fatal: s.fatal}}, nil
}

// Index adds names to the list of all objects; see [snapshot.Store].
func (s *Store) Index(ids ...snapshot.ID) error {
	batch := s.db.NewBatch()
	for _, id := range ids {
		if err := errors.Join(id.Check(), batch.Set(indexKey(id), nil, nil)); err != nil {
			return fmt.Errorf("index: %w", errors.Join(err, batch.Close()))
		}
	}
	if err := s.commit(batch); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// Names yields names of the list; see [snapshot.Store].
func (s *Store) Names(prefix, after string) iter.Seq2[snapshot.ID, error] {
	return s.names(prefix, after)
}

// Close writes out what was applied and unlocks the folder. It returns the fatal error, if there was one.
func (s *Store) Close() error {
	if err := errors.Join(s.db.Close(), s.fatal.failure(), s.lock.Close()); err != nil {
		return fmt.Errorf("close snapshot store: %w", err)
	}
	return nil
}
