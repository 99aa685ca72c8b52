package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
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

// losing loses the end of a partition's stream once, right before an epoch begins there.
type losing struct {
	journal.Session
	lose func(p int)
}

func (s losing) Log(p int) journal.Log { return losingLog{s.Session.Log(p), s, p} }

type losingLog struct {
	journal.Log
	session losing
	p       int
}

func (l losingLog) Begin(ctx context.Context, last journal.Seq, messages ...journal.Message) (journal.Seq, error) {
	l.session.lose(l.p)
	return l.Log.Begin(ctx, last, messages...)
}

// TestALossBetweenTheLookAndTheFenceIsTold: the fence has lifted the stream over it, so that its length shows nothing any more. It is told by
// whoever begins an epoch then, and by those who come later.
func TestALossBetweenTheLookAndTheFenceIsTold(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]string{"the key knows": "the key part.", "the worker knows": "worker w knows"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newServer(t)
			p := partitionOf("register", "a")
			store := snapshot.NewMemory()
			worker := w.worker("w", func(c *Config) { c.Store = store })
			for range 5 {
				w.add(worker, "a")
			}
			ep := worker.epochs[p].Load()
			end := last(t, w, "a").Seq
			eventually(t, "all is told", func() bool {
				known, _, err := journal.ReadWitness(t.Context(), ep.ses.js.Meta(), p)
				value, err2 := store.Get(knownOf(p), snapshot.Meta, "")
				return err == nil && known.Acked >= end && err2 == nil && strings.Contains(string(value), fmt.Sprint(`"seq":`, end))
			})
			worker.Kill()
			if by == "the key part." {
				store = snapshot.NewMemory()
			} else {
				meta := w.server.Session("objects", worldPartitions).Meta()
				known, rev, err := journal.ReadWitness(t.Context(), meta, p)
				if err != nil {
					t.Fatal(err)
				}
				known.Acked = ep.seq + journal.Window
				must(meta.Put(t.Context(), journal.WitnessKey(p), known.Encode(), rev))(t)
			}
			var once sync.Once
			worker = w.worker("w", func(c *Config) {
				c.Store = store
				c.Connect = func(context.Context) (journal.Session, error) {
					return losing{w.server.Session("objects", worldPartitions), func(begun int) {
						if begun == p {
							once.Do(func() { w.server.Truncate(ep.ns.Stream(p), 2) })
						}
					}}, nil
				}
			})
			tells := func(worker *Worker) {
				t.Helper()
				eventually(t, "it tells", func() bool { return strings.Contains(worker.Status().Owned[p].Alarm, by) })
			}
			tells(worker)
			if w.end(p) <= end {
				t.Fatalf("the stream ends at %d, which was lost at %d", w.end(p), end)
			}
			worker.Stop()
			other := w.worker("other")
			tells(other)
			loss := accept(t, w, p)
			if loss.Known < end || loss.Have != end-2 {
				t.Errorf("%+v; the last was %d", loss, end)
			}
			w.ready(other)
			if r := must(NewClient(other).Do(t.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}))(t); string(r.Body) != "4" {
				t.Errorf("%s", r.Body)
			}
		})
	}
}
