package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// newerFormat is one that this program does not read yet.
const newerFormat = journal.Format + 1

// skewed is a worker that is not run yet, of a version that reads a format, and for which changes of text are of a newer kind.
func (w *world) skewed(id, version string, reads int, how ...func(*Config)) *Worker {
	w.t.Helper()
	cfg := Config{ID: id, Partitions: worldPartitions, Classes: []AnyClass{registers, ledgers}, Store: snapshot.NewMemory(), LeaseTerm: 2 * time.Second,
		Version: version, Connect: func(context.Context) (journal.Session, error) {
			return w.server.Session("objects", worldPartitions), nil
		}}
	for _, f := range how {
		f(&cfg)
	}
	worker, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	worker.reads = reads
	worker.needs = func(c *journal.Commit) int {
		if slices.ContainsFunc(c.Changes, func(c journal.Change) bool { return c.Key == "text" }) {
			return newerFormat
		}
		return c.MinReader()
	}
	return worker
}

// run runs a worker until the test ends, or it does, with an error that is sent.
func (w *world) run(worker *Worker) <-chan error {
	ran := make(chan error, 1)
	go func() { ran <- worker.Run(context.Background()) }() // ends with Kill
	w.t.Cleanup(worker.Kill)
	return ran
}

func (w *world) meta() journal.Meta { return w.server.Session("objects", worldPartitions).Meta() }

// leaseOf is a worker's lease, as it stands in the bucket.
func (w *world) leaseOf(worker string) (lease, string) {
	w.t.Helper()
	value, rev, err := w.meta().Get(w.t.Context(), leaseKey(worker))
	if errors.Is(err, journal.ErrNotFound) {
		return lease{}, ""
	}
	l, err2 := decodeLease(value, rev)
	if err := errors.Join(err, err2); err != nil {
		w.t.Fatal(err)
	}
	return l, string(value)
}

// TestALeaseOfTheFirstVersionIsRead: it does not say what its worker reads. The file is kept for ever.
func TestALeaseOfTheFirstVersionIsRead(t *testing.T) {
	l, err := decodeLease(must(os.ReadFile(filepath.Join("testdata", "skew", "lease-first.json")))(t), 15)
	want := lease{rev: 15, leaseValue: leaseValue{Nonce: 5, Created: 12, TermMS: 2000, Intake: intakeNATS, Server: "N", At: l.At, Began: l.At, Software: "0.1.0-dev"}}
	if err != nil || !reflect.DeepEqual(l, want) || l.At.IsZero() || l.reads() != journal.FormatBase {
		t.Errorf("%+v, which reads %d, %v; want %+v", l, l.reads(), err, want)
	}
}

func TestWhoCannotReadAFormat(t *testing.T) {
	of := func(reads int, closed bool) lease {
		return lease{leaseValue: leaseValue{Nonce: 1, Reads: reads, Closed: closed}, rev: 1}
	}
	leases := map[string]lease{"first": of(0, false), "second": of(2, false), "third": of(3, false), "ended": of(1, true), "absent": {}}
	for format, want := range map[int]string{1: "", 2: "first", 3: "first second", 4: "first second third"} {
		if got := strings.Join(cannotRead(format, leases), " "); got != want {
			t.Errorf("format %d is not read by %q; want %q", format, got, want)
		}
	}
}

// TestANewKindOfChangeWaitsForTheLastWorkerThatDoesNotReadIt: while a worker of an older version lives, everything goes on but the change of
// the newer kind. It is written, at the first version that there is, once the older worker has ended, and then none of that version
// begins any more.
func TestANewKindOfChangeWaitsForTheLastWorkerThatDoesNotReadIt(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Worker){"stopped": (*Worker).Stop, "killed": (*Worker).Kill} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newServer(t)
			all := &crew{}
			others := func(c *Config) { c.Others = all }
			older, newer := w.skewed("older", "0.1.0", 1, others), w.skewed("newer", "0.2.0", newerFormat, others)
			all.workers = []*Worker{older, newer}
			w.run(older)
			w.run(newer)
			eventually(t, "each has one", func() bool { return len(owned(older)) == 1 && len(owned(newer)) == 1 })
			var name string
			for i := 0; name == ""; i++ {
				if o := fmt.Sprint("o", i); slices.Contains(owned(newer), partitionOf("register", o)) {
					name = o
				}
			}
			write := func() error {
				_, err := newer.Do(t.Context(), Request{Class: "register", Name: name, Method: "write", Body: []byte(`"new"`)})
				return err
			}
			wantCode(t, write(), Unavailable, "a change of format 2 is not written before all workers read it")
			eventually(t, "it is said who does not read it", func() bool {
				return strings.Contains(fmt.Sprint(write()), "worker older, of version 0.1.0, reads 1")
			})
			if _, err := newer.Do(t.Context(), Request{Class: "register", Name: name, Method: "add", Body: []byte("1")}); err != nil {
				t.Errorf("a change of a kind that all read: %v", err)
			}
			if m := last(t, w, name); !strings.HasPrefix(string(m.Data), `{"v":1,"min_reader":1,`) {
				t.Errorf("beside an older worker %s is written", m.Data)
			}
			if v, _, err := readFormat(t.Context(), w.meta()); err != nil || v.Format != 0 {
				t.Errorf("the bucket says %+v, %v before it is written", v, err)
			}

			end(older)
			eventually(t, "it is written", func() bool { return write() == nil })
			if m := last(t, w, name); !strings.HasPrefix(string(m.Data), `{"v":2,"min_reader":2,`) {
				t.Errorf("%s is written", m.Data)
			}
			eventually(t, "newer has both", func() bool { return len(owned(newer)) == 2 })

			var err error
			select {
			case err = <-w.run(w.skewed("late", "0.1.0", 1)):
			case <-time.After(30 * time.Second):
				t.Fatal("a worker that does not read it goes on")
			}
			var refused *FormatError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), "version 0.2.0 reads them") {
				t.Fatalf("a worker that does not read it ended with %v", err)
			}
			if l, _ := w.leaseOf("late"); !l.Closed {
				t.Errorf("it left the lease %+v", l)
			}
			late := w.skewed("late", "0.2.0", newerFormat)
			w.run(late)
			eventually(t, "one that reads it shares", func() bool { return len(owned(late)) == 1 })
			w.server.Overwrite(stream(registers.Get(name)), last(t, w, name).Seq, last(t, w, name).Data) // the reader of this test does not read it either
		})
	}
}

// TestAWorkerThatComesWhileANewKindIsPermitted: it is seen, or it sees. Here its lease is made when the key is written already and the leases
// were looked at once.
func TestAWorkerThatComesWhileANewKindIsPermitted(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	newer := w.skewed("newer", "0.2.0", newerFormat, func(c *Config) {
		connect := c.Connect
		c.Connect = func(ctx context.Context) (journal.Session, error) {
			s, err := connect(ctx)
			return journaltest.Faulty(s, &journaltest.Plan{Meta: func(key string) error {
				if key != formatKey {
					return nil
				}
				value := leaseValue{Nonce: 7, TermMS: time.Hour.Milliseconds(), Software: "0.1.0"}.encode()
				_, err := w.meta().Put(context.Background(), leaseKey("older"), value, 0)
				return err
			}}), err
		}
	})
	w.run(newer)
	w.ready(newer)
	write := func() error {
		_, err := newer.Do(t.Context(), Request{Class: "register", Name: "a", Method: "write", Body: []byte(`"new"`)})
		return err
	}
	wantCode(t, write(), Unavailable)
	eventually(t, "it is said who came", func() bool { return strings.Contains(fmt.Sprint(write()), "worker older, of version 0.1.0") })
	if v, _, err := readFormat(t.Context(), w.meta()); err != nil || v.Format != newerFormat || v.Software != "0.2.0" {
		t.Errorf("the bucket says %+v, %v", v, err)
	}
	if n := newer.ses.Load().formats.may.Load(); n != 0 {
		t.Errorf("format %d may be written", n)
	}
}

// TestWhatANewerVersionWroteIsKept: fields that this version does not know stay in keys that it changes, and mean nothing to it.
func TestWhatANewerVersionWroteIsKept(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	put := func(key, value string) {
		t.Helper()
		_, rev, _ := w.meta().Get(t.Context(), key)
		must(w.meta().Put(t.Context(), key, []byte(value), rev))(t)
	}
	golden := func(name string) string {
		t.Helper()
		return strings.TrimSpace(string(must(os.ReadFile(filepath.Join("testdata", "skew", name+".json")))(t)))
	}
	// A lease that nobody renews, and an epoch that its worker has begun: the present worker closes the lease, and follows.
	inc := journal.Incarnation{Revision: 1, Nonce: 5}
	put(leaseKey("newer"), golden("lease"))
	epoch := strings.Replace(golden("epoch"), `"revision":9`, fmt.Sprintf(`"revision":%d`, inc.Revision), 1)
	log := w.server.Session("objects", worldPartitions).Log(0)
	header := journal.Header{wire.HeaderFormat: "1", wire.HeaderEpoch: must(journal.DecodeEpoch([]byte(epoch)))(t).Epoch.String()}
	messages := []journal.Message{{Subject: "objects.epoch.0", Header: header, Data: []byte(epoch)}}
	for range journal.Window {
		messages = append(messages, journal.Message{Subject: "objects.fence.0", Header: header})
	}
	must(log.Begin(t.Context(), 0, messages...))(t)
	put(journal.WitnessKey(0), golden("witness"))
	put(placementKey, golden("share"))
	if err := ChangePlacement(t.Context(), w.meta(), func(pl *Placement) { pl.Drained = nil }); err != nil {
		t.Fatal(err)
	}

	worker := w.worker("older", func(c *Config) { c.LeaseTerm = time.Second })
	w.ready(worker)
	worker.Stop()
	for key, want := range map[string]string{
		leaseKey("newer"):     `"closed":true`,
		journal.WitnessKey(0): `"number":2`,
		placementKey:          `"moved":{"1":"older"}`,
	} {
		value, _, err := w.meta().Get(t.Context(), key)
		if err != nil || !json.Valid(value) || !strings.Contains(string(value), want) || !strings.Contains(string(value), `"later":{"a":[1,2]}`) {
			t.Errorf("%s is %s, %v; want %s and what was later", key, value, err, want)
		}
	}
}

// TestLeasesOfWorkersThatHaveEndedAreRemoved: the closed one of who stopped, that of who was killed and owned nothing, and not that of who
// lives. A worker whose lease was removed, with an epoch that it had not released, comes back, and is followed when it does not.
func TestLeasesOfWorkersThatHaveEndedAreRemoved(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	start := func(id string, keep time.Duration) *Worker {
		worker := w.skewed(id, "0.1.0", 1)
		worker.endedFor = keep
		w.run(worker)
		return worker
	}
	stopped, killed := start("stopped", time.Hour), start("killed", time.Hour)
	eventually(t, "each has one", func() bool { return len(owned(stopped)) == 1 && len(owned(killed)) == 1 })
	stopped.Stop()
	eventually(t, "one has both", func() bool { return len(owned(killed)) == 2 })
	killed.Kill()
	// What is left of them goes, while nobody follows: the epochs of the second are not released.
	idle := must(newSession(w.skewed("idle", "0.1.0", 1), w.server.Session("objects", worldPartitions)))(t)
	idle.w.endedFor = time.Millisecond
	if err := idle.create(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both leases are gone", func() bool {
		leases := must(readLeases(t.Context(), w.meta()))(t)
		if err := idle.removeEnded(t.Context(), leases, idle.w.clock.Boot()); err != nil {
			t.Fatal(err)
		}
		return len(leases) == 1
	})
	if l, _ := w.leaseOf("idle"); l.Closed || l.absent() {
		t.Errorf("the lease of who lives is %+v", l)
	}
	idle.close()

	follower := start("follower", time.Hour)
	w.ready(follower)
	if l, value := w.leaseOf("killed"); !l.Closed || !l.proves(l.incarnation()) {
		t.Errorf("the lease of who was followed is %s", value)
	}
	again := start("killed", time.Hour)
	eventually(t, "who was killed is back", func() bool { return len(owned(again)) == 1 && len(owned(follower)) == 1 })
}
