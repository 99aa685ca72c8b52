package jetstream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/perdure/perdure/journal"
)

// writer appends with plain publishes: JetStream publishes of the client library repeat by themselves and could store
// records out of order. The answers come to one inbox of the writer's own, whose last token is the position.
type writer struct {
	log    *log
	answer func(journal.Answer)
	prefix string
	sub    *nats.Subscription
	closed atomic.Bool

	// Owned by whoever appends, one at a time: the message, its headers and their values are used again and again.
	msg    nats.Msg
	header nats.Header
	values map[string][]string // by header, one each
}

// Writer implements [journal.Log].
func (l *log) Writer(answer func(journal.Answer)) (journal.Writer, error) {
	w := &writer{log: l, answer: answer, prefix: l.nc.NewRespInbox() + ".", header: nats.Header{}, values: map[string][]string{}}
	var err error
	if w.sub, err = l.nc.Subscribe(w.prefix+"*", w.answered); err != nil {
		return nil, fmt.Errorf("stream %s: %w", l.name, err)
	}
	if err := w.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, fmt.Errorf("stream %s: %w", l.name, err)
	}
	return w, nil
}

// Append implements [journal.Writer].
func (w *writer) Append(last, subject journal.Seq, messages ...journal.Message) error {
	if w.closed.Load() {
		return errWriterClosed
	}
	if len(messages) > 1 {
		return w.appendBatch(last, subject, messages)
	}
	m := messages[0]
	clear(w.header) // a message has its own headers, and nothing of the one before
	for k, v := range m.Header {
		w.set(k, v)
	}
	w.set(nats.ExpectedLastSeqHdr, strconv.FormatUint(uint64(last), 10))
	if subject != journal.NoSubjectCheck {
		w.set(nats.ExpectedLastSubjSeqHdr, strconv.FormatUint(uint64(subject), 10))
	}
	w.msg = nats.Msg{Subject: m.Subject, Data: m.Data, Header: w.header, Reply: w.reply(last + 1)}
	return w.log.nc.PublishMsg(&w.msg)
}

func (w *writer) set(header, value string) {
	one := w.values[header]
	if one == nil {
		one = make([]string, 1)
		w.values[header] = one
	}
	one[0] = value
	w.header[header] = one
}

func (w *writer) reply(seq journal.Seq) string { return w.prefix + strconv.FormatUint(uint64(seq), 10) }

// appendBatch sends an atomic batch. Only its commit asks for an answer: what is wrong with the others shows there.
func (w *writer) appendBatch(last, subject journal.Seq, messages []journal.Message) error {
	id := nuid.Next()
	end := last + journal.Seq(len(messages))
	for i, m := range messages {
		msg := batchMessage(m, id, i+1)
		if i == 0 {
			msg.Header.Set(nats.ExpectedLastSeqHdr, strconv.FormatUint(uint64(last), 10))
			if subject != journal.NoSubjectCheck {
				msg.Header.Set(nats.ExpectedLastSubjSeqHdr, strconv.FormatUint(uint64(subject), 10))
			}
		}
		if i == len(messages)-1 {
			msg.Header.Set(batchCommit, "1")
			msg.Reply = w.reply(end)
		}
		if err := w.log.nc.PublishMsg(msg); err != nil {
			return err
		}
	}
	return nil
}

// answered passes an answer on. Stored is what the stream acknowledges at the position that was predicted; refused,
// what it says it did not store because of that position; everything else is unknown.
func (w *writer) answered(m *nats.Msg) {
	if w.closed.Load() {
		return
	}
	n, err := strconv.ParseUint(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
	if err != nil {
		return // not an answer to an append: its inbox has the position
	}
	a := journal.Answer{Seq: journal.Seq(n)}
	if m.Header.Get("Status") == "503" {
		a.Err = nats.ErrNoResponders
		w.answer(a)
		return
	}
	got, err := ParseAck(m.Data)
	switch {
	case errors.Is(err, journal.ErrConflict):
		a.Outcome, a.Err = journal.Refused, err
	case err != nil:
		a.Err = err
	case got.Stream != w.log.name || got.Seq != a.Seq:
		a.Err = fmt.Errorf("acknowledged at %d of stream %q", got.Seq, got.Stream)
	default:
		a.Outcome = journal.Stored
	}
	w.answer(a)
}

// Close implements [journal.Writer].
func (w *writer) Close() {
	w.closed.Store(true)
	_ = w.sub.Unsubscribe() // of a connection that has ended it does not matter
}
