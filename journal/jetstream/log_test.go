package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// opened is a log of a new namespace, and a subject in it.
func opened(t testing.TB) (*Session, *log, string) {
	t.Helper()
	s := dial(t, newNamespace(t))
	if _, err := s.Open(t.Context(), Settings{Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	return s, s.Log(0).(*log), fmt.Sprintf("%s.journal.0.c.a", s.ns)
}

// publish stores a foreign message.
func publish(t *testing.T, s *Session, subject string, header nats.Header, data string) {
	t.Helper()
	m, err := s.Conn().RequestMsgWithContext(t.Context(), &nats.Msg{Subject: subject, Header: header, Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseAck(m.Data); err != nil {
		t.Fatal(err)
	}
}

// A message that was copied from an answer of the server carries the server's headers, and those of an end.
func TestTheHeadersOfAForeignMessageAreNotTakenForTheServers(t *testing.T) {
	t.Parallel()
	s, l, subject := opened(t)
	copied := nats.Header{"Nats-Sequence": {"77"}, "Nats-Subject": {"x"}, "Nats-Time-Stamp": {"never"}, "Nats-Last-Sequence": {"5"}, "Mine": {"m"}}
	end := nats.Header{"Status": {"204"}, "Nats-Num-Pending": {"0"}, "Nats-Last-Sequence": {"0"}, "Nats-UpTo-Sequence": {"99"}}
	none := nats.Header{"Status": {"404"}, "Description": {"No Results"}}
	for i, h := range []nats.Header{copied, end, none, nil} {
		publish(t, s, subject, h, fmt.Sprint(i))
	}
	var got []string
	for m, err := range l.Read(t.Context(), subject, 1) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%d %t %t %v %s", m.Seq, m.Subject == subject, m.Time.IsZero(), m.Header, m.Data))
	}
	want := "1 true false map[Mine:m] 0\n2 true false map[] 1\n3 true false map[] 2\n4 true false map[] 3"
	if strings.Join(got, "\n") != want {
		t.Errorf("%q", got)
	}
	tails, upTo, err := l.Tails(t.Context(), 4, subject)
	if err != nil || len(tails) != 1 || tails[0].Seq != 4 || upTo != 4 {
		t.Errorf("%+v as of %d, %v", tails, upTo, err)
	}
}

func TestTailsAreNeverAShortList(t *testing.T) {
	t.Parallel()
	s, l, subject := opened(t)
	publish(t, s, subject, nil, "a")
	publish(t, s, subject+"b", nil, "b")
	// The server stops behind the message that makes the answer as large as it may be.
	tails, end, err := l.directs.get(t.Context(), l.name, map[string]any{"multi_last": []string{subject, subject + "b"}, "max_bytes": 1})
	if err != nil || len(tails) != 1 {
		t.Fatalf("%+v, %v", tails, err)
	}
	if upTo, err := l.upTo(end); err == nil {
		t.Errorf("one of two is an answer as of %d", upTo)
	}
	subjects := make([]string, 1025)
	for i := range subjects {
		subjects[i] = fmt.Sprint(subject, i)
		if err := s.Conn().Publish(subjects[i], nil); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, s, subject, nil, "behind them")
	if tails, _, err := l.Tails(t.Context(), 0, subjects...); err == nil || !strings.Contains(err.Error(), "413") {
		t.Errorf("%d tails of %d subjects, %v", len(tails), len(subjects), err)
	}
}

func TestTailsWaitForThePosition(t *testing.T) {
	t.Parallel()
	s, l, subject := opened(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	// None of the subjects has a message: that proves nothing about the replica that says so.
	if _, _, err := l.Tails(ctx, 1, subject); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if tails, upTo, err := l.Tails(t.Context(), 0, subject); len(tails) != 0 || upTo != 0 || err != nil {
		t.Errorf("%+v as of %d, %v", tails, upTo, err)
	}
	answer := make(chan error, 1)
	go func() {
		_, _, err := l.Tails(t.Context(), 1, subject)
		answer <- err
	}()
	publish(t, s, subject, nil, "x")
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestAnAnswerWithAGapIsDamage(t *testing.T) {
	t.Parallel()
	message := func(seq, before string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{"Nats-Sequence": {seq}, "Nats-Last-Sequence": {before}, "Nats-Subject": {"a"}, "Nats-Time-Stamp": {"2026-01-02T03:04:05Z"}}}
	}
	end := func(before string) *nats.Msg {
		return &nats.Msg{Header: nats.Header{"Status": {"204"}, "Nats-Last-Sequence": {before}}}
	}
	for name, test := range map[string]struct {
		answer  []*nats.Msg
		damaged bool
	}{
		"complete":       {[]*nats.Msg{message("3", "0"), message("5", "3"), end("5")}, false},
		"without first":  {[]*nats.Msg{message("5", "3"), end("5")}, true},
		"without middle": {[]*nats.Msg{message("3", "0"), message("6", "5"), end("6")}, true},
		"without last":   {[]*nats.Msg{message("3", "0"), end("5")}, true},
	} {
		g := &direct{last: "0"}
		for _, m := range test.answer {
			if g.err == nil {
				g.take(m)
			}
		}
		if errors.Is(g.err, journal.ErrDamaged) != test.damaged || (g.end == nil) != test.damaged {
			t.Errorf("%s: %v, end %v", name, g.err, g.end)
		}
	}
}

// The real server lists 100,000 subjects in one answer; this one is played, and lists two.
func TestSubjectsComeInPages(t *testing.T) {
	t.Parallel()
	played := must[*server.Server](t)(server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true}))
	played.Start()
	t.Cleanup(played.Shutdown)
	s := must[*Session](t)(Dial(t.Context(), Config{Options: []nats.Option{nats.InProcessServer(played)}}))
	t.Cleanup(s.Close)
	all := []string{"a", "b", "c", "d", "e"}
	must[*nats.Subscription](t)(s.Conn().Subscribe("$JS.API.STREAM.INFO.objects-0", func(m *nats.Msg) {
		var asked struct {
			Offset int    `json:"offset"`
			Filter string `json:"subjects_filter"`
		}
		if err := json.Unmarshal(m.Data, &asked); err != nil || asked.Filter != "*" {
			t.Errorf("%s, %v", m.Data, err)
		}
		page := map[string]int{}
		for _, name := range all[asked.Offset:min(asked.Offset+2, len(all))] {
			page[name] = 1
		}
		data, err := json.Marshal(map[string]any{"total": len(all), "offset": asked.Offset, "limit": 2, "state": map[string]any{"subjects": page}})
		if err = errors.Join(err, m.Respond(data)); err != nil {
			t.Error(err)
		}
	}))
	var got []string
	for name, err := range s.Log(0).Subjects(t.Context(), "*") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, name)
	}
	if slices.Sort(got); !slices.Equal(got, all) {
		t.Errorf("%v; want %v", got, all)
	}
}

// BenchmarkRead reads the 100 records of an object among the 20,000 of its partition: nearly all of it is the server's
// search. The server holds a block that it has read only as long as no garbage collection comes: cold is the read after one.
func BenchmarkRead(b *testing.B) {
	const objects, records = 200, 100
	s, l, _ := opened(b)
	subject := func(object int) string { return s.ns.Journal("c", fmt.Sprintf("of-these-%03d", object)) }
	slots := make(chan struct{}, journal.Window)
	w, err := l.Writer(func(a journal.Answer) {
		if a.Outcome != journal.Stored {
			b.Error(a)
		}
		<-slots
	})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	for i := range objects * records {
		slots <- struct{}{}
		m := journal.Message{Subject: subject(i % objects), Header: journal.Header{wire.HeaderFormat: "1", wire.HeaderEpoch: "1 0123456789abcdef"}, Data: make([]byte, 400)}
		if err := w.Append(journal.Seq(i), journal.NoSubjectCheck, m); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	for _, cold := range []bool{false, true} {
		b.Run(map[bool]string{false: "warm", true: "cold"}[cold], func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				if cold {
					b.StopTimer()
					runtime.GC()
					b.StartTimer()
				}
				n := 0
				for _, err := range l.Read(b.Context(), subject(i%objects), 1) {
					if err != nil {
						b.Fatal(err)
					}
					n++
				}
				if n != records {
					b.Fatalf("%d records of %d", n, records)
				}
			}
		})
	}
}
