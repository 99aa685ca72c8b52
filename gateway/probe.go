package gateway

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/perdure/perdure/engine"
)

// Probes is an [http.Handler] with /livez, /readyz and /metrics alone: for a process that takes no requests over HTTP.
func Probes(ready func() error, m *Metrics) http.Handler {
	g := &Gateway{Config{Ready: ready, Metrics: m, ClientTimeout: clientTimeout, Log: slog.New(slog.DiscardHandler)}}
	mux := http.NewServeMux()
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		mux.Handle(path, g)
	}
	return mux
}

// live answers as long as the process does.
func (g *Gateway) live(w *response, _ *http.Request, _ *target) error {
	return writeText(w, http.StatusOK, "ok\n")
}

// ready tells whether objects can be reached; ?verbose lists what was checked, for people.
func (g *Gateway) ready(w *response, _ *http.Request, t *target) error {
	err := g.Ready()
	verbose := t.query.Has("verbose")
	switch {
	case err == nil && verbose:
		return writeText(w, http.StatusOK, "[+] objects can be reached\nready\n")
	case err == nil:
		return writeText(w, http.StatusOK, "ok\n")
	case verbose:
		return writeText(w, http.StatusServiceUnavailable, fmt.Sprintf("[-] objects can be reached: %v\nnot ready\n", err))
	}
	return engine.Errorf(engine.Unavailable, "not ready: %w", err).RetryIn(time.Second)
}

func (g *Gateway) metrics(w *response, r *http.Request, _ *target) error {
	g.Metrics.ServeHTTP(w, r)
	return nil
}

func writeText(w *response, status int, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, err := w.Write([]byte(text))
	return err
}
