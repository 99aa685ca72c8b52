package engine

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

// TestTheWitnessIsToldAgain: what a failed write did not tell is told by the next one, also if nothing came since.
func TestTheWitnessIsToldAgain(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	var refusing atomic.Bool
	var refused atomic.Int64
	plan := &journaltest.Plan{Meta: func(key string) error {
		if refusing.Load() && strings.HasPrefix(key, "part.") {
			refused.Add(1)
			return errors.New("not now")
		}
		return nil
	}}
	worker := w.worker("w", func(c *Config) {
		c.Connect = func(context.Context) (journal.Session, error) {
			return journaltest.Faulty(w.server.Session("objects", worldPartitions), plan), nil
		}
	})
	w.ready(worker)
	refusing.Store(true)
	w.add(worker, "a")
	ep := worker.epochs[partitionOf("register", "a")].Load()
	high := ep.committer.high()
	eventually(t, "a witness is refused", func() bool { return refused.Load() > 0 })
	refusing.Store(false)
	eventually(t, "the witness knows", func() bool {
		known, _, err := journal.ReadWitness(t.Context(), ep.ses.js.Meta(), ep.p)
		return err == nil && known.Acked >= high
	})
}
