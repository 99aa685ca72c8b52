package natsbus

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// A whole HTTP request, and its reply, are the text of HTTP/1.1 as the body of a message. What Perdure has to know of the
// request is in the headers of the message, as for calls. Headers that concern one connection only do not travel.

// httpHeadBytesMax is how long a request may be besides its body: a gateway takes 64 KiB of headers, with some more for the
// request line.
const httpHeadBytesMax = 72 << 10

func (c *Client) encodeHTTP(r *engine.Request) (*nats.Msg, error) {
	if err := errors.Join(wire.CheckIdentifier(r.Class), wire.CheckName(r.Name)); err != nil {
		return nil, engine.Errorf(engine.Invalid, "%s", oneLine(err.Error()))
	}
	h, err := r.Header()
	if err != nil {
		return nil, err
	}
	body, err := formatHTTP(r)
	if err != nil {
		return nil, engine.Errorf(engine.Invalid, "HTTP request: %w", err)
	}
	return &nats.Msg{Subject: c.ns.HTTP(r.Class, wire.Escape(r.Name)), Header: h, Data: body}, nil
}

func formatHTTP(r *engine.Request) ([]byte, error) {
	u, err := url.ParseRequestURI(r.HTTP.URL)
	if err != nil {
		return nil, err
	}
	h := wire.EndToEnd(r.HTTP.Header)
	if h.Get("User-Agent") == "" {
		h["User-Agent"] = nil // or net/http would write its own
	}
	out := &http.Request{Method: r.HTTP.Method, URL: u, Host: r.HTTP.Host, Header: h, ContentLength: int64(len(r.Body)), Body: io.NopCloser(bytes.NewReader(r.Body))}
	if len(r.Body) == 0 {
		out.Body = nil
	}
	var b bytes.Buffer
	b.Grow(len(r.Body) + 1<<10)
	err = out.Write(&b)
	return b.Bytes(), err
}

// takeHTTP is [intake.take] for whole HTTP requests.
func (in *intake) takeHTTP(m *nats.Msg) {
	slot, class, token, _ := in.ns.SplitHTTP(m.Subject) // the subscription takes no other subjects
	r, err := decode(class, token, "", m)
	if err == nil {
		if err = parseHTTP(m.Data, &r); err != nil {
			err = refusal(&r, err)
		}
	}
	switch {
	case err != nil:
		in.fail(in.replyTo(m), err)
	case slot != wire.Slot(class, token):
		in.passOn(m, in.ns.HTTP(class, token))
	default:
		in.giveHTTP(r, in.replyTo(m))
	}
}

func (in *intake) giveHTTP(r engine.Request, to string) {
	r, done := in.callers.enter(r)
	in.serve(r, func(reply engine.Reply, err error) {
		done()
		if err == nil {
			reply.Body, err = formatHTTPReply(r.HTTP.Method, &reply)
		}
		in.answer(to, reply, err)
	})
}

// parseHTTP reads an HTTP request out of a message.
func parseHTTP(data []byte, r *engine.Request) error {
	rest := bytes.NewReader(data)
	buffered := bufio.NewReader(rest)
	in, err := http.ReadRequest(buffered)
	if err != nil {
		return engine.Errorf(engine.Invalid, "the body is not an HTTP request: %w", err)
	}
	if r.Body, err = io.ReadAll(in.Body); err != nil {
		return engine.Errorf(engine.Invalid, "the body of the HTTP request: %w", err)
	}
	if left := buffered.Buffered() + rest.Len(); left > 0 {
		return engine.Errorf(engine.Invalid, "%d bytes follow the HTTP request; want one request a message", left)
	}
	if head := len(data) - len(r.Body); head > httpHeadBytesMax {
		return engine.Errorf(engine.TooLarge, "the HTTP request has %d bytes besides its body; at most %d", head, httpHeadBytesMax)
	}
	r.HTTP = &engine.HTTPRequest{Method: in.Method, URL: in.RequestURI, Host: in.Host, Header: wire.EndToEnd(in.Header)}
	return nil
}

// formatHTTPReply is the body of the message that answers an HTTP request of that method.
func formatHTTPReply(method string, reply *engine.Reply) ([]byte, error) {
	if reply.Status < 200 || reply.Status > 999 {
		return nil, engine.Errorf(engine.Internal, "the class answered with the status %d, which HTTP does not have", reply.Status)
	}
	out := &http.Response{StatusCode: reply.Status, ProtoMajor: 1, ProtoMinor: 1, Header: wire.EndToEnd(reply.Header), Request: &http.Request{Method: method},
		ContentLength: int64(len(reply.Body)), Body: io.NopCloser(bytes.NewReader(reply.Body))}
	if method == http.MethodHead { // no body follows; what GET would have the class said, or wrote
		if out.Body = nil; len(reply.Body) == 0 {
			out.ContentLength = -1
		}
		if n, err := strconv.ParseInt(reply.Header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
			out.ContentLength = n
		}
	} else if len(reply.Body) == 0 {
		out.Body = nil
	}
	var b bytes.Buffer
	b.Grow(len(reply.Body) + 1<<10)
	if err := out.Write(&b); err != nil {
		return nil, engine.Errorf(engine.Internal, "the reply of the class as HTTP: %w", err)
	}
	return b.Bytes(), nil
}

// parseHTTPReply reads the reply out of the body that [formatHTTPReply] made.
func parseHTTPReply(method string, reply *engine.Reply) error {
	in, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(reply.Body)), &http.Request{Method: method})
	if err == nil {
		reply.Body, err = io.ReadAll(in.Body)
		_ = in.Body.Close() // of bytes
	}
	if err != nil {
		return engine.Errorf(engine.Internal, "the answer is not an HTTP reply: %w", err)
	}
	reply.Status, reply.Header = in.StatusCode, wire.EndToEnd(in.Header)
	return nil
}
