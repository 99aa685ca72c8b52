package engine

import (
	"context"
	"errors"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Ownership is what the log and the bucket say of who owns a partition, to somebody who owns nothing.
type Ownership struct {
	Partition int
	Worker    string        // of the last epoch; empty if none has begun yet
	Epoch     uint64        // its number
	Software  string        // the worker's version when it began
	Released  bool          // nobody owns the partition
	Begun     []time.Time   // when the epochs of the stream began, by the server's clock, in order
	LeaseTerm time.Duration // of that worker; 0 if its lease is not there
	Loss      *Loss         // what a witness knows and the stream does not have

	// Recorded and Stored are when the partition's last record was made, by the worker's clock, and when it was stored,
	// by the server's. Zero if there is none.
	Recorded, Stored time.Time
}

// LargestRecord is the largest record, in bytes, that a server takes whose largest message has so many.
func LargestRecord(payloadMax int) int { return payloadMax - payloadReserve }

// ReadOwnership reads who owns a partition and whether its journal went back. It changes nothing, and what it says may
// be old already.
func ReadOwnership(ctx context.Context, js journal.Session, ns wire.Subjects, p int) (Ownership, error) {
	o := Ownership{Partition: p}
	log := js.Log(p)
	w, _, err := journal.ReadWitness(ctx, js.Meta(), p) // before the stream, which only grows
	if err != nil {
		return o, err
	}
	if o.Loss, err = findLoss(ctx, js, ns, p, w); err != nil {
		return o, err
	}
	for m, err := range log.Read(ctx, ns.Epoch(p), 1) {
		if err != nil {
			return o, err
		}
		r, err := journal.DecodeEpoch(m.Data)
		if err != nil {
			return o, &journal.CorruptError{Stream: log.Stream(), Seq: m.Seq, Err: err}
		}
		o.Worker, o.Epoch, o.Software, o.Released = r.Worker, r.Epoch.Number, r.Software, r.Release
		if !r.Release {
			o.Begun = append(o.Begun, m.Time)
		}
	}
	if o.Worker == "" {
		return o, nil
	}
	holder, err := (&session{js: js}).readLease(ctx, o.Worker)
	if err != nil {
		return o, err
	}
	o.LeaseTerm = holder.term()
	return o, o.readLast(ctx, log, ns)
}

// readLast reads the partition's last record. One that cannot be read is not for here to judge.
func (o *Ownership) readLast(ctx context.Context, log journal.Log, ns wire.Subjects) error {
	m, err := log.Last(ctx, ns.JournalOf("*"))
	if errors.Is(err, journal.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r, err := journal.DecodeRecord(m.Data); err == nil {
		o.Recorded, o.Stored = r.At, m.Time
	}
	return nil
}
