package bench

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

func server(t *testing.T) *embed.Server {
	t.Helper()
	s, err := embed.Start(embed.Options{Dir: t.TempDir(), SyncInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// testPipe is a pipe of one partition, and its session.
func testPipe(t *testing.T, s *embed.Server, durable Durable) (*pipe, *jetstream.Session) {
	t.Helper()
	js, err := jetstream.Dial(t.Context(), jetstream.Config{Options: []nats.Option{s.InProcess()}, Namespace: pipeSpace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(js.Close)
	p, err := openPipe(t.Context(), js, pipeSpace, jetstream.Settings{Partitions: 1}, durable)
	if err == nil {
		err = p.listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, js
}

func connect(t *testing.T, s *embed.Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("", s.InProcess())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func TestThePipeWritesWhatTheEngineWould(t *testing.T) {
	t.Parallel()
	s := newShape()
	for _, n := range []int{1, 2, 50} {
		raw := s.record(nil, n)
		r, err := journal.DecodeRecord(raw)
		if err != nil || len(r.Commits) != n || r.Commits[n-1].Method != incrementMethod || string(r.Commits[n-1].Changes[0].Data) != "12345" {
			t.Errorf("%d commits: %v: %s", n, err, raw)
		}
	}
	if n := len(s.record(nil, s.commitsMax())); n > journal.RecordBytesMax+journal.RecordOverhead || n < journal.RecordBytesMax*9/10 {
		t.Errorf("the largest record has %d bytes; want about %d", n, journal.RecordBytesMax)
	}
}

// TestThePipeStoresWhatItAnswers sends more than a window holds at once.
func TestThePipeStoresWhatItAnswers(t *testing.T) {
	t.Parallel()
	const requests = 3 * journal.Window
	for _, method := range []string{pipeSingle, pipeJoined} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			p, js := testPipe(t, server(t), nil)
			var wg sync.WaitGroup
			for range requests {
				wg.Go(func() {
					if err := p.do(t.Context(), staying, "a", method); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			records, commits := 0, 0
			for m, err := range js.Log(0).Read(t.Context(), pipeSpace.Journal(staying, "a"), 1) {
				if err != nil {
					t.Fatal(err)
				}
				r, err := journal.DecodeRecord(m.Data)
				if err != nil {
					t.Fatal(err)
				}
				records, commits = records+1, commits+len(r.Commits)
			}
			if commits != requests || (records == requests) != (method == pipeSingle) {
				t.Errorf("%d commits in %d records; %d were answered", commits, records, requests)
			}
		})
	}
}

func TestThePipeWaitsForWhatIsDurable(t *testing.T) {
	t.Parallel()
	opens := make(chan func(), 1)
	p, _ := testPipe(t, server(t), func(stream string, seq journal.Seq, open func()) {
		if stream != "pipe-0" || seq != 1 {
			t.Errorf("asked for %s %d", stream, seq)
		}
		opens <- open
	})
	answered := make(chan error, 1)
	go func() { answered <- p.do(t.Context(), staying, "a", pipeSingle) }()
	open := <-opens
	select {
	case err := <-answered:
		t.Fatalf("answered before it is durable: %v", err)
	default:
	}
	open()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestAPipeThatIsDisturbedFails(t *testing.T) {
	t.Parallel()
	p, js := testPipe(t, server(t), nil)
	if _, err := js.Conn().Request(pipeSpace.Journal(staying, "foreign"), nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := p.do(ctx, staying, "a", pipeSingle)
	if err == nil || !strings.Contains(err.Error(), "refused") || ctx.Err() != nil {
		t.Errorf("its record was refused, and it answers %v", err)
	}
	if again := p.do(ctx, staying, "b", pipeSingle); again == nil || ctx.Err() != nil {
		t.Errorf("behind a refusal nothing can be stored, and it answers %v", again)
	}
}

func TestCallersAndThePipe(t *testing.T) {
	t.Parallel()
	s := server(t)
	testPipe(t, s, nil)
	cs, err := newCallers([]*nats.Conn{connect(t, s), connect(t, s)}, 9)
	if err != nil {
		t.Fatal(err)
	}
	var answered atomic.Int64
	for _, method := range []string{pipeEcho, pipeSingle, pipeJoined} {
		answered.Store(0)
		to := target{body: incrementBody, answered: func(int, []byte) { answered.Add(1) }}
		for _, name := range names("x", 5) {
			to.subjects = append(to.subjects, pipeSubject(pipeSpace, staying, name, method))
		}
		l, err := cs.run(t.Context(), 9, to, 20*time.Millisecond)
		if err != nil || l.Calls == 0 || l.Calls != int(answered.Load()) || l.P50 > l.P99 || l.P99 > l.Took {
			t.Errorf("%s: %+v, %d answered, %v", method, l, answered.Load(), err)
		}
		if l, err = cs.each(t.Context(), 3, to); err != nil || l.Calls != 5 {
			t.Errorf("%s: each of 5: %+v, %v", method, l, err)
		}
	}
	nobody := target{subjects: []string{"nobody.listens"}}
	if _, err := cs.run(t.Context(), 1, nobody, time.Minute); err == nil || !strings.Contains(err.Error(), "nobody.listens") {
		t.Errorf("nobody answers, and the round ends with %v", err)
	}
}
