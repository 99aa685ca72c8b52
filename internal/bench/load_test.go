package bench

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestAFigureOfAWrongSystemIsNone: an object that forgets, or repeats, an acknowledged increment.
func TestAFigureOfAWrongSystemIsNone(t *testing.T) {
	t.Parallel()
	s := server(t)
	for said, want := range map[string]bool{"2": true, "1": false, "3": false, "": false} {
		c := newCounts(names("o"+said, 3))
		nc := connect(t, s)
		sub, err := nc.Subscribe("objects.part.*.call.*.*."+valueMethod, func(m *nats.Msg) {
			answer := "2"
			if strings.Contains(m.Subject, c.objects[1]) {
				answer = said
			}
			_ = m.Respond([]byte(answer))
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.acked {
			c.acked[i].Store(2)
		}
		cs, err := newCallers([]*nats.Conn{nc}, 1)
		if err != nil {
			t.Fatal(err)
		}
		n, err := c.check(t.Context(), cs, 1)
		if (err == nil) != want || n != 6 {
			t.Errorf("2 were acknowledged and it says %q: %d, %v", said, n, err)
		}
		_ = sub.Unsubscribe()
	}
}
