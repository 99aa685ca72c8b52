package drill

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

// HTTP is calls through gateways, as a balancer has them: the objects are spread over them, and where one has not answered
// another is taken for a while. It does not repeat; an [engine.Client] around it does.
type HTTP struct {
	urls   []string
	failed []atomic.Int64 // when each last did, in ns
	client *http.Client
}

// avoidFor is for how long a gateway that did not answer is not asked, if another may be.
const avoidFor = time.Second

var _ engine.Transport = (*HTTP)(nil)

// NewHTTP makes a transport of gateways' URLs.
func NewHTTP(urls []string, callers int) *HTTP {
	t := &http.Transport{MaxIdleConnsPerHost: callers, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}
	return &HTTP{urls: urls, failed: make([]atomic.Int64, len(urls)), client: &http.Client{Transport: t}}
}

// Post implements [engine.Transport]: a drill has no messages.
func (h *HTTP) Post(context.Context, engine.Request) (journal.Seq, error) {
	return 0, engine.Errorf(engine.Invalid, "a drill sends no messages")
}

// Do implements [engine.Transport].
func (h *HTTP) Do(ctx context.Context, r engine.Request) (engine.Reply, error) {
	g := h.choose(r.Name)
	reply, err := h.try(ctx, h.urls[g], r)
	if e, ok := errors.AsType[*engine.Error](err); ok && !e.Remote && e.Retryable() {
		h.failed[g].Store(time.Now().UnixNano())
	}
	return reply, err
}

// choose is the gateway for an object.
func (h *HTTP) choose(name string) int {
	first := int(crc32.ChecksumIEEE([]byte(name)) % uint32(len(h.urls)))
	for i := range h.urls {
		g := (first + i) % len(h.urls)
		if time.Now().UnixNano()-h.failed[g].Load() > int64(avoidFor) {
			return g
		}
	}
	return first
}

func (h *HTTP) try(ctx context.Context, base string, r engine.Request) (engine.Reply, error) {
	at := strings.TrimSuffix(base, "/") + "/v1/objects/" + url.PathEscape(r.Class) + "/" + url.PathEscape(r.Name) + "/call/" + url.PathEscape(r.Method)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, bytes.NewReader(r.Body))
	if err != nil {
		return engine.Reply{}, engine.Errorf(engine.Invalid, "%w", err)
	}
	header, err := r.Header()
	if err != nil {
		return engine.Reply{}, err
	}
	for name, values := range header {
		if name != "Perdure-Wire" && name != "Perdure-Read" { // those of NATS alone
			req.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	req.Header.Set("Content-Type", "application/json")
	// Without this the transport would send it again by itself when a kept connection breaks, or not, by rules of its own.
	req.GetBody = nil
	resp, err := h.client.Do(req)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return engine.Reply{}, engine.Errorf(engine.Unavailable, "not sent: %w", err)
	}
	if err != nil {
		return engine.Reply{}, engine.Errorf(engine.UnknownOutcome, "no answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, engine.BodyBytesMax+1))
	if err != nil {
		return engine.Reply{}, engine.Errorf(engine.UnknownOutcome, "half an answer: %w", err)
	}
	switch ours := strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json"); {
	case resp.StatusCode != http.StatusOK && !ours:
		return engine.Reply{}, engine.Errorf(engine.UnknownOutcome, "%s, and no word of a gateway", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return engine.Reply{}, engine.ParseProblem(body)
	}
	version, _ := strconv.ParseUint(strings.Trim(resp.Header.Get("ETag"), `"`), 10, 64) // 0 is told apart
	return engine.Reply{Status: http.StatusOK, Body: bytes.TrimSuffix(body, []byte("\n")), Version: journal.Version(version)}, nil
}
