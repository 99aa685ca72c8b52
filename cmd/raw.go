package cmd

import (
	"context"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/verify"
)

// rawMessage is a message as it is stored, for programs that check what ours say.
type rawMessage struct {
	Seq     journal.Seq `json:"seq"`
	Time    time.Time   `json:"time"` // when it was stored
	Subject string      `json:"subject"`
	Epoch   string      `json:"epoch,omitempty"`  // header Perdure-Epoch: number, space, token
	Data    *string     `json:"data,omitempty"`   // the payload
	Base64  []byte      `json:"base64,omitempty"` // the payload, if it is no UTF-8
}

func newRawMessage(m journal.Message) rawMessage {
	out := rawMessage{Seq: m.Seq, Time: m.Time, Subject: m.Subject, Epoch: m.Header[wire.HeaderEpoch]}
	if text := string(m.Data); utf8.ValidString(text) {
		out.Data = &text
	} else {
		out.Base64 = m.Data
	}
	return out
}

// printRaw prints the messages that an object's history is made of, one a line.
func (a *app) printRaw(ctx context.Context, class, name string, from journal.Seq, limit int) error {
	s, named, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	p := wire.Partition(wire.Slot(class, wire.Escape(name)), named.Partitions)
	log := s.Log(p)
	_, last, err := log.Range(ctx)
	if err != nil {
		return err
	}
	messages, err := verify.Object(ctx, log, verify.Config{Namespace: wire.Subjects(a.nats.namespace), Partition: p, Class: class, Name: name}, last)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(a.out)
	lines.SetEscapeHTML(false)
	for m, err := range messages {
		switch {
		case err != nil:
			return err
		case m.Seq > last:
			return nil
		case m.Seq < from:
			continue
		}
		if err := lines.Encode(newRawMessage(m)); err != nil {
			return err
		}
		if limit--; limit == 0 {
			return nil
		}
	}
	return nil
}
