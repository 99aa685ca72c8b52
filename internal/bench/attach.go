package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/jetstream"
)

// AttachOptions say how to measure a system that runs. All but Prefix, Body and Stream are required.
type AttachOptions struct {
	Dial        func(options ...nats.Option) (*nats.Conn, error)
	Namespace   wire.Subjects
	Class       string
	Method      string
	Body        []byte // argument of each call, in JSON
	Prefix      string // of the objects' names, before a number
	Objects     int
	Callers     int
	Connections int
	Rounds      int
	For         time.Duration
	Stream      bool // also measure the pipe, on streams of its own, which are removed
}

// Attach measures calls of a method on a system that runs, by callers in this process. Beside them is request and reply
// with a responder in this process, over a connection of its own, and with Stream the pipe, likewise. So unlike [Run]'s
// yardsticks these pay a network where there is one twice.
func Attach(ctx context.Context, o AttachOptions, emit func(Row) error) (err error) {
	conns, err := o.connect()
	defer func() {
		for _, nc := range conns {
			nc.Close()
		}
	}()
	if err != nil {
		return err
	}
	cs, err := newCallers(conns, o.Callers)
	if err != nil {
		return err
	}
	responder, err := o.Dial()
	if err != nil {
		return err
	}
	defer responder.Close()
	echo, err := echoOn(responder)
	if err != nil {
		return err
	}
	figure := o.runner(cs, func(name string) string { return o.Namespace.Call(o.Class, wire.Escape(name), o.Method) })
	if err := o.measure(ctx, "request and reply", figure, o.runner(cs, func(string) string { return echo }), emit); err != nil || !o.Stream {
		return err
	}
	ns := wire.Subjects("bench" + strings.ToLower(rand.Text()))
	remove, err := o.openPipe(ctx, ns)
	defer func() { err = errors.Join(err, remove()) }()
	if err != nil {
		return err
	}
	subject := func(name string) string { return pipeSubject(ns, o.Class, name, pipeSingle) }
	for _, nc := range conns {
		if err := reach(ctx, nc, subject(o.Prefix+"0")); err != nil {
			return err
		}
	}
	return o.measure(ctx, "pipe", figure, o.runner(cs, subject), emit)
}

// reach waits until somebody answers: the servers of a cluster hear of a subscription one after the other.
func reach(ctx context.Context, nc *nats.Conn, subject string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		_, err := nc.RequestWithContext(ctx, subject, nil)
		if !errors.Is(err, nats.ErrNoResponders) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func (o *AttachOptions) connect() (conns []*nats.Conn, err error) {
	for range o.Connections {
		nc, err := o.Dial()
		if err != nil {
			return conns, err
		}
		conns = append(conns, nc)
	}
	return conns, nil
}

// echoOn answers on a subject of its own.
func echoOn(nc *nats.Conn) (subject string, err error) {
	subject = nc.NewInbox()
	s, err := nc.Subscribe(subject, func(m *nats.Msg) {
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: version, Data: m.Data}) // without an answer the round fails
	})
	if err == nil {
		err = s.SetPendingLimits(-1, -1)
	}
	if err == nil {
		err = nc.Flush()
	}
	return subject, err
}

func (o *AttachOptions) runner(cs *callers, subject func(name string) string) *runner {
	t := target{body: o.Body}
	for i := range o.Objects {
		t.subjects = append(t.subjects, subject(fmt.Sprint(o.Prefix, i)))
	}
	return &runner{run: func(ctx context.Context, long time.Duration) (Load, error) { return cs.run(ctx, o.Callers, t, long) }}
}

// measure measures one pair and makes its rows.
func (o *AttachOptions) measure(ctx context.Context, against string, figure, yardstick *runner, emit func(Row) error) error {
	pairs, err := alternate(ctx, o.Rounds, o.For, figure, yardstick)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%s %s, %s objects, %d callers", o.Class, o.Method, Number(float64(o.Objects)), o.Callers)
	for _, m := range []struct {
		name, what, unit string
		metric           func(Load) float64
	}{{"rate", "", "calls/s", Load.Rate}, {"p50", ", p50", "µs", p50}, {"p99", ", p99", "µs", p99}} {
		r := Row{Name: m.name, What: what + m.what, Unit: m.unit, Against: against}
		r.of(pairs, m.metric)
		r.settle()
		if err := emit(r); err != nil {
			return err
		}
	}
	return nil
}

// openPipe opens a pipe with as many streams as the namespace has, as safe as its own. remove ends and removes it all.
func (o *AttachOptions) openPipe(ctx context.Context, ns wire.Subjects) (remove func() error, err error) {
	none := func() error { return nil }
	theirs, err := jetstream.Dial(ctx, jetstream.Config{Dial: o.Dial, Namespace: o.Namespace, Name: "perdure bench"})
	if err != nil {
		return none, err
	}
	defer theirs.Close()
	kept, err := theirs.Find(ctx)
	if err != nil {
		return none, err
	}
	js, err := jetstream.Dial(ctx, jetstream.Config{Dial: o.Dial, Namespace: ns, Name: "perdure bench"})
	if err != nil {
		return none, err
	}
	remove = func() error {
		defer js.Close()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		api, err := natsjs.New(js.Conn())
		if err != nil {
			return err
		}
		streams := []string{ns.Inbox(), "KV_" + ns.Bucket()}
		for p := range kept.Partitions {
			streams = append(streams, ns.Stream(p))
		}
		for _, name := range streams {
			err = errors.Join(err, deleted(api.DeleteStream(ctx, name)))
		}
		return err
	}
	p, err := openPipe(ctx, js, ns, jetstream.Settings{Partitions: kept.Partitions, Replicas: kept.Replicas}, nil)
	if err == nil {
		err = p.listen()
	}
	return remove, err
}

// deleted takes the absence of a stream for its deletion.
func deleted(err error) error {
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		return nil
	}
	return err
}
