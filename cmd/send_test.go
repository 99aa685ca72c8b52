package cmd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// TestMessagesSurviveKills publishes messages as any NATS client would, with a JetStream publish, while the real binary is
// killed again and again, in both sync modes. What was acknowledged is applied once, in the order of its publisher, and a
// message that was published again under its id is applied once.
func TestMessagesSurviveKills(t *testing.T) {
	const publishers, kills, objects = 4, 6, 3
	seed := given(t, "SEED", uint64(time.Now().UnixNano()))
	t.Logf("SEED=%d repeats the moments of the kills", seed)
	for _, mode := range []string{"always", "100ms"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, uint64(len(mode))))
			p := newDev(t, "--sync", mode)
			p.begin()
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			acked := make([]int, publishers) // how many of each publisher's messages were acknowledged
			for i := range publishers {
				wg.Go(func() { acked[i] = publish(ctx, t, p, i, objects) })
			}
			for range kills {
				<-time.After(time.Duration(100+random.IntN(400)) * time.Millisecond)
				p.kill()
				p.begin()
			}
			stop()
			wg.Wait()
			for object := range objects { // behind the last one of each object
				end := []string{"send", fmt.Sprintf("counter/m%d", object), "increment", "--id", "end", "--wait", "--timeout", "30s"}
				if out, errs, code := p.run(end...); code != 0 || !strings.Contains(out, "applied") {
					t.Fatalf("%v: %s%s", end, out, errs)
				}
			}
			p.verify()
			applied := map[string]int{}
			for object := range objects {
				last := make([]int, publishers)
				for _, e := range p.entries(fmt.Sprintf("counter/m%d", object)) {
					if e.Inbox == nil {
						t.Fatalf("version %d of m%d answers no message", e.Version, object)
					}
					if e.Inbox.Outcome == "repeat" || e.ID == "end" {
						continue
					}
					applied[e.ID]++
					var who, n int
					if _, err := fmt.Sscanf(e.ID, "p%d-%d", &who, &n); err != nil {
						t.Fatal(err)
					}
					if n <= last[who] {
						t.Errorf("m%d: message %d of publisher %d is applied after %d", object, n, who, last[who])
					}
					last[who] = n
				}
			}
			total := 0
			for i, n := range acked {
				total += n
				for k := 1; k <= n; k++ {
					if got := applied[fmt.Sprintf("p%d-%d", i, k)]; got != 1 {
						t.Errorf("message %d of publisher %d was acknowledged and is applied %d times", k, i, got)
					}
				}
			}
			t.Logf("%d messages acknowledged, each applied once", total)
		})
	}
}

// publish publishes numbered messages until ctx ends, each again under its id until it is acknowledged, and returns how many
// were.
func publish(ctx context.Context, t *testing.T, p *process, who, objects int) int {
	var js natsjs.JetStream
	for n := 1; ; n++ {
		m := &nats.Msg{Subject: fmt.Sprintf("objects.send.counter.m%d.increment", n%objects), Data: []byte(`{"by":1}`),
			Header: nats.Header{"Perdure-Request-Id": {fmt.Sprintf("p%d-%d", who, n)}}}
		for {
			if ctx.Err() != nil {
				return n - 1
			}
			if js == nil {
				nc, err := nats.Connect("nats://"+p.nats, nats.NoReconnect())
				if err != nil {
					<-time.After(20 * time.Millisecond)
					continue
				}
				defer nc.Close()
				if js, err = natsjs.New(nc); err != nil {
					t.Error(err)
					return n - 1
				}
			}
			once, cancel := context.WithTimeout(ctx, time.Second)
			_, err := js.PublishMsg(once, m)
			cancel()
			if err == nil {
				break
			}
			if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, context.DeadlineExceeded) || !js.Conn().IsConnected() {
				js = nil
			}
		}
	}
}
