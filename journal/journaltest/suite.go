package journaltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Test is what every log must do. open returns what opens sessions with a namespace that is new, of two partitions.
func Test(t *testing.T, open func(t *testing.T) (ns wire.Subjects, session func() journal.Session)) {
	for name, test := range map[string]func(*bench){
		"KeysChangeByCompareAndSet":            testMeta,
		"BeginIsACompareAndSet":                testBegin,
		"AppendsAreStoredWherePredicted":       testAppend,
		"BatchesStandInThePipeline":            testBatch,
		"AForeignMessageRefusesWhatIsBehindIt": testForeign,
		"TheSubjectCheckRefuses":               testSubjectCheck,
		"TheFenceRefusesAFullWindow":           testFence,
		"TheFenceCutsAPipeline":                testFencedPipeline,
		"AMessageHasItsOwnHeadersOnly":         testHeaders,
		"FaultsDoWhatTheySay":                  testFaults,
		"ReadersSeeWhatIsStored":               testRead,
		"LongReadsAreComplete":                 testLongRead,
		"WhoFollowsSeesAllOnce":                testFollow,
		"PurgeLeavesTheRest":                   testPurge,
		"AClosedSessionRefuses":                testClosed,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns, session := open(t)
			s := session()
			test(&bench{T: t, ns: ns, session: session, s: s, log: s.Log(0), answers: make(chan journal.Answer, 4*journal.Window)})
		})
	}
}

type bench struct {
	*testing.T
	ns      wire.Subjects
	session func() journal.Session
	s       journal.Session
	log     journal.Log
	answers chan journal.Answer
}

// subject is one of partition 0.
func (b *bench) subject(name string) string { return fmt.Sprintf("%s.journal.0.c.%s", b.ns, name) }

func (b *bench) message(name, data string) journal.Message {
	return journal.Message{Subject: b.subject(name), Header: journal.Header{"Perdure-Epoch": "1 x"}, Data: []byte(data)}
}

func (b *bench) writer() journal.Writer {
	b.Helper()
	w, err := b.log.Writer(func(a journal.Answer) { b.answers <- a })
	b.must(err)
	b.Cleanup(w.Close)
	return w
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) is(err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Errorf("error %v; want %v", err, want)
	}
}

// want takes the answers to these positions, in whatever order they come.
func (b *bench) want(outcome journal.Outcome, seqs ...journal.Seq) {
	b.Helper()
	got := map[journal.Seq]journal.Outcome{}
	for range seqs {
		select {
		case a := <-b.answers:
			if a.Outcome != journal.Stored && a.Err == nil {
				b.Errorf("%d is %s and nothing says why", a.Seq, a.Outcome)
			}
			got[a.Seq] = a.Outcome
		case <-time.After(10 * time.Second):
			b.Fatalf("answers %v; want those of %v", got, seqs)
		}
	}
	for _, seq := range seqs {
		if o, ok := got[seq]; !ok || o != outcome {
			b.Errorf("%d is %s (answered: %v); want %s", seq, o, ok, outcome)
		}
	}
}

func (b *bench) end() journal.Seq {
	b.Helper()
	_, last, err := b.log.Range(b.Context())
	b.must(err)
	return last
}

// read reads until what it reads is right: a replica that is behind may answer first.
func (b *bench) read(subject string, from journal.Seq, right func(data []string) bool) {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		data, err := b.readOnce(subject, from)
		if err == nil && right(data) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%s from %d on has %d messages: %.200q, %v", subject, from, len(data), data, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func (b *bench) readOnce(subject string, from journal.Seq) (data []string, err error) {
	for m, err := range b.log.Read(b.Context(), subject, from) {
		if err != nil {
			return data, err
		}
		data = append(data, string(m.Data))
	}
	return data, nil
}

// are is for read: exactly these.
func are(want ...string) func([]string) bool {
	return func(data []string) bool { return slices.Equal(data, want) }
}

// number is for read: so many, of which each is one more than the one before.
func number(n, first int) func([]string) bool {
	return func(data []string) bool {
		for i, d := range data {
			if d != fmt.Sprint(first+i) {
				return false
			}
		}
		return len(data) == n
	}
}

func testMeta(b *bench) {
	meta, ctx := b.s.Meta(), b.Context()
	_, rev, err := meta.Get(ctx, "worker.a")
	b.is(err, journal.ErrNotFound)
	if rev != 0 {
		b.Errorf("a key that is not there has revision %d", rev)
	}
	first, err := meta.Put(ctx, "worker.a", []byte("one"), 0)
	b.must(err)
	_, err = meta.Put(ctx, "worker.a", []byte("two"), 0)
	b.is(err, journal.ErrConflict)
	second, err := meta.Put(ctx, "worker.a", []byte("three"), first)
	b.must(err)
	_, err = meta.Put(ctx, "worker.a", []byte("four"), first)
	b.is(err, journal.ErrConflict)
	value, rev, err := meta.Get(ctx, "worker.a")
	b.must(err)
	if string(value) != "three" || rev != second || second <= first {
		b.Errorf("%s at %d; it was put at %d, then %d", value, rev, first, second)
	}
	_, err = meta.Put(ctx, "worker.b", nil, 0)
	b.must(err)
	b.must(meta.Remove(ctx, "worker.a", first)) // it has a later revision
	_, err = meta.Put(ctx, "worker.c", []byte("gone"), 0)
	b.must(err)
	_, third, err := meta.Get(ctx, "worker.c")
	b.must(err)
	b.must(meta.Remove(ctx, "worker.c", third))
	b.must(meta.Remove(ctx, "worker.c", third)) // it is not there
	_, rev, err = meta.Get(ctx, "worker.c")
	b.is(err, journal.ErrNotFound)
	if rev != 0 {
		b.Errorf("a key that was removed has revision %d", rev)
	}
	_, err = meta.Put(ctx, "worker.c", []byte("renewed"), third) // by who does not know of it
	b.is(err, journal.ErrConflict)
	fourth, err := meta.Put(ctx, "worker.c", []byte("anew"), 0)
	b.must(err)
	if fourth <= third {
		b.Errorf("a key that was made anew has revision %d; it had %d", fourth, third)
	}
	b.must(meta.Remove(ctx, "worker.c", fourth))
	_, err = meta.Put(ctx, "part.0", nil, 0)
	b.must(err)
	var keys []string
	for k, err := range meta.Keys(ctx, "worker.") {
		b.must(err)
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if want := []string{"worker.a", "worker.b"}; !slices.Equal(keys, want) {
		b.Errorf("%v; want %v", keys, want)
	}
}

func testBegin(b *bench) {
	epoch, fence := b.ns.Epoch(0), b.ns.Fence(0)
	batch := func() []journal.Message {
		return []journal.Message{{Subject: epoch, Header: journal.Header{"K": "v"}, Data: []byte("e")}, {Subject: fence}, {Subject: fence}}
	}
	_, err := b.log.Last(b.Context(), epoch)
	b.is(err, journal.ErrNotFound)
	end, err := b.log.Begin(b.Context(), 0, batch()...)
	b.must(err)
	if end != 3 || b.end() != 3 {
		b.Errorf("ends at %d, %d", end, b.end())
	}
	_, err = b.log.Begin(b.Context(), 0, batch()...)
	b.is(err, journal.ErrConflict)
	_, err = b.log.Begin(b.Context(), 7, batch()...)
	b.is(err, journal.ErrConflict)
	if b.end() != 3 {
		b.Errorf("a conflict stored something: the end is %d", b.end())
	}
	end, err = b.log.Begin(b.Context(), 1, batch()[0]) // a single one
	b.must(err)
	last, err := b.log.Last(b.Context(), epoch)
	b.must(err)
	if end != 4 || last.Seq != 4 || string(last.Data) != "e" || last.Header["K"] != "v" || last.Time.IsZero() {
		b.Errorf("%d; %+v", end, last)
	}
	if last, err := b.log.Last(b.Context(), string(b.ns)+".*.0"); err != nil || last.Seq != 4 {
		b.Errorf("the last on several subjects: %+v, %v", last, err)
	}
}

func testAppend(b *bench) {
	w := b.writer()
	var seqs []journal.Seq
	for i := range journal.Window {
		b.must(w.Append(journal.Seq(i), journal.NoSubjectCheck, b.message("a", fmt.Sprint(i))))
		seqs = append(seqs, journal.Seq(i+1))
	}
	b.want(journal.Stored, seqs...)
	b.read(b.subject("a"), 1, number(journal.Window, 0))
	buf := []byte("mine") // what is passed is the caller's again
	m := journal.Message{Subject: b.subject("a"), Data: buf}
	b.must(w.Append(journal.Window, journal.NoSubjectCheck, m))
	copy(buf, "gone")
	b.want(journal.Stored, journal.Window+1)
	if last, err := b.log.Last(b.Context(), b.subject("a")); err != nil || string(last.Data) != "mine" {
		b.Errorf("%s, %v", last.Data, err)
	}
}

func testBatch(b *bench) {
	w := b.writer()
	b.must(w.Append(0, journal.NoSubjectCheck, b.message("a", "1")))
	b.must(w.Append(1, journal.NoSubjectCheck, b.message("s", "2"), b.message("s", "3"), b.message("s", "4")))
	b.must(w.Append(4, journal.NoSubjectCheck, b.message("a", "5")))
	b.want(journal.Stored, 1, 4, 5)
	// One with a wrong expectation is refused whole.
	b.must(w.Append(3, journal.NoSubjectCheck, b.message("s", "x"), b.message("s", "y")))
	b.want(journal.Refused, 5)
	b.read(b.subject("s"), 1, are("2", "3", "4"))
	if b.end() != 5 {
		b.Errorf("the end is %d", b.end())
	}
}

func testForeign(b *bench) {
	w := b.writer()
	b.must(w.Append(0, journal.NoSubjectCheck, b.message("a", "1")))
	b.want(journal.Stored, 1)
	other := b.session().Log(0)
	at, err := other.Begin(b.Context(), 0, b.message("b", "foreign"))
	b.must(err)
	if at != 2 {
		b.Fatalf("at %d", at)
	}
	for i := range journal.Seq(3) {
		b.must(w.Append(1+i, journal.NoSubjectCheck, b.message("a", "lost")))
	}
	// The first finds the foreign message in its place. The one behind it expects position 2, which is there: that is
	// why an epoch begins with a window of fillers, and why a refusal ends the writer's epoch.
	a := <-b.answers
	if a.Seq != 2 || a.Outcome != journal.Refused {
		b.Errorf("%+v", a)
	}
	b.want(journal.Stored, 3, 4)
}

func testSubjectCheck(b *bench) {
	w := b.writer()
	b.must(w.Append(0, 0, b.message("a", "1")))
	b.want(journal.Stored, 1)
	b.must(w.Append(1, 0, b.message("b", "2")))
	b.want(journal.Stored, 2)
	b.must(w.Append(2, 0, b.message("a", "on an outdated copy")))
	b.want(journal.Refused, 3)
	b.must(w.Append(2, 1, b.message("a", "3")))
	b.want(journal.Stored, 3)
	b.must(w.Append(3, journal.NoSubjectCheck, b.message("a", "4")))
	b.want(journal.Stored, 4)
}

func testFence(b *bench) {
	old := b.writer()
	b.must(old.Append(0, journal.NoSubjectCheck, b.message("a", "before")))
	b.want(journal.Stored, 1)
	fence := []journal.Message{{Subject: b.ns.Epoch(0), Data: []byte("e")}}
	for range journal.Window {
		fence = append(fence, journal.Message{Subject: b.ns.Fence(0)})
	}
	end, err := b.session().Log(0).Begin(b.Context(), 0, fence...)
	b.must(err)
	// The former owner did not hear of it and sends all that its window allows.
	var seqs []journal.Seq
	for i := range journal.Seq(journal.Window) {
		b.must(old.Append(1+i, journal.NoSubjectCheck, b.message("a", "stray")))
		seqs = append(seqs, 2+i)
	}
	b.want(journal.Refused, seqs...)
	b.read(b.subject("a"), 1, are("before"))
	if b.end() != end {
		b.Errorf("the end is %d, not %d", b.end(), end)
	}
}

// testFencedPipeline begins an epoch while the former writer's window is on its way.
func testFencedPipeline(b *bench) {
	old, other := b.writer(), b.session().Log(0)
	fence := []journal.Message{{Subject: b.ns.Epoch(0), Data: []byte("e")}}
	for range journal.Window {
		fence = append(fence, journal.Message{Subject: b.ns.Fence(0)})
	}
	var end journal.Seq
	begun := make(chan error, 1)
	for i := range journal.Seq(journal.Window) {
		if i == journal.Window/2 {
			go func() {
				var err error
				end, err = other.Begin(b.Context(), 0, fence...)
				begun <- err
			}()
		}
		b.must(old.Append(i, journal.NoSubjectCheck, b.message("a", fmt.Sprint(i))))
	}
	b.must(<-begun)
	epoch, stored := end-journal.Window, 0
	for range journal.Window {
		a := <-b.answers
		switch {
		case a.Outcome == journal.Stored && a.Seq < epoch:
			stored++
		case a.Outcome != journal.Refused || a.Seq < epoch:
			b.Errorf("%+v; the epoch began at %d", a, epoch)
		}
	}
	if epoch != journal.Seq(stored)+1 || b.end() != end {
		b.Errorf("%d are acknowledged and the epoch began at %d; the end is %d, not %d", stored, epoch, b.end(), end)
	}
	b.read(b.subject("a"), 1, number(stored, 0)) // no stray is behind them
}

func testHeaders(b *bench) {
	w := b.writer()
	headers := []journal.Header{{"Perdure-Epoch": "1 x", "Perdure-Origin": "y"}, {"Perdure-Epoch": "2 x"}, nil}
	for i, h := range headers {
		b.must(w.Append(journal.Seq(i), journal.NoSubjectCheck, journal.Message{Subject: b.subject("a"), Header: h}))
	}
	b.want(journal.Stored, 1, 2, 3)
	for i, h := range headers {
		m, err := b.log.At(b.Context(), journal.Seq(i+1))
		b.must(err)
		if !maps.Equal(m.Header, h) {
			b.Errorf("%d has headers %v; want %v", m.Seq, m.Header, h)
		}
	}
}

// testFaults sends three appends, the second with each fault.
func testFaults(b *bench) {
	type outcomes map[journal.Seq]journal.Outcome
	const stored, refused = journal.Stored, journal.Refused
	for _, test := range []struct {
		fault          Fault
		stored         journal.Seq
		before, behind outcomes // the release
	}{
		{None, 3, outcomes{1: stored, 2: stored, 3: stored}, outcomes{}},
		{Refuse, 1, outcomes{1: stored, 3: refused}, outcomes{2: refused}},
		{Lose, 1, outcomes{1: stored, 3: refused}, outcomes{}},
		{LoseAnswer, 3, outcomes{1: stored, 3: stored}, outcomes{}},
		{Hold, 3, outcomes{1: stored, 3: stored}, outcomes{2: stored}},
	} {
		plan := &Plan{Append: func(_, i int) Fault { return []Fault{None, test.fault, None}[i] }}
		w, err := Faulty(b.s, plan).Log(0).Writer(func(a journal.Answer) { b.answers <- a })
		b.must(err)
		from := b.end()
		for i := range journal.Seq(3) {
			b.must(w.Append(from+i, journal.NoSubjectCheck, b.message("a", "x")))
		}
		take := func(want outcomes) {
			got := outcomes{}
			for range want {
				a := <-b.answers
				got[a.Seq-from] = a.Outcome
			}
			if !maps.Equal(got, want) {
				b.Errorf("fault %d: answers %v; want %v", test.fault, got, want)
			}
		}
		take(test.before)
		if plan.Held() != len(test.behind) {
			b.Errorf("fault %d: %d answers are held", test.fault, plan.Held())
		}
		plan.Release()
		take(test.behind)
		w.Close()
		if n := b.end() - from; n != test.stored || len(b.answers) != 0 {
			b.Errorf("fault %d: %d are stored and %d answers too many; want %d and none", test.fault, n, len(b.answers), test.stored)
		}
	}
}

func testRead(b *bench) {
	w := b.writer()
	for i := range journal.Seq(10) {
		b.must(w.Append(i, journal.NoSubjectCheck, b.message([]string{"a", "b"}[i%2], fmt.Sprint(i+1))))
	}
	b.want(journal.Stored, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	b.read(b.subject("b"), 5, are("6", "8", "10"))
	b.read(">", 8, are("8", "9", "10"))
	b.read(b.subject("c"), 1, are())
	b.read(b.subject("a"), 99, are())
	m, err := b.log.At(b.Context(), 4)
	b.must(err)
	if string(m.Data) != "4" || m.Subject != b.subject("b") || m.Seq != 4 || m.Header["Perdure-Epoch"] != "1 x" || len(m.Header) != 1 {
		b.Errorf("%+v", m)
	}
	_, err = b.log.At(b.Context(), 11)
	b.is(err, journal.ErrNotFound)
	tails, upTo, err := b.log.Tails(b.Context(), 10, b.subject("c"), b.subject("a"), b.subject("b"))
	b.must(err)
	if len(tails) != 2 || tails[0].Seq != 9 || tails[1].Seq != 10 || upTo != 10 || string(tails[1].Data) != "10" || tails[0].Header["Perdure-Epoch"] != "1 x" {
		b.Errorf("%+v as of %d", tails, upTo)
	}
	ctx, cancel := context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := b.log.Tails(ctx, 11, b.subject("a")); err == nil {
		b.Error("an answer as of a position that the stream does not have")
	}
	var subjects []string
	for s, err := range b.log.Subjects(b.Context(), b.ns.JournalOf("*")) {
		b.must(err)
		subjects = append(subjects, s)
	}
	slices.Sort(subjects)
	if want := []string{b.subject("a"), b.subject("b")}; !slices.Equal(subjects, want) {
		b.Errorf("%v; want %v", subjects, want)
	}
	if b.s.Log(1).Stream() == b.log.Stream() || b.s.PayloadMax() < 1<<20 || b.s.Server() == "" {
		b.Error(b.s.Log(1).Stream(), b.s.PayloadMax(), b.s.Server())
	}
}

func testLongRead(b *bench) {
	w := b.writer()
	const n = 1500
	end := journal.Seq(0)
	for end < n {
		batch := make([]journal.Message, 100)
		for i := range batch {
			batch[i] = b.message("a", fmt.Sprint(int(end)+i+1))
		}
		b.must(w.Append(end, journal.NoSubjectCheck, batch...))
		end += 100
		b.want(journal.Stored, end)
	}
	b.read(b.subject("a"), 11, number(n-10, 11))
}

func testPurge(b *bench) {
	w := b.writer()
	for i := range journal.Seq(6) {
		b.must(w.Append(i, journal.NoSubjectCheck, b.message([]string{"a", "b"}[i%2], fmt.Sprint(i+1))))
	}
	b.want(journal.Stored, 1, 2, 3, 4, 5, 6)
	b.must(b.log.Purge(b.Context(), b.subject("a"), 5))
	b.read(b.subject("a"), 1, are("5"))
	b.read(b.subject("b"), 1, are("2", "4", "6"))
	b.must(b.log.Purge(b.Context(), b.subject("b"), 0)) // before nothing
	b.read(b.subject("b"), 1, are("2", "4", "6"))
	b.must(w.Append(6, journal.NoSubjectCheck, b.message("a", "7")))
	b.want(journal.Stored, 7)
}

func testClosed(b *bench) {
	w := b.writer()
	b.s.Close()
	select {
	case <-b.s.Done():
	default:
		b.Error("Done is open")
	}
	if err := w.Append(0, journal.NoSubjectCheck, b.message("a", "1")); err == nil {
		b.Error("a closed session appends")
	}
	if _, err := b.s.Meta().Put(b.Context(), "worker.a", nil, 0); err == nil || errors.Is(err, journal.ErrConflict) {
		b.Errorf("put: %v", err)
	}
	if _, err := b.log.Last(b.Context(), b.subject("a")); err == nil || errors.Is(err, journal.ErrNotFound) {
		b.Errorf("last: %v", err)
	}
	if _, err := b.log.Begin(b.Context(), 0, b.message("a", "1")); err == nil {
		b.Error("a closed session begins")
	}
	if s := b.session(); s.Server() == "" {
		b.Error("no second session")
	}
}

// testFollow follows from the middle, over more messages than are under way at a time, while further ones come.
func testFollow(b *bench) {
	const all, before = 1500, 1000
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	w := b.writer()
	last := journal.Seq(0)
	store := func(n int) {
		for some := range slices.Chunk(make([]struct{}, n), 50) {
			for range some {
				name := []string{"a", "b", "z"}[last%3]
				b.must(w.Append(last, journal.NoSubjectCheck, b.message(name, fmt.Sprint(last+1))))
				last++
			}
			for range some {
				if a := <-b.answers; a.Outcome != journal.Stored {
					b.Error(a)
				}
			}
		}
	}
	store(before)
	stored := make(chan struct{})
	go func() { defer close(stored); store(all - before) }()
	next := journal.Seq(11)
	for m, err := range b.log.Follow(ctx, next, b.subject("a"), b.subject("b")) {
		b.must(err)
		for next%3 == 0 { // on z
			next++
		}
		if m.Seq != next || string(m.Data) != fmt.Sprint(next) || m.Header["Perdure-Epoch"] != "1 x" || m.Time.IsZero() {
			b.Fatalf("message %d at %d; want %d", m.Seq, m.Seq, next)
		}
		if next++; next >= all {
			break
		}
	}
	<-stored
	cancel()
	for _, err := range b.log.Follow(ctx, 1, b.subject("a")) {
		if err == nil {
			b.Fatal("a message although nobody waits")
		}
		b.is(err, context.Canceled)
	}
}
