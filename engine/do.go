package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Limits of a request.
const (
	// BodyBytesMax is the largest body of a request.
	BodyBytesMax = 1 << 20
	// RequestIDBytesMax is the longest id that a caller may give a request.
	RequestIDBytesMax = 256
	// DeadlineMax is how far ahead a deadline may be.
	DeadlineMax = time.Hour
	// DefaultDeadline is how long after its receipt a request without a deadline may begin.
	DefaultDeadline = 30 * time.Second
)

// Do sends a request to its object and waits for the reply. It does not repeat: [Unavailable] and [UnknownOutcome] are
// for the caller, which a [Client] is. When ctx ends first the outcome is unknown.
func (w *Worker) Do(ctx context.Context, r Request) (Reply, error) {
	return replyOf(ctx, func(reply func(Reply, error)) { w.submit(ctx, r, reply) }, func() error {
		return &Error{Code: UnknownOutcome, Detail: "the caller stopped waiting", Object: r.Class + "/" + r.Name,
			RequestID: r.requestID(), cause: context.Cause(ctx)}
	})
}

// replyOf waits for what ask is answered; when ctx ends first the error is that of left.
func replyOf(ctx context.Context, ask func(reply func(Reply, error)), left func() error) (Reply, error) {
	type answer struct {
		reply Reply
		err   error
	}
	done := make(chan answer, 1)
	ask(func(reply Reply, err error) { done <- answer{reply, err} })
	select {
	case a := <-done:
		return a.reply, a.err
	case <-ctx.Done():
		return Reply{}, left()
	}
}

// Owns tells whether the object's partition is this worker's now, and not about to be handed over. It may be another's when the
// caller looks again.
func (w *Worker) Owns(class, name string) bool { return w.owns(class, name, false) }

// owns is Owns; a call from a turn still finds its object while the partition drains, since the turn is waited for.
func (w *Worker) owns(class, name string, fromTurn bool) bool {
	ep := w.epochs[wire.Partition(wire.Slot(class, wire.Escape(name)), w.cfg.Partitions)].Load()
	return ep != nil && !ep.over.Load() && (fromTurn || !ep.closing.Load())
}

// Nearest is a transport that asks this worker for the objects that it owns, and [Config.Others] for all others.
func (w *Worker) Nearest() Transport {
	if w.cfg.Others == nil {
		return w
	}
	return nearest{w}
}

type nearest struct{ w *Worker }

func (n nearest) Do(ctx context.Context, r Request) (Reply, error) {
	if !n.w.owns(r.Class, r.Name, len(r.Chain) > 0) {
		if r.Eventual {
			if reply, err := n.w.readCopy(ctx, r); !errors.Is(err, ErrNoCopy) {
				return reply, err
			}
		}
		return n.w.cfg.Others.Do(ctx, r)
	}
	// In the process nothing is lost: the client's limit for one try, after which it asks again, would only reach into the
	// turn. A caller that leaves still does.
	in, cancel := context.WithDeadline(context.WithoutCancel(ctx), r.Deadline)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})()
	return n.w.Do(in, r)
}

func (n nearest) Post(ctx context.Context, r Request) (journal.Seq, error) { return n.w.Post(ctx, r) }

// Post stores a message to an object in the inbox, as [Config.Post] does. It does not repeat.
func (w *Worker) Post(ctx context.Context, r Request) (journal.Seq, error) {
	if w.cfg.Post == nil {
		return 0, Errorf(Unavailable, "this worker has no way to the inbox")
	}
	return w.cfg.Post(ctx, r)
}

// submit checks a request and puts it into its object's mailbox. reply is called once, from any goroutine.
func (w *Worker) submit(ctx context.Context, r Request, reply func(Reply, error)) {
	tk := &task{request: r, ctx: ctx, reply: reply}
	tk.req = &tk.request
	err := w.route(tk)
	if err == nil {
		return
	}
	e := *asError(err)
	if r.Class != "" && r.Name != "" {
		e.Object = cmp.Or(e.Object, r.Class+"/"+r.Name)
	}
	e.RequestID = cmp.Or(e.RequestID, tk.req.requestID())
	reply(Reply{}, &e)
}

func (w *Worker) route(tk *task) error {
	r := tk.req
	c, err := w.check(r)
	if err != nil {
		return err
	}
	token := wire.Escape(r.Name)
	p := wire.Partition(wire.Slot(c.Name, token), w.cfg.Partitions)
	ep := w.epochs[p].Load()
	if ep == nil {
		return unavailable(fmt.Errorf("partition %d is not owned", p))
	}
	tk.at = w.awake()
	return ep.submit(c, r.Name, token, tk)
}

// check tells what is wrong with a request, and fills in what it leaves open.
func (w *Worker) check(r *Request) (*class, error) {
	c := w.classes[r.Class]
	if c == nil {
		return nil, Errorf(NotFound, "no class %q; there are: %s", r.Class, strings.Join(slices.Sorted(maps.Keys(w.classes)), ", "))
	}
	if err := wire.CheckName(r.Name); err != nil {
		return nil, Errorf(Invalid, "%w", err)
	}
	switch {
	case len(r.Body) > BodyBytesMax:
		return nil, Errorf(TooLarge, "the body has %d bytes; at most %d", len(r.Body), BodyBytesMax)
	case len(r.ID) > RequestIDBytesMax:
		return nil, Errorf(Invalid, "the request id has %d bytes; at most %d", len(r.ID), RequestIDBytesMax)
	case slices.Contains(r.Chain, r.Class+"/"+r.Name):
		return nil, Errorf(Conflict, "the call came back in a circle: %s", strings.Join(append(r.Chain, r.Class+"/"+r.Name), " -> "))
	}
	if err := c.checkMethod(r); err != nil {
		return nil, err
	}
	now := w.clock.Now()
	if r.Deadline.IsZero() {
		r.Deadline = sessionDeadline(r) // a later one could outlive what the object remembers of the sender
	}
	if r.Deadline.IsZero() {
		r.Deadline = now.Add(cmp.Or(r.Limit, DefaultDeadline))
	}
	for _, d := range []time.Time{r.Deadline, sessionDeadline(r)} {
		if d.Sub(now) > DeadlineMax {
			return nil, Errorf(Invalid, "the deadline %s is more than %v ahead: the object remembers its caller until then", d.UTC().Format(time.RFC3339), DeadlineMax)
		}
	}
	if r.ID == "" && r.Session == nil {
		r.made = newToken() // drawn as all that is: a simulation has the same one again
	}
	return c, nil
}

func (c *class) checkMethod(r *Request) error {
	if r.HTTP != nil {
		r.Method = "http"
		if r.Eventual || r.MinVersion != 0 {
			return Errorf(Invalid, "an HTTP request may change the object: %s and %s are for reads, at /v1/objects/%s/<name>/call/<method>",
				wire.HeaderConsistency, wire.HeaderMinVersion, c.Name)
		}
		if !c.HTTP {
			return Errorf(NotFound, "class %q takes no HTTP requests: it has no OnHTTP; its methods are at /v1/objects/%s/<name>/call/<method>", c.Name, c.Name)
		}
		r.read = c.Limits.ReadOnly
		return nil
	}
	r.Method = cmp.Or(c.Renamed[r.Method], r.Method)
	m, ok := c.Methods[r.Method]
	switch {
	case !ok:
		return Errorf(NotFound, "class %q has no method %q; it has: %s", c.Name, r.Method, strings.Join(slices.Sorted(maps.Keys(c.Methods)), ", "))
	case !m.Read && (r.Read || r.Eventual || r.MinVersion != 0):
		return Errorf(Invalid, "%s is no read: it may change the object", r.Method)
	case c.Limits.ReadOnly && !m.Read:
		return Errorf(Denied, "class %q serves reads only just now", c.Name)
	}
	r.read = m.Read
	return nil
}

// sessionDeadline is the deadline that a numbered request's sender is remembered by; zero if it has none.
func sessionDeadline(r *Request) (d time.Time) {
	if r.Session != nil {
		d = r.Session.Deadline
	}
	return d
}
