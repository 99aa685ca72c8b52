package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// followCounters is the example of docs/subjects.md.
func followCounters(ctx context.Context, nc *nats.Conn, partition int, from uint64, each func(seq uint64, object string, record json.RawMessage)) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	epochs := fmt.Sprintf("objects.epoch.%d", partition)
	c, err := js.OrderedConsumer(ctx, fmt.Sprintf("objects-%d", partition), jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"objects.journal.*.counter.*", epochs},
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    max(from, 1), // one behind the last that was seen
	})
	if err != nil {
		return err
	}
	messages, err := c.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	epoch := "" // from the middle of a stream: what the last message on epochs before it names
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		switch named := m.Headers().Get("Perdure-Epoch"); {
		case m.Subject() == epochs:
			epoch = named
		case named == epoch: // what is of another epoch does not count
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			each(meta.Sequence.Stream, m.Subject(), m.Data())
		}
	}
}

func TestTheConsumerOfTheDocs(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--republish", "on").begin()
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	changes, err := nc.SubscribeSync("objects.change.counter.*")
	must(t, err)
	must(t, nc.Flush())
	for range 3 {
		p.want(200, "POST", "/counter/cart-99", "") // slot 254, partition 2
	}
	ctx, stop := context.WithCancel(t.Context())
	var firsts []int
	err = followCounters(ctx, nc, 2, 0, func(seq uint64, object string, record json.RawMessage) {
		var r struct{ First int }
		if err := json.Unmarshal(record, &r); err != nil || object != "objects.journal.254.counter.cart-99" || seq == 0 {
			t.Errorf("%s %s %v", object, record, err)
		}
		if firsts = append(firsts, r.First); len(firsts) == 3 {
			stop()
		}
	})
	if !slices.Equal(firsts, []int{1, 2, 3}) {
		t.Errorf("%v, %v", firsts, err)
	}
	for i := range 3 {
		m, err := changes.NextMsg(nats.DefaultTimeout * 5)
		if err != nil || m.Subject != "objects.change.counter.cart-99" || !strings.Contains(string(m.Data), fmt.Sprintf(`"first":%d,`, i+1)) {
			t.Fatalf("%v, %v", m, err)
		}
	}
	_, err = p.stop()
	must(t, err)
	p.args = p.args[:len(p.args)-2] // and it stays so
	p.begin()
	p.want(200, "POST", "/counter/cart-99", "")
	sub, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer sub.Close()
	again, err := sub.SubscribeSync("objects.change.>")
	must(t, err)
	must(t, sub.Flush())
	p.want(200, "POST", "/counter/cart-99", "")
	if m, err := again.NextMsg(nats.DefaultTimeout * 5); err != nil || m.Header.Get("Nats-Stream") != "objects-2" || m.Header.Get("Nats-Sequence") == "" {
		t.Errorf("%v, %v", m, err)
	}
}

// TestTheConsumerOfTheDocsIsTheExample: the code that is shown is the code that runs.
func TestTheConsumerOfTheDocsIsTheExample(t *testing.T) {
	docs, err := os.ReadFile("../docs/subjects.md")
	must(t, err)
	code, err := os.ReadFile("consumer_test.go")
	must(t, err)
	block := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(docs)
	if block == nil {
		t.Fatal("docs/subjects.md shows no consumer")
	}
	for line := range strings.Lines(string(block[1])) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(string(code), line) {
			t.Errorf("the example does not have: %s", line)
		}
	}
}
