package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/snapshot/pebblestore"
)

// objects has one worker, in this process, with so many objects that are in memory, and as many that it knows and that are not.
func objects(dir string, _ time.Duration) error {
	s, err := start(dir, 1, 0)
	if err != nil {
		return err
	}
	defer s.stop()
	js, err := session(context.Background(), s.nc.ConnectedUrl(), 1, 1)
	if err != nil {
		return err
	}
	js.Close()
	folder := filepath.Join(dir, "snapshots")
	store, err := pebblestore.Open(folder, pebblestore.Options{Namespace: string(ns)})
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	w, err := newWorker("one", s.nc.ConnectedUrl(), 1, store)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	defer running.Wait()
	defer stop()
	fmt.Println("| objects | of them in memory | worker's heap, MiB | its store, MiB |\n| --- | --- | --- | --- |")
	const step = 50_000
	of := map[string]int{}
	for _, class := range []engine.Class[counter]{passing, passing, passing, counters, counters} {
		if err := fillMemory(w, class, of[class.Name], of[class.Name]+step); err != nil {
			return err
		}
		of[class.Name] += step
		if err := await("the objects are in memory that are to be", func() bool { return w.Status().Resident == of[counters.Name] }); err != nil {
			return err
		}
		<-time.After(settleFor + 5*time.Second) // what rests gives up more
		size, err := sizeOf(folder)
		if err != nil {
			return err
		}
		fmt.Printf("| %d | %d | %.1f | %.1f |\n", of[passing.Name]+of[counters.Name], of[counters.Name], own().mib(), size/(1<<20))
	}
	return nil
}

// fillMemory has each of the objects of a class from one number to another count once.
func fillMemory(w *engine.Worker, class engine.Class[counter], from, to int) error {
	client := engine.NewClient(w)
	var next atomic.Int64
	var failed atomic.Pointer[error]
	next.Store(int64(from))
	var callers sync.WaitGroup
	for range pairCallers {
		callers.Go(func() {
			for i := next.Add(1) - 1; int(i) < to && failed.Load() == nil; i = next.Add(1) - 1 {
				if _, err := engine.Call(client.With(context.Background()), class.Get(fmt.Sprintf("checkout-cart-%08d", i)), (*counter).Increment, nil); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	callers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func await(what string, holds func() bool) error {
	for end := time.Now().Add(startFor); !holds(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("it is not so that " + what)
		}
	}
	return nil
}

func sizeOf(dir string) (bytes float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if info, err := e.Info(); err == nil { // it may have been replaced meanwhile
			bytes += float64(info.Size())
		}
		return nil
	})
	return bytes, err
}
