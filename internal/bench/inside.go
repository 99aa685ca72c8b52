package bench

import (
	"context"
	"encoding/json"
	"net/http"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal/jetstream"
)

// inside is what is measured within the system's own process.
type inside struct {
	host Host
	life context.Context

	mu   sync.Mutex
	js   *jetstream.Session
	pipe *pipe // nil until it is open
}

// open opens the pipe unless it is.
func (in *inside) open(w http.ResponseWriter, _ *http.Request) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.pipe != nil {
		return
	}
	js, err := in.host.Dial(in.life, string(pipeSpace))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	p, err := openPipe(in.life, js, pipeSpace, jetstream.Settings{Partitions: in.host.Partitions}, in.host.Durable)
	if err == nil {
		err = p.listen()
	}
	if err != nil {
		js.Close()
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	in.js, in.pipe = js, p
}

func (in *inside) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.js != nil {
		in.js.Close()
	}
}

// opened is the pipe, nil if nobody has asked for it.
func (in *inside) opened() *pipe {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.pipe
}

// insideLoad asks for callers in the process, all of which call one object.
type insideLoad struct {
	Class   string        `json:"class"`
	Name    string        `json:"name"`
	Callers int           `json:"callers"`
	For     time.Duration `json:"for"`
	Pipe    string        `json:"pipe"` // what the pipe does with it, as a method; empty: the object's increment
}

// run answers with a [Load]. The callers are not told what the object says: the row asks it for its count.
func (in *inside) run(w http.ResponseWriter, r *http.Request) {
	var l insideLoad
	if err := json.NewDecoder(r.Body).Decode(&l); err != nil || l.Callers < 1 || l.For <= 0 {
		http.Error(w, "want JSON like {\"class\":…,\"name\":…,\"callers\":256,\"for\":1000000000}", http.StatusBadRequest)
		return
	}
	call := func(ctx context.Context) error {
		_, err := in.host.Worker.Do(ctx, engine.Request{Class: l.Class, Name: l.Name, Method: incrementMethod, Body: incrementBody})
		return err
	}
	if p := in.opened(); l.Pipe != "" && p == nil {
		http.Error(w, "open the pipe first, with "+pipePath, http.StatusConflict)
		return
	} else if l.Pipe != "" {
		call = func(ctx context.Context) error { return p.do(ctx, l.Class, l.Name, l.Pipe) }
	}
	load, err := together(r.Context(), l.Callers, l.For+callTimeout, func(ctx context.Context, _ int, began time.Time) (took []time.Duration, err error) {
		for time.Since(began) < l.For && err == nil {
			sent := time.Now()
			err = call(ctx)
			took = append(took, time.Since(sent))
		}
		return took, err
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(load) // who left needs no answer
}

// memoryUse is what the system's process holds.
type memoryUse struct {
	Heap    int64 `json:"heap"`    // live bytes of the Go heap, right after a collection
	Objects int   `json:"objects"` // in memory
}

func (in *inside) memory(w http.ResponseWriter, _ *http.Request) {
	runtime.GC()
	runtime.GC() // what a pool held through the first one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	_ = json.NewEncoder(w).Encode(memoryUse{Heap: int64(m.HeapAlloc), Objects: in.host.Worker.Status().Resident})
}

// cpuTime answers with the time that the process has had of all processors.
func cpuTime(w http.ResponseWriter, _ *http.Request) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(time.Duration(u.Utime.Nano() + u.Stime.Nano()))
}
