package cmd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
)

// killSeed is SEED, or another one each time.
func killSeed(t *testing.T) uint64 {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d repeats the moments of the kills", seed)
	return seed
}

// TestKillNineLosesNothingAcknowledged kills the real binary again and again under a counted load, over HTTP and over
// NATS, with and without request ids, in both sync modes.
func TestKillNineLosesNothingAcknowledged(t *testing.T) {
	seed := killSeed(t)
	for _, mode := range []string{"always", "100ms"} {
		t.Run(mode, func(t *testing.T) {
			p := newDev(t, "--sync", mode).begin()
			l := &counted{p: p, replies: map[string]string{}}
			ctx, stop := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() { l.increments(ctx, i) })
			}
			random := rand.New(rand.NewPCG(seed, uint64(len(mode))))
			for i := range 6 {
				<-time.After(50*time.Millisecond + time.Duration(random.IntN(400))*time.Millisecond)
				p.kill()
				// Every other time it dies again while it starts: recovery has to survive what it is for.
				if i%2 == 1 {
					p.start()
					<-time.After(time.Duration(random.IntN(250)) * time.Millisecond)
					p.kill()
				}
				p.begin()
			}
			stop()
			wg.Wait()
			l.check(t)
			p.kill()
			p.begin()
			l.check(t)
		})
	}
}

const killObjects = 3

// counted is a load that knows what it was told.
type counted struct {
	p      *process
	serial atomic.Int64
	bare   [killObjects]struct{ tried, acked atomic.Int64 } // increments without ids

	mu      sync.Mutex
	replies map[string]string // by id: object and reply
}

// increments sends increments until ctx is done: by HTTP or NATS, with an id, repeated until it is answered, or without
// one, once.
func (l *counted) increments(ctx context.Context, i int) {
	nc := l.connect()
	defer func() {
		if nc != nil {
			nc.Close()
		}
	}()
	for ctx.Err() == nil {
		n := l.serial.Add(1)
		object := int(n) % killObjects
		if i%4 == 3 {
			l.once(ctx, &nc, object)
			continue
		}
		id := fmt.Sprintf("id-%d", n)
		for {
			// An id that was begun is finished, also when the time is over: its outcome must be known.
			reply, err := l.send(context.WithoutCancel(ctx), &nc, i%2 == 0, object, id)
			if err == nil {
				l.mu.Lock()
				l.replies[id] = fmt.Sprintf("%d %s", object, reply)
				l.mu.Unlock()
				break
			}
			<-time.After(5 * time.Millisecond)
		}
	}
}

func (l *counted) once(ctx context.Context, nc **nats.Conn, object int) {
	l.bare[object].tried.Add(1)
	if _, err := l.send(context.WithoutCancel(ctx), nc, false, object, ""); err == nil {
		l.bare[object].acked.Add(1)
	}
}

func (l *counted) connect() *nats.Conn {
	nc, err := nats.Connect("nats://"+l.p.nats, nats.NoReconnect(), nats.Timeout(time.Second))
	if err != nil {
		return nil
	}
	return nc
}

var errNotAnswered = errors.New("not answered")

func (l *counted) send(ctx context.Context, nc **nats.Conn, http bool, object int, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if http {
		status, _, body, err := l.p.send(ctx, "POST", fmt.Sprintf("/v1/objects/counter/k%d/call/increment", object), "", "Idempotency-Key", id)
		if err == nil && status != 200 {
			err = fmt.Errorf("%w: %d %s", errNotAnswered, status, body)
		}
		return strings.TrimSpace(body), err
	}
	if *nc == nil || (*nc).IsClosed() {
		if *nc = l.connect(); *nc == nil {
			return "", errNotAnswered
		}
	}
	m := nats.NewMsg(wire.DefaultNamespace.Call("counter", fmt.Sprintf("k%d", object), "increment"))
	if id != "" {
		m.Header.Set(wire.HeaderRequestID, id)
	}
	r, err := (*nc).RequestMsgWithContext(ctx, m)
	if err == nil && r.Header.Get(wire.HeaderErrorCode) != "" {
		err = fmt.Errorf("%w: %s", errNotAnswered, r.Header.Get(wire.HeaderError))
	}
	if err != nil {
		return "", err
	}
	return string(r.Data), nil
}

// check holds what callers were told against the journal and the objects, and the journal against its own rules.
func (l *counted) check(t *testing.T) {
	t.Helper()
	l.p.verify()
	l.mu.Lock()
	defer l.mu.Unlock()
	acked, bare := 0, [killObjects]int64{}
	seen := map[string]bool{}
	for object := range killObjects {
		name := fmt.Sprintf("counter/k%d", object)
		entries := l.p.entries(name)
		for i, e := range entries {
			if int(e.Version) != i+1 {
				t.Fatalf("%s: version %d at place %d", name, e.Version, i+1)
			}
			if !strings.HasPrefix(e.ID, "id-") {
				bare[object]++
				continue
			}
			told, known := l.replies[e.ID]
			switch {
			case seen[e.ID]:
				t.Errorf("%s was applied twice", e.ID)
			case !known:
				t.Errorf("%s is in the journal, and was never answered", e.ID)
			case told != fmt.Sprintf("%d %s", object, e.Reply.Body):
				t.Errorf("%s was told %q; the journal has %d %s", e.ID, told, object, e.Reply.Body)
			}
			seen[e.ID] = true
			acked++
		}
		if got := l.p.want(200, "POST", "/v1/objects/"+name+"/call/value", ""); got != strconv.Itoa(len(entries)) {
			t.Errorf("%s is %s and has %d changes", name, got, len(entries))
		}
		if b := &l.bare[object]; bare[object] < b.acked.Load() || bare[object] > b.tried.Load() {
			t.Errorf("%s: %d increments without id; %d were answered, %d tried", name, bare[object], b.acked.Load(), b.tried.Load())
		}
	}
	if acked != len(l.replies) {
		t.Errorf("%d increments are acknowledged, %d are in the journal", len(l.replies), acked)
	}
	t.Logf("%d increments with ids, %v without", acked, bare)
}
