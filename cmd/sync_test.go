package cmd

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perdure/perdure/engine"
)

// editMarks changes what a data folder says of its last start, as JSON.
func editMarks(t *testing.T, p *process, edit func(m map[string]any)) {
	t.Helper()
	name := filepath.Join(p.dir, "nats", "perdure-sync.json")
	raw, err := os.ReadFile(name)
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(raw, &m))
	edit(m)
	raw, err = json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(name, raw, 0o600))
}

func TestAfterAPowerCutItStartsByItself(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	p.want(200, "POST", "/counter/a", "")
	p.kill()
	editMarks(t, p, func(m map[string]any) { m["boot"] = "another" })
	p.begin()
	if got := p.want(200, "POST", "/counter/a", ""); got != `{"count":2}` {
		t.Error(got)
	}
	if said, err := p.stop(); err != nil || !strings.Contains(said, "the machine went down") {
		t.Errorf("%v: %s", err, said)
	}
	p.begin()
	p.want(200, "GET", "/counter/a", "")
	if said, err := p.stop(); err != nil || strings.Contains(said, "the machine went down") {
		t.Errorf("after a clean stop: %v: %s", err, said)
	}
}

// TestWhatRelaxedSyncLostIsTold: a mark on disk says that a stream went farther than it does after a power cut.
func TestWhatRelaxedSyncLostIsTold(t *testing.T) {
	t.Parallel()
	p := newDev(t, "--partitions", "1", "--sync", "100ms").begin()
	p.want(200, "POST", "/counter/a", "")
	p.kill()
	editMarks(t, p, func(m map[string]any) {
		m["boot"] = "another"
		mark := m["streams"].(map[string]any)["$G/objects-0"].(map[string]any)
		mark["acked"] = 100000
	})
	p.start()
	eventually(t, func() bool {
		out, _, code := p.run("status", "--json")
		var s engine.Status
		return code == 0 && json.Unmarshal([]byte(out), &s) == nil && strings.Contains(s.Owned[0].Alarm, "100000")
	})
	if _, stderr, code := p.run("accept-journal", "0", "--yes"); code != 0 || !strings.Contains(stderr, "accepted") {
		t.Errorf("%d %s", code, stderr)
	}
	p.ready()
	if got := p.want(200, "POST", "/counter/a", ""); got != `{"count":2}` {
		t.Error(got)
	}
}

// TestWhereTheServersFilesAreNotKnownTheServerSyncs: as safe, and said in the log.
func TestWhereTheServersFilesAreNotKnownTheServerSyncs(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	p.want(200, "POST", "/counter/a", "")
	p.stop()
	// A stream that the server does not know, with something in it that is no record.
	odd := filepath.Join(p.dir, "nats", "jetstream", "$G", "streams", "odd", "msgs")
	must(t, os.MkdirAll(odd, 0o750))
	must(t, os.WriteFile(filepath.Join(odd, "1.blk"), []byte("no record"), 0o600))
	p.begin()
	if got := p.want(200, "POST", "/counter/a", ""); got != `{"count":2}` {
		t.Error(got)
	}
	if said, err := p.stop(); err != nil || !strings.Contains(said, "the server syncs by itself") {
		t.Errorf("%v: %s", err, said)
	}
}
