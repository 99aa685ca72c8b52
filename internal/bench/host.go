package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal/jetstream"
)

// Host is what the process of the system gives to the yardsticks that run in it. All of it is required but Durable.
type Host struct {
	Listen     net.Listener                                                            // for HTTP; [Serve] closes it
	Dial       func(ctx context.Context, namespace string) (*jetstream.Session, error) // as the worker connects
	Partitions int                                                                     // as many as the namespace has
	Durable    Durable                                                                 // the worker's policy
	Worker     *engine.Worker
}

// Paths of the yardsticks' HTTP listener.
const (
	pipePath   = "/pipe"   // opens the pipe; until then it costs nothing
	barePath   = "/bare"   // a handler that reads the body and answers
	insidePath = "/inside" // runs callers in this process
	cpuPath    = "/cpu"    // what processor time the process has taken
	memoryPath = "/memory" // what the process holds after a garbage collection
	pprofPath  = "/debug/pprof/"
)

// Serve serves the yardsticks beside the system until ctx is done. The pipe is made when it is first asked for.
func Serve(ctx context.Context, h Host) error {
	in := &inside{host: h, life: ctx}
	defer in.close()
	mux := http.NewServeMux()
	mux.HandleFunc(barePath, bare)
	mux.HandleFunc(pipePath, in.open)
	mux.HandleFunc(insidePath, in.run)
	mux.HandleFunc(cpuPath, cpuTime)
	mux.HandleFunc(memoryPath, in.memory)
	mux.HandleFunc(pprofPath, pprof.Index)
	mux.HandleFunc(pprofPath+"profile", pprof.Profile)
	mux.HandleFunc(pprofPath+"block", sampled(runtime.SetBlockProfileRate, blockRate, pprof.Handler("block")))
	mux.HandleFunc(pprofPath+"mutex", sampled(func(n int) { runtime.SetMutexProfileFraction(n) }, mutexFraction, pprof.Handler("mutex")))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	unlink := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer unlink()
	if err := s.Serve(h.Listen); ctx.Err() == nil {
		return fmt.Errorf("yardsticks: %w", err)
	}
	return nil
}

// What is sampled while a profile of waiting is taken; nothing is at other times, since it costs.
const (
	blockRate     = 10_000 // nanoseconds of waiting for one sample
	mutexFraction = 10     // of contentions
)

func sampled(set func(int), rate int, profile http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		set(rate)
		defer set(0)
		profile.ServeHTTP(w, r)
	}
}

// bare is what HTTP costs alone: the answer of an increment, and nothing behind it.
func bare(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // who left needs no answer
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", "6")
	h.Set("ETag", `"12345"`)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte("12345\n"))
}
