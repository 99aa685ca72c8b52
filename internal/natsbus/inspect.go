package natsbus

import (
	"context"
	"encoding/json"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// question is the body of a request on an admin subject.
type question struct {
	Class  string      `json:"class,omitempty"`
	Name   string      `json:"name,omitempty"`
	From   journal.Seq `json:"from,omitempty"`
	Seq    journal.Seq `json:"seq,omitempty"`
	Limit  int         `json:"limit,omitempty"`
	Prefix string      `json:"prefix,omitempty"`
	Cursor string      `json:"cursor,omitempty"`
	Stream string      `json:"stream,omitempty"`
}

// Answers to questions about more than one thing. Next is what to ask on from; absent, there is no more.
type (
	entriesAnswer struct {
		Entries []json.RawMessage `json:"entries"`
		Next    journal.Seq       `json:"next,omitempty"`
	}
	objectsAnswer struct {
		Objects []engine.ObjectInfo `json:"objects"`
		Next    string              `json:"next,omitempty"`
	}
	classesAnswer struct {
		Classes []engine.ClassInfo `json:"classes"`
	}
)

// State implements engine.Inspector.
func (c *Client) State(ctx context.Context, class, name string) (engine.ObjectState, error) {
	return ask[engine.ObjectState](ctx, c, "state", question{Class: class, Name: name})
}

// Journal implements engine.Inspector.
func (c *Client) Journal(ctx context.Context, class, name string, from journal.Seq, limit int) ([]engine.JournalEntry, journal.Seq, error) {
	a, err := ask[struct {
		Entries []engine.JournalEntry
		Next    journal.Seq
	}](ctx, c, "journal", question{Class: class, Name: name, From: from, Limit: limit})
	return a.Entries, a.Next, err
}

// Sent implements engine.Inspector.
func (c *Client) Sent(ctx context.Context, class, name string, seq journal.Seq) (engine.SentState, error) {
	return ask[engine.SentState](ctx, c, "sent", question{Class: class, Name: name, Seq: seq})
}

// Objects implements engine.Inspector.
func (c *Client) Objects(ctx context.Context, class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
	a, err := ask[objectsAnswer](ctx, c, "objects", question{Class: class, Prefix: prefix, Cursor: cursor, Limit: limit})
	return a.Objects, a.Next, err
}

// Classes implements engine.Inspector.
func (c *Client) Classes(ctx context.Context) ([]engine.ClassInfo, error) {
	a, err := ask[classesAnswer](ctx, c, "classes", question{})
	return a.Classes, err
}

// Durable waits until what a stream has up to a position is durable.
func (c *Client) Durable(ctx context.Context, stream string, seq journal.Seq) error {
	_, err := ask[struct{}](ctx, c, "durable", question{Stream: stream, From: seq})
	return err
}

// Status is what a worker says of itself, in JSON.
func (c *Client) Status(ctx context.Context) (json.RawMessage, error) {
	return ask[json.RawMessage](ctx, c, "status", question{})
}

func ask[A any](ctx context.Context, c *Client, what string, q question) (a A, err error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	body, _ := json.Marshal(q)                                                                     // strings and numbers
	m, err := c.request(ctx, &nats.Msg{Subject: c.ns.Admin(what), Data: body}, engine.Unavailable) // looking changes nothing
	if err != nil {
		return a, err
	}
	if m.Header.Get(wire.HeaderErrorCode) != "" {
		return a, engine.ParseProblem(m.Data)
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return a, engine.Errorf(engine.Internal, "answer on %s: %w", c.ns.Admin(what), err)
	}
	return a, nil
}
