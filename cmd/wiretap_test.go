package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/internal/wiretap"
	"github.com/perdure/perdure/journal/jetstream"
)

// watchMembers looks who is a member of the owners' queue group for calls, again and again until ctx is done. Then seen is what it saw; done waits for that.
func (f *fleet) watchMembers(ctx context.Context, began time.Time) (seen *[]wiretap.Members, done *sync.WaitGroup) {
	seen, done = new([]wiretap.Members), new(sync.WaitGroup)
	done.Go(func() {
		for ; ctx.Err() == nil; <-time.After(2 * time.Millisecond) {
			of, err := f.server.Members("workers")
			if err != nil {
				f.t.Error(err)
				return
			}
			maps.DeleteFunc(of, func(subject string, _ int) bool { return !strings.HasPrefix(subject, "objects.part.") })
			*seen = append(*seen, wiretap.Members{At: time.Since(began), Of: of})
		}
	})
	return seen, done
}

// TestOneWorkerAnswersForAnObject: on the wire no call is answered twice, no worker answers for an object after another has, and no subject
// has two owners at a time, while workers are killed and stopped and partitions moved under load.
func TestOneWorkerAnswersForAnObject(t *testing.T) {
	t.Parallel()
	p := newPair(newFleet(t).begin(), "--lease-term", "1s")
	gateway := p.start("gateway")
	gateway.ready()
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	tap, err := wiretap.Listen(nc, wire.DefaultNamespace)
	must(t, err)
	ctx, end := context.WithCancel(t.Context())
	defer end()
	members, watched := p.watchMembers(ctx, time.Now())

	load := count(t, gateway)
	load.more(5)
	for i, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL} {
		worker := p.workers[i%2]
		worker.end(signal)
		load.more(5)
		worker.start()
		eventually(t, func() bool { return p.owned(0) == 2 && p.owned(1) == 2 })
	}
	for part, of := range p.partitions() {
		to := p.ids[(slices.Index(p.ids, of.Worker)+1)%2]
		p.wants(0, "owns partition", "partitions", "move", fmt.Sprint(part), to)
		load.more(2)
	}
	load.end()
	load.callers.Wait()
	end()
	watched.Wait()
	heard, err := tap.Stop()
	must(t, err)
	load.check()
	heard.Members = *members

	s, err := jetstream.Dial(t.Context(), jetstream.Config{Options: []nats.Option{p.server.InProcess()}, Namespace: wire.DefaultNamespace})
	must(t, err)
	defer s.Close()
	commits, err := wiretap.ReadCommits(t.Context(), s, wire.DefaultNamespace, 4)
	must(t, err)
	// Nobody but the load calls, and what it calls changes its object.
	for _, f := range wiretap.Check(heard, commits, 0) {
		t.Error(f)
	}
	workers, answered := map[string]bool{}, 0
	for _, a := range heard.Answers {
		if !a.Failed {
			answered++
		}
	}
	for object := range commits {
		for _, c := range commits[object] {
			workers[object+" "+c.Worker] = true
		}
	}
	if len(workers) != 2*countedObjects || answered < 30*countedObjects {
		t.Errorf("%d answers were heard; objects were changed by %d workers in all, want each by both", answered, len(workers))
	}
	t.Logf("%d requests and %d answers heard, %d times looked who listens; no increment took longer than %v",
		len(heard.Requests), len(heard.Answers), len(heard.Members), time.Duration(load.longest.Load()).Round(time.Millisecond))
}
