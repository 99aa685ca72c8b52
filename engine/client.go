package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/journal"
)

// Client makes a transport safe to repeat: it numbers its requests, repeats those whose outcome is not known or that
// found no owner, under the same number, until their deadline, and marks what is answered, so that objects need not
// keep the replies (client sessions: Ongaro's Raft thesis, 6.3). It is itself a [Transport]. Safe for concurrent use;
// one per process and transport is enough.
type Client struct {
	t      Transport
	sender string
	now    func() time.Time // as the objects see it, for deadlines

	mu   sync.Mutex
	n    uint64
	open map[string][]uint64 // numbers without an answer, by object, ascending
}

// NewClient makes a client of a transport.
func NewClient(t Transport) *Client {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	c := &Client{t: t, sender: hex.EncodeToString(b[:]), now: time.Now, open: map[string][]uint64{}}
	if w, ok := t.(*Worker); ok {
		c.now = w.clock.Now
	}
	return c
}

// With joins a context and the client, for [Call] and [Read].
func (c *Client) With(ctx context.Context) Env { return Via(ctx, c) }

// Do sends a request and waits for its reply, repeating it as often as it must. Its errors are of type [*Error]. When
// ctx ends first, the request counts as abandoned.
func (c *Client) Do(ctx context.Context, r Request) (Reply, error) {
	limit := cmp.Or(r.Limit, DefaultDeadline)
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(d))
	}
	if r.Deadline.IsZero() {
		r.Deadline = c.now().Add(limit)
	}
	ctx, cancel := context.WithTimeout(ctx, r.Deadline.Sub(c.now()))
	defer cancel()
	if r.ID == "" {
		object := r.Class + "/" + r.Name
		r.Session = c.number(object, r.Deadline)
		defer c.settle(object, r.Session.N)
	}
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		reply, err := c.t.Do(ctx, r)
		e, failed := errors.AsType[*Error](err)
		if !failed || !e.Retryable() || ctx.Err() != nil {
			return reply, err
		}
		if sleep(ctx, jitter(max(wait, min(e.RetryAfter, retryLast)))) != nil {
			return reply, err
		}
	}
}

const (
	retryFirst = 10 * time.Millisecond
	retryLast  = 500 * time.Millisecond
)

// number gives a request its number, and the mark below which all requests to the object are answered or abandoned.
func (c *Client) number(object string, deadline time.Time) *SessionNumber {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	open := append(c.open[object], c.n)
	c.open[object] = open
	return &journal.SessionNumber{Sender: c.sender, N: c.n, M: open[0], Deadline: deadline}
}

func (c *Client) settle(object string, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	open := c.open[object]
	if i, ok := slices.BinarySearch(open, n); ok {
		open = slices.Delete(open, i, i+1)
	}
	if len(open) == 0 {
		delete(c.open, object)
	} else {
		c.open[object] = open
	}
}
