package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Config is what a [Hub] is made of. Fields without a default are required.
type Config struct {
	Namespace  wire.Subjects // default "objects"
	Life       string        // the id of the namespace's life: places of another one are refused
	Partitions int
	// Connect makes a journal session, for as long as somebody listens.
	Connect func(ctx context.Context) (journal.Session, error)
	// Durable is as in [engine.Config]: what is stored and not durable yet is not told.
	Durable func(stream string, seq journal.Seq, open func())

	MemoryBytes  int64         // of records that are kept for listeners, of all partitions; default 64 MiB
	ListenersMax int           // default 1,000
	ReadersMax   int           // listeners that read the past from the streams; default 64
	Heartbeat    time.Duration // a listener hears something so often at least; default 15 s
	Log          *slog.Logger  // default: none
}

func (c Config) withDefaults() (Config, error) {
	c.Namespace = cmp.Or(c.Namespace, wire.DefaultNamespace)
	c.MemoryBytes = cmp.Or(c.MemoryBytes, 64<<20)
	c.ListenersMax = cmp.Or(c.ListenersMax, 1000)
	c.ReadersMax = cmp.Or(c.ReadersMax, 64)
	c.Heartbeat = cmp.Or(c.Heartbeat, 15*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var problems []error
	if c.Life == "" {
		problems = append(problems, errors.New("Life is required"))
	}
	if c.Partitions < 1 || c.Partitions > wire.Slots {
		problems = append(problems, fmt.Errorf("Partitions is %d; want 1 to %d", c.Partitions, wire.Slots))
	}
	if c.Connect == nil {
		problems = append(problems, errors.New("Connect is required"))
	}
	if c.MemoryBytes < 1 || c.ListenersMax < 1 || c.ReadersMax < 1 || c.Heartbeat < 0 {
		problems = append(problems, fmt.Errorf("MemoryBytes %d, ListenersMax %d, ReadersMax %d, Heartbeat %v: want more than 0", c.MemoryBytes, c.ListenersMax, c.ReadersMax, c.Heartbeat))
	}
	return c, errors.Join(problems...)
}

// Hub follows the streams of a namespace for all listeners. Safe for concurrent use.
type Hub struct {
	cfg     Config
	readers chan struct{} // has an element for each listener that reads the past
	running sync.WaitGroup

	mu     sync.Mutex
	tail   *tail // nil while nobody listens
	count  int   // of listeners
	closed bool
}

// New checks the configuration; its error lists every problem. Nothing is read before somebody listens.
func New(c Config) (*Hub, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	return &Hub{cfg: c, readers: make(chan struct{}, c.ReadersMax)}, nil
}

// Close ends all listeners, and returns when nothing is followed any more.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	if h.tail != nil {
		h.tail.fail(errClosing)
		h.tail = nil
	}
	h.mu.Unlock()
	h.running.Wait()
}

// Listeners is how many listen.
func (h *Hub) Listeners() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

var errClosing = errors.New("this gateway is closing")

// enter counts a listener in, and begins to follow for the first one.
func (h *Hub) enter() (*tail, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, engine.Errorf(engine.Unavailable, "%w", errClosing)
	case h.count >= h.cfg.ListenersMax:
		return nil, engine.Errorf(engine.Overloaded, "%d listen; at most %d may", h.count, h.cfg.ListenersMax).RetryIn(retryListen)
	}
	if h.tail == nil || h.tail.ctx.Err() != nil {
		t := newTail(&h.cfg)
		h.tail = t
		h.running.Go(func() {
			t.run()
			h.leave(t, 0)
		})
	}
	h.count++
	h.tail.count++
	return h.tail, nil
}

// leave counts listeners out. What nobody listens to, or is over, is followed no more.
func (h *Hub) leave(t *tail, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count -= n
	t.count -= n
	if t.count == 0 {
		t.fail(errNobody)
	}
	if h.tail == t && t.ctx.Err() != nil {
		h.tail = nil
	}
}

var errNobody = errors.New("nobody listens")

// retryListen is when to ask again where too many listen.
const retryListen = 5 * time.Second
