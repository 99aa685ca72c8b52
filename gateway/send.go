package gateway

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

const headerNotBefore = "Perdure-Not-Before"

// send stores a message to an object; that it is stored is all that the caller hears.
func (g *Gateway) send(w *response, r *http.Request, t *target) error {
	if r.Header.Get(headerNotBefore) != "" {
		return engine.Errorf(engine.Invalid, "header %s: messages cannot be delayed yet; send it when it is due", headerNotBefore)
	}
	req, err := g.methodRequest(w, r, t)
	if err != nil {
		return err
	}
	seq, err := g.Transport.Post(r.Context(), req)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Location", "/v1/objects/"+t.class+"/"+url.PathEscape(t.name)+"/send/"+strconv.FormatUint(uint64(seq), 10))
	w.WriteHeader(http.StatusAccepted)
	return engine.WriteJSON(w, accepted{seq})
}

// accepted is the answer to a message that is stored.
type accepted struct {
	Seq journal.Seq `json:"seq"` // its position in the inbox
}

// sent tells what became of a message.
func (g *Gateway) sent(w *response, r *http.Request, t *target) error {
	seq, err := strconv.ParseUint(t.seq, 10, 64)
	if err != nil || seq == 0 {
		return engine.Errorf(engine.Invalid, "%q is no position of a message: that is what a send answers, such as 17", t.seq)
	}
	s, err := g.Inspector.Sent(r.Context(), t.class, t.name, journal.Seq(seq))
	if err != nil {
		return err
	}
	return engine.WriteJSON(w, s)
}
