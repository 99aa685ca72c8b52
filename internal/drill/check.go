package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/verify"
)

// lookers is how many objects are read side by side.
const lookers = 32

// passes is how often a journal is read in which something is lost: a replica that is behind may have answered.
const passes = 4

// check holds the ledger against the objects and, after them, against the journal, which has then whatever they showed.
func (d *drill) check(ctx context.Context) error {
	if d.ledger.told == 0 {
		return errors.New("no call was acknowledged: nothing was drilled")
	}
	shown, err := d.look(ctx)
	if err != nil {
		return err
	}
	for pass := 1; ; pass++ {
		read, err := d.read(ctx, pass)
		if err == nil && (read.audit.found.count[Lost] == 0 || pass == passes) {
			d.shown(shown, read.audit)
			d.result.checked(d.ledger, read, len(shown))
			return nil
		}
		if err != nil && pass == passes {
			return err
		}
		until(ctx, time.Now().Add(time.Second))
	}
}

// showing is what an object said of itself at the end.
type showing struct {
	object  int
	version journal.Version
	value   string // of Value
	well    string // of Invariant
}

// look asks each object that was called.
func (d *drill) look(ctx context.Context) ([]showing, error) {
	if d.Value == "" && d.Invariant == "" {
		return nil, nil
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	all := make([]showing, d.Objects)
	for first := range min(lookers, d.Objects) {
		wg.Go(func() {
			for i := first; i < d.Objects && ctx.Err() == nil; i += lookers {
				var err error
				if all[i], err = d.show(ctx, i); err != nil {
					fail(fmt.Errorf("look at %s at the end: %w", d.ledger.objects[i].name, err))
				}
			}
		})
	}
	wg.Wait()
	return all, context.Cause(ctx)
}

func (d *drill) show(ctx context.Context, object int) (s showing, err error) {
	s.object = object
	for _, m := range []struct {
		method string
		to     *string
	}{{d.Value, &s.value}, {d.Invariant, &s.well}} {
		if m.method == "" {
			continue
		}
		reply, err := d.client.Do(ctx, engine.Request{Class: d.Class, Name: d.names[object], Method: m.method, Limit: servedWithin})
		if err != nil {
			return s, err
		}
		*m.to, s.version = string(reply.Body), reply.Version
	}
	return s, nil
}

// shown holds what objects said against what the journal has.
func (d *drill) shown(all []showing, a *Audit) {
	for _, s := range all {
		o := d.ledger.objects[s.object]
		version := a.Reached(d.subject(s.object))
		if s.version > version {
			a.finding(State, o, 0, "it showed version %d, and its journal ends at version %d", s.version, version)
		}
		if d.Value != "" {
			n, err := strconv.Atoi(s.value)
			switch {
			case err != nil || n != int(version):
				a.finding(State, o, 0, "its count is %.40s, and its journal has %d commits", s.value, version)
			case n < o.told || n > o.told+len(o.unknown):
				a.finding(State, o, 0, "its count is %d, where %d calls were acknowledged and of %d the outcome is unknown", n, o.told, len(o.unknown))
			}
		}
		if d.Invariant != "" && !isWell([]byte(s.well)) {
			a.finding(State, o, 0, "%s answered %.200s", d.Invariant, s.well)
		}
	}
}

// isWell reads the answer of an invariant.
func isWell(body []byte) bool {
	var well bool
	var object struct {
		OK bool `json:"ok"`
	}
	return json.Unmarshal(body, &well) == nil && well || json.Unmarshal(body, &object) == nil && object.OK
}

// reading is what was read of the journal.
type reading struct {
	audit    *Audit
	verified verify.Report
	epochs   [][]Epoch // by partition
	before   int       // severe findings that are older than the drill
}

// read reads all partitions. What is lost may be a stream that was put back and is shorter than it was at the begin: a
// later pass reads all of it.
func (d *drill) read(ctx context.Context, pass int) (r reading, err error) {
	ctx, cancel := context.WithTimeout(ctx, servedWithin)
	defer cancel()
	s, err := d.Journal(ctx)
	if err != nil {
		return r, err
	}
	defer s.Close()
	r.audit = NewAudit(d.ledger, d.subject)
	for p := range d.Partitions {
		epochs, err := d.readEpochs(ctx, s.Log(p), p)
		if err != nil {
			return r, err
		}
		r.epochs = append(r.epochs, epochs)
		r.audit.Partition(epochs)
		from := d.from[p] + 1
		if pass > 1 {
			from = 1
		}
		for m, err := range s.Log(p).Read(ctx, d.Namespace.JournalOf(d.Class), from) {
			if err == nil {
				err = r.audit.Record(m)
			}
			if err != nil {
				return r, fmt.Errorf("read stream %s: %w", s.Log(p).Stream(), err)
			}
		}
		v, err := verify.Partition(ctx, s.Log(p), s.Meta(), verify.Config{Namespace: d.Namespace, Partition: p, Partitions: d.Partitions})
		if err != nil {
			return r, err
		}
		r.verified.Add(v)
		d.verified(&r, v, d.from[p])
	}
	r.audit.End()
	return r, nil
}

// verified takes what is severe in a stream. What was there before the drill is not of the drill.
func (d *drill) verified(r *reading, v verify.Report, from journal.Seq) {
	for _, f := range v.Findings {
		switch {
		case f.Severity != verify.Severe:
		case f.Seq <= from:
			r.before++
		default:
			r.audit.found.add(Finding{Fault: Journal, Object: f.Object, What: f.String()})
		}
	}
}

func (d *drill) readEpochs(ctx context.Context, log journal.Log, p int) (list []Epoch, err error) {
	for m, err := range log.Read(ctx, d.Namespace.Epoch(p), 1) {
		if err != nil {
			return nil, fmt.Errorf("read the epochs of stream %s: %w", log.Stream(), err)
		}
		r, err := journal.DecodeEpoch(m.Data)
		if err != nil {
			return nil, &journal.CorruptError{Stream: log.Stream(), Seq: m.Seq, Err: err}
		}
		list = append(list, Epoch{p, m.Seq, m.Time, r})
	}
	return list, nil
}
