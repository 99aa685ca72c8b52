package verify

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// damages are ways to spoil the story, and the findings that each must give, no more and no less.
var damages = map[string]struct {
	spoil func(s *story)
	cfg   Config
	want  []string
}{
	// Records.
	"a payload is not a record any more": {
		func(s *story) { s.at(s.a2).Data = s.at(s.a2).Data[:40] }, Config{},
		[]string{"severe a2 format c/a"}},
	"a value in a payload was changed": {
		func(s *story) { s.replace(s.b1, `"value":1`, `"value":7`) }, Config{},
		[]string{"severe b2 prev c/b"}},
	"a value that a snapshot record holds was changed": {
		func(s *story) { s.replace(s.a3, `"value":3`, `"value":4`) }, Config{},
		[]string{"severe snap1 snapshot c/a", "severe a4 prev c/a"}},
	"a record is lost": {
		func(s *story) { s.drop(s.a2) }, Config{},
		[]string{"severe a3 version c/a"}},
	"the record that a snapshot record names is lost": {
		func(s *story) { s.drop(s.a3) }, Config{},
		[]string{"severe snap1 snapshot c/a", "severe a4 version c/a"}},
	"the first record is lost": {
		func(s *story) { s.drop(s.b1) }, Config{},
		[]string{"severe b2 head c/b"}},
	"two records changed places": {
		func(s *story) {
			a, b := s.at(s.a3), s.at(s.a2)
			a.Data, b.Data = b.Data, a.Data
		}, Config{},
		[]string{"severe a2 version c/a", "severe snap1 snapshot c/a", "severe a4 version c/a"}},
	"a record is there twice": {
		func(s *story) { s.store(ns.Journal("c", "a"), s.at(s.a5).Data) }, Config{},
		[]string{"severe last version c/a"}},
	"a record of the right epoch follows nothing, and the next fits": {
		func(s *story) {
			s.store(ns.Journal("c", "a"), record(99, journal.HashOf([]byte("nothing")), s.now, put("k", `9`)))
			s.record("a", put("k", `6`))
		}, Config{},
		[]string{"severe a5+1 version c/a"}},
	"a record has a kind of change of a later version": {
		func(s *story) { s.replace(s.a5, `"kind":"put"`, `"kind":"fork"`) }, Config{},
		[]string{"severe a5 format c/a"}},
	"a record is in another format": {
		func(s *story) { s.at(s.a5).Header[wire.HeaderFormat] = "2" }, Config{},
		[]string{"severe a5 format c/a"}},
	"a record has a codec": {
		func(s *story) { s.at(s.a5).Header[wire.HeaderCodec] = "zstd" }, Config{},
		[]string{"severe a5 format c/a"}},
	"recorded time goes back": {
		func(s *story) { s.record("a", at(noon, put("k", `6`))) }, Config{},
		[]string{"severe last time c/a"}},
	"recorded time goes back within a record": {
		func(s *story) {
			s.record("a", at(s.now.Add(time.Hour), put("k", `6`)), at(s.now.Add(time.Minute), put("k", `7`)))
		}, Config{},
		[]string{"severe last time c/a"}},
	"a record has another time than its last commit": {
		func(s *story) {
			s.replace(s.a5, `"method":"set"`, `"method":"set","at":"2026-11-24T12:00:07.5Z"`)
		}, Config{},
		[]string{"severe a5 time c/a"}},
	"a record is on the subject of another slot": {
		func(s *story) {
			s.record("a", put("k", `6`))
			s.at(s.seq).Subject = fmt.Sprintf("objects.journal.%d.c.a", (wire.Slot("c", "a")+1)%wire.Slots)
		}, Config{},
		[]string{"severe last subject c/a"}},
	"a name is not spelt as it must be": {
		func(s *story) { s.record("a", put("k", `6`)); s.at(s.seq).Subject = ns.Journal("c", "%61") }, Config{},
		[]string{"severe last subject c/%61"}},

	// Requests.
	"a request id is applied twice": {
		func(s *story) { s.record("a", withID("x", put("k", `6`))) }, Config{Keep: map[string]Keep{"c": {}}},
		[]string{"severe last once c/a"}},
	"a request id is applied twice, and how long the class keeps ids is not known": {
		func(s *story) { s.record("a", withID("x", put("k", `6`))) }, Config{},
		[]string{"warning last once c/a"}},
	"a request id is used again when it is forgotten by number": {
		func(s *story) {
			s.record("a", withID("z", put("k", `6`)))
			s.record("a", withID("x", put("k", `6`)))
		}, Config{Keep: map[string]Keep{"c": {Max: 1}}}, nil},
	"a request id is used again when it is forgotten by age": {
		func(s *story) {
			s.record("a", at(noon.Add(25*time.Hour), put("k", `6`)))
			s.record("a", at(noon.Add(25*time.Hour), withID("x", put("k", `6`))))
		}, Config{Keep: map[string]Keep{"c": {}}}, nil},
	"a number is applied twice": {
		func(s *story) { s.record("a", numbered(7, 6, noon.Add(time.Hour), put("k", `6`))) }, Config{},
		[]string{"severe last once c/a"}},
	"a number below its client's mark is applied": {
		func(s *story) { s.record("a", numbered(4, 4, noon.Add(time.Hour), put("k", `6`))) }, Config{},
		[]string{"severe last once c/a"}},
	"a number is applied behind its deadline": {
		func(s *story) { s.record("a", numbered(8, 5, s.now, put("k", `6`))) }, Config{},
		[]string{"severe last once c/a"}},
	"a number is used again by a client that is forgotten": {
		func(s *story) {
			s.record("a", at(noon.Add(2*time.Hour), put("k", `6`)))
			s.record("a", at(noon.Add(2*time.Hour), numbered(7, 5, noon.Add(3*time.Hour), put("k", `6`))))
		}, Config{}, nil},

	// Messages to objects.
	"messages are answered in order, each once": {
		func(s *story) {
			s.record("a", answers(0, 3, time.Second, withID("m", put("k", `6`))), outcome(journal.SentRepeat, answers(0, 4, time.Second, withID("m", journal.Commit{Method: "set"}))))
			s.record("a", outcome(journal.SentNotRun, answers(0, 7, 2*time.Second, numbered(7, 5, noon, journal.Commit{Method: "set"}))))
			s.record("a", outcome(journal.SentDead, answers(0, 8, 2*time.Second, withID("m", journal.Commit{Method: "set"}))))
			s.snap("a", 1)
			s.checkpoint(0, 8)
			s.record("a", answers(1, 2, time.Minute, put("k", `7`)))
			s.checkpoint(1, 1, journal.Held{Class: "c", Token: "a", First: 1, Last: 1})
		}, Config{Keep: map[string]Keep{"c": {}}}, nil},
	"a message is answered twice": {
		func(s *story) {
			s.record("a", answers(0, 3, time.Second, put("k", `6`)), answers(0, 3, time.Second, put("k", `7`)))
		}, Config{},
		[]string{"severe last once c/a"}},
	"messages are answered out of order": {
		func(s *story) {
			s.record("a", answers(0, 4, time.Second, put("k", `6`)))
			s.record("a", answers(0, 3, time.Second, put("k", `7`)))
		}, Config{},
		[]string{"severe last once c/a"}},
	"a message of an earlier life is answered": {
		func(s *story) {
			s.record("a", answers(1, 4, time.Second, put("k", `6`)))
			s.record("a", answers(0, 5, time.Second, put("k", `7`)))
		}, Config{},
		[]string{"severe last once c/a"}},
	"the time of messages goes back": {
		func(s *story) {
			s.record("a", answers(0, 4, time.Minute, put("k", `6`)))
			s.record("a", answers(0, 5, time.Second, put("k", `7`)))
		}, Config{},
		[]string{"severe last time c/a"}},
	"a publisher's number is applied twice": {
		func(s *story) {
			s.record("a", answers(0, 4, time.Second, numbered(9, 9, noon.Add(time.Hour), put("k", `6`))))
			s.record("a", answers(0, 5, time.Second, numbered(9, 9, noon.Add(time.Hour), put("k", `7`))))
		}, Config{},
		[]string{"severe last once c/a"}},
	"a publisher's number is that of a call": {
		func(s *story) {
			s.record("a", answers(0, 4, time.Second, numbered(7, 5, noon.Add(time.Hour), put("k", `6`))))
		}, Config{}, nil},
	"a message is applied that was stored behind its deadline": {
		func(s *story) {
			s.record("a", answers(0, 4, 2*time.Hour, numbered(9, 9, noon.Add(time.Hour), put("k", `6`))))
		}, Config{},
		[]string{"severe last once c/a"}},
	"a snapshot record does not know of a message": {
		func(s *story) {
			s.record("a", answers(0, 4, time.Second, put("k", `6`)))
			s.snap("a", 1, without("m", 1))
		}, Config{},
		[]string{"severe last snapshot c/a"}},
	"behind a purge a message is answered again": {
		func(s *story) {
			s.record("a", answers(0, 4, time.Second, put("k", `6`)))
			s.record("a", put("k", `7`))
			s.snap("a", 1)
			s.snap("a", 1)
			s.drop(s.a1, s.a2, s.a3, s.snap1, s.snap1+1, s.snap1+2, s.a4, s.snap2, s.a5, s.a5+1)
			s.record("a", answers(0, 4, time.Second, put("k", `8`)))
		}, Config{},
		[]string{"severe last once c/a"}},
	"a checkpoint goes back": {
		func(s *story) { s.checkpoint(0, 8); s.checkpoint(0, 7) }, Config{},
		[]string{"severe last checkpoint"}},
	"a checkpoint is of an earlier life": {
		func(s *story) { s.checkpoint(1, 8); s.checkpoint(0, 9) }, Config{},
		[]string{"severe last checkpoint"}},
	"a checkpoint holds what its cursor has not passed": {
		func(s *story) { s.checkpoint(0, 8, journal.Held{Class: "c", Token: "a", First: 9, Last: 9}) }, Config{},
		[]string{"severe last checkpoint"}},
	"a checkpoint holds messages that end before they begin": {
		func(s *story) { s.checkpoint(0, 8, journal.Held{Class: "c", Token: "a", First: 5, Last: 4}) }, Config{},
		[]string{"severe last checkpoint"}},
	"a checkpoint does not decode": {
		func(s *story) { s.checkpoint(0, 8); s.at(s.seq).Data = []byte("{}") }, Config{},
		[]string{"severe last format"}},
	"a checkpoint of a former epoch comes late": {
		func(s *story) { s.checkpoint(0, 8); s.at(s.seq).Header = s.at(s.b1).Header }, Config{},
		[]string{"warning last stray"}},

	// Epochs.
	"a record of a former epoch comes late": {
		func(s *story) {
			s.store(ns.Journal("c", "b"), s.at(s.b1).Data)
			s.at(s.seq).Header = s.at(s.b1).Header
		}, Config{},
		[]string{"warning last stray c/b"}},
	"a record is of another epoch of that number": {
		func(s *story) { s.at(s.a5).Header[wire.HeaderEpoch] = "2 0000000000000001" }, Config{},
		[]string{"warning a5 stray c/a"}},
	"a record is of a later epoch": {
		func(s *story) { s.at(s.a5).Header[wire.HeaderEpoch] = "3 0000000000000001" }, Config{},
		[]string{"severe a5 epoch c/a"}},
	"an epoch record is lost": {
		func(s *story) { s.drop(s.epoch2) }, Config{},
		[]string{"severe epoch2+1 epoch"}},
	"a former epoch record is lost, with nothing behind it": {
		func(s *story) {
			s.begin()
			at := s.seq - journal.Window
			s.begin()
			s.drop(at)
			s.dropFillers(s.seq - journal.Window)
		}, Config{},
		[]string{"severe last-256 epoch"}},
	"an epoch record is lost, and the loss was accepted": {
		func(s *story) {
			s.begin()
			at := s.seq - journal.Window
			s.begin()
			s.drop(at)
			s.dropFillers(s.seq - journal.Window)
		},
		Config{Witness: journal.Witness{Life: 1}},
		[]string{"warning last-256 epoch"}},
	"an epoch record does not decode": {
		func(s *story) { s.at(s.epoch2).Data = []byte("{}") }, Config{},
		[]string{"severe epoch2 format"}},
	"an epoch begins again": {
		func(s *story) { s.epoch.Epoch.Number--; s.begin() }, Config{},
		[]string{"severe last-256 epoch"}},
	"an epoch names another before it": {
		func(s *story) { s.replace(s.epoch2, `"before":1`, `"before":0`) }, Config{},
		[]string{"severe epoch2 epoch"}},
	"an epoch's header is of another": {
		func(s *story) { s.at(s.epoch2).Header = s.at(s.epoch1).Header }, Config{},
		[]string{"severe epoch2 epoch"}},
	"a release is of another epoch": {
		func(s *story) {
			s.replace(s.release1, `"number":1`, `"number":9`)
			s.at(s.release1).Header[wire.HeaderEpoch] = "9 00000000000003e9"
		}, Config{},
		[]string{"severe release1 epoch"}},
	"a release is by another worker": {
		func(s *story) { s.replace(s.release1, `"worker":"w"`, `"worker":"v"`) }, Config{},
		[]string{"severe release1 epoch"}},
	"an epoch is released twice": {
		func(s *story) { s.release(); s.release() }, Config{},
		[]string{"warning last epoch"}},
	"a record is stored behind the release of its epoch": {
		func(s *story) { s.release(); s.record("a", put("k", `6`)) }, Config{},
		[]string{"warning last epoch c/a"}},
	"a worker's lease went back": {
		func(s *story) {
			s.epoch.Incarnation.Revision = 0
			s.begin()
			s.replace(s.seq-journal.Window, `"revision":3`, `"revision":1`)
		}, Config{},
		[]string{"warning last-256 epoch"}},

	// The fence.
	"the last epoch has no fence": {
		func(s *story) { s.begin(); s.dropFillers(s.seq) }, Config{},
		[]string{"severe last-256 fence"}},
	"a record stands in the fence": {
		func(s *story) {
			s.begin()
			s.seq -= 100
			s.messages = s.messages[:len(s.messages)-100]
			s.record("a", put("k", `6`))
		}, Config{},
		[]string{"severe last fence"}},
	"an epoch begins in the fence of another": {
		func(s *story) { s.begin(); s.seq -= 100; s.messages = s.messages[:len(s.messages)-100]; s.begin() }, Config{},
		[]string{"warning last-256 fence"}},
	"the fence is shorter than the former owner's window": {
		func(s *story) {
			s.replace(s.epoch2, `"window":256`, `"window":300`)
			s.release()
			s.begin()
			s.record("a", put("k", `6`))
		}, Config{},
		[]string{"severe last fence"}},
	"the fillers of former epochs are purged": {
		func(s *story) { s.begin(); s.dropFillers(s.seq); s.begin() }, Config{}, nil},
	"fillers lifted the stream": {
		func(s *story) { s.store(ns.Fence(0), nil); s.at(s.seq).Header = nil }, Config{}, nil},

	// Snapshot records.
	"a snapshot record is as of another record": {
		func(s *story) { s.snap("a", 1, func(n *journal.Snap) { n.Seq = s.a4; n.Version-- }) }, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record names no record": {
		func(s *story) { s.snap("a", 1, func(n *journal.Snap) { n.Seq = s.b2 }) }, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record is of another time": {
		func(s *story) { s.snap("a", 1, func(n *journal.Snap) { n.At = n.At.Add(1) }) }, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record has another value": {
		func(s *story) { s.snap("a", 1, func(n *journal.Snap) { n.Entries[0].Data = []byte(`9`) }) }, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record lacks a key": {
		func(s *story) { s.snap("a", 1, func(n *journal.Snap) { n.Entries = n.Entries[1:] }) }, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record has a key too many": {
		func(s *story) {
			s.snap("a", 1, func(n *journal.Snap) {
				n.Entries = append(n.Entries, journal.SnapEntry{Space: "k", Key: "z", Data: []byte(`1`)})
			})
		}, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record is of a state that another record made": {
		func(s *story) {
			s.record("a", put("k", `6`))
			s.snap("a", 1, func(n *journal.Snap) { *n = s.named(s.a5, *n) })
		}, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record does not know of a request id": {
		func(s *story) { s.snap("a", 1, without("i/", 1)) }, Config{Keep: map[string]Keep{"c": {}}},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record does not know of a request id, and how long the class keeps them is not known": {
		func(s *story) { s.snap("a", 1, without("i/", 1)) }, Config{},
		[]string{"warning last snapshot c/a"}},
	"a snapshot record does not know of a request id that is forgotten": {
		func(s *story) {
			s.record("a", withID("z", put("k", `6`)))
			s.snap("a", 1, without("i/"+idHash("x"), 1))
		},
		Config{Keep: map[string]Keep{"c": {Max: 1}}}, nil},
	"a snapshot record does not know of a client": {
		func(s *story) { s.snap("a", 1, without("s/", 1)) }, Config{},
		[]string{"severe last snapshot c/a"}},
	"a snapshot record has requests that cannot be read": {
		func(s *story) {
			s.snap("a", 1, func(n *journal.Snap) {
				n.Entries = append(n.Entries, journal.SnapEntry{Space: "w", Key: "n", Data: []byte(`"?"`)})
			})
		}, Config{},
		[]string{"severe last snapshot c/a"}},
	"a part of a snapshot record is lost": {
		func(s *story) { s.drop(s.snap1 + 1) }, Config{},
		[]string{"severe snap1 snapshot c/a", "severe snap1+2 snapshot c/a"}},
	"the last part of a snapshot record is lost": {
		func(s *story) { s.drop(s.snap1 + 2) }, Config{},
		[]string{"severe snap1 snapshot c/a"}},
	"the stream ends within a snapshot record": {
		func(s *story) { s.snap("a", 2); s.drop(s.seq) }, Config{},
		[]string{"severe last-1 snapshot c/a"}},
	"the stream was cut within a snapshot record, and the loss was accepted": {
		func(s *story) { s.snap("a", 2); s.drop(s.seq) }, Config{Witness: journal.Witness{Life: 1}},
		[]string{"warning last-1 snapshot c/a"}},
	"a part of a snapshot record does not decode": {
		func(s *story) { s.at(s.snap1).Data = []byte("garbage") }, Config{},
		[]string{"severe snap1 format c/a"}},
	"a snapshot record does not decode": {
		func(s *story) { s.at(s.snap2).Data = []byte("garbage") }, Config{},
		[]string{"severe snap2 format c/a"}},
	"a snapshot record of a former epoch comes late": {
		func(s *story) { s.snap("a", 1); s.at(s.seq).Header = s.at(s.b1).Header }, Config{},
		[]string{"warning last stray c/a"}},
	"a snapshot record without any record": {
		func(s *story) { s.drop(s.a1, s.a2, s.a3, s.a4, s.a5) }, Config{},
		[]string{"severe snap2 snapshot c/a"}},

	// Purging.
	"records are purged that two snapshot records cover": {
		func(s *story) { s.drop(s.a1, s.a2) }, Config{}, nil},
	"and a snapshot record is left that names a purged one": {
		func(s *story) { s.drop(s.a1, s.a2, s.a3); s.snap("a", 1) }, Config{}, nil},
	"one snapshot record covers what is purged": {
		func(s *story) { s.drop(s.a1, s.a2, s.a3) }, Config{},
		[]string{"warning a4 head c/a"}},
	"no snapshot record covers what is missing": {
		func(s *story) { s.drop(s.a1, s.a2, s.a3, s.a4) }, Config{},
		[]string{"severe a5 head c/a"}},
	"behind a purge a snapshot record has another value": {
		func(s *story) {
			s.drop(s.a1, s.a2)
			s.snap("a", 1, func(n *journal.Snap) { n.Entries[0].Data = []byte(`9`) })
		}, Config{},
		[]string{"severe last snapshot c/a"}},
	"behind a purge the first snapshot record contradicts a record": {
		func(s *story) { s.drop(s.a1, s.a2); s.replace(s.snap1+2, `"value":3`, `"value":4`) }, Config{},
		[]string{"severe snap1 snapshot c/a"}},
	"behind a purge a request id comes again": {
		func(s *story) { s.drop(s.a1, s.a2); s.record("a", withID("x", put("k", `6`))) }, Config{Keep: map[string]Keep{"c": {}}},
		[]string{"severe last once c/a"}},
	"behind a purge a number comes again": {
		func(s *story) { s.drop(s.a1, s.a2); s.record("a", numbered(5, 5, noon.Add(time.Hour), put("k", `6`))) }, Config{},
		[]string{"severe last once c/a"}},

	// What others wrote.
	"a foreign message on an object's subject": {
		func(s *story) { s.store(ns.Journal("c", "a"), []byte("hello")); s.at(s.seq).Header = nil }, Config{},
		[]string{"warning last stray c/a"}},
	"a foreign message in the fence's place": {
		func(s *story) { s.store(ns.Fence(0), []byte("hello")) }, Config{},
		[]string{"warning last stray"}},
	"a message on a subject that no stream has": {
		func(s *story) { s.store("objects.other", nil) }, Config{},
		[]string{"warning last subject"}},
	"a message on a reserved subject": {
		func(s *story) {
			s.store(strings.Replace(ns.Journal("c", "a"), ".journal.", ".due.", 1), nil)
		}, Config{},
		[]string{"warning last subject"}},

	// The witness.
	"the stream ends before what the witness knows": {
		func(s *story) {}, Config{Witness: journal.Witness{Acked: 10_000}},
		[]string{"severe last witness"}},
	"the stream lacks the epoch that the witness knows": {
		func(s *story) {}, Config{Witness: journal.Witness{EpochSeq: 262, Epoch: journal.EpochID{Number: 2, Token: 5}}},
		[]string{"severe 262 witness"}},
	"the witness knows what is there": {
		func(s *story) {}, Config{Witness: journal.Witness{Acked: 526, EpochSeq: 262, Epoch: journal.EpochID{Number: 2, Token: 1002}}}, nil},
	"an alarm stands, and another loss was accepted": {
		func(s *story) {}, Config{Witness: journal.Witness{Life: 1, Alarm: &journal.WentBackError{Have: 9}, Accepted: &journal.Acceptance{Had: 5}}},
		[]string{"warning 5 witness", "severe 9 witness"}},
}

// positions replaces the names of positions in wanted findings: "severe a2+1 format c/a".
func (s *story) positions(want []string) (out []string) {
	of := map[string]journal.Seq{"epoch1": s.epoch1, "a1": s.a1, "b1": s.b1, "a2": s.a2, "release1": s.release1, "epoch2": s.epoch2, "a3": s.a3,
		"snap1": s.snap1, "b2": s.b2, "a4": s.a4, "snap2": s.snap2, "a5": s.a5, "last": s.seq}
	for _, w := range want {
		severity, rest, _ := strings.Cut(w, " ")
		place, rest, _ := strings.Cut(rest, " ")
		name := strings.TrimRight(strings.TrimRight(place, "0123456789"), "+-")
		offset := 0
		if of[place] == 0 && of[name] != 0 {
			_, _ = fmt.Sscan(place[len(name):], &offset)
			place = name
		}
		if of[place] != 0 {
			place = fmt.Sprint(int(of[place]) + offset)
		}
		out = append(out, severity+" "+place+" "+rest)
	}
	return out
}

func TestEachDamageIsFoundWhereItIs(t *testing.T) {
	t.Parallel()
	for name, d := range damages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStory()
			d.spoil(s)
			r := s.check(d.cfg)
			if diff := cmp.Diff(s.positions(d.want), brief(r.Findings)); diff != "" {
				t.Errorf("(-want +got):\n%s\n%v", diff, r.Findings)
			}
			read, err := Partition(t.Context(), s.log(t), s.meta(t, d.cfg.Witness), partitioned(d.cfg))
			if diff := cmp.Diff(r, read); diff != "" || err != nil {
				t.Errorf("read as a log (-from messages +from the log): %v\n%s", err, diff)
			}
			severe := 0
			for _, f := range r.Findings {
				if f.Severity == Severe {
					severe++
				}
			}
			if r.Severe != severe || r.Severe+r.Warnings != len(r.Findings) {
				t.Errorf("%d severe and %d warnings of %d findings", r.Severe, r.Warnings, len(r.Findings))
			}
		})
	}
}

func (h *hand) replace(seq journal.Seq, old, now string) {
	m := h.at(seq)
	changed := bytes.Replace(m.Data, []byte(old), []byte(now), 1)
	if bytes.Equal(changed, m.Data) {
		panic(fmt.Sprintf("nothing to replace in %s", m.Data))
	}
	m.Data = changed
}

func (h *hand) dropFillers(through journal.Seq) {
	h.messages = slices.DeleteFunc(h.messages, func(m journal.Message) bool { return m.Subject == ns.Fence(0) && m.Seq <= through })
}

func at(t time.Time, c journal.Commit) journal.Commit { c.At = t; return c }

// record is a payload that fits nowhere.
func record(first journal.Version, prev journal.Hash, at time.Time, c journal.Commit) []byte {
	return journal.AppendRecord(nil, first, prev, []journal.Encoded{{JSON: journal.AppendCommit(nil, &c), At: at}})
}

// named makes a snapshot record name the record at a position.
func (s *story) named(seq journal.Seq, n journal.Snap) journal.Snap {
	m := s.at(seq)
	rec, err := journal.DecodeRecord(m.Data)
	if err != nil {
		panic(err)
	}
	n.Seq, n.Version, n.Hash, n.At = seq, rec.Last(), journal.HashOf(m.Data), rec.At
	return n
}

func idHash(id string) string { return journal.HashOf([]byte(id)).String() }

// without leaves n entries out whose keys begin with prefix.
func without(prefix string, n int) func(*journal.Snap) {
	return func(s *journal.Snap) {
		s.Entries = slices.DeleteFunc(s.Entries, func(e journal.SnapEntry) bool {
			out := e.Space == "w" && strings.HasPrefix(e.Key, prefix) && n > 0
			if out {
				n--
			}
			return out
		})
	}
}
