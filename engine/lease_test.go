package engine

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
)

// TestLawfulEpochStories tells who may follow whom. Incarnations are written revision:nonce.
func TestLawfulEpochStories(t *testing.T) {
	tell(t, "lawful", func() func(string, []string) string {
		var last *journal.EpochRecord
		var holder lease
		inc := func(s string) (i journal.Incarnation) {
			rev, nonce, _ := strings.Cut(s, ":")
			r, _ := strconv.Atoi(rev)
			n, _ := strconv.Atoi(nonce)
			return journal.Incarnation{Revision: journal.Seq(r), Nonce: journal.Token(n)}
		}
		return func(command string, args []string) string {
			switch command {
			case "epoch", "release": // WORKER INCARNATION
				last = &journal.EpochRecord{Worker: args[0], Incarnation: inc(args[1]), Release: command == "release"}
			case "lease": // absent | open INCARNATION | closed INCARNATION, [gone INCARNATION]
				holder = lease{}
				if args[0] != "absent" {
					i := inc(args[1])
					holder = lease{rev: i.Revision + 7, leaseValue: leaseValue{Created: i.Revision, Nonce: i.Nonce, Closed: args[0] == "closed"}}
				}
				if len(args) > 3 {
					holder.Gone = append(holder.Gone, inc(args[3]))
				}
			case "may": // WORKER INCARNATION
				return map[verdict]string{mayBegin: "begin", mustWait: "wait"}[mayFollow(last, args[0], inc(args[1]), holder)]
			default:
				return "no such command"
			}
			return ""
		}
	})
}

func TestSlowRenewalDoesNotExtendTrust(t *testing.T) {
	l := trust{term: 2 * time.Second}
	l.renewed(10 * time.Second) // sent at 10 s, whenever it was answered
	for now, want := range map[time.Duration]bool{10 * time.Second: true, 11999 * time.Millisecond: true, 12 * time.Second: false} {
		if got := l.valid(now); got != want {
			t.Errorf("valid at %v: %v", now, got)
		}
	}
	l.renewed(9 * time.Second) // an older renewal that is answered later takes nothing away and adds nothing
	if fmt.Sprint(l.until) != "12s" {
		t.Errorf("until %v", l.until)
	}
}

func TestTakerWaitsLongerThanTrust(t *testing.T) {
	for _, term := range []time.Duration{time.Second, 2 * time.Second, time.Minute} {
		if takerWait(term) <= term {
			t.Errorf("waits %v for a term of %v", takerWait(term), term)
		}
	}
}

func TestCreatedRevisionIsTheFirstOne(t *testing.T) {
	first, err := decodeLease(leaseValue{Nonce: 5}.encode(), 12)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := decodeLease(leaseValue{Nonce: 5, Created: 12}.encode(), 15)
	if err != nil {
		t.Fatal(err)
	}
	if want := (journal.Incarnation{Revision: 12, Nonce: 5}); first.incarnation() != want || renewed.incarnation() != want {
		t.Errorf("%v, then %v", first.incarnation(), renewed.incarnation())
	}
}

// TestARenewalThatMeetsItsOwnIsNotTaken: a server that has promised an earlier renewal, and not stored it yet, refuses the next one; so long
// as the key has the worker's own life, nobody has taken it.
func TestARenewalThatMeetsItsOwnIsNotTaken(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	var refused atomic.Int32
	worker := w.worker("w", func(c *Config) {
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return journaltest.Faulty(s, &journaltest.Plan{Meta: func(key string) error {
				if n := refused.Load(); key == leaseKey("w") && n > 0 {
					refused.Store(n - 1)
					return journal.ErrConflict
				}
				return nil
			}}), err
		}
	})
	w.ready(worker)
	session := worker.ses.Load()
	refused.Store(5)
	eventually(t, "all five were met", func() bool { return refused.Load() == 0 })
	lease := func() journal.Seq {
		l := must(session.readLease(t.Context(), "w"))(t)
		return l.rev
	}
	before := lease()
	eventually(t, "it is renewed", func() bool { return lease() > before })
	if worker.ses.Load() != session || !session.valid() {
		t.Error("the session is over")
	}
}
