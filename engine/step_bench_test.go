package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// The steps of a turn, one by one; BenchmarkTurn is all of them together.

// BenchmarkWindow is one record through a window that is full.
func BenchmarkWindow(b *testing.B) {
	w := window[int]{next: 1}
	for range journal.Window {
		w.send(1, 200, 0)
	}
	b.ReportAllocs()
	for b.Loop() {
		w.answer(w.flights[w.told].last, journal.Stored)
		if _, _, o, ok := w.tell(); !ok || o != journal.Stored {
			b.Fatal(o, ok)
		}
		w.send(1, 200, 0)
	}
}

// BenchmarkOnce is one new request among 256 that are in flight: looked for, and remembered.
func BenchmarkOnce(b *testing.B) {
	store, deadline := snapshot.NewMemory(), time.Now().Add(time.Hour)
	sender := fmt.Sprintf("%032x", 7)
	for name, request := range map[string]func(n uint64) *Request{
		"numbered": func(n uint64) *Request {
			return &Request{Method: "add", Session: &SessionNumber{Sender: sender, N: n, M: max(n, 256) - 255, Deadline: deadline}}
		},
		"own id": func(n uint64) *Request { return &Request{Method: "add", ID: fmt.Sprint("order-", n)} },
	} {
		b.Run(name, func(b *testing.B) {
			o := newOnce(Limits{KeepIDs: 24 * time.Hour, KeepIDsMax: 10000})
			n := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				n++
				r := request(n)
				hash := r.hash()
				if a, err := o.find(store, "register.a", r, hash, time.Time{}, time.Time{}); a != nil || err != nil {
					b.Fatal(a, err)
				}
				o.add(&commit{version: journal.Version(n), Commit: journal.Commit{ID: r.ID, Session: r.Session, Hash: hash}})
				if len(o.recent) > 1024 { // as a flush does
					clear(o.recent)
				}
			}
		})
	}
}

// BenchmarkInvoke is a method call through reflection: argument from JSON, storage, result to JSON.
func BenchmarkInvoke(b *testing.B) {
	bound, err := bindAll([]AnyClass{registers})
	if err != nil {
		b.Fatal(err)
	}
	class := bound["register"]
	o := &object{class: class, state: newState(snapshot.NewMemory(), "register.a", class)}
	act, err := o.state.activate()
	if err != nil {
		b.Fatal(err)
	}
	r := &Request{Method: "add", Body: []byte("1")}
	b.ReportAllocs()
	for b.Loop() {
		t := &turn{o: o, act: act, req: r, ctx: turnContext{parent: context.Background()}}
		if reply, err := t.run(); err != nil || string(reply.Body) != "1" {
			b.Fatal(reply, err)
		}
	}
}

// BenchmarkRecord is a record of so many commits from the object's pending ones to the opened gate.
func BenchmarkRecord(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprintf("%d commits", n), func(b *testing.B) {
			o := &object{ep: &epoch{recordMax: 8 << 20}, queued: true}
			c := journal.Commit{At: time.Now(), Source: "call", Method: "add", Reply: &journal.Reply{Status: 200, Body: []byte("12345")},
				Changes: []journal.Change{{Kind: journal.Put, Key: "total", Data: []byte("12345")}}}
			encoded := journal.AppendCommit(nil, &c)
			open := func(error) {}
			commits := make([]commit, n) // their own cost is the turn's
			var buf []byte
			b.ReportAllocs()
			for v := journal.Version(2); b.Loop(); {
				for i := range commits {
					commits[i] = commit{Commit: c, version: v, encoded: encoded}
					o.pending = append(o.pending, &commits[i])
					o.waiters = append(o.waiters, waiter{v, open})
					v++
				}
				var r *record
				r, buf = o.takeRecord(buf[:0])
				o.stored(r, 7)
			}
		})
	}
}
