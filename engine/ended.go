package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/journal"
)

// Leases of workers that have ended are removed in the end: where each start is a new worker, with a folder of its own, there would be
// more of them for ever, and every look reads them all. One that was never closed, since nobody needed it to be, is closed first, as a
// taker would.
//
// That is safe because a key that is absent proves nothing (lease.proves): whoever finds an epoch that names the worker waits as for its
// silence, a term and a tenth, and closes the lease at revision 0, where without the removal it would have followed at once. The
// worker may come back at any time. What it puts on top of the closed lease has a later revision than the one that is removed, and stays;
// what comes behind the removal expects a revision that is not there any more, is refused, and it tries again.

// endedFor is how long a lease that nobody changes is kept: people look at it (perdure workers --all), and an epoch that was not released
// is followed at once by it.
const endedFor = time.Hour

// removeEnded removes a lease that nobody has changed for so long, or closes it: one at a look.
func (s *session) removeEnded(ctx context.Context, leases map[string]lease, now time.Duration) error {
	for _, worker := range slices.Sorted(maps.Keys(leases)) {
		l := leases[worker]
		s.mu.Lock()
		since := s.roster.note(worker, l, now).since
		s.mu.Unlock()
		switch {
		case worker == s.w.cfg.ID, l.absent(), now-since < s.w.endedFor:
			continue
		case l.Closed:
			return s.js.Meta().Remove(ctx, leaseKey(worker), l.rev)
		}
		_, err := s.closeAs(ctx, leaseKey(worker), l, l.incarnation())
		if errors.Is(err, journal.ErrConflict) {
			return nil // it lives
		}
		return err
	}
	return nil
}
