package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// What [Serve] allows.
const (
	headerTimeout  = 10 * time.Second
	headerBytesMax = 64 << 10
	idleTimeout    = 2 * time.Minute
	drainTimeout   = 10 * time.Second
)

// Serve answers HTTP requests on a listener until ctx is done; then it takes no more, ends streams of events at once, lets
// the other requests that it has finish, at most for 10 s, and returns nil if all did. It closes the listener.
//
// A request's headers must arrive within 10 s and have at most 64 KiB; a connection without requests is closed after 2
// minutes.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	return serve(ctx, l, h, drainTimeout)
}

func serve(ctx context.Context, l net.Listener, h http.Handler, drain time.Duration) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: headerBytesMax, IdleTimeout: idleTimeout,
		BaseContext: func(net.Listener) context.Context { return context.WithValue(context.Background(), draining{}, ctx) }}
	drained := make(chan error, 1)
	unlink := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		err := s.Shutdown(limit)
		if err != nil {
			_ = s.Close() // their contexts end, and their callers hear of it
			err = fmt.Errorf("serve %v: cut off requests after %v: %w", l.Addr(), drain, err)
		}
		drained <- err
	})
	err := s.Serve(l)
	if unlink() {
		_ = s.Close()
		return fmt.Errorf("serve %v: %w", l.Addr(), err)
	}
	return <-drained
}

// draining is the key of the context that ends when the server takes no more requests.
type draining struct{}

// drainOf is the context that ends when the server of a request takes no more; without a server, it does not end.
func drainOf(ctx context.Context) context.Context {
	if d, ok := ctx.Value(draining{}).(context.Context); ok {
		return d
	}
	return context.Background()
}
