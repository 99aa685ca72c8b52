package cmd

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/perdure/perdure/internal/bench"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/jetstream"
)

// measured makes this process the system of a `perdure bench`: it serves the yardsticks beside the objects, and ends with
// whoever started it, when standard input does.
func (a *app) measured(ctx context.Context, d *dev) (context.Context, error) {
	// They have no word of who may use them, and show the process's inside.
	host, _, err := net.SplitHostPort(d.yardsticks)
	if err != nil || !net.ParseIP(host).IsLoopback() {
		return ctx, fmt.Errorf("--yardsticks is %q; want a port of this machine alone, such as 127.0.0.1:9090", d.yardsticks)
	}
	if d.yard, err = net.Listen("tcp", d.yardsticks); err != nil {
		return ctx, err
	}
	d.beside = d.serveYardsticks
	d.classes = append(bench.Classes(), d.classes...)
	ctx, end := context.WithCancel(ctx)
	go func() { // a read cannot be ended; it ends with the process
		_, _ = io.Copy(io.Discard, a.in)
		end()
	}()
	return ctx, nil
}

func (d *dev) serveYardsticks(ctx context.Context) error {
	return bench.Serve(ctx, bench.Host{Listen: d.yard, Partitions: d.kept.Partitions, Worker: d.worker, Durable: d.durable,
		Dial: func(ctx context.Context, ns string) (*jetstream.Session, error) {
			return d.session(ctx, wire.Subjects(ns))
		}})
}
