package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

const (
	headerIdempotencyKey = "Idempotency-Key"
	headerRequestID      = "Perdure-Request-Id"
	headerDeadline       = "Perdure-Deadline"
	headerCaller         = "Perdure-Caller"
	headerReplayed       = "Idempotency-Replayed"
)

const (
	// idBytesMax is the engine's own limit. It is checked before the body is read.
	idBytesMax = 256
	// callerBytesMax bounds what a caller may put into every record it causes.
	callerBytesMax = 256
	// traceBytesMax bounds what later versions of the trace context may append.
	traceBytesMax = 256
	// deadlineMax bounds how far ahead a deadline may be: objects remember a sender until its latest one has passed.
	deadlineMax = time.Hour
	// bodyBytesFirst is the most that is set aside on a client's word for how long its body will be.
	bodyBytesFirst = 64 << 10
)

// request is an HTTP request as one to an object, with its body.
func (g *Gateway) request(w *response, r *http.Request, t *target) (req engine.Request, err error) {
	req = engine.Request{Class: t.class, Name: t.name, Method: t.method, Trace: traceparent(r.Header)}
	if req.ID, err = requestID(r.Header); err != nil {
		return req, err
	}
	if t.id = req.ID; t.id != "" {
		w.Header().Set(headerRequestID, t.id)
	}
	if req.Deadline, err = deadline(r.Header, time.Now()); err != nil {
		return req, err
	}
	if req.Caller.Claimed, err = caller(r.Header); err != nil {
		return req, err
	}
	if err = consistency(r.Header, &req); err != nil {
		return req, err
	}
	if req.Body, err = g.body(w, r); err != nil {
		return req, err
	}
	if !req.Deadline.IsZero() && !time.Now().Before(req.Deadline) {
		return req, engine.Errorf(engine.Timeout, "the deadline passed before the body had arrived")
	}
	return req, nil
}

// body reads the body whole.
func (g *Gateway) body(w *response, r *http.Request) ([]byte, error) {
	limit := int64(g.BodyBytesMax)
	if r.ContentLength > limit {
		return nil, engine.Errorf(engine.TooLarge, "the body has %d bytes; at most %d", r.ContentLength, limit)
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	b.Grow(int(min(max(r.ContentLength, 0)+bytes.MinRead, bodyBytesFirst)))
	_, err := b.ReadFrom(http.MaxBytesReader(w.ResponseWriter, r.Body, limit))
	tooLarge, isTooLarge := errors.AsType[*http.MaxBytesError](err)
	switch {
	case err == nil:
		w.haveBody()
		return b.Bytes(), nil
	case isTooLarge:
		return nil, engine.Errorf(engine.TooLarge, "the body has more than %d bytes", tooLarge.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, engine.Errorf(engine.Timeout, "the body did not arrive within %v", g.ClientTimeout)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, engine.Errorf(engine.Invalid, "the body ends early")
	}
	return nil, engine.Errorf(engine.Invalid, "read the body: %w", err)
}

// single is the value of a header that may be given once.
func single(h http.Header, name string) (value string, given bool, err error) {
	values := h.Values(name)
	switch len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	}
	return "", false, engine.Errorf(engine.Invalid, "header %s is given %d times", name, len(values))
}

// requestID is the caller's own id, from either header.
func requestID(h http.Header) (string, error) {
	var id, from string
	for _, name := range []string{headerIdempotencyKey, headerRequestID} {
		v, given, err := single(h, name)
		if err != nil {
			return "", err
		}
		if !given {
			continue
		}
		if v, err = unquote(v); err != nil {
			return "", engine.Errorf(engine.Invalid, "header %s: %w", name, err)
		}
		if from != "" && v != id {
			return "", engine.Errorf(engine.Invalid, "headers %s and %s name different ids; one is enough", from, name)
		}
		id, from = v, name
	}
	return id, nil
}

var (
	errID       = errors.New("want 1 to 256 bytes of UTF-8")
	errIDQuoted = errors.New(`want "…" with nothing behind, where only \" and \\ are escaped, or a bare word`)
)

// unquote reads an id: a string of structured fields (RFC 9651, 3.3.3), as the draft of Idempotency-Key has it, or a
// bare one, as most clients send it.
func unquote(v string) (string, error) {
	id := v
	if strings.HasPrefix(v, `"`) {
		var b strings.Builder
		i := 1
		for ; i < len(v) && v[i] != '"'; i++ {
			if v[i] == '\\' {
				i++
				if i == len(v) || v[i] != '"' && v[i] != '\\' {
					return "", errIDQuoted
				}
			}
			if v[i] < ' ' || v[i] > '~' {
				return "", errIDQuoted
			}
			b.WriteByte(v[i])
		}
		if i != len(v)-1 {
			return "", errIDQuoted
		}
		id = b.String()
	}
	if id == "" || len(id) > idBytesMax || !utf8.ValidString(id) {
		return "", errID
	}
	return id, nil
}

// deadline is when the request must have begun; zero if the caller leaves that open.
func deadline(h http.Header, now time.Time) (time.Time, error) {
	v, given, err := single(h, headerDeadline)
	if !given {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339, v)
	if d, notDuration := time.ParseDuration(v); notDuration == nil {
		at, err = now.Add(d), nil
	}
	switch {
	case err != nil:
		return at, engine.Errorf(engine.Invalid, "header %s: %q is neither a time like 2026-11-24T10:00:00Z nor a duration like 5s", headerDeadline, v)
	case !at.After(now):
		return at, engine.Errorf(engine.Timeout, "the deadline %s has passed", v)
	case at.Sub(now) > deadlineMax:
		return at, engine.Errorf(engine.Invalid, "header %s: %s is more than %v ahead", headerDeadline, v, deadlineMax)
	}
	return at, nil
}

// consistency is what a read asks for.
func consistency(h http.Header, req *engine.Request) error {
	kind, _, err := single(h, wire.HeaderConsistency)
	if err != nil {
		return err
	}
	least, _, err := single(h, wire.HeaderMinVersion)
	if err != nil {
		return err
	}
	return req.ReadConsistency(kind, least)
}

func caller(h http.Header) (string, error) {
	v, _, err := single(h, headerCaller)
	if err == nil && (len(v) > callerBytesMax || !utf8.ValidString(v)) {
		err = engine.Errorf(engine.Invalid, "header %s: want at most %d bytes of UTF-8", headerCaller, callerBytesMax)
	}
	return v, err
}

// traceparent is the W3C trace context, empty if it is none: a broken trace is no reason to refuse a request.
// Versions after 00 may have more fields, which pass on as they are.
func traceparent(h http.Header) string {
	const form = "00-00000000000000000000000000000000-0000000000000000-00"
	v, _, err := single(h, "Traceparent")
	switch {
	case err != nil, len(v) < len(form), v[:2] == "ff", v[:2] == "00" && len(v) > len(form), len(v) > len(form) && v[len(form)] != '-',
		len(v) > traceBytesMax, strings.Trim(v[3:35], "0") == "", strings.Trim(v[36:52], "0") == "":
		return ""
	}
	for i := range len(form) {
		if c := v[i]; (form[i] == '-') != (c == '-') || c != '-' && !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return ""
		}
	}
	return v
}
