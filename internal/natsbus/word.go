package natsbus

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

// Peers has the workers of a namespace tell each other that something has changed, on the subjects [wire.Subjects.Words]. It
// is what [engine.Config] asks for, and ends with the connection.
func Peers(nc *nats.Conn, ns wire.Subjects, hear func(engine.Word)) (tell func(engine.Word), err error) {
	prefix := strings.TrimSuffix(ns.Words(), "*")
	if _, err := nc.Subscribe(ns.Words(), func(m *nats.Msg) {
		if w, ok := engine.ParseWord(strings.TrimPrefix(m.Subject, prefix)); ok {
			hear(w)
		}
	}); err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", ns.Words(), err)
	}
	return func(w engine.Word) {
		_ = nc.Publish(prefix+w.String(), nil) // the others look by themselves, later
	}, nil
}
