package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/verify"
)

// findings are what `perdure verify --json` prints, and its last line.
func (p *process) findings(args ...string) (found []verify.Finding, sum verified, code int) {
	p.t.Helper()
	stdout, stderr, code := p.run(append([]string{"verify", "--json"}, args...)...)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	for _, line := range lines[:len(lines)-1] {
		var f verify.Finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		found = append(found, f)
	}
	last := struct{ Summary *verified }{&sum}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		p.t.Fatalf("%s%s: %v", stdout, stderr, err)
	}
	return found, sum, code
}

func TestVerifySaysWhatIsWrongAndWhere(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	for range 3 {
		p.want(200, "POST", "/counter/a", "")
		p.want(200, "POST", "/counter/b", "")
	}
	found, sum, code := p.findings()
	if len(found) > 0 || code != exitOK || sum.Records != 6 || sum.Commits != 6 || sum.Objects != 2 || sum.Epochs != 4 || len(sum.Streams) != 4 || sum.Seconds <= 0 {
		t.Errorf("%d: %v %+v", code, found, sum)
	}
	nc, err := nats.Connect("nats://" + p.nats)
	must(t, err)
	defer nc.Close()
	seqs := p.seqs("counter/a")
	stream := wire.DefaultNamespace.Stream(wire.Partition(wire.Slot("counter", "a"), 4))

	// A foreign message costs an epoch, and is a warning.
	_, err = nc.Request(wire.DefaultNamespace.Journal("counter", "a"), []byte("hello"), nats.DefaultTimeout) // stored when it is answered
	must(t, err)
	p.want(200, "POST", "/counter/a", "")
	found, _, code = p.findings("counter/a")
	if len(found) != 1 || code != exitOK || found[0].Severity != verify.Warning || found[0].Rule != verify.Stray || found[0].Object != "counter/a" {
		t.Errorf("%d: %v", code, found)
	}

	// A record is lost.
	answer, err := nc.Request("$JS.API.STREAM.MSG.DELETE."+stream, fmt.Appendf(nil, `{"seq":%d}`, seqs[1]), nats.DefaultTimeout)
	must(t, err)
	if !bytes.Contains(answer.Data, []byte(`"success":true`)) {
		t.Fatalf("%s", answer.Data)
	}
	for _, of := range [][]string{{}, {"counter"}, {"counter/a"}, {"--partition", strings.TrimPrefix(stream, "objects-")}} {
		found, sum, code = p.findings(of...)
		if code != exitFailed || sum.Severe != 1 || sum.Warnings != 1 || len(found) != 2 || found[0].Rule != verify.Version || found[0].Seq != seqs[2] || found[0].Stream != stream {
			t.Errorf("verify %v: exit code %d, %v", of, code, found)
		}
	}
	if found, _, code := p.findings("counter/b"); len(found) > 0 || code != exitOK {
		t.Errorf("of another object: %d, %v", code, found)
	}
	stdout, stderr, code := p.run("verify")
	if !strings.Contains(stdout, fmt.Sprintf("severe\t%s\t%d\tcounter/a\tversion\t", stream, seqs[2])) || code != exitFailed ||
		!strings.Contains(stderr, "severe findings: 1, warnings: 1") || !strings.Contains(stderr, "docs/operate.md") {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
}

// seqs are the positions of an object's records.
func (p *process) seqs(object string) (seqs []journal.Seq) {
	for _, e := range p.entries(object) {
		seqs = append(seqs, e.Seq)
	}
	return seqs
}

// TestTheCheckOfTheDocsChecks runs the Python that docs/record.md shows, on an object's history and on spoilt ones.
func TestTheCheckOfTheDocsChecks(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 to run the check of docs/record.md with")
	}
	doc, err := os.ReadFile("../docs/record.md")
	must(t, err)
	var script []byte
	for _, block := range regexp.MustCompile("(?s)```python\n(.*?)```").FindAllSubmatch(doc, -1) {
		if bytes.Contains(block[1], []byte("hashlib")) {
			script = block[1]
		}
	}
	check := func(history string) (string, bool) {
		c := exec.Command(python, "-c", string(script))
		c.Stdin = strings.NewReader(history)
		out, err := c.CombinedOutput()
		return strings.TrimSpace(string(out)), err == nil
	}

	p := newDev(t).begin()
	for range 3 {
		p.want(200, "POST", "/counter/a", "")
	}
	p.stop() // a release, and another epoch
	p.begin()
	p.want(200, "POST", "/counter/a", "")
	good, stderr, code := p.run("journal", "counter/a", "--raw")
	lines := strings.SplitAfter(good, "\n")
	if code != exitOK || len(lines) != 8 { // two epochs, a release, four records, and nothing behind the last end of line
		t.Fatalf("%d: %s%s", code, good, stderr)
	}
	if out, ok := check(good); !ok || out != "ok: versions 1 to 4" {
		t.Errorf("%s", out)
	}
	seqs := p.seqs("counter/a")
	for name, test := range map[string]struct {
		history string
		at      journal.Seq
	}{
		"another value":     {strings.Replace(good, `\"value\":2`, `\"value\":7`, 1), seqs[2]},
		"without a record":  {good[:strings.Index(good, lines[2])] + good[strings.Index(good, lines[3]):], seqs[2]},
		"records exchanged": {lines[0] + lines[1] + lines[3] + lines[2], seqs[2]},
	} {
		if out, ok := check(test.history); ok || !strings.Contains(out, fmt.Sprintf("sequence %d: version", test.at)) {
			t.Errorf("%s: %s", name, out)
		}
	}
	stray := strings.Replace(lines[3], `"epoch":"1 `, `"epoch":"0 `, 1)
	if out, ok := check(lines[0] + lines[1] + stray + lines[2] + lines[3]); !ok || out != "ok: versions 1 to 3" {
		t.Errorf("with a record that does not count: %s", out)
	}
	if limited, _, _ := p.run("journal", "counter/a", "--raw", "--from", fmt.Sprint(seqs[1]), "--limit", "2"); limited != lines[2]+lines[3] {
		t.Errorf("from %d, two lines:\n%s", seqs[1], limited)
	}
}
