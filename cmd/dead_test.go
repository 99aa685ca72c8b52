package cmd

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestDeadLettersAreListedAndSentAgain: a message that nobody could answer is kept, told of, sent again once, and dropped.
func TestDeadLettersAreListedAndSentAgain(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--sync", "100ms", "--send-retry", "1ms").begin()
	nc, err := nats.Connect("nats://" + p.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	publish := func(method, wire string) {
		m := &nats.Msg{Subject: "objects.send.counter.x." + method, Data: []byte(`{"by":5}`), Header: nats.Header{"Perdure-Wire": {wire}}}
		if _, err := nc.RequestMsg(m, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	ok := func(args ...string) string {
		out, errs, code := p.run(args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d\n%s", args, code, errs)
		}
		return out
	}
	publish("increment", "2") // another contract: the headers are not sent again
	publish("nothing", "1")   // no such method
	publish("increment", "1") // behind them
	for _, seq := range []string{"1", "2"} {
		if out := ok("sent", "counter/x", seq, "--wait"); !strings.Contains(out, "\tdead\t") {
			t.Errorf("message %s: %s", seq, out)
		}
	}
	if out := ok("sent", "counter/x", "3", "--wait"); !strings.Contains(out, "\tapplied\t") {
		t.Errorf("the one behind them: %s", out)
	}
	if out := ok("dead", "ls"); strings.Count(out, "counter/x\t") != 2 || !strings.Contains(out, "nothing") {
		t.Errorf("dead ls: %s", out)
	}
	if out := ok("dead", "show", "counter/x", "1"); !strings.Contains(out, `argument {"by":5}`) || !strings.Contains(out, "Perdure-Wire") {
		t.Errorf("dead show: %s", out)
	}
	again := strings.TrimSpace(ok("dead", "retry", "counter/x", "1"))
	if out := ok("sent", "counter/x", again, "--wait"); !strings.Contains(out, "\tapplied\t") {
		t.Errorf("sent again: %s", out)
	}
	if got := ok("call", "counter/x", "value"); got != "10\n" {
		t.Errorf("the counter is %s", got)
	}
	if _, errs, code := p.run("dead", "retry", "counter/x", "1"); code != exitNotFound {
		t.Errorf("again: exit code %d, %s", code, errs)
	}
	ok("dead", "drop", "counter/x", "2")
	if out := ok("dead", "ls", "counter"); out != "" {
		t.Errorf("dead ls: %s", out)
	}
	if out := ok("accept-inbox"); out != "" {
		t.Errorf("accept-inbox: %s", out)
	}
	p.verify()
}
