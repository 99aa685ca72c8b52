package cmd

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal/jetstream"
)

// TestARollingUpgrade does what docs/upgrade.md says, under load: each command of the page is run where it stands, and no increment fails
// while one process after the other is replaced.
func TestARollingUpgrade(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/upgrade.md")
	must(t, err)
	p := newPair(newFleet(t).begin())
	gateway := p.prepare("gateway")
	gateway.begin()
	run := func(step string) {
		t.Helper()
		_, text, ok := strings.Cut(string(page), "\n"+step+" ")
		commands := regexp.MustCompile(`(?m)^ {7}perdure (.*)$`).FindAllStringSubmatch(strings.Split(text, "\n\n"+string(step[0]+1)+".")[0], -1)
		if !ok || len(commands) == 0 {
			t.Fatalf("the page has no commands at %s", step)
		}
		for _, c := range commands {
			if stdout, stderr, code := gateway.run(strings.Fields(c[1])...); code != 0 {
				t.Errorf("%s perdure %s: exit code %d\n%s%s", step, c[1], code, stdout, stderr)
			}
		}
	}
	p.workers[0].want(200, "POST", "/counter/first", "")
	run("1. **Look.**")
	load := count(t, gateway)
	load.more(2)
	for i, worker := range p.workers {
		if said, err := worker.stop(); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		worker.begin()
		eventually(t, func() bool { return p.owned(0) == 2 && p.owned(1) == 2 })
		load.more(2)
		run("3. **Workers, one after the other.**")
		for _, w := range lines[workerState](t, gateway, "workers", "--json") {
			if w.State != "sharing" || w.Version == "" {
				t.Errorf("after worker %d: %+v", i, w)
			}
		}
	}
	load.check()
	run("1. **Look.**")
}

// TestAnOlderVersionDoesNotServeWhatItCannotRead: it ends, and says what does, as docs/upgrade.md has it.
func TestAnOlderVersionDoesNotServeWhatItCannotRead(t *testing.T) {
	t.Parallel()
	f := newFleet(t).begin()
	worker := f.prepare("worker").begin()
	_, err := worker.stop()
	must(t, err)
	s, err := jetstream.Dial(t.Context(), jetstream.Config{Options: []nats.Option{f.server.InProcess()}, Namespace: wire.DefaultNamespace})
	must(t, err)
	defer s.Close()
	_, err = s.Meta().Put(t.Context(), "format", []byte(`{"format":2,"software":"0.2.0","worker":"w","at":"2027-01-01T00:00:00Z"}`), 0)
	must(t, err)
	worker.start()
	said, code := worker.wait()
	want := fmt.Sprintf("the namespace has records of format 2, and version %s of this program reads format 1: version 0.2.0 reads them, run that or a later one", Version)
	if code != 1 || !strings.Contains(said, want) {
		t.Errorf("exit code %d, want 1 and %q\n%s", code, want, said)
	}
	page, err := os.ReadFile("../docs/upgrade.md")
	must(t, err)
	if !strings.Contains(string(page), strings.Replace(want, Version, "0.1.0", 1)) {
		t.Error("the page says something else")
	}
}
