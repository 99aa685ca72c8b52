package natsbus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
)

var errBroke = errors.New("the connection broke before the answer came")

// link knows whether a connection is up. Of itself nats.go tells nobody who waits for an answer that the connection broke,
// and keeps what is published meanwhile for later, when it may be of no use.
type link struct {
	nc     *nats.Conn
	events chan nats.Status

	mu      sync.Mutex
	life    context.Context // ends when the connection breaks; over while there is none
	end     context.CancelCauseFunc
	changed chan struct{} // closed at the next event
	closed  bool          // for ever
}

func newLink(nc *nats.Conn) *link {
	l := &link{nc: nc, events: nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED), changed: make(chan struct{})}
	l.life, l.end = context.WithCancelCause(context.Background())
	l.turn(false)
	go l.watch()
	return l
}

// watch ends with the connection, or with close.
func (l *link) watch() {
	defer l.turn(true)
	for !l.nc.IsClosed() {
		if _, open := <-l.events; !open {
			return
		}
		l.turn(false)
	}
}

// turn ends a life of the connection, and begins the next if it is up. It asks the connection instead of believing the
// event: of many at once the last are dropped, and then one that is still to come brings it up to date.
func (l *link) turn(closed bool) {
	up := l.nc.IsConnected()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = closed || l.closed
	if l.closed {
		l.end(engine.ErrClosed)
	} else {
		l.end(errBroke)
	}
	if up && !l.closed {
		l.life, l.end = context.WithCancelCause(context.Background())
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// up waits for the connection, and returns a context that ends with it.
func (l *link) up(ctx context.Context) (life context.Context, err error) {
	err = context.Cause(ctx)
	for ctx.Err() == nil {
		l.mu.Lock()
		life, changed, closed := l.life, l.changed, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return nil, engine.ErrClosed
		case life.Err() == nil:
			return life, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err = fmt.Errorf("there is no connection: %w", context.Cause(ctx))
		}
	}
	return nil, err
}

// isUp tells whether requests could leave just now.
func (l *link) isUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.life.Err() == nil
}

// close ends the requests that are under way, and refuses others.
func (l *link) close() {
	l.turn(true)
	l.nc.RemoveStatusListener(l.events)
}
