package embed

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
)

// oddNames are names that could trip the server's own syntax or our escape.
func oddNames() []string {
	names := []string{
		"x", "checkout-cart-99", "a.b.c", "*", ">", "a.>", "%", "%2E", "%%", " ", "\t\r\n", "\x00", "\x7f", "äöü", "日本語", "🦀", "e\u0301",
		"{{wildcard(1)}}", "{{partition(256,1,2)}}", "$1", "$SYS", "$JS.API.>", "_INBOX.x", "|", `"`, `\`, "/", "a/b?c=d#e",
		"workers", "-", "+OK", "PUB x 0", strings.Repeat("n", wire.NameBytesMax), strings.Repeat(".", wire.NameBytesMax),
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var b strings.Builder
		for range 1 + random.IntN(24) {
			b.WriteRune(rune(random.IntN(0x2ff)))
		}
		names = append(names, b.String())
	}
	return names
}

// next is the subject of the next message.
func next(t *testing.T, sub *nats.Subscription) string {
	t.Helper()
	msg, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return msg.Subject
}

func TestMappingSendsEveryCallToTheSlotThatWireComputes(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Listen: "127.0.0.1:0", Namespaces: []wire.Subjects{"objects", "other-1"}})
	nc := connect(t, s.URL())
	slots := map[int]bool{}
	for _, ns := range []wire.Subjects{"objects", "other-1"} {
		sub, err := nc.SubscribeSync(string(ns) + ".>")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range oddNames() {
			token := wire.Escape(name)
			for _, class := range []string{"counter", "c", "Rate-Limit_2"} {
				if err := nc.Publish(ns.Call(class, token, "increment"), nil); err != nil {
					t.Fatal(err)
				}
				slot := wire.Slot(class, token)
				want := fmt.Sprintf("%s.part.%d.call.%s.%s.increment", ns, slot, class, token)
				if got := next(t, sub); got != want {
					t.Fatalf("%s/%q arrived on\n%s, want\n%s", class, name, got, want)
				}
				slots[slot] = true
			}
		}
	}
	if len(slots) != wire.Slots {
		t.Errorf("the names met %d slots, want all %d", len(slots), wire.Slots)
	}
}

func TestMappedCallIsAnsweredFromItsSlotByTheQueueGroup(t *testing.T) {
	t.Parallel()
	nc := connect(t, "", start(t, Options{}).InProcess())
	ns := wire.DefaultNamespace
	slot := wire.Slot("counter", "x")
	_, err := nc.QueueSubscribe(ns.SlotCalls(slot), "workers", func(msg *nats.Msg) {
		// A test would see the time-out if this failed.
		_ = msg.Respond([]byte(msg.Subject))
	})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := nc.Request("objects.call.counter.x.increment", nil, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	gotSlot, class, token, method, ok := ns.SplitCall(string(reply.Data))
	if !ok || gotSlot != slot || class != "counter" || token != "x" || method != "increment" {
		t.Errorf("the call arrived as %s", reply.Data)
	}
}
