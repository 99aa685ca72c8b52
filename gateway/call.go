package gateway

import (
	"cmp"
	"maps"
	"mime"
	"net/http"
	"strconv"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// http gives the whole request to the object's OnHTTP.
func (g *Gateway) http(w *response, r *http.Request, t *target) error {
	req, err := g.request(w, r, t)
	if err != nil {
		return err
	}
	req.HTTP = &engine.HTTPRequest{Method: r.Method, URL: r.URL.RequestURI(), Host: r.Host, Header: wire.EndToEnd(r.Header)}
	reply, err := g.Transport.Do(r.Context(), req)
	if err != nil {
		return err
	}
	if reply.Status < 200 || reply.Status > 999 {
		return engine.Errorf(engine.Internal, "the class answered with the status %d, which HTTP does not have", reply.Status)
	}
	h := w.Header()
	maps.Copy(h, wire.EndToEnd(reply.Header))
	if r.Method != http.MethodHead { // where the class alone knows what GET would have
		h.Set("Content-Length", strconv.Itoa(len(reply.Body)))
	}
	g.describe(h, &req, &reply)
	w.WriteHeader(reply.Status)
	_, _ = w.Write(reply.Body) // the client may be gone, or the status without a body
	return nil
}

// methodRequest is a request whose body is the argument of a method.
func (g *Gateway) methodRequest(w *response, r *http.Request, t *target) (engine.Request, error) {
	req, err := g.request(w, r, t)
	if err == nil && len(req.Body) > 0 {
		err = checkJSON(r.Header.Get("Content-Type"))
	}
	return req, err
}

// call runs one method.
func (g *Gateway) call(w *response, r *http.Request, t *target) error {
	req, err := g.methodRequest(w, r, t)
	if err != nil {
		return err
	}
	reply, err := g.Transport.Do(r.Context(), req)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(reply.Body)+1))
	g.describe(h, &req, &reply)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(reply.Body) // the client may be gone
	_, _ = w.Write(newline)
	return nil
}

var newline = []byte("\n")

// describe puts what is known of the reply into its headers.
func (g *Gateway) describe(h http.Header, req *engine.Request, reply *engine.Reply) {
	h.Set(wire.HeaderVersion, strconv.FormatUint(uint64(reply.Version), 10))
	if h.Get("ETag") == "" {
		h.Set("ETag", etag(uint64(reply.Version)))
	}
	if req.ID != "" {
		h.Set(headerRequestID, req.ID)
		if reply.Replayed {
			h.Set(headerReplayed, "true")
		}
	}
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

func checkJSON(contentType string) error {
	if contentType == "application/json" {
		return nil
	}
	if t, _, err := mime.ParseMediaType(cmp.Or(contentType, "application/json")); err == nil && t == "application/json" {
		return nil
	}
	return engine.Errorf(engine.Invalid, "the argument of a call is JSON: want Content-Type: application/json, have %q", contentType)
}
