package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway/feed"
)

// Media types of streams of events.
const (
	typeSSE    = "text/event-stream"
	typeNDJSON = "application/x-ndjson"
)

// changes tells what is committed, of one class or of all.
func (g *Gateway) changes(w *response, r *http.Request, t *target) error {
	kind := preferred(r.Header, typeNDJSON, typeSSE)
	if kind == "" {
		return engine.Errorf(engine.Invalid, "Accept is %q; want %s or %s", r.Header.Get("Accept"), typeSSE, typeNDJSON)
	}
	cloud, err := cloudEvents(t, structured)
	if err != nil {
		return err
	}
	s := stream{w: w, kind: kind, data: func(e feed.Event) []byte { return e.JSON }}
	if cloud {
		s.data = g.structured
	}
	return g.follow(r, &s, feed.Want{Class: t.query.Get("class"), Prefix: t.query.Get("prefix"), From: t.query.Get("from")})
}

// followJournal tells what is committed to one object.
func (g *Gateway) followJournal(w *response, r *http.Request, t *target) error {
	from := t.query.Get("from")
	switch from {
	case "", feed.Now, feed.Start:
	default: // the first sequence, as without following; a place is the one before
		first, _, err := number(t, "from", 0, math.MaxUint64)
		if err != nil {
			return engine.Errorf(engine.Invalid, "parameter %q is %q; want %s, %s or a sequence", "from", from, feed.Now, feed.Start)
		}
		from = strconv.FormatUint(first-min(first, 1), 10)
	}
	if t.query.Has("limit") {
		return engine.Errorf(engine.Invalid, "parameter %q: what is followed has no end", "limit")
	}
	s := stream{w: w, kind: typeSSE, data: func(e feed.Event) []byte {
		b, err := json.Marshal(e.Entry)
		if err != nil {
			return e.JSON
		}
		return b
	}}
	return g.follow(r, &s, feed.Want{Class: t.class, Name: t.name, From: from})
}

// follow answers with events until the client leaves, the server drains, or the feed ends it.
func (g *Gateway) follow(r *http.Request, s *stream, want feed.Want) error {
	if g.Feed == nil {
		return engine.Errorf(engine.Unavailable, "this gateway follows no journal")
	}
	if err := g.serves(r.Context(), want.Class); err != nil {
		return err
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		want.From = last // a client that comes back asks for the same URL
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(drainOf(ctx), func() { cancel(errDraining) })()
	l, err := g.Feed.Listen(ctx, want)
	if err != nil {
		return err
	}
	defer l.Close()
	h := s.w.Header()
	h.Set("Content-Type", s.kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // of nginx
	s.w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if err := s.write(nil, l.Place()); err != nil { // it has a place from the first moment on
		return err
	}
	err = l.Run(ctx, func(events []feed.Event) error { return s.write(events, l.Place()) })
	if e, ok := errors.AsType[*engine.Error](err); ok && ctx.Err() == nil {
		return s.end(e, l.Place())
	}
	return nil // who left, and who is to come back, hears that the stream ends
}

// serves refuses a class that nobody would ever hear of.
func (g *Gateway) serves(ctx context.Context, class string) error {
	if class == "" {
		return nil
	}
	classes, err := g.Inspector.Classes(ctx)
	if err == nil && !slices.ContainsFunc(classes, func(c engine.ClassInfo) bool { return c.Name == class }) {
		err = engine.Errorf(engine.NotFound, "no class %q", class)
	}
	return err
}

var errDraining = errors.New("the gateway is shutting down")

// stream writes events as they go over the wire.
type stream struct {
	w    *response
	kind string
	data func(feed.Event) []byte
	buf  bytes.Buffer
}

// write writes events; without any it tells that it is alive, and the place.
func (s *stream) write(events []feed.Event, place string) error {
	s.buf.Reset()
	for _, e := range events {
		s.frame("change", e.ID, s.data(e))
	}
	if len(events) == 0 {
		s.frame("heartbeat", place, nil)
	}
	return s.flush()
}

// end tells why nothing more comes, and where to go on.
func (s *stream) end(why *engine.Error, place string) error {
	s.buf.Reset()
	b, err := json.Marshal(engine.ProblemOf(why))
	if err != nil {
		return err
	}
	s.frame("end", place, b)
	return s.flush()
}

func (s *stream) flush() error {
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}

// frame appends one event. A heartbeat of server-sent events is a comment; the id with it is remembered without an event.
func (s *stream) frame(event, id string, data []byte) {
	b := &s.buf
	if s.kind == typeNDJSON {
		b.WriteString(`{"event":"` + event + `","id":"` + id + `"`) // neither has anything to escape
		if data != nil {
			b.WriteString(`,"data":`)
			b.Write(data)
		}
		b.WriteString("}\n")
		return
	}
	if data == nil {
		b.WriteString(": " + event + "\nid: " + id + "\n\n")
		return
	}
	b.WriteString("id: " + id + "\nevent: " + event + "\ndata: ")
	b.Write(data) // JSON, on one line
	b.WriteString("\n\n")
}

// preferred is the first type that Accept names among those there are; the first of them for everything or nothing, none if
// it names others only. Weights are not looked at.
func preferred(h http.Header, types ...string) string {
	values := h.Values("Accept")
	if len(values) == 0 {
		return types[0]
	}
	for one := range strings.SplitSeq(strings.Join(values, ","), ",") {
		accepted, _, err := mime.ParseMediaType(one)
		if err != nil {
			continue
		}
		for _, t := range types {
			if accepted == t {
				return t
			}
		}
		if accepted == "*/*" {
			return types[0]
		}
	}
	return ""
}
