package verify

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/journal"
)

// object is what is kept of an object.
type object struct {
	at    link
	aside *aside
	head  journal.Seq // its first record, if that does not begin with version 1
	heirs int         // snapshot records that cover what is before head
	early journal.Seq // the last snapshot record before its first record
	once  once
	inbox sentMark // the last message of the inbox that it answered
	// Of objects that may have snapshot records.
	tracked bool
	cut     bool // there were records before the first mark that are not marks any more
	storage storage
	marks   []mark // records that a snapshot record may name, in order
}

// link is a record in an object's chain.
type link struct {
	version journal.Version // of its last commit
	seq     journal.Seq     // 0: there is none yet
	hash    journal.Hash
	at      int64 // recorded time, in Unix nanoseconds
}

// aside is a record that does not fit. If the next one follows it, the chain goes on there: it is the end of a hole, or its
// own payload was changed. If the next one fits the chain, it was a stray.
type aside struct {
	link
	rec *journal.Record // nil if it does not decode
}

func (c *Checker) object(class, token string) *object {
	key := class + "." + token
	o := c.objects[key]
	if o == nil {
		o = &object{at: link{at: math.MinInt64}, tracked: c.cfg.Snapshotted == nil || c.cfg.Snapshotted(class, token)}
		o.storage.whole = true
		c.objects[key] = o
	}
	return o
}

// record takes a message on an object's journal subject that counts by its epoch.
func (c *Checker) record(m journal.Message, class, token, name string) {
	c.report.Records++
	o := c.object(class, token)
	next := link{seq: m.Seq, hash: journal.HashOf(m.Data), at: o.at.at}
	err := readable(m)
	var rec *journal.Record
	if err == nil {
		rec, err = journal.DecodeRecord(m.Data)
	}
	if err != nil {
		c.severe(m.Seq, name, Format, "%v", err)
		o.aside = &aside{next, nil}
		return
	}
	c.report.Commits += len(rec.Commits)
	next.version, next.at = rec.Last(), rec.At.UnixNano()
	switch before := o.aside; {
	case o.at.seq == 0 && before == nil && rec.First > 1:
		o.head, o.storage.whole = m.Seq, false
	case rec.First == o.at.version+1 && rec.Prev == o.at.hash:
	case before != nil && before.rec == nil && rec.First > o.at.version+1: // what does not decode was changed, so its hash says nothing
		before.version, before.hash = rec.First-1, rec.Prev
		c.goOn(o, class, name)
	case before != nil && before.rec != nil && rec.First == before.version+1 && rec.Prev == before.hash:
		c.goOn(o, class, name)
	default:
		c.misfit(o, rec, m, name)
		o.aside = &aside{next, rec}
		return
	}
	o.aside = nil
	c.apply(o, rec, next, class, name)
}

// misfit says how a record does not follow the one before it.
func (c *Checker) misfit(o *object, rec *journal.Record, m journal.Message, name string) {
	switch want := o.at.version + 1; {
	case rec.First > want:
		c.severe(m.Seq, name, Version, "it begins with version %d after version %d, %s: versions %d to %d are missing", rec.First, o.at.version, o.at.place(), want, rec.First-1)
	case rec.First < want:
		c.severe(m.Seq, name, Version, "it begins with version %d after version %d, %s: versions are there twice", rec.First, o.at.version, o.at.place())
	default:
		c.severe(m.Seq, name, Prev, "its prev is %s, and the record before it, %s, has hash %s: that payload was changed, or this one follows another", rec.Prev, o.at.place(), o.at.hash)
	}
}

func (l link) place() string {
	if l.seq == 0 {
		return "before its first record"
	}
	return fmt.Sprintf("at sequence %d", l.seq)
}

// apply takes a record into the chain; rec is nil if it did not decode.
func (c *Checker) apply(o *object, rec *journal.Record, l link, class, name string) {
	if rec == nil {
		o.at = l
		o.mark()
		return
	}
	recorded := o.at.at
	for i := range rec.Commits {
		commit, version := &rec.Commits[i], rec.First+journal.Version(i)
		at := commit.At.UnixNano()
		if at < recorded {
			c.severe(l.seq, name, Time, "version %d is of %s, before the object's recorded time %s", version, stamp(at), stamp(recorded))
		}
		c.checkOnce(o, commit, version, recorded, l.seq, class, name)
		c.checkSent(o, commit, version, l.seq, name)
		recorded = at
		if o.tracked {
			o.storage.apply(c.seed, commit.Changes, version)
		}
	}
	if recorded != l.at {
		c.severe(l.seq, name, Time, "it is of %s, and its last commit of %s", stamp(l.at), stamp(recorded))
	}
	o.at = l
	o.mark()
}

// goOn takes the record that was set aside for the object's last: the chain goes on behind it. What the object's storage
// was is forgotten, since changes are missing.
func (c *Checker) goOn(o *object, class, name string) {
	o.storage, o.marks, o.cut = storage{}, nil, true
	c.apply(o, o.aside.rec, o.aside.link, class, name)
	o.aside = nil
}

func stamp(nanoseconds int64) string { return time.Unix(0, nanoseconds).UTC().Format(time.RFC3339Nano) }

// mark notes the object's last record for a snapshot record that may name it.
func (o *object) mark() {
	if !o.tracked {
		return
	}
	if len(o.marks) == marksMax {
		o.marks, o.cut = slices.Delete(o.marks, 0, marksMax/2), true
	}
	o.marks = append(o.marks, mark{o.at, o.once.order, o.inbox, o.storage.whole, o.storage.sum, o.storage.n})
}

// mark is an object's record, with what its storage came to there.
type mark struct {
	link
	order uint64 // how many commits had a caller's own id
	inbox sentMark
	whole bool
	sum   uint64
	n     int
}

// marksMax is how far back a snapshot record may name a record. They trail by what was stored while they were made.
const marksMax = 1 << 12

// endObject says whether what was purged of an object is covered.
func (c *Checker) endObject(key string, o *object) {
	class, token, _ := strings.Cut(key, ".")
	if o.early != 0 && o.head == 0 { // else it is left of a purge: what it names is purged
		c.severe(o.early, named(class, token), Snapshot, "it names a record before it, and none is there")
	}
	if o.head == 0 || o.heirs > 1 {
		return
	}
	const begins = "the object's journal begins here, and not with version 1"
	if o.heirs == 0 {
		c.severe(o.head, named(class, token), Head, begins+": no snapshot record covers what is missing")
	} else {
		c.warn(o.head, named(class, token), Head, begins+": one snapshot record covers what is missing; purging leaves two")
	}
}
