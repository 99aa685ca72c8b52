package verify

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Config says what is read, and what is known of it from elsewhere.
type Config struct {
	Namespace  wire.Subjects // default "objects"
	Partition  int
	Partitions int // of the namespace: required
	// Class and Name choose objects: those of one class, or one of them. Empty: all. A [Checker] of one object may be
	// given the messages of its subjects and of the epochs alone: it does not look at the fence.
	Class, Name string
	// Keep is for how long classes keep callers' own ids. A class that is not in it has the defaults of [Keep], and an id
	// that comes again within them is a warning, since the class may say otherwise.
	Keep map[string]Keep
	// Witness is what the bucket knows of the stream; zero if that is not known.
	Witness journal.Witness
	// Snapshotted tells which objects have snapshot records, so that nothing is kept for the others; nil: any may.
	Snapshotted func(class, token string) bool
}

// Keep is for how long an object keeps the ids of requests; zero is the default.
type Keep struct {
	For time.Duration // default [KeepFor]
	Max int           // until so many newer ones came; default [KeepMax]
}

// For how long a class keeps ids that does not say it.
const (
	KeepFor = 24 * time.Hour
	KeepMax = 10000
)

func (k Keep) withDefaults() Keep { return Keep{cmp.Or(k.For, KeepFor), cmp.Or(k.Max, KeepMax)} }

// Checker checks a stream message by message. It is for one goroutine.
//
// It keeps about 400 bytes for each object, 32 for each id and number that the object itself still keeps, and of objects
// with snapshot records about 40 for each storage key.
type Checker struct {
	cfg     Config
	subject struct{ epoch, fence, check string }
	report  Report
	owner   ownership
	objects map[string]*object // by class and token, with a dot
	inbox   journal.InboxMark  // of the last checkpoint
	run     *run               // the snapshot record whose parts are being read
	useless journal.Seq        // a part of a snapshot record that cannot be used, and so are those directly behind it
	// witnessed tells whether the epoch that the witness names was read where it says.
	witnessed bool
	seed      maphash.Seed
}

// New makes a checker of a stream's first message on.
func New(cfg Config) *Checker {
	cfg.Namespace = cmp.Or(cfg.Namespace, wire.DefaultNamespace)
	c := &Checker{cfg: cfg, objects: map[string]*object{}, seed: maphash.MakeSeed()}
	c.report.Stream = cfg.Namespace.Stream(cfg.Partition)
	c.subject.epoch, c.subject.fence, c.subject.check = cfg.Namespace.Epoch(cfg.Partition), cfg.Namespace.Fence(cfg.Partition), cfg.Namespace.Checkpoint(cfg.Partition)
	return c
}

// Message takes the stream's next message; positions only grow.
func (c *Checker) Message(m journal.Message) {
	c.report.Messages++
	if c.run != nil && m.Subject != c.run.subject {
		c.cutRun()
	}
	c.checkFence(m)
	switch m.Subject {
	case c.subject.epoch:
		c.epochRecord(m)
	case c.subject.fence:
		c.filler(m)
	case c.subject.check:
		c.checkpoint(m)
	default:
		c.objectMessage(m)
	}
}

// Unfinished tells whether the last message is one of an atomic batch whose end was not read yet. What is behind it was
// stored with it.
func (c *Checker) Unfinished() bool { return c.run != nil || c.owner.fenceOpen() }

// End is the report, when all messages were read. last is the stream's last position, which the witness is held against.
func (c *Checker) End(last journal.Seq) Report {
	if c.run != nil {
		c.cutRun()
	}
	if o := &c.owner; o.fenceOpen() {
		c.severe(o.seq, "", Fence, "epoch %s has %d of %d fillers behind it: what its former owner had in flight could be stored", o.id, o.fillers, o.need)
	}
	for key, o := range c.objects {
		c.endObject(key, o)
	}
	c.compareWitness(last)
	return c.sofar(last)
}

func (c *Checker) severe(seq journal.Seq, object string, rule Rule, format string, args ...any) {
	c.report.add(Finding{Severe, c.report.Stream, seq, object, rule, fmt.Sprintf(format, args...)})
}

// missing is a finding about what is not there: severe, unless a loss was accepted, which may be why.
func (c *Checker) missing(seq journal.Seq, object string, rule Rule, format string, args ...any) {
	if c.cfg.Witness.Life > 0 {
		c.warn(seq, object, rule, format+"; a loss was accepted", args...)
	} else {
		c.severe(seq, object, rule, format, args...)
	}
}

func (c *Checker) warn(seq journal.Seq, object string, rule Rule, format string, args ...any) {
	c.report.add(Finding{Warning, c.report.Stream, seq, object, rule, fmt.Sprintf(format, args...)})
}

// objectMessage takes a message on a subject that is neither the epochs' nor the fence's.
func (c *Checker) objectMessage(m journal.Message) {
	kind, slot, class, token, ok := c.cfg.Namespace.SplitObject(m.Subject)
	name, err := wire.Unescape(token)
	switch {
	case !ok:
		c.warn(m.Seq, "", Subject, "subject %q is none that a partition's stream has", m.Subject)
		return
	case c.cfg.Class != "" && class != c.cfg.Class, c.cfg.Name != "" && name != c.cfg.Name:
		return
	case kind == "due":
		c.warn(m.Seq, "", Subject, "subject %s is reserved: nothing of this version writes there", m.Subject)
		return
	case err == nil:
		err = wire.CheckClass(class)
	}
	object := named(class, token)
	want := wire.Slot(class, token)
	if err == nil && (slot != strconv.Itoa(want) || wire.Partition(want, c.cfg.Partitions) != c.cfg.Partition) {
		err = fmt.Errorf("class and name give slot %d, which is of partition %d", want, wire.Partition(want, c.cfg.Partitions))
	}
	if !c.counts(m, object) {
		return
	}
	if err != nil {
		c.severe(m.Seq, object, Subject, "subject %s: %v: no replay reads it", m.Subject, err)
		return
	}
	if kind == "snap" {
		c.snapPart(m, class, token, object)
	} else {
		c.record(m, class, token, object)
	}
}

// counts tells whether a message is of the last epoch before it.
func (c *Checker) counts(m journal.Message, object string) bool {
	id, err := journal.ParseEpochID(m.Header[wire.HeaderEpoch])
	switch o := &c.owner; {
	case err != nil:
		c.warn(m.Seq, object, Stray, "it names no epoch: no owner wrote it, and it does not count")
		return false
	case id == o.lost: // one lost epoch record is one finding, and what is of that epoch makes a chain
	case id.Number > o.id.Number:
		c.severe(m.Seq, object, Epoch, "it is of epoch %s, whose record is not there; the last before it is %s", id, o)
		o.lost = id
	case id != o.id:
		c.warn(m.Seq, object, Stray, "it is of epoch %s and stands in epoch %s: it does not count", id, o)
		return false
	case o.released != 0:
		c.warn(m.Seq, object, Epoch, "it was stored after the release of its epoch %s, at sequence %d", id, o.released)
	}
	return true
}

// readable says what is wrong with the headers of a message that counts.
func readable(m journal.Message) error {
	if f := m.Header[wire.HeaderFormat]; f != strconv.Itoa(journal.Format) {
		return fmt.Errorf("header %s is %q; this program reads %d", wire.HeaderFormat, f, journal.Format)
	}
	if codec := m.Header[wire.HeaderCodec]; codec != "" {
		return fmt.Errorf("codec %q: %w", codec, journal.ErrNewer)
	}
	return nil
}

// named is an object's address.
func named(class, token string) string {
	name, err := wire.Unescape(token)
	if err != nil {
		name = token
	}
	return class + "/" + name
}
