package gateway

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway/feed"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot"
)

// overAServer is a gateway over a worker in this process, with a real server that syncs now and then.
func overAServer(b *testing.B) *Gateway {
	b.Helper()
	server, err := embed.Start(embed.Options{Dir: b.TempDir(), SyncInterval: 100 * time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Shutdown)
	dial := func(ctx context.Context) (journal.Session, error) {
		return jetstream.Dial(ctx, jetstream.Config{Options: []nats.Option{server.InProcess()}})
	}
	s, err := dial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	kept, err := s.(*jetstream.Session).Open(b.Context(), jetstream.Settings{})
	if err != nil {
		b.Fatal(err)
	}
	s.Close()
	w, err := engine.New(engine.Config{ID: "lag", Partitions: kept.Partitions, Store: snapshot.NewMemory(), Connect: dial,
		Classes: []engine.AnyClass{engine.Class[tally]{Name: "tally"}}})
	if err != nil {
		b.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- w.Run(context.Background()) }()
	b.Cleanup(func() {
		w.Stop()
		if err := <-ran; err != nil {
			b.Error(err)
		}
	})
	hub, err := feed.New(feed.Config{Life: kept.ID, Partitions: kept.Partitions, Connect: dial})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(hub.Close)
	for w.Ready() != nil {
		<-time.After(time.Millisecond)
	}
	return newGateway(b, Config{Transport: engine.NewClient(w), Inspector: w, Feed: hub})
}

type tally struct{ n engine.Key[int] }

func (t *tally) Add(ctx *engine.Ctx, _ engine.None) (int, error) {
	n := t.n.Get(ctx) + 1
	t.n.Put(ctx, n)
	return n, nil
}

// BenchmarkLag tells how long after its turn a commit reaches listeners over HTTP, and what they cost the callers, who call
// objects in this process: as fast as they can, or so many times a second.
func BenchmarkLag(b *testing.B) {
	for _, rate := range []int{0, 100, 1000} {
		for _, listeners := range []int{0, 1, 100} {
			pace := "full"
			if rate > 0 {
				pace = fmt.Sprint(rate, "/s")
			}
			b.Run(fmt.Sprintf("%s/listeners=%d", pace, listeners), func(b *testing.B) { measureLag(b, rate, listeners) })
		}
	}
}

func measureLag(b *testing.B, rate, listeners int) {
	g := overAServer(b)
	s := httptest.NewServer(g)
	b.Cleanup(s.Close)
	lags := make([][]time.Duration, listeners)
	cut := make([]int, listeners)
	var listening sync.WaitGroup
	ctx, stop := context.WithCancel(b.Context())
	defer stop()
	begun := make(chan struct{}, listeners)
	for i := range listeners {
		listening.Go(func() { lags[i], cut[i] = lag(ctx, s.URL, b.N, begun) })
	}
	for range listeners {
		<-begun
	}
	b.ResetTimer()
	callAll(b, g.Transport, rate)
	b.StopTimer()
	began := time.Now()
	listening.Wait()
	if listeners == 0 {
		return
	}
	all := slices.Concat(lags...)
	slices.Sort(all)
	if len(all) == 0 {
		b.Fatal("nothing was told")
	}
	cuts := 0
	for _, n := range cut {
		cuts += n
	}
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(cuts), "cut")
	b.ReportMetric(float64(time.Since(began).Milliseconds()), "behind-ms")
}

// callAll makes b.N calls of 64 objects, 16 at a time.
func callAll(b *testing.B, to engine.Transport, rate int) {
	began := time.Now()
	var calling sync.WaitGroup
	for c := range 16 {
		calling.Go(func() {
			for i := c; i < b.N; i += 16 {
				if rate > 0 {
					<-time.After(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
				}
				if _, err := to.Do(b.Context(), engine.Request{Class: "tally", Name: fmt.Sprint(i % 64), Method: "add"}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	calling.Wait()
}

// lag follows until n commits were told, coming back when it is cut, and tells how late each was.
func lag(ctx context.Context, url string, n int, begun chan<- struct{}) (lags []time.Duration, cuts int) {
	last := "now"
	for len(lags) < n {
		r, err := http.NewRequestWithContext(ctx, "GET", url+"/v1/changes", nil)
		if err != nil {
			return lags, cuts
		}
		r.Header.Set("Last-Event-ID", last)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return lags, cuts
		}
		in := bufio.NewReader(resp.Body)
		for len(lags) < n {
			line, err := in.ReadString('\n')
			if err != nil {
				cuts++
				break
			}
			now := time.Now()
			last = between(line, `"id":"`) // the first is that of the event
			if begun != nil {
				begun <- struct{}{}
				begun = nil
			}
			if when, err := time.Parse(time.RFC3339Nano, between(line, `"at":"`)); err == nil {
				lags = append(lags, now.Sub(when))
			}
		}
		_ = resp.Body.Close()
	}
	return lags, cuts
}

// between is what stands in a line between a mark and the next quote: JSON would be what takes most of the machine.
func between(line, mark string) string {
	_, rest, _ := strings.Cut(line, mark)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
