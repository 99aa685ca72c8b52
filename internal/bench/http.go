package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// httpTarget is what callers over HTTP ask: whole requests, written beforehand.
type httpTarget struct {
	address  string
	requests [][]byte
	answered func(object int)
}

func httpRequest(path string, body []byte) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// runHTTP has n callers call for that long, each over a connection of its own that is kept. They write requests that are
// ready and read answers with net/http's reader, so that little of the machine is spent on them.
func runHTTP(ctx context.Context, n int, t httpTarget, long time.Duration) (Load, error) {
	conns := make([]net.Conn, n)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("tcp", t.address); err != nil {
			return Load{}, err
		}
		defer func() { _ = conns[i].Close() }() // it is not used any more
	}
	return together(ctx, n, long+callTimeout, func(ctx context.Context, i int, began time.Time) (took []time.Duration, err error) {
		unlink := context.AfterFunc(ctx, func() { _ = conns[i].Close() })
		defer unlink()
		random := rand.New(rand.NewPCG(uint64(i), 2))
		in := bufio.NewReader(conns[i])
		for time.Since(began) < long && err == nil {
			sent, object := time.Now(), random.IntN(len(t.requests))
			if err = exchangeHTTP(conns[i], in, t.requests[object]); err == nil {
				took = append(took, time.Since(sent))
				t.answered(object)
			}
		}
		return took, err
	})
}

func exchangeHTTP(out io.Writer, in *bufio.Reader, request []byte) error {
	if _, err := out.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // it was read
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status + ": " + string(body))
	}
	return err
}

// httpRow is a row whose callers come over HTTP. Its yardstick is a handler that only answers.
func httpRow(r Row, sync string, objects, callers int) row {
	return row{r, func(b *bench, ctx context.Context, r *Row) error {
		s, cs, err := b.system(ctx, sync)
		if err != nil {
			return err
		}
		c := newCounts(names(r.Name, objects))
		if _, err := cs.each(ctx, b.Callers, c.increments()); err != nil {
			return err
		}
		calls := httpTarget{address: s.http, answered: func(object int) { c.acked[object].Add(1) }}
		for _, name := range c.objects {
			calls.requests = append(calls.requests, httpRequest("/v1/objects/"+c.class+"/"+name+"/call/"+incrementMethod, incrementBody))
		}
		nothing := httpTarget{address: s.yard, requests: [][]byte{httpRequest(barePath, incrementBody)}, answered: func(int) {}}
		figure := &runner{system: s,
			run:   func(ctx context.Context, long time.Duration) (Load, error) { return runHTTP(ctx, callers, calls, long) },
			check: func(ctx context.Context) (int, error) { return c.check(ctx, cs, b.Callers) }}
		yardstick := &runner{system: s,
			run: func(ctx context.Context, long time.Duration) (Load, error) {
				return runHTTP(ctx, callers, nothing, long)
			}}
		return b.alternate(ctx, r, figure, yardstick, Load.Rate)
	}}
}

// insideRow is a row whose callers are in the system's own process.
func insideRow(r Row, sync string, callers int) row {
	return row{r, func(b *bench, ctx context.Context, r *Row) error {
		s, cs, err := b.system(ctx, sync)
		if err != nil {
			return err
		}
		c := newCounts(names(r.Name, 1))
		load := func(pipe string) *runner {
			return &runner{system: s, run: func(ctx context.Context, long time.Duration) (l Load, err error) {
				in := insideLoad{Class: c.class, Name: c.objects[0], Callers: callers, For: long, Pipe: pipe}
				err = s.exchange(ctx, http.MethodPost, "http://"+s.yard+insidePath, in, &l)
				return l, err
			}}
		}
		figure := load("")
		call := figure.run
		figure.run = func(ctx context.Context, long time.Duration) (Load, error) {
			l, err := call(ctx, long)
			c.acked[0].Add(int64(l.Calls))
			return l, err
		}
		figure.check = func(ctx context.Context) (int, error) { return c.check(ctx, cs, b.Callers) }
		return b.alternate(ctx, r, figure, load(pipeJoined), Load.Rate)
	}}
}
