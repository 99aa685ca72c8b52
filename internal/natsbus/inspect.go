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
	// partObjects is of one partition; the ids are the places of the objects in the order of all.
	partObjects struct {
		Objects []engine.ObjectInfo `json:"objects"`
		IDs     []string            `json:"ids"`
		More    bool                `json:"more,omitempty"`
	}
	classesAnswer struct {
		Classes []engine.ClassInfo `json:"classes"`
	}
)

// State implements engine.Inspector.
func (c *Client) State(ctx context.Context, class, name string) (engine.ObjectState, error) {
	return ask[engine.ObjectState](ctx, c, c.ns.Admin("state"), question{Class: class, Name: name})
}

// Journal implements engine.Inspector.
func (c *Client) Journal(ctx context.Context, class, name string, from journal.Seq, limit int) ([]engine.JournalEntry, journal.Seq, error) {
	a, err := ask[struct {
		Entries []engine.JournalEntry
		Next    journal.Seq
	}](ctx, c, c.ns.Admin("journal"), question{Class: class, Name: name, From: from, Limit: limit})
	return a.Entries, a.Next, err
}

// Sent implements engine.Inspector.
func (c *Client) Sent(ctx context.Context, class, name string, seq journal.Seq) (engine.SentState, error) {
	return ask[engine.SentState](ctx, c, c.ns.Admin("sent"), question{Class: class, Name: name, Seq: seq})
}

// Objects implements engine.Inspector.
func (c *Client) Objects(ctx context.Context, class, prefix, cursor string, limit int) ([]engine.ObjectInfo, string, error) {
	a, err := ask[objectsAnswer](ctx, c, c.ns.Admin("objects"), question{Class: class, Prefix: prefix, Cursor: cursor, Limit: limit})
	return a.Objects, a.Next, err
}

// Classes implements engine.Inspector.
func (c *Client) Classes(ctx context.Context) ([]engine.ClassInfo, error) {
	a, err := ask[classesAnswer](ctx, c, c.ns.Admin("classes"), question{})
	return a.Classes, err
}

// Durable waits until what a stream has up to a position is durable.
func (c *Client) Durable(ctx context.Context, stream string, seq journal.Seq) error {
	_, err := ask[struct{}](ctx, c, c.ns.Admin("durable"), question{Stream: stream, From: seq})
	return err
}

// Status is what all workers say together, in JSON.
func (c *Client) Status(ctx context.Context) (json.RawMessage, error) {
	return ask[json.RawMessage](ctx, c, c.ns.Admin("status"), question{})
}

// StatusOf is what one worker says of itself, in JSON.
func (c *Client) StatusOf(ctx context.Context, worker string) (json.RawMessage, error) {
	return ask[json.RawMessage](ctx, c, c.ns.AskWorker(worker, "status"), question{})
}

func ask[A any](ctx context.Context, c *Client, subject string, q question) (a A, err error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	body, _ := json.Marshal(q)                                                            // strings and numbers
	m, err := c.request(ctx, &nats.Msg{Subject: subject, Data: body}, engine.Unavailable) // looking changes nothing
	if err != nil {
		return a, err
	}
	if m.Header.Get(wire.HeaderErrorCode) != "" {
		return a, engine.ParseProblem(m.Data)
	}
	if err := json.Unmarshal(m.Data, &a); err != nil {
		return a, engine.Errorf(engine.Internal, "answer on %s: %w", subject, err)
	}
	return a, nil
}
