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
	answer time.Duration    // how long the first try waits for its answer; 0: until the deadline

	mu      sync.Mutex
	n       uint64
	objects map[string]*outstanding
}

// outstanding are the requests to one object from the first that is not settled on: what the object keeps replies for.
type outstanding struct {
	numbers []numbered    // ascending; the first is not settled
	moved   chan struct{} // closed when the first is settled; nil while nobody waits
}

type numbered struct {
	n       uint64
	settled bool
}

// outstandingMax keeps a client below what an object keeps for it, while an early request is still being repeated.
const outstandingMax = unansweredMax - 24

// NewClient makes a client of a transport.
func NewClient(t Transport) *Client {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	c := &Client{t: t, sender: hex.EncodeToString(b[:]), now: time.Now, answer: answerFirst, objects: map[string]*outstanding{}}
	if w, ok := t.(*Worker); ok {
		c.now, c.answer = w.clock.Now, 0 // in the process nothing is lost
	}
	return c
}

// With joins a context and the client, for [Call], [Read] and [Post].
func (c *Client) With(ctx context.Context) Env { return Via(ctx, c) }

// Do sends a request and waits for its reply, repeating it as often as it must. Its errors are of type [*Error]. When
// ctx ends first, the request counts as abandoned.
func (c *Client) Do(ctx context.Context, r Request) (reply Reply, err error) {
	err = c.repeat(ctx, r, "", func(ctx context.Context, r Request) (err error) {
		reply, err = c.t.Do(ctx, r)
		return err
	})
	return reply, err
}

// Post stores a message to an object and returns its position in the inbox, repeating as often as it must: it is applied
// once, however often it is stored.
func (c *Client) Post(ctx context.Context, r Request) (seq journal.Seq, err error) {
	err = c.repeat(ctx, r, "inbox ", func(ctx context.Context, r Request) (err error) {
		seq, err = c.t.Post(ctx, r)
		return err
	})
	return seq, err
}

// repeat tries a request under one number until its outcome is known, or its deadline has come. What is tried goes into the
// object's mailbox or, by way of the inbox, into another series of numbers.
func (c *Client) repeat(ctx context.Context, r Request, series string, once func(context.Context, Request) error) error {
	limit := cmp.Or(r.Limit, DefaultDeadline)
	if d, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(d))
	}
	if r.Deadline.IsZero() {
		r.Deadline = c.now().Add(limit)
	}
	ctx, cancel := context.WithTimeout(ctx, r.Deadline.Sub(c.now()))
	defer cancel()
	if r.ID == "" && !r.Eventual { // copies have no numbers, and to repeat a read does no harm
		object := series + r.Class + "/" + r.Name
		var err error
		if r.Session, err = c.number(ctx, object, r.Deadline); err != nil {
			return Errorf(Timeout, "%d requests of this client to %s are not settled yet: %w", outstandingMax, object, err)
		}
		defer c.settle(object, r.Session.N)
	}
	var unknown error // the first try whose outcome is
	answer := c.answer
	if r.Eventual {
		answer = answerCopy
	}
	for wait := retryFirst; ; wait = min(2*wait, retryLast) {
		err := try(ctx, answer, r, once)
		e, failed := errors.AsType[*Error](err)
		if failed && e.Code == UnknownOutcome && errors.Is(e, context.DeadlineExceeded) {
			answer *= 2 // only a try that waited in vain tells that the object may be slow
		}
		switch {
		case !failed:
			return err
		case e.Code == UnknownOutcome && unknown == nil:
			unknown = err
		case unknown != nil && !e.Remote && (e.Code == Unavailable || e.Code == Overloaded || e.Code == Limited || e.Code == Timeout || e.Code == Full):
			err = unknown // this try did nothing; an earlier one may have
		}
		if !e.Retryable() || ctx.Err() != nil || errors.Is(e, ErrClosed) {
			return err
		}
		if r.Eventual { // the owner is asked now: the copy may be on a worker that is gone
			r.Eventual, answer = false, c.answer
		}
		pause := max(wait, min(e.RetryAfter, retryLast))
		if e.Code == Unavailable { // a partition is without owner for a moment, and asking costs nobody much
			pause = min(pause, retryUnowned)
		}
		if sleep(ctx, jitter(pause, r.requestID(), c.now().UnixNano())) != nil {
			return err
		}
	}
}

// try sends a request once. A message or its answer may get lost and nobody tells, so it waits only so long; the next one
// after it waits twice as long, since the object may be slow as well.
func try(ctx context.Context, answer time.Duration, r Request, once func(context.Context, Request) error) error {
	if answer > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answer)
		defer cancel()
	}
	return once(ctx, r)
}

const (
	retryFirst   = 10 * time.Millisecond
	retryLast    = 500 * time.Millisecond
	retryUnowned = 100 * time.Millisecond
	answerFirst  = 5 * time.Second
	answerCopy   = 2 * time.Second // a copy answers or passes on within a second
)

// number gives a request its number, and the mark below which all requests to the object are answered or abandoned.
func (c *Client) number(ctx context.Context, object string, deadline time.Time) (*SessionNumber, error) {
	for {
		c.mu.Lock()
		o := c.objects[object]
		if o == nil {
			o = &outstanding{}
			c.objects[object] = o
		}
		if len(o.numbers) < outstandingMax {
			c.n++
			n := c.n
			o.numbers = append(o.numbers, numbered{n: n})
			mark := o.numbers[0].n
			c.mu.Unlock()
			return &SessionNumber{Sender: c.sender, N: n, M: mark, Deadline: deadline}, nil
		}
		if o.moved == nil {
			o.moved = make(chan struct{})
		}
		moved := o.moved
		c.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (c *Client) settle(object string, n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.objects[object]
	i, _ := slices.BinarySearchFunc(o.numbers, n, func(a numbered, n uint64) int { return cmp.Compare(a.n, n) })
	o.numbers[i].settled = true
	if i > 0 {
		return
	}
	for i < len(o.numbers) && o.numbers[i].settled {
		i++
	}
	if o.numbers = slices.Delete(o.numbers, 0, i); len(o.numbers) == 0 {
		delete(c.objects, object)
	}
	if o.moved != nil {
		close(o.moved)
		o.moved = nil
	}
}
