package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot"
)

const ns = wire.DefaultNamespace

// session opens the namespace, with so many partitions and copies of each stream.
func session(ctx context.Context, url string, partitions, replicas int) (*jetstream.Session, error) {
	s, err := jetstream.Dial(ctx, jetstream.Config{Dial: func(options ...nats.Option) (*nats.Conn, error) { return nats.Connect(url, options...) }, Namespace: ns})
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(startFor); ; <-time.After(50 * time.Millisecond) {
		if _, err = s.Open(ctx, jetstream.Settings{Partitions: partitions, Replicas: replicas}); err == nil || time.Now().After(end) {
			return s, err
		}
	}
}

// subjects fills one stream: a record of 200 bytes for each object.
func subjects(dir string, _ time.Duration) error {
	ctx := context.Background()
	s, err := start(dir, 1, 0)
	if err != nil {
		return err
	}
	js, err := session(ctx, s.nc.ConnectedUrl(), 1, 1)
	if err != nil {
		s.stop()
		return err
	}
	js.Close()
	fmt.Println("| subjects in one stream | server's heap, MiB | restart until it answers, s |\n| --- | --- | --- |")
	const step = 200_000
	for n := 0; ; n += step {
		s.stop()
		if s, err = start(dir, 1, 3); err != nil {
			return err
		}
		u, err := s.usage()
		if err != nil {
			s.stop()
			return err
		}
		fmt.Printf("| %d | %.0f | %.2f |\n", n, u.mib(), s.took.Seconds())
		if n == 5*step {
			s.stop()
			return nil
		}
		if err := fill(s.nc, n, n+step); err != nil {
			s.stop()
			return err
		}
	}
}

// fill appends a message for each of the objects from one number to another, with 1,000 in flight.
func fill(nc *nats.Conn, from, to int) error {
	const inFlight = 1000
	slots := make(chan struct{}, inFlight)
	inbox := nc.NewInbox()
	sub, err := nc.Subscribe(inbox, func(*nats.Msg) { <-slots })
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	data := make([]byte, 200)
	for i := from; i < to; i++ {
		slots <- struct{}{}
		if err := nc.PublishRequest(ns.Journal("counter", fmt.Sprintf("checkout-cart-%08d", i)), inbox, data); err != nil {
			return err
		}
	}
	for range inFlight {
		select {
		case slots <- struct{}{}:
		case <-time.After(startFor):
			return errors.New("records are not acknowledged")
		}
	}
	return nil
}

// streams has a namespace of so many partitions, with their inbox and bucket besides, and nothing in them but one message.
func streams(dir string, idle time.Duration, replicas int, partitions ...int) error {
	fmt.Printf("copies: %d\n\n| partitions | heap of %d servers, MiB | goroutines | cores, idle | restart, s |\n| --- | --- | --- | --- | --- |\n", replicas, replicas)
	for _, p := range partitions {
		p = min(p-1, wire.Slots)
		if p == 0 {
			p = 1
		}
		at := filepath.Join(dir, fmt.Sprint(p))
		s, err := start(at, replicas, 0)
		if err != nil {
			return err
		}
		js, err := session(context.Background(), s.nc.ConnectedUrl(), p, replicas)
		if err != nil {
			s.stop()
			return err
		}
		js.Close()
		cores, _, _, u, err := s.idle(idle)
		s.stop()
		if err != nil {
			return err
		}
		if s, err = start(at, replicas, p+2); err != nil {
			return err
		}
		fmt.Printf("| %d | %.0f | %d | %.3f | %.2f |\n", p, u.mib(), u.Goroutines, cores, s.took.Seconds())
		s.stop()
	}
	return nil
}

// subscriptions has one connection subscribe to the slots of whole namespaces, as owners do.
func subscriptions(dir string, servers int) error {
	s, err := start(dir, servers, 0)
	if err != nil {
		return err
	}
	defer s.stop()
	fmt.Printf("| subscriptions, known to %d servers | their heap, MiB | worker's heap, MiB |\n| --- | --- | --- |\n", servers)
	for n := 0; ; n++ {
		u, err := s.usage()
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %.1f | %.1f |\n", u.Subscriptions, u.mib(), own().mib())
		if n == 4 {
			return nil
		}
		for k := range 5 {
			of := wire.Subjects(fmt.Sprintf("n%d-%d", n, k))
			if _, err := natsbus.Listen(s.nc, of, 0, 1, discard, func(engine.Request, func(engine.Reply, error)) {}); err != nil {
				return err
			}
		}
	}
}

type counter struct{}

// workers has so many workers of one namespace in this process, each with its own connections, and nobody who asks for anything.
func workers(dir string, idle time.Duration) error {
	const partitions = 16
	fmt.Printf("%d partitions, lease term %v\n\n| workers | server: cores | messages/s | heap, MiB | subscriptions | workers: cores | heap, MiB | all owned after, s |\n"+
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n", partitions, leaseTerm)
	for _, n := range crews {
		if err := crew(filepath.Join(dir, fmt.Sprint(n)), n, partitions, idle); err != nil {
			return err
		}
	}
	return nil
}

const leaseTerm = 2 * time.Second

func crew(dir string, n, partitions int, idle time.Duration) error {
	s, err := start(dir, 1, 0)
	if err != nil {
		return err
	}
	defer s.stop()
	url := s.nc.ConnectedUrl()
	js, err := session(context.Background(), url, partitions, 1)
	if err != nil {
		return err
	}
	js.Close()
	empty := own()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	began := time.Now()
	var all []*engine.Worker
	for i := range n {
		w, err := newWorker(fmt.Sprintf("w%02d", i), url, partitions, snapshot.NewMemory())
		if err != nil {
			return err
		}
		all = append(all, w)
		running.Go(func() { _ = w.Run(ctx) })
	}
	for !shared(all, partitions) {
		if time.Since(began) > startFor {
			return errors.New("not all partitions are owned, each by one")
		}
		<-time.After(10 * time.Millisecond)
	}
	took := time.Since(began)
	theirs, ours, messages, u, err := s.idle(idle)
	if err != nil {
		return err
	}
	fmt.Printf("| %d | %.3f | %.0f | %.0f | %d | %.3f | %.1f | %.2f |\n", n, theirs, messages, u.mib(), u.Subscriptions, ours, own().mib()-empty.mib(), took.Seconds())
	return nil
}

func newWorker(id, url string, partitions int, store snapshot.Store) (*engine.Worker, error) {
	var w *engine.Worker
	w, err := engine.New(engine.Config{ID: id, Namespace: ns, Partitions: partitions, Classes: []engine.AnyClass{counters, passing},
		Store: store, MemoryBytes: 8 << 30, OnlyNATS: true, LeaseTerm: leaseTerm,
		Connect: func(ctx context.Context) (journal.Session, error) {
			return jetstream.Dial(ctx, jetstream.Config{Dial: func(options ...nats.Option) (*nats.Conn, error) { return nats.Connect(url, options...) }, Namespace: ns})
		},
		Listen: func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
			nc := js.(*jetstream.Session).Conn()
			calls, err := natsbus.Listen(nc, ns, p, partitions, discard, serve)
			if err != nil {
				return nil, err
			}
			questions, err := natsbus.ServePart(nc, ns, p, w, discard)
			return func() { questions(); calls() }, err
		},
		Peers: func(js journal.Session, life journal.Token, hear func(engine.Word)) (engine.Peers, error) {
			return natsbus.Peers(js.(*jetstream.Session).Conn(), ns, id, life, hear)
		}})
	return w, err
}

// shared tells whether each partition has an owner, and each worker what its share is.
func shared(all []*engine.Worker, partitions int) bool {
	owned := 0
	for _, w := range all {
		if w.Ready() != nil {
			return false
		}
		for _, p := range w.Status().Owned {
			if p.Owned {
				owned++
			}
		}
	}
	return owned == partitions
}

var discard = slog.New(slog.DiscardHandler)
