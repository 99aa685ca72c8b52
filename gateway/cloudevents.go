package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/gateway/feed"
	"github.com/perdure/perdure/journal"
)

// Modes of CloudEvents 1.0. Binary mode puts the attributes into the headers of a message, so it is for an answer that is one
// event; the events of a stream have no headers, and are structured.
const (
	binary     = "binary"
	structured = "structured"
)

// cloudEvents tells whether the event is asked for as a CloudEvent.
func cloudEvents(t *target, modes ...string) (mode bool, err error) {
	v := t.query.Get("cloudevents")
	for _, m := range modes {
		if v == m {
			return true, nil
		}
	}
	if t.query.Has("cloudevents") {
		return false, engine.Errorf(engine.Invalid, "parameter %q is %q; here it may be %s", "cloudevents", v, strings.Join(modes, " or "))
	}
	return false, nil
}

// cloudEvent is a commit in structured mode.
type cloudEvent struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"` // with the source it names the commit, for ever
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Time        time.Time       `json:"time"`
	ContentType string          `json:"datacontenttype"`
	Data        json.RawMessage `json:"data,omitempty"`
}

const changeType = "perdure.change"

func (g *Gateway) cloudEvent(e *engine.JournalEntry) cloudEvent {
	return cloudEvent{SpecVersion: "1.0", ID: fmt.Sprintf("%s/%s@%d", e.Class, e.Name, e.Version), Type: changeType, Time: e.At.UTC(),
		Source: "/v1/objects/" + e.Class + "/" + url.PathEscape(e.Name), ContentType: "application/json"}
}

// structured is an event of a stream.
func (g *Gateway) structured(e feed.Event) []byte {
	c := g.cloudEvent(e.Entry)
	c.Data = e.JSON
	b, err := json.Marshal(c)
	if err != nil {
		return e.JSON
	}
	return b
}

// commit is one commit of an object, by the id of its event.
func (g *Gateway) commit(w *response, r *http.Request, t *target) error {
	asCloudEvent, err := cloudEvents(t, binary)
	if err != nil {
		return err
	}
	seq, part, err := feed.ParseID(t.event)
	if err != nil {
		return err
	}
	entries, _, err := g.Inspector.Journal(r.Context(), t.class, t.name, seq, 1)
	if err != nil {
		return err
	}
	e := nthOf(entries, seq, part)
	if e == nil {
		return engine.Errorf(engine.NotFound, "there is no commit with the id %s in the journal of %s/%s", t.event, t.class, t.name)
	}
	if asCloudEvent {
		e.Reply = nil // it was for the caller
		c, h := g.cloudEvent(e), w.Header()
		for name, value := range map[string]string{"ce-specversion": c.SpecVersion, "ce-id": c.ID, "ce-source": c.Source, "ce-type": c.Type, "ce-time": c.Time.Format(time.RFC3339Nano)} {
			h.Set(name, escapeHeader(value))
		}
	}
	return engine.WriteJSON(w, e)
}

// nthOf is the commit that an id names: the last of a record, or the part-th.
func nthOf(entries []engine.JournalEntry, seq journal.Seq, part int) *engine.JournalEntry {
	for i := range entries {
		if entries[i].Seq != seq {
			return nil
		}
		if i+1 == part || part == 0 && i+1 == len(entries) {
			return &entries[i]
		}
	}
	return nil
}

// escapeHeader writes a value as the HTTP binding of CloudEvents does: percent for what is not printable ASCII, space, quote
// and percent.
func escapeHeader(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
