package natsbus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot"
)

// hot is an object that everybody reads.
type hot struct{}

const n = engine.Key[int64]("n")

func (*hot) Add(ctx *engine.Ctx, by int64) (int64, error) {
	n.Put(ctx, n.Get(ctx)+by)
	return n.Get(ctx), nil
}

func (*hot) Value(v engine.View, _ engine.None) (int64, error) { return n.Get(v), nil }

// Ask waits for something else, as a read does that asks another service.
func (*hot) Ask(v engine.View, _ engine.None) (int64, error) {
	time.Sleep(time.Millisecond) // sleeps: it stands for a wait
	return n.Get(v), nil
}

var hots = engine.Class[hot]{Name: "hot", Limits: engine.Limits{Queue: 10_000}}

// BenchmarkReadsOfOneObject is what docs/lesson.md and docs/perf.md say of strong and eventual reads: two workers over one server, each
// read a request over TCP.
func BenchmarkReadsOfOneObject(b *testing.B) {
	s := must[*embed.Server](b)(embed.Start(embed.Options{Dir: b.TempDir(), Listen: "127.0.0.1:0", SyncInterval: time.Minute, Namespaces: []wire.Subjects{wire.DefaultNamespace}}))
	b.Cleanup(s.Shutdown)
	workers := []*engine.Worker{twoOf(b, s.URL(), "a"), twoOf(b, s.URL(), "b")}
	client := must[*nats.Conn](b)(nats.Connect(s.URL()))
	b.Cleanup(client.Close)
	c := engine.NewClient(NewClient(client, wire.DefaultNamespace).ToSlots())
	request := engine.Request{Class: "hot", Name: "x", Method: "add", Body: []byte("1")}
	must[engine.Reply](b)(c.Do(b.Context(), request))
	request.Method, request.Body = "value", nil
	for end := time.Now().Add(wait); ; { // until a copy answers: each worker has what the other one would follow
		p := wire.Partition(wire.Slot("hot", "x"), 2)
		if workers[0].Status().Owned[p].Copied+workers[1].Status().Owned[p].Copied > 0 {
			break
		}
		if time.Now().After(end) {
			b.Fatal("nobody follows")
		}
		<-time.After(time.Millisecond)
	}
	for _, method := range []string{"value", "ask"} {
		for _, eventual := range []bool{false, true} {
			request.Method, request.Eventual = method, eventual
			b.Run(fmt.Sprintf("%s/eventual=%v", method, eventual), func(b *testing.B) {
				var callers sync.WaitGroup
				reads := make(chan struct{}, 256)
				for range 128 {
					callers.Go(func() {
						for range reads {
							if _, err := c.Do(b.Context(), request); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				for b.Loop() {
					reads <- struct{}{}
				}
				close(reads)
				callers.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	}
}

// twoOf is one of two workers that follow each other.
func twoOf(b *testing.B, url, id string) *engine.Worker {
	const ns = wire.DefaultNamespace
	dial := func(ctx context.Context) (*jetstream.Session, error) {
		return jetstream.Dial(ctx, jetstream.Config{Namespace: ns, Dial: func(o ...nats.Option) (*nats.Conn, error) { return nats.Connect(url, o...) }})
	}
	s := must[*jetstream.Session](b)(dial(b.Context()))
	must[jetstream.Namespace](b)(s.Open(b.Context(), jetstream.Settings{Partitions: 2}))
	s.Close()
	log := slog.New(slog.DiscardHandler)
	w := must[*engine.Worker](b)(engine.New(engine.Config{ID: id, Namespace: ns, Partitions: 2, Classes: []engine.AnyClass{hots},
		Store: snapshot.NewMemory(), Standby: true, Connect: func(ctx context.Context) (journal.Session, error) { return dial(ctx) },
		Listen: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			return Listen(js.(*jetstream.Session).Conn(), ns, p, 2, log, serve)
		},
		ListenReads: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			return ListenReads(js.(*jetstream.Session).Conn(), ns, p, 2, log, serve)
		}}))
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	b.Cleanup(func() { stop(); running.Wait() })
	return w
}
