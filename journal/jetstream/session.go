// Package jetstream is the journal on NATS JetStream: one stream per partition, and a key-value bucket. It speaks the
// JetStream API over plain requests and publishes: the hot path needs its own replies (a helper that retries could
// store records out of order), and reads must say whom they ask.
package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Config says where a session connects.
type Config struct {
	// Dial opens a connection with these options besides its own. Default: nats.Connect, to nats.DefaultURL or to the
	// server in this process that is among the options.
	Dial      func(options ...nats.Option) (*nats.Conn, error)
	Options   []nats.Option // credentials, TLS, and the like, for all connections
	Namespace wire.Subjects // default "objects"
	Name      string        // of the connections, for people
	Log       *slog.Logger  // default: none
}

// Session is a [journal.Session] with a server.
type Session struct {
	ns   wire.Subjects
	log  *slog.Logger
	main *nats.Conn // requests, replies and appends
	meta *nats.Conn // the lease: nothing waits before it
	read *nats.Conn // direct gets: the server takes nothing else from the connection while it looks for messages
	gets *directs
	once sync.Once
	done chan struct{}
}

var _ journal.Session = (*Session)(nil)

// Dial opens the three connections of a session. None connects again by itself.
func Dial(ctx context.Context, cfg Config) (*Session, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s := &Session{ns: cmp.Or(cfg.Namespace, wire.DefaultNamespace), log: cfg.Log, done: make(chan struct{})}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.main, err = s.connect(ctx, cfg, "main"); err != nil {
		return nil, err
	}
	if s.meta, err = s.connect(ctx, cfg, "lease"); err != nil {
		s.main.Close()
		return nil, err
	}
	if s.read, err = s.connect(ctx, cfg, "read"); err != nil {
		s.main.Close()
		s.meta.Close()
		return nil, err
	}
	s.gets = &directs{nc: s.read}
	return s, nil
}

func (s *Session) connect(ctx context.Context, cfg Config, use string) (*nats.Conn, error) {
	// Ours come last: no option from elsewhere may make a connection come back by itself, or hide its end.
	options := append(slices.Clone(cfg.Options),
		nats.Name(cmp.Or(cfg.Name, "perdure")+" "+use),
		nats.NoReconnect(),
		nats.RetryOnFailedConnect(false),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { s.end() }),
		nats.ClosedHandler(func(*nats.Conn) { s.end() }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			// A slow consumer here is an alarm: the bounds of the mailboxes are below the pending limits.
			if errors.Is(err, nats.ErrSlowConsumer) {
				slowConsumers.Add(1)
			}
			s.log.Error("connection", "use", use, "subject", subject, "err", err)
		}),
	)
	if deadline, ok := ctx.Deadline(); ok {
		options = append(options, nats.Timeout(time.Until(deadline)))
	}
	dial := cfg.Dial
	if dial == nil {
		dial = func(options ...nats.Option) (*nats.Conn, error) { return nats.Connect("", options...) }
	}
	nc, err := dial(options...)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return nc, nil
}

var slowConsumers atomic.Uint64

// SlowConsumers is how often subscriptions of this process began to drop what came, because it got no time to run.
func SlowConsumers() uint64 { return slowConsumers.Load() }

func (s *Session) end() { s.once.Do(func() { close(s.done) }) }

// Conn is the main connection, for requests and replies.
func (s *Session) Conn() *nats.Conn { return s.main }

// Meta is the bucket, over a connection of its own.
func (s *Session) Meta() journal.Meta { return &bucket{api{s.meta}, s.ns.Bucket()} }

// Log is a partition's stream, over the main connection but for direct gets. Those order nothing: any replica may answer,
// and who asks says as of which position.
func (s *Session) Log(p int) journal.Log { return &log{api{s.main}, s.gets, s.ns.Stream(p)} }

// Inbox is the stream of messages to objects, over the main connection.
func (s *Session) Inbox() journal.Inbox { return &log{api{s.main}, s.gets, s.ns.Inbox()} }

// Server is the id of the server's run.
func (s *Session) Server() string { return s.main.ConnectedServerId() }

// PayloadMax is the largest message that the server takes.
func (s *Session) PayloadMax() int { return int(s.main.MaxPayload()) }

// Done is closed when one of the connections has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the connections.
func (s *Session) Close() {
	s.end()
	s.main.Close()
	s.meta.Close()
	s.read.Close()
}

// api asks the JetStream API.
type api struct{ nc *nats.Conn }

// APIError is the server's refusal. Codes are those of HTTP, ErrCodes the server's own.
type APIError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *APIError) Error() string {
	return fmt.Sprintf("server: %s (%d, %d)", e.Description, e.Code, e.ErrCode)
}

// Codes of the JetStream API that mean something here.
const (
	codeStreamNotFound  = 10059
	codeMessageNotFound = 10037
	codeWrongLast       = 10071 // expected last sequence or last subject sequence
	codeWrongLastReplay = 10164 // the same on replicated streams
)

// Is makes the server's codes match the journal's errors.
func (e *APIError) Is(target error) bool {
	switch e.ErrCode {
	case codeMessageNotFound:
		return target == journal.ErrNotFound
	case codeStreamNotFound:
		return target == journal.ErrMissing
	case codeWrongLast, codeWrongLastReplay:
		return target == journal.ErrConflict
	}
	return false
}

// apiTimeout bounds a question to the API whose context has no deadline.
const apiTimeout = 10 * time.Second

func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, apiTimeout)
}

// askAgain is after how long a question is asked again for the first time; then it takes twice as long each time.
const askAgain = 500 * time.Millisecond

// ask sends a question to $JS.API that changes nothing, and reads the answer into out. Only a leader answers, and a stream
// whose leader has just died has none for some seconds: what was asked then is never answered, so it is asked again.
func (a api) ask(ctx context.Context, subject string, question, out any) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	for wait := askAgain; ; wait *= 2 {
		trying, stop := context.WithTimeout(ctx, wait)
		err := a.askOnce(trying, subject, question, out)
		stop()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}

// askOnce is ask, once.
func (a api) askOnce(ctx context.Context, subject string, question, out any) error {
	var body []byte
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return err
		}
	}
	m, err := a.request(ctx, &nats.Msg{Subject: "$JS.API." + subject, Data: body})
	if err != nil {
		return err
	}
	var failed struct {
		Error *APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &failed); err != nil {
		return fmt.Errorf("answer of %s: %w", subject, err)
	}
	if failed.Error != nil {
		return failed.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Data, out); err != nil {
		return fmt.Errorf("answer of %s: %w", subject, err)
	}
	return nil
}

func (a api) request(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	r, err := a.nc.RequestMsgWithContext(ctx, m)
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, fmt.Errorf("nobody answers on %s: %w", m.Subject, err)
	}
	return r, err
}

// storedMessage is a message as STREAM.MSG.GET tells it.
type storedMessage struct {
	Message struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

// get reads one message from the stream's leader.
func (a api) get(ctx context.Context, stream string, question any) (journal.Message, nats.Header, error) {
	var out storedMessage
	if err := a.ask(ctx, "STREAM.MSG.GET."+stream, question, &out); err != nil {
		return journal.Message{}, nil, err
	}
	m := out.Message
	header := nats.Header{}
	if len(m.Header) > 0 {
		var err error
		if header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return journal.Message{}, nil, fmt.Errorf("headers of message %d: %w", m.Seq, err)
		}
	}
	return journal.Message{Subject: m.Subject, Seq: journal.Seq(m.Seq), Header: ours(header), Data: m.Data, Time: m.Time}, header, nil
}
