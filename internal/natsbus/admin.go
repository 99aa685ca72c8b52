package natsbus

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// Admin is what a worker needs to answer questions, about whatever object.
type Admin struct {
	Worker     string // its id
	Partitions int    // of the namespace
	Classes    func(context.Context) ([]engine.ClassInfo, error)
	Report     func() any // what it says of itself
	Status     func(context.Context) (any, error)
}

// ServeAdmin answers questions in JSON, on <ns>.admin.state, journal, sent, objects, classes, durable and status, and on
// <ns>.control.worker.<id>.status about this worker alone. Any worker answers: it asks the owners of the partitions that a question is about
// ([ServePart]). If one of them has no owner just now that is Unavailable at once: a list is never of some partitions only.
//
// stop ends the answering, and returns when no question is in work.
func ServeAdmin(nc *nats.Conn, ns wire.Subjects, of Admin, log *slog.Logger) (stop func(), err error) {
	a := &admin{newAnswerer(nc, ns, log), of, NewClient(nc, ns)}
	stop = func() { a.stop(); a.owners.Close() }
	return stop, a.serve(map[string]answerTo{
		ns.Admin("state"):                 a.ofObject("state"),
		ns.Admin("journal"):               a.ofObject("journal"),
		ns.Admin("sent"):                  a.ofObject("sent"),
		ns.Admin("objects"):               a.objects,
		ns.Admin("classes"):               a.classes,
		ns.Admin("durable"):               a.durable,
		ns.Admin("status"):                func(ctx context.Context, _ question) (any, error) { return of.Status(ctx) },
		ns.AskWorker(of.Worker, "status"): func(context.Context, question) (any, error) { return of.Report(), nil },
	})
}

type admin struct {
	*answerer
	of     Admin
	owners *Client
}

// ofObject passes a question on to the owner of an object.
func (a *admin) ofObject(what string) answerTo {
	return func(ctx context.Context, q question) (any, error) {
		p := wire.Partition(wire.Slot(q.Class, wire.Escape(q.Name)), a.of.Partitions)
		return askOwner[json.RawMessage](ctx, a, p, what, q)
	}
}

// askOwner asks the owner of a partition.
func askOwner[A any](ctx context.Context, a *admin, p int, what string, q question) (A, error) {
	answer, err := ask[A](ctx, a.owners, a.ns.AskPart(p, what), q)
	if errors.Is(err, nats.ErrNoResponders) {
		err = engine.Errorf(engine.Unavailable, "partition %d has no owner just now", p)
	}
	return answer, err
}

func (a *admin) durable(ctx context.Context, q question) (any, error) {
	for p := range a.of.Partitions {
		if a.ns.Stream(p) == q.Stream {
			return askOwner[json.RawMessage](ctx, a, p, "durable", q)
		}
	}
	return nil, engine.Errorf(engine.NotFound, "no stream %q", q.Stream)
}

func (a *admin) classes(ctx context.Context, _ question) (any, error) {
	list, err := a.of.Classes(ctx)
	return classesAnswer{list}, err
}

// objects puts the lists of all partitions together.
func (a *admin) objects(ctx context.Context, q question) (any, error) {
	if q.Limit < 1 || q.Limit > engine.ListMax {
		q.Limit = engine.ListMax
	}
	lists := make([]partList, a.of.Partitions)
	for p := range lists {
		// Names spread evenly: some more than its part, and few are asked twice.
		part := q.Limit / a.of.Partitions
		lists[p] = partList{p: p, cursor: q.Cursor, more: true, limit: min(q.Limit, part+3*int(math.Sqrt(float64(part)))+4)}
	}
	out := objectsAnswer{Objects: []engine.ObjectInfo{}}
	for {
		if err := a.refill(ctx, lists, q); err != nil {
			return nil, err
		}
		first := firstOf(lists)
		if first == nil {
			return out, nil
		}
		if len(out.Objects) == q.Limit {
			out.Next = q.Cursor
			return out, nil
		}
		out.Objects, q.Cursor = append(out.Objects, first.list[0]), first.ids[0]
		first.list, first.ids = first.list[1:], first.ids[1:]
	}
}

// partList is what is left of the last list of a partition that was asked for.
type partList struct {
	p      int
	list   []engine.ObjectInfo
	ids    []string // their places in the order
	cursor string   // behind the last one
	more   bool     // there are others behind it
	limit  int
}

// firstOf is the list whose first object comes first, nil if all are at their end.
func firstOf(lists []partList) (first *partList) {
	for i := range lists {
		if l := &lists[i]; len(l.ids) > 0 && (first == nil || l.ids[0] < first.ids[0]) {
			first = l
		}
	}
	return first
}

// refill asks for more wherever nothing is left, and there is more: until then nobody knows what comes first.
func (a *admin) refill(ctx context.Context, lists []partList, q question) error {
	asked := 0
	answered := make(chan error, len(lists))
	for i := range lists {
		l := &lists[i]
		if len(l.ids) > 0 || !l.more {
			continue
		}
		asked++
		go func() {
			of := q
			of.Cursor, of.Limit = l.cursor, l.limit
			got, err := askOwner[partObjects](ctx, a, l.p, "objects", of)
			if l.list, l.ids, l.more = got.Objects, got.IDs, got.More; len(l.ids) > 0 {
				l.cursor = l.ids[len(l.ids)-1]
			}
			if err == nil && (len(l.list) != len(l.ids) || l.more && len(l.ids) == 0) {
				err = engine.Errorf(engine.Internal, "partition %d answers %d objects with %d places", l.p, len(l.list), len(l.ids))
			}
			answered <- err
		}()
	}
	var failed error
	for range asked {
		if err := <-answered; err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}
