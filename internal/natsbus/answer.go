package natsbus

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// errorTextMax is how much of an error stands in its header. All of it is in the body.
const errorTextMax = 256

const problemType = "application/problem+json"

// answers sends answers.
type answers struct {
	nc  *nats.Conn
	ns  wire.Subjects
	log *slog.Logger
}

// replyTo is where the answer to a message goes, empty for nowhere. The subjects of the namespace and of the server are
// no place for answers: a caller who may not publish there could have us do it.
func (a *answers) replyTo(m *nats.Msg) string {
	if strings.HasPrefix(m.Reply, "$") || strings.HasPrefix(m.Reply, string(a.ns)+".") {
		return ""
	}
	return m.Reply
}

func (a *answers) send(to string, reply engine.Reply) {
	h := nats.Header{wire.HeaderVersion: {strconv.FormatUint(uint64(reply.Version), 10)}}
	if reply.Replayed {
		h[wire.HeaderReplayed] = []string{"true"}
	}
	a.publish(&nats.Msg{Subject: to, Header: h, Data: reply.Body}, "what was done stays done")
}

func (a *answers) fail(to string, err error) {
	m := problem(to, err)
	a.publish(m, m.Header.Get(wire.HeaderError))
}

// publish sends an answer. One that the server does not carry is replaced by an error that says so.
func (a *answers) publish(m *nats.Msg, remark string) {
	if m.Subject == "" {
		return
	}
	err := a.nc.PublishMsg(m)
	if errors.Is(err, nats.ErrMaxPayload) {
		err = a.nc.PublishMsg(problem(m.Subject, engine.Errorf(engine.Internal,
			"the answer has %d bytes and the server carries %d: ask for less, or raise its max_payload; %s", len(m.Data), a.nc.MaxPayload(), remark)))
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		a.log.Warn("answer not sent", "to", m.Subject, "err", err)
	}
}

func problem(to string, err error) *nats.Msg {
	p := engine.ProblemOf(err)
	body, _ := json.Marshal(p) // strings and numbers
	h := nats.Header{
		wire.HeaderErrorCode:   {strconv.Itoa(p.Status)},
		wire.HeaderError:       {oneLine(string(p.Code) + ": " + p.Detail)},
		wire.HeaderContentType: {problemType},
	}
	if after := p.Error.RetryAfter; after > 0 {
		h[wire.HeaderRetryAfter] = []string{strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10)}
	}
	return &nats.Msg{Subject: to, Header: h, Data: body}
}

// oneLine is text fit for a header.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > errorTextMax {
		text = strings.ToValidUTF8(text[:errorTextMax], "")
	}
	return text
}

// parseReply reads an answer. Its errors are of type [*engine.Error].
func parseReply(m *nats.Msg) (engine.Reply, error) {
	if m.Header.Get(wire.HeaderErrorCode) != "" {
		return engine.Reply{}, engine.ParseProblem(m.Data)
	}
	version, err := strconv.ParseUint(m.Header.Get(wire.HeaderVersion), 10, 64)
	if err != nil {
		return engine.Reply{}, engine.Errorf(engine.Internal, "not an answer of this service: header %s: %w", wire.HeaderVersion, err)
	}
	return engine.Reply{Status: 200, Body: m.Data, Version: journal.Version(version), Replayed: m.Header.Get(wire.HeaderReplayed) == "true"}, nil
}
