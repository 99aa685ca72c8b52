package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/journal/journaltest"
	"github.com/perdure/perdure/snapshot"
)

// benchWorker is a worker over a journal in memory or on a real server in this process, with relaxed sync.
func benchWorker(b *testing.B, real bool) *Worker {
	ns := wire.DefaultNamespace
	memory := journaltest.NewMemory()
	connect := func(context.Context) (journal.Session, error) { return memory.Session(ns, worldPartitions), nil }
	if real {
		srv, err := realServer()
		if err != nil {
			b.Fatal(err)
		}
		ns = wire.Subjects(fmt.Sprintf("b%d", placeNumber.Add(1)))
		connect = func(ctx context.Context) (journal.Session, error) {
			s, err := jetstream.Dial(ctx, jetstream.Config{Options: []nats.Option{srv.InProcess()}, Namespace: ns})
			if err == nil {
				_, err = s.Open(ctx, jetstream.Settings{Partitions: worldPartitions})
			}
			return s, err
		}
	}
	w, err := New(Config{ID: "bench", Namespace: ns, Partitions: worldPartitions, Classes: []AnyClass{registers, ledgers},
		Store: snapshot.NewMemory(), Connect: connect})
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = w.Run(context.Background()) }() // ends with Kill
	b.Cleanup(w.Kill)
	eventually(b, "ready", func() bool { return w.Ready() == nil })
	return w
}

// drive keeps 256 requests in flight until b.N are answered.
func drive(b *testing.B, w *Worker, next func(i int) Request) {
	b.ReportAllocs()
	slots := make(chan struct{}, 256)
	ctx := context.Background()
	for i := range b.N {
		slots <- struct{}{}
		w.submit(ctx, next(i), func(_ Reply, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
		})
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}

// BenchmarkTurn is the whole way of a request in one process: mailbox, turn, commit, journal, gate, reply.
func BenchmarkTurn(b *testing.B) {
	names := make([]string, 10000)
	for i := range names {
		names[i] = fmt.Sprint("o", i)
	}
	one := []byte("1")
	for _, journal := range []string{"memory", "jetstream"} {
		run := func(name string, next func(i int) Request) {
			b.Run(name+"/"+journal, func(b *testing.B) {
				w := benchWorker(b, journal == "jetstream")
				b.ResetTimer()
				drive(b, w, next)
			})
		}
		run("one object", func(int) Request { return Request{Class: "register", Name: "hot", Method: "add", Body: one} })
		run("one object, events", func(int) Request { return Request{Class: "ledger", Name: "hot", Method: "add", Body: one} })
		run("10,000 objects", func(i int) Request {
			return Request{Class: "register", Name: names[i%len(names)], Method: "add", Body: one}
		})
		run("reads", func(i int) Request { return Request{Class: "register", Name: names[i%100], Method: "value"} })
		sender := fmt.Sprintf("%032x", 7)
		run("one object, numbered", func(i int) Request {
			n := uint64(i + 1)
			return Request{Class: "register", Name: "hot", Method: "add", Body: one,
				Session: &SessionNumber{Sender: sender, N: n, M: max(n, 300) - 299, Deadline: time.Now().Add(time.Minute)}}
		})
	}
}

// BenchmarkWake is an object that comes into memory from the store, as after an eviction.
func BenchmarkWake(b *testing.B) {
	w := benchWorker(b, true)
	do := func() {
		if _, err := w.Do(b.Context(), Request{Class: "register", Name: "a", Method: "value"}); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := w.Do(b.Context(), Request{Class: "register", Name: "a", Method: "add", Body: []byte("1")}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		do()
		o := residentObject(w, "register", "a")
		o.chore(o.evict)
		for residentObject(w, "register", "a") != nil {
		}
	}
}
