package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// compare holds what the witness and this worker know against the stream. The same owner compares too.
func (s *session) compare(ctx context.Context, log journal.Log, p int, w journal.Witness, last *journal.EpochRecord, at journal.Seq) error {
	_, end, err := log.Range(ctx)
	if err != nil {
		return fmt.Errorf("read the stream's end: %w", err)
	}
	back := func(what string, known, have journal.Seq) *journal.WentBackError {
		return &journal.WentBackError{Stream: log.Stream(), Partition: p, Witness: what, Known: known, Have: have}
	}
	key := "the key " + journal.WitnessKey(p)
	if err := s.recall(ctx, log, p, w); err != nil {
		return err
	}
	switch {
	case w.Alarm != nil:
		return w.Alarm
	case w.Acked > end:
		return back(key, w.Acked, end)
	case w.EpochSeq == 0:
		return nil
	case last == nil || at < w.EpochSeq || last.Epoch.Number < w.Epoch.Number:
		return back(key, w.EpochSeq, at)
	}
	m, err := log.At(ctx, w.EpochSeq)
	if errors.Is(err, journal.ErrNotFound) {
		return back(key, w.EpochSeq, 0)
	}
	if err != nil {
		return fmt.Errorf("read the epoch that the witness names: %w", err)
	}
	if r, err := journal.DecodeEpoch(m.Data); err != nil || r.Epoch != w.Epoch {
		return back(key, w.EpochSeq, w.EpochSeq)
	}
	return nil
}

// takeWitness makes the witness know a new epoch, before it serves. The former owner may still be noting how far its own went: that is
// before the epoch, or the stream lost it.
func (s *session) takeWitness(ctx context.Context, ep *epoch, w journal.Witness, rev, acked journal.Seq) error {
	for before := w.Epoch; ; {
		if err := s.compareFenced(ep, w); err != nil {
			return err
		}
		w.Epoch, w.EpochSeq, w.Acked = ep.id, ep.seq, acked
		_, err := s.js.Meta().Put(ctx, journal.WitnessKey(ep.p), w.Encode(), rev)
		if !errors.Is(err, journal.ErrConflict) {
			return err
		}
		now, nowRev, err2 := journal.ReadWitness(ctx, s.js.Meta(), ep.p)
		if err2 != nil || now.Epoch != before || now.Life != w.Life || now.Alarm != nil {
			return errors.Join(err, err2)
		}
		w, rev = now, nowRev
	}
}

// compareFenced holds what the witness and this worker know against where the epochs begin, now that the new one has: what the stream lost
// between the look and the fence, the fence's messages have lifted it over. Each epoch begins above all that was acknowledged before it. The
// witness has the alarm then, since no length shows the loss any more.
func (s *session) compareFenced(ep *epoch, w journal.Witness) error {
	known := map[string]knowledge{
		"the key " + journal.WitnessKey(ep.p): {Life: w.Life, Epoch: w.Epoch, At: w.EpochSeq, Seq: w.Acked},
		"worker " + s.w.cfg.ID:                s.w.known(ep.p, w.Life),
	}
	for _, who := range slices.Sorted(maps.Keys(known)) {
		k := known[who]
		have := k.heldBy(ep.history)
		if have >= k.Seq {
			continue
		}
		alarm := &journal.WentBackError{Stream: ep.log.Stream(), Partition: ep.p, Witness: who, Known: k.Seq, Have: have, Life: k.Life}
		if err := s.raise(alarm); err != nil {
			return err
		}
		return alarm
	}
	return nil
}

// witness notes how far the stream is known to go, and looks whether another worker knows of a loss.
func (s *session) witness(ep *epoch) error {
	if err := s.w.know(ep); err != nil {
		return err
	}
	high := ep.committer.lasting()
	ctx, cancel := context.WithTimeout(ep.ctx, s.trust.term)
	defer cancel()
	return s.updateWitness(ctx, ep, high)
}

func (s *session) updateWitness(ctx context.Context, ep *epoch, high journal.Seq) error {
	w, rev, err := journal.ReadWitness(ctx, s.js.Meta(), ep.p)
	switch {
	case err != nil:
		s.w.log.Warn("witness not read", "partition", ep.p, "err", err)
		return nil
	case w.Epoch != ep.id || w.Life != ep.life:
		return fmt.Errorf("%w: the witness names epoch %s", errEpochOver, w.Epoch)
	case w.Alarm != nil: // by a worker that knows of a loss which this one was not told of
		ep.w.alarm(ep.p, w.Alarm)
		return w.Alarm
	case w.Acked >= high: // whoever appends is told by what is refused; who does not has to look
		return s.stillThere(ctx, ep)
	}
	w.Acked = high
	if _, err := s.js.Meta().Put(ctx, journal.WitnessKey(ep.p), w.Encode(), rev); err != nil {
		s.w.log.Warn("witness not written; tried again", "partition", ep.p, "err", err)
	}
	return nil
}

// stillThere looks whether the stream still has the epoch: somebody may have deleted it, or made it anew.
func (s *session) stillThere(ctx context.Context, ep *epoch) error {
	m, err := ep.log.At(ctx, ep.seq)
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return nil // it is not known; the next look is soon
	}
	if r, bad := journal.DecodeEpoch(m.Data); err != nil || bad != nil || r.Epoch != ep.id {
		return fmt.Errorf("%w: its record is not at %d any more", errEpochOver, ep.seq)
	}
	return nil
}

// raise makes the witness keep an alarm that a snapshot or a worker's memory gave, unless that loss was accepted meanwhile.
func (s *session) raise(alarm *journal.WentBackError) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.w.cfg.LeaseTerm)
	defer cancel()
	for {
		w, rev, err := journal.ReadWitness(ctx, s.js.Meta(), alarm.Partition)
		if err != nil || w.Alarm != nil || w.Life > alarm.Life {
			return err
		}
		w.Alarm = alarm
		if _, err = s.js.Meta().Put(ctx, journal.WitnessKey(alarm.Partition), w.Encode(), rev); errors.Is(err, journal.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("have the witness keep %q: %w", alarm, err) //nolint:errorlint // it is not the alarm: nobody has it yet
		}
		return nil
	}
}

// Recall holds against a partition's stream what is kept elsewhere of how far it went, and by whom, and has the witness keep the alarm if
// the stream is shorter. It is called before a worker serves the partition. The witness itself may have lost more than the stream, so what it
// knows of epochs does not go with that position.
func Recall(ctx context.Context, js journal.Session, p int, by string, acked journal.Seq) error {
	w, rev, err := journal.ReadWitness(ctx, js.Meta(), p)
	if err != nil || w.Alarm != nil {
		return err
	}
	_, end, err := js.Log(p).Range(ctx)
	if err != nil {
		return fmt.Errorf("read the stream's end: %w", err)
	}
	if end >= acked {
		return nil
	}
	w.Alarm = &journal.WentBackError{Stream: js.Log(p).Stream(), Partition: p, Witness: by, Known: acked, Have: end, Life: w.Life}
	if _, err := js.Meta().Put(ctx, journal.WitnessKey(p), w.Encode(), rev); err != nil {
		return fmt.Errorf("write the witness of partition %d: %w", p, err)
	}
	return nil
}

// Loss is what [AcceptJournal] takes.
type Loss struct {
	Partition int         `json:"partition"`
	Stream    string      `json:"stream"`
	Known     journal.Seq `json:"known"` // the highest position that a witness knows
	Have      journal.Seq `json:"have"`  // where the stream ends
	Epoch     string      `json:"epoch"` // the last that a witness knows
	Why       string      `json:"why"`

	life uint64 // the latest that a witness knows of
}

// AcceptJournal accepts that a partition's stream came back shorter than its witness knows. It tells confirm what is
// lost, and if that agrees it lifts the stream with fillers above every position that any witness knows, so that no
// position is ever used twice, and makes the witness fit. It returns false if nothing is to be accepted or confirm
// declines. No worker may serve the partition meanwhile: one that sees the alarm does not.
func AcceptJournal(ctx context.Context, js journal.Session, ns wire.Subjects, p int, confirm func(Loss) bool) (bool, error) {
	log := js.Log(p)
	w, rev, err := journal.ReadWitness(ctx, js.Meta(), p)
	if err != nil {
		return false, err
	}
	loss, err := findLoss(ctx, js, ns, p, w)
	if err != nil || loss == nil || !confirm(*loss) {
		return false, err
	}
	end, err := lift(ctx, log, ns.Fence(p), loss.Known+journal.Window)
	if err != nil {
		return false, fmt.Errorf("lift stream %s: %w", log.Stream(), err)
	}
	next := w
	next.EpochSeq, next.Acked, next.Life, next.Alarm = 0, end, loss.life+1, nil
	next.Accepted = &journal.Acceptance{At: time.Now().UTC(), Known: loss.Known, Had: loss.Have, Why: loss.Why}
	if _, err := js.Meta().Put(ctx, journal.WitnessKey(p), next.Encode(), rev); err != nil {
		return false, fmt.Errorf("write the witness: %w", err)
	}
	return true, nil
}

// findLoss holds a witness against its partition's stream; nil if the stream has all that the witness knows.
func findLoss(ctx context.Context, js journal.Session, ns wire.Subjects, p int, w journal.Witness) (*Loss, error) {
	log := js.Log(p)
	last, at, err := lastEpoch(ctx, log, ns.Epoch(p))
	if err != nil {
		return nil, err
	}
	s := &session{w: &Worker{}, js: js} // one that remembers nothing itself
	err = s.compare(ctx, log, p, w, last, at)
	back, ok := errors.AsType[*journal.WentBackError](err)
	if !ok {
		return nil, err
	}
	_, end, err := log.Range(ctx)
	if err != nil {
		return nil, err
	}
	if w.Alarm != nil {
		end = min(end, w.Alarm.Have) // what is behind it came after the loss
	}
	return &Loss{p, log.Stream(), max(w.Acked, w.EpochSeq+journal.Window, back.Known), end, w.Epoch.String(), back.Error(), max(w.Life, back.Life)}, nil
}

// lift appends fillers until the stream ends above a position.
func lift(ctx context.Context, log journal.Log, fence string, above journal.Seq) (end journal.Seq, err error) {
	if _, end, err = log.Range(ctx); err != nil {
		return 0, err
	}
	last := journal.Seq(0)
	if m, err := log.Last(ctx, fence); err == nil {
		last = m.Seq
	} else if !errors.Is(err, journal.ErrNotFound) {
		return 0, err
	}
	for end <= above {
		messages := make([]journal.Message, min(journal.BatchMax, int(above-end)+1))
		for i := range messages {
			messages[i] = journal.Message{Subject: fence}
		}
		if end, err = log.Begin(ctx, last, messages...); err != nil {
			return 0, err
		}
		last = end
	}
	return end, nil
}
