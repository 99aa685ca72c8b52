package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/journal"
)

// Workers of two versions share a namespace for a while. What one writes the other must read: it may have the partition next. So a
// format that is newer than the base (see [journal.Format]) is written only once no lease is left whose worker does not read
// it, and once the key formatKey says that it is written, which ends a worker that comes later and does not.
//
// Neither can miss the other. A writer first has the key say so and then looks at the leases; a worker first makes its lease and then
// reads the key. Should an old answer deceive both nevertheless, the records' min_reader stops the object there.

// formatKey is the key of the bucket that says which format is written.
const formatKey = "format"

// formatValue is what it holds.
type formatValue struct {
	Format   int       `json:"format"`   // what a worker must read
	Software string    `json:"software"` // a version that does
	Worker   string    `json:"worker"`   // who was first to write it
	At       time.Time `json:"at"`
}

// FormatError ends a worker that does not read what the namespace may have.
type FormatError struct {
	Format, Reads      int    // what it may have, and what this worker reads
	Software, Readable string // the version of this worker, and one that reads it
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("the namespace has records of format %d, and version %s of this program reads format %d: version %s reads them, run that or a later one",
		e.Format, e.Software, e.Reads, e.Readable)
}

// formats is what a session knows of formats newer than the base.
type formats struct {
	may    atomic.Int64          // be written; 0: the base alone
	wanted atomic.Int64          // the highest that a turn has wanted to write
	why    atomic.Pointer[error] // that may not be written
}

// mayWrite tells whether a commit of a format may be written. If it may not yet the next look at the leases is soon.
func (s *session) mayWrite(format int) error {
	if format == journal.FormatBase || int64(format) <= s.formats.may.Load() {
		return nil
	}
	if was := s.formats.wanted.Load(); was < int64(format) && s.formats.wanted.CompareAndSwap(was, int64(format)) {
		s.heard(Word{Kind: WordShare})
	}
	err := errNotAsked
	if why := s.formats.why.Load(); why != nil {
		err = *why
	}
	return Errorf(Unavailable, "a change of format %d is not written before all workers read it: %w", format, err).RetryIn(s.w.cfg.LeaseTerm / 4)
}

var errNotAsked = errors.New("they are being asked")

// settleFormat has the format that is wanted be written, if it may be.
func (s *session) settleFormat(ctx context.Context, leases map[string]lease) {
	format := int(s.formats.wanted.Load())
	if int64(format) <= s.formats.may.Load() {
		return
	}
	if err := s.permit(ctx, format, leases); err != nil {
		if was := s.formats.why.Swap(&err); was == nil || (*was).Error() != err.Error() {
			s.w.log.Warn("changes of a newer kind wait", "format", format, "why", err)
		}
		return
	}
	s.w.log.Info("changes of a newer kind are written from now on", "format", format)
	s.formats.may.Store(int64(format))
}

// permit is nil if no worker is left, and none can come, that does not read a format.
func (s *session) permit(ctx context.Context, format int, leases map[string]lease) error {
	// Before the key says so, lest it shut out a worker for nothing; and behind it, since one may have come meanwhile.
	if err := s.allRead(ctx, format, leases); err != nil {
		return err
	}
	if err := s.announce(ctx, format); err != nil {
		return err
	}
	leases, err := readLeases(ctx, s.js.Meta())
	if err != nil {
		return err
	}
	return s.allRead(ctx, format, leases)
}

// cannotRead are those whose workers may come to read the journal, and do not read a format: by name, all that are not closed. Silence
// proves nothing: a worker that was stopped goes on.
func cannotRead(format int, leases map[string]lease) (workers []string) {
	for _, worker := range slices.Sorted(maps.Keys(leases)) {
		if l := leases[worker]; !l.absent() && !l.Closed && l.reads() < format {
			workers = append(workers, worker)
		}
	}
	return workers
}

// allRead is nil if nobody is left who does not read a format. The lease of who was silent for long enough is closed, as for a take-over.
func (s *session) allRead(ctx context.Context, format int, leases map[string]lease) error {
	for _, worker := range cannotRead(format, leases) {
		l := leases[worker]
		s.mu.Lock()
		silent := !s.roster.note(worker, l, s.w.clock.Boot()).alive(s.w.clock.Boot())
		s.mu.Unlock()
		if silent {
			if _, err := s.closeAs(ctx, leaseKey(worker), l, l.incarnation()); err == nil {
				continue
			}
		}
		return fmt.Errorf("worker %s, of version %s, reads %d", worker, l.Software, l.reads())
	}
	return nil
}

// announce has the key say that a format is written.
func (s *session) announce(ctx context.Context, format int) error {
	have, rev, err := readFormat(ctx, s.js.Meta())
	if err != nil || have.Format >= format {
		return err
	}
	value, err := json.Marshal(formatValue{format, s.w.cfg.Version, s.w.cfg.ID, s.w.clock.Now().UTC()})
	if err == nil {
		_, err = s.js.Meta().Put(ctx, formatKey, value, rev)
	}
	return err
}

// checkFormat is a [FormatError] if the worker does not read what the namespace may have.
func (s *session) checkFormat(ctx context.Context) error {
	have, _, err := readFormat(ctx, s.js.Meta())
	if err == nil && have.Format > s.w.reads {
		err = &FormatError{have.Format, s.w.reads, s.w.cfg.Version, have.Software}
	}
	return err
}

func readFormat(ctx context.Context, meta journal.Meta) (v formatValue, rev journal.Seq, err error) {
	value, rev, err := meta.Get(ctx, formatKey)
	if errors.Is(err, journal.ErrNotFound) {
		return v, rev, nil
	}
	if err == nil {
		err = json.Unmarshal(value, &v)
	}
	if err != nil {
		return v, rev, fmt.Errorf("read the key %s: %w", formatKey, err)
	}
	return v, rev, nil
}
