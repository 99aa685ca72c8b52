package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/journal"
)

// directs are the direct gets of a session that are under way. Their answers are several messages each, so they do not
// fit the client library's requests, and a subscription for each would cost more than the answer: they share one inbox.
type directs struct {
	nc   *nats.Conn
	once sync.Once
	err  error
	at   string // the inbox, with a dot

	mu   sync.Mutex
	n    uint64
	open map[string]*direct
}

// direct is one direct get.
type direct struct {
	last     string // sequence of the message before: each names it, so a gap shows
	messages []journal.Message
	end      nats.Header
	err      error
	done     chan struct{}
}

// Answers of a direct get that are no messages.
const (
	statusEnd      = "204" // the end of a batch
	statusNotFound = "404"
	noResults      = "No Results" // none of the subjects of a multi_last has a message; another 404 is damage
)

// get asks a stream for messages. It returns those that came and the headers of the answer that ended them. Any replica
// of the stream may answer.
func (d *directs) get(ctx context.Context, stream string, question any) ([]journal.Message, nats.Header, error) {
	d.once.Do(d.subscribe)
	if d.err != nil {
		return nil, nil, d.err
	}
	body, err := json.Marshal(question)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	get := &direct{last: "0", done: make(chan struct{})}
	d.mu.Lock()
	d.n++
	token := strconv.FormatUint(d.n, 36)
	d.open[token] = get
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.open, token)
		d.mu.Unlock()
	}()
	if err := d.nc.PublishRequest("$JS.API.DIRECT.GET."+stream, d.at+token, body); err != nil {
		return nil, nil, err
	}
	select {
	case <-get.done:
		if get.err != nil {
			return nil, nil, fmt.Errorf("stream %s: direct get: %w", stream, get.err)
		}
		return get.messages, get.end, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("stream %s: direct get: %w", stream, ctx.Err())
	}
}

func (d *directs) subscribe() {
	d.at = d.nc.NewRespInbox() + "."
	d.open = map[string]*direct{}
	sub, err := d.nc.Subscribe(d.at+"*", d.answered)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	d.err = err
}

// answered takes one message of an answer; they come in order.
func (d *directs) answered(m *nats.Msg) {
	d.mu.Lock()
	get := d.open[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]]
	d.mu.Unlock()
	if get == nil || get.end != nil || get.err != nil {
		return // nobody waits any more
	}
	if get.take(m); get.end != nil || get.err != nil {
		close(get.done)
	}
}

func (g *direct) take(m *nats.Msg) {
	number, status := served(m.Header, "Nats-Sequence"), ""
	if number == "" { // only messages of the stream have it, whatever else their author put into their headers
		status = m.Header.Get("Status")
	}
	if status == "503" {
		g.err = nats.ErrNoResponders
		return
	}
	if before := served(m.Header, "Nats-Last-Sequence"); before != g.last && (status == "" || status == statusEnd) {
		g.err = fmt.Errorf("a message is missing in the answer: %w", journal.ErrDamaged)
		return
	}
	if status != "" {
		g.end = m.Header
		return
	}
	g.last = number
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		g.err = fmt.Errorf("sequence: %w", err)
		return
	}
	at, err := time.Parse(time.RFC3339Nano, served(m.Header, "Nats-Time-Stamp"))
	if err != nil {
		g.err = fmt.Errorf("time: %w", err)
		return
	}
	g.messages = append(g.messages, journal.Message{Subject: served(m.Header, "Nats-Subject"), Header: ours(m.Header), Data: m.Data,
		Seq: journal.Seq(seq), Time: at})
}

// served is a header that the server sets. It comes behind those that the message was stored with, which may have the
// same name if its author copied it from an answer.
func served(h nats.Header, name string) string {
	values := h[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
