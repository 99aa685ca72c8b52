package drill

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

const (
	testRun     = "run"
	testSubject = "objects.journal.7.counter.a"
)

// story is a ledger of one counter and the journal that was written meanwhile.
type story struct {
	t      *testing.T
	ledger *Ledger
	now    time.Duration
	epochs []Epoch
	log    []journal.Message
	first  journal.Version
	prev   journal.Hash
	seq    journal.Seq
}

func newStory(t *testing.T) *story {
	s := &story{t: t, first: 1, ledger: NewLedger(testRun, true, []string{"counter/a"}, func(int) int { return 0 })}
	s.epoch(1)
	return s
}

func (s *story) epoch(n uint64) {
	s.seq++
	s.epochs = append(s.epochs, Epoch{Seq: s.seq, Record: journal.EpochRecord{Epoch: journal.EpochID{Number: n, Token: journal.Token(n)}, Worker: "w", Window: 1}})
}

// sent is a call on its way.
func (s *story) sent() Call { s.now++; return s.ledger.Begin(0, s.now) }

// told acknowledges a call with a version.
func (s *story) told(c Call, version int) {
	s.now++
	s.ledger.Acknowledged(c, journal.Version(version), fmt.Sprint(version), s.now)
}

// stores appends a record with a commit of each call, of the last epoch.
func (s *story) stores(calls ...Call) { s.storesIn(s.epochs[len(s.epochs)-1], calls...) }

func (s *story) storesIn(e Epoch, calls ...Call) {
	s.t.Helper()
	ids := make([]string, len(calls))
	for i, c := range calls {
		ids[i] = s.ledger.ID(c)
	}
	m := s.message(e, ids...)
	s.log = append(s.log, m)
	if e.Seq == s.epochs[len(s.epochs)-1].Seq {
		s.first, s.prev = s.first+journal.Version(len(calls)), journal.HashOf(m.Data)
	}
}

func (s *story) message(e Epoch, ids ...string) journal.Message {
	s.t.Helper()
	s.seq++
	var commits []string
	for _, id := range ids {
		commits = append(commits, fmt.Sprintf(`{"id":%q,"source":"call","method":"increment","changes":[]}`, id))
	}
	prev, err := s.prev.MarshalText()
	if err != nil {
		s.t.Fatal(err)
	}
	data := fmt.Sprintf(`{"v":1,"min_reader":1,"first":%d,"prev":%q,"at":"2026-01-02T15:04:05Z","commits":[%s]}`, s.first, prev, strings.Join(commits, ","))
	return journal.Message{Subject: testSubject, Seq: s.seq, Data: []byte(data), Header: journal.Header{wire.HeaderEpoch: e.Record.Epoch.String()}}
}

// audit is what the journal tells, and with what the ledger knew before it.
func (s *story) audit() (*Audit, *Result) {
	s.t.Helper()
	a := NewAudit(s.ledger, func(int) string { return testSubject })
	a.Partition(s.epochs)
	for _, m := range s.log {
		if err := a.Record(m); err != nil {
			s.t.Fatal(err)
		}
	}
	a.End()
	r := &Result{}
	r.found(&s.ledger.findings)
	r.found(&a.found)
	return a, r
}

// broken are stories that break one promise each, and what the audit must say.
var broken = []struct {
	name string
	tell func(s *story)
	want map[Fault]int
}{
	{"all is well", func(s *story) {
		a, b, c := s.sent(), s.sent(), s.sent()
		s.stores(b, a)
		s.told(a, 2)
		s.told(b, 1)
		s.stores(c)
		s.told(c, 3)
	}, nil},
	{"an acknowledged call is lost", func(s *story) {
		a, b := s.sent(), s.sent()
		s.stores(a)
		s.told(a, 1)
		s.told(b, 2)
	}, map[Fault]int{Lost: 1}},
	{"a lost one's place was taken by another", func(s *story) {
		a, b := s.sent(), s.sent()
		s.told(a, 1)
		s.stores(b)
		s.told(b, 1)
	}, map[Fault]int{Lost: 1}},
	{"a lost one's place was taken by a call that came later", func(s *story) {
		a := s.sent()
		s.told(a, 1)
		b := s.sent()
		s.stores(b)
		s.told(b, 1)
	}, map[Fault]int{Lost: 1, OutOfOrder: 1}},
	{"a call is applied twice", func(s *story) {
		a := s.sent()
		s.stores(a)
		s.stores(a)
		s.told(a, 1)
	}, map[Fault]int{Twice: 1}},
	{"a call is applied twice in one record", func(s *story) {
		a := s.sent()
		s.stores(a, a)
		s.told(a, 2)
	}, map[Fault]int{Twice: 1, OutOfOrder: 1}},
	{"a call is elsewhere than it was told", func(s *story) {
		a, b := s.sent(), s.sent()
		s.stores(a, b)
		s.told(a, 2)
		s.told(b, 1)
	}, map[Fault]int{OutOfOrder: 2}},
	{"a later call is told an earlier version", func(s *story) {
		a, b := s.sent(), s.sent()
		s.stores(a, b)
		s.told(b, 2)
		c := s.sent()
		s.told(a, 1)
		s.told(c, 1)
	}, map[Fault]int{OutOfOrder: 1, Lost: 1}},
	{"the count is not the version", func(s *story) {
		a := s.sent()
		s.stores(a)
		s.ledger.Acknowledged(a, 1, "2", s.now)
	}, map[Fault]int{OutOfOrder: 1}},
	{"a version that cannot be", func(s *story) {
		a := s.sent()
		s.stores(a)
		s.told(a, 9)
	}, map[Fault]int{OutOfOrder: 1}},
	{"a refused call is there", func(s *story) {
		a := s.sent()
		s.stores(a)
		s.ledger.Refused(a, s.now)
	}, map[Fault]int{Unasked: 1}},
	{"a call that nobody took is there", func(s *story) {
		a := s.sent()
		s.stores(a)
		s.ledger.Abandoned(a)
	}, map[Fault]int{Unasked: 1}},
	{"somebody else changed it", func(s *story) {
		s.log = append(s.log, s.message(s.epochs[0], "theirs"))
	}, map[Fault]int{Unasked: 1}},
	{"a number that was never given", func(s *story) {
		s.log = append(s.log, s.message(s.epochs[0], testRun+".1"))
	}, map[Fault]int{Unasked: 1}},
	{"what a former owner stores counts for nothing", func(s *story) {
		a, b := s.sent(), s.sent()
		s.stores(a)
		s.told(a, 1)
		s.epoch(2)
		s.storesIn(s.epochs[0], b)
		s.told(b, 2)
	}, map[Fault]int{Lost: 1}},
	{"a repeat after a former owner's record is right", func(s *story) {
		a := s.sent()
		s.epoch(2)
		s.storesIn(s.epochs[0], a)
		s.stores(a)
		s.told(a, 1)
	}, nil},
	{"what is unknown may be there, once, or not", func(s *story) {
		a, b := s.sent(), s.sent()
		s.stores(a)
		s.ledger.Unknown(a)
		s.ledger.Unknown(b)
	}, nil},
	{"what is unknown is there twice", func(s *story) {
		a := s.sent()
		s.stores(a, a)
		s.ledger.Unknown(a)
	}, map[Fault]int{Twice: 1}},
}

// TestTheAuditFindsWhatIsWrong: each story breaks one promise, and is told by it alone.
func TestTheAuditFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, test := range broken {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t)
			test.tell(s)
			_, r := s.audit()
			sum := 0
			for _, n := range r.tallies() {
				if sum += n.N; n.N != test.want[n.Fault] {
					t.Errorf("%s: %d, want %d: %+v", n.Fault, n.N, test.want[n.Fault], r.Findings)
				}
			}
			if r.Faulty() != sum || len(r.Findings) != sum {
				t.Errorf("%d faults, %d findings; want %d", r.Faulty(), len(r.Findings), sum)
			}
		})
	}
}

func TestUnknownCallsAreTold(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	a, b := s.sent(), s.sent()
	s.stores(a)
	s.ledger.Unknown(a)
	s.ledger.Unknown(b)
	if audit, _ := s.audit(); audit.Applied != 1 || audit.Commits != 1 || audit.Reached(testSubject) != 1 {
		t.Errorf("applied %d, commits %d, version %d; want 1 each", audit.Applied, audit.Commits, audit.Reached(testSubject))
	}
}

// TestFindingsAreCountedBeyondThoseThatAreTold, and those of ledger and audit together.
func TestFindingsAreCountedBeyondThoseThatAreTold(t *testing.T) {
	t.Parallel()
	var one, other findings
	for range FindingsMax + 5 {
		one.add(Finding{Fault: Lost})
	}
	other.add(Finding{Fault: Twice})
	var r Result
	r.found(&other)
	r.found(&one)
	if r.Lost != FindingsMax+5 || r.Twice != 1 || len(r.Findings) != FindingsMax {
		t.Errorf("%d lost, %d twice, %d told", r.Lost, r.Twice, len(r.Findings))
	}
}

func TestAPlanIsOfItsSeed(t *testing.T) {
	t.Parallel()
	targets := []Target{{Worker, "w1"}, {Worker, "w2"}, {Gateway, "g1"}}
	s := Schedule{For: 10 * time.Minute, Every: 10 * time.Second, Down: time.Second, Pause: 3 * time.Second, Kills: true}
	plan := NewPlan(7, s, targets)
	if !slices.Equal(plan, NewPlan(7, s, targets)) {
		t.Error("the same seed gives another plan")
	}
	if slices.Equal(plan, NewPlan(8, s, targets)) {
		t.Error("another seed gives the same plan")
	}
	if n := len(plan); n < 45 || n > 75 {
		t.Errorf("%d disturbances in 10 minutes; want one every 10 s on the average", n)
	}
	did := map[Act]int{}
	whom := map[Target]int{}
	last := time.Duration(0)
	for _, step := range plan {
		did[step.Act]++
		whom[step.Target]++
		if gap := step.At - last; gap < s.Every/2 || gap > 3*s.Every/2 {
			t.Errorf("%v from one to the next", gap)
		}
		if want := map[Act]time.Duration{Kill: s.Down, Pause: s.Pause}[step.Act]; step.Long != want || step.At+step.Long > s.For {
			t.Errorf("%+v; want it to take %v, and to end before the load", step, want)
		}
		last = step.At
	}
	if len(did) != 2 || len(whom) != 3 {
		t.Errorf("%v, %v; want kills and pauses of all", did, whom)
	}
	s.Kills = false
	for _, step := range NewPlan(7, s, targets) {
		if step.Act != Pause {
			t.Errorf("%+v; want pauses alone", step)
		}
	}
	if plan := NewPlan(7, s, nil); plan != nil {
		t.Errorf("a plan %v of no target", plan)
	}
}
