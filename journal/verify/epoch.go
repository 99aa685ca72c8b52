package verify

import (
	"errors"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// ownership is the last epoch that was read, and its fence.
type ownership struct {
	id       journal.EpochID
	seq      journal.Seq // of its record; 0 if that was not read
	record   journal.EpochRecord
	released journal.Seq     // of its release; 0: not released
	lost     journal.EpochID // a later one that messages name and whose record was not read

	need    int // fillers behind its record: as many as its former owner could have in flight
	fillers int // of these, those that were read
}

func (o *ownership) String() string {
	if o.id == (journal.EpochID{}) {
		return "none"
	}
	return o.id.String()
}

func (o *ownership) fenceOpen() bool { return o.seq != 0 && o.fillers < o.need }

// checkFence says whether something stands where a filler must. Purged fillers leave their places empty for ever.
func (c *Checker) checkFence(m journal.Message) {
	o := &c.owner
	switch {
	case o.seq == 0 || m.Seq > o.seq+journal.Seq(o.need):
	case m.Subject == c.subject.fence:
		o.fillers++
	case m.Subject == c.subject.epoch: // and what the former owners had in flight is behind this one's fence
		c.warn(m.Seq, "", Fence, "it begins in the fence of epoch %s: a power cut took the rest of that", o.id)
		o.need = 0
	default:
		c.severe(m.Seq, "", Fence, "it stands in the fence of epoch %s, whose %d places behind sequence %d are for fillers: what the former owner had in flight could be stored", o.id, o.need, o.seq)
		o.need = 0
	}
}

// filler takes a message on the fence's subject: of an epoch's batch, or one that lifted the stream when a loss was
// accepted.
func (c *Checker) filler(m journal.Message) {
	if _, ok := m.Header[wire.HeaderEpoch]; ok && !c.counts(m, "") {
		return
	}
	if len(m.Data) > 0 {
		c.warn(m.Seq, "", Stray, "it is on the fence's subject, and no filler: those are empty")
	}
}

// epochRecord takes a message on the epoch subject: an epoch begins, or is released.
func (c *Checker) epochRecord(m journal.Message) {
	r, err := journal.DecodeEpoch(m.Data)
	id, err2 := journal.ParseEpochID(m.Header[wire.HeaderEpoch])
	if err = errors.Join(err, err2); err == nil {
		err = readable(m)
	}
	switch {
	case err != nil:
		c.severe(m.Seq, "", Format, "%v", err)
		if err2 == nil && id.Number > c.owner.id.Number {
			c.owner = ownership{id: id} // what it begins is known by the header
		}
		return
	case id != r.Epoch:
		c.severe(m.Seq, "", Epoch, "its header names epoch %s and its payload %s", id, r.Epoch)
	}
	if r.Release {
		c.release(m, r)
	} else {
		c.begin(m, r)
	}
}

func (c *Checker) release(m journal.Message, r journal.EpochRecord) {
	o := &c.owner
	switch {
	case r.Epoch != o.id:
		c.severe(m.Seq, "", Epoch, "it releases epoch %s, and the last is %s", r.Epoch, o)
	case o.seq != 0 && (r.Worker != o.record.Worker || r.Incarnation != o.record.Incarnation):
		c.severe(m.Seq, "", Epoch, "worker %s (%v) releases epoch %s of worker %s (%v)", r.Worker, r.Incarnation, o.id, o.record.Worker, o.record.Incarnation)
	case o.released != 0:
		c.warn(m.Seq, "", Epoch, "epoch %s was released already, at sequence %d", o.id, o.released)
	}
	if r.Epoch == o.id && o.released == 0 {
		o.released = m.Seq
	}
}

func (c *Checker) begin(m journal.Message, r journal.EpochRecord) {
	c.report.Epochs++
	o := &c.owner
	switch {
	case r.Epoch.Number <= o.id.Number:
		c.severe(m.Seq, "", Epoch, "epoch %s begins, and the last was %s: numbers only grow", r.Epoch, o)
	case r.Before != r.Epoch.Number-1:
		c.severe(m.Seq, "", Epoch, "epoch %s says that the one before it was %d", r.Epoch, r.Before)
	case r.Before == o.id.Number || r.Before == o.lost.Number:
	default:
		c.missing(m.Seq, "", Epoch, "epoch %s begins, and the last was %s: those between are not there", r.Epoch, o)
	}
	if o.seq != 0 && o.released == 0 && r.Worker == o.record.Worker && r.Incarnation.Revision < o.record.Incarnation.Revision {
		c.warn(m.Seq, "", Epoch, "epoch %s is of worker %s under lease %d, after one under its later lease %d: the bucket came back shorter", r.Epoch, r.Worker, r.Incarnation.Revision, o.record.Incarnation.Revision)
	}
	need := r.Window // whoever was before is not known: as many as this version has in flight
	if o.seq != 0 {
		need = o.record.Window
	}
	if c.cfg.Name != "" {
		need = 0 // the fillers are not read
	}
	*o = ownership{id: r.Epoch, seq: m.Seq, record: r, need: need}
	c.witnessed = c.witnessed || m.Seq == c.cfg.Witness.EpochSeq && r.Epoch == c.cfg.Witness.Epoch
}

// compareWitness holds what the bucket knows against what was read; last is where the stream ends.
func (c *Checker) compareWitness(last journal.Seq) {
	w := &c.cfg.Witness
	key := journal.WitnessKey(c.cfg.Partition)
	if w.Acked > last {
		c.severe(last, "", Witness, "the key %s knows of sequence %d, and the stream ends at %d", key, w.Acked, last)
	}
	if w.EpochSeq != 0 && !c.witnessed {
		c.severe(w.EpochSeq, "", Witness, "the key %s knows of epoch %s at this sequence, and it is not there", key, w.Epoch)
	}
	if w.Alarm != nil {
		c.severe(w.Alarm.Have, "", Witness, "the alarm stands: %v", w.Alarm)
	}
	if a := w.Accepted; a != nil {
		c.warn(a.Had, "", Witness, "a loss was accepted at %s: sequence %d was known, the stream had %d (%s)", a.At.UTC().Format("2006-01-02 15:04:05"), a.Known, a.Had, a.Why)
	}
}
