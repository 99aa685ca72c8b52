package journal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Witness is what is known of a partition's stream outside of it: the key [WitnessKey] of the bucket. A stream that does
// not have it came back shorter, by a power cut with relaxed sync, a restore, a damaged block, or because it was made
// anew.
type Witness struct {
	Epoch    EpochID     `json:"epoch"`     // the last that began
	EpochSeq Seq         `json:"epoch_seq"` // its record's position; 0 if none is expected to be there
	Acked    Seq         `json:"acked"`     // the highest position that is known to have been stored
	Life     uint64      `json:"life"`      // grows when a loss is accepted
	Accepted *Acceptance `json:"accepted,omitempty"`

	// Alarm is what a snapshot, a worker or the witness itself knew that the stream does not have. Fillers of an epoch may have lifted
	// the stream since, so it would not be seen again.
	Alarm *WentBackError `json:"alarm,omitempty"`

	kept Extra
}

// Acceptance says which loss of a partition's journal was accepted last.
type Acceptance struct {
	At    time.Time `json:"at"`
	Known Seq       `json:"known"` // the highest position that a witness knew
	Had   Seq       `json:"had"`   // where the stream ended
	Why   string    `json:"why"`
}

// WitnessKey is the key of a partition's witness in the bucket.
func WitnessKey(partition int) string { return fmt.Sprintf("part.%d", partition) }

// Encode is the witness as the value of its key.
func (w Witness) Encode() []byte {
	b, err := EncodeKeeping(w, w.kept)
	if err != nil {
		panic(fmt.Sprintf("journal: a witness does not encode: %v", err)) // its fields always do
	}
	return b
}

// ReadWitness reads a partition's witness and the revision of its key. One that is not there is zero: nothing is known.
func ReadWitness(ctx context.Context, meta Meta, partition int) (w Witness, rev Seq, err error) {
	value, rev, err := meta.Get(ctx, WitnessKey(partition))
	if errors.Is(err, ErrNotFound) {
		return w, rev, nil
	}
	if err == nil {
		w.kept, err = DecodeKeeping(value, &w)
	}
	if err != nil {
		return w, rev, fmt.Errorf("witness of partition %d: %w", partition, err)
	}
	return w, rev, nil
}

// WentBackError is the alarm "journal went back": a witness knows of something that the stream does not have. The
// partition serves nothing until the loss is accepted.
type WentBackError struct {
	Stream    string `json:"stream"`
	Partition int    `json:"partition"`
	Known     Seq    `json:"known"` // what the witness knows
	Have      Seq    `json:"have"`  // where the stream ends, or what it has there
	Witness   string `json:"witness"`
	Life      uint64 `json:"life,omitempty"` // what the witness knew of [Witness].Life
}

func (e *WentBackError) Error() string {
	return fmt.Sprintf("journal went back: %s knows of sequence %d of stream %s, which has %d; nothing of partition %d is served until `perdure accept-journal %d` says what is lost and takes it",
		e.Witness, e.Known, e.Stream, e.Have, e.Partition, e.Partition)
}
