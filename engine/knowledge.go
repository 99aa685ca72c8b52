package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// knowledge is what a worker itself knows of a partition's stream: how far it went under the last epoch that the worker had there. It is
// in memory, and in the store, so that a restart does not forget it.
type knowledge struct {
	Life  uint64          `json:"life"`
	Epoch journal.EpochID `json:"epoch"`
	At    journal.Seq     `json:"at"`  // of the epoch record
	Seq   journal.Seq     `json:"seq"` // the highest that was acknowledged; 0: nothing is known
}

// knownOf names what the store keeps of a partition. It is nobody's object: "v1" is no class.
func knownOf(p int) snapshot.ID { return snapshot.ID(fmt.Sprintf("v1.partition-%d", p)) }

// know remembers how far a stream went, to compare when the partition is begun again. The store is told of what no power cut can take.
func (w *Worker) know(ep *epoch) error {
	k := knowledge{ep.life, ep.id, ep.seq, ep.committer.high()}
	w.mu.Lock()
	if was := w.high[ep.p]; was.Epoch == k.Epoch {
		k.Seq = max(k.Seq, was.Seq)
	}
	w.high[ep.p] = k
	w.mu.Unlock()
	if k.Seq = ep.committer.lasting(); k.Seq <= ep.kept {
		return nil
	}
	value, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := w.store.Apply(knownOf(ep.p), snapshot.Batch{Entries: []snapshot.Entry{{Space: snapshot.Meta, Value: value}}}); err != nil {
		return w.storeFailed(err)
	}
	ep.kept = k.Seq
	return nil
}

// known is what the worker knows of a partition; nothing if a loss was accepted since.
func (w *Worker) known(p int, life uint64) knowledge {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := w.high[p]; k.Life >= life {
		return k
	}
	return knowledge{}
}

// remember takes up what a former run of the worker has kept. The store is a cache: what is not there is not known.
func (w *Worker) remember() {
	for p := range w.cfg.Partitions {
		value, err := w.store.Get(knownOf(p), snapshot.Meta, "")
		if value == nil && err == nil {
			continue
		}
		var k knowledge
		if err == nil {
			err = json.Unmarshal(value, &k)
		}
		if err != nil {
			w.log.Warn("what the worker knew of a stream is not readable", "partition", p, "err", err)
			continue
		}
		w.mu.Lock()
		w.high[p] = k
		w.mu.Unlock()
	}
}

// held holds it against the stream, and returns how far that can be what it was: behind the last epoch that the worker had, another begins
// above all that was acknowledged under it. So a loss is seen, too, when somebody who does not know of it has lifted the stream.
func (k knowledge) held(ctx context.Context, log journal.Log, epochs string) (have journal.Seq, err error) {
	_, end, err := log.Range(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the stream's end: %w", err)
	}
	if end < k.Seq {
		return end, nil
	}
	m, err := log.At(ctx, k.At)
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return 0, fmt.Errorf("read the last own epoch: %w", err)
	}
	if r, bad := journal.DecodeEpoch(m.Data); err != nil || bad != nil || r.Epoch != k.Epoch {
		return k.At - 1, nil
	}
	for m, err := range log.Read(ctx, epochs, k.At+1) {
		if err != nil {
			return 0, fmt.Errorf("read the epoch after the last own one: %w", err)
		}
		return min(m.Seq-1, k.Seq), nil
	}
	return k.Seq, nil
}

// heldBy is held by the epochs of a stream, of which the last has just begun. Where a loss was accepted no epoch is known: then it is the
// last that counts.
func (k knowledge) heldBy(epochs []mark) (have journal.Seq) {
	next := len(epochs) - 1
	if k.At > 0 {
		i, found := slices.BinarySearchFunc(epochs, k.At, func(m mark, at journal.Seq) int { return cmp.Compare(m.seq, at) })
		if !found || epochs[i].id != k.Epoch {
			return min(k.At-1, k.Seq)
		}
		next = i + 1
	}
	if next == len(epochs) {
		return k.Seq
	}
	return min(epochs[next].seq-1, k.Seq)
}

// recallAnswers is how many answers have to show a loss. They take less than the time that recallAll has.
const recallAnswers = 8

// recall holds what this worker knows of a partition against its stream. It returns the alarm, which the witness has then: nobody else may
// know, and whoever has the partition is to hear of it.
//
// The alarm stays, so it takes more than one answer: a server that was stopped may say what it had when it led the stream.
func (s *session) recall(ctx context.Context, log journal.Log, p int, w journal.Witness) error {
	k := s.w.known(p, w.Life)
	if k.Seq == 0 || w.Alarm != nil {
		return nil //nolint:nilerr // it is told already
	}
	var have journal.Seq
	for range recallAnswers {
		var err error
		if have, err = k.held(ctx, log, s.w.ns.Epoch(p)); err != nil || have >= k.Seq {
			return err
		}
		if err := sleep(ctx, s.w.cfg.LeaseTerm/20); err != nil {
			return err
		}
	}
	alarm := &journal.WentBackError{Stream: log.Stream(), Partition: p, Witness: "worker " + s.w.cfg.ID, Known: k.Seq, Have: have, Life: k.Life}
	if err := s.raise(alarm); err != nil {
		return err
	}
	return alarm
}

// recallAll holds what this worker knows of all partitions against their streams, before it takes part again: until then its former lease
// keeps others from beginning epochs where it was the last. What cannot be read now is looked at later.
func (s *session) recallAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.w.cfg.LeaseTerm/2)
	defer cancel()
	var all sync.WaitGroup
	for p := range s.claims {
		if s.w.known(p, 0).Seq > 0 {
			s.claims[p].unsure = true
			all.Go(func() { _ = s.recallNow(ctx, p) }) // tried again by begin
		}
	}
	all.Wait()
}

// recallNow does it for one partition. An alarm that the witness has is told by whoever has the partition.
func (s *session) recallNow(ctx context.Context, p int) error {
	w, _, err := journal.ReadWitness(ctx, s.js.Meta(), p)
	if err == nil {
		err = s.recall(ctx, s.js.Log(p), p, w)
	}
	if back, ok := errors.AsType[*journal.WentBackError](err); ok {
		s.w.log.Error("alarm", "partition", p, "err", back)
		err = nil
	}
	if err == nil {
		s.claims[p].unsure = false
	}
	return err
}
