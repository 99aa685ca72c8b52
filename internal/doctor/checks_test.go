package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// healthy is a system that is set up well.
func healthy() *Facts {
	f := &Facts{Namespace: "objects", Software: "1.0.0", Now: noon,
		Server:  Server{ID: "S", Version: "2.15.2", PayloadMax: 8 << 20, Loopback: true, RoundTrip: 300 * time.Microsecond},
		Account: Account{StoreMax: -1},
		Mapping: Mapping{Slot: 7, Want: 7},
	}
	f.Journal.Namespace = jetstream.Namespace{Partitions: 2, Replicas: 1}
	for _, name := range []string{"KV_objects-meta", "objects-0", "objects-1"} {
		f.Journal.Streams = append(f.Journal.Streams, jetstream.StreamReport{Name: name, Info: &natsjs.StreamInfo{}})
	}
	for p := range 2 {
		f.Journal.Owners = append(f.Journal.Owners, engine.Ownership{Partition: p, Worker: "w", Epoch: 3, Software: "1.0.0",
			LeaseTerm: 2 * time.Second, Begun: []time.Time{noon.Add(-time.Minute)}, Recorded: noon.Add(-time.Second), Stored: noon.Add(-time.Second)})
	}
	s := Join(2, []Report{{Status: engine.Status{ID: "w", Partitions: 2, Owned: []engine.PartitionStatus{{Owned: true}, {Partition: 1, Owned: true}}},
		Host: &Host{Version: "1.0.0", Sync: "always", Folder: Folder{Path: "data", Filesystem: "ext4", Free: 100 << 30, Total: 200 << 30, Reserve: 10 << 30}}}}, nil)
	f.Workers = Workers{System: &s, Ahead: make([]time.Duration, 1)}
	return f
}

// outside makes a server that is not in the worker's process, and whose monitor answers.
func outside(always bool, every time.Duration) func(*Facts) {
	return func(f *Facts) {
		f.Workers.System.Workers[0].Host.Sync = ""
		f.Monitor = &Monitor{ServerID: "S"}
		f.Monitor.JetStream.Config.SyncAlways, f.Monitor.JetStream.Config.SyncInterval = always, every
	}
}

func monitored(used, most int64) func(*Facts) {
	return func(f *Facts) {
		outside(true, 0)(f)
		f.Monitor.JetStream.Stats.Store, f.Monitor.JetStream.Config.StoreMax = used, most
	}
}

func began(n int, ago time.Duration) []time.Time {
	return slices.Repeat([]time.Time{noon.Add(-ago)}, n)
}

// ill are systems with one fault each.
var ill = []struct {
	check  string
	status Status
	says   string
	change func(*Facts)
}{
	{"server", Bad, "no atomic batches", func(f *Facts) { f.Server.Version = "2.11.9" }},
	{"server", Warn, "the tests run with", func(f *Facts) { f.Server.Version = "2.12.0" }},
	{"server", OK, "3.0.1", func(f *Facts) { f.Server.Version = "3.0.1" }},
	{"server", Unseen, `"unknown"`, func(f *Facts) { f.Server.Version = "unknown" }},
	{"access", Warn, "can purge a stream", func(f *Facts) { f.Server.Loopback = false }},
	{"access", OK, "asks who connects", func(f *Facts) { f.Server.Loopback, f.Server.AuthRequired = false, true }},
	{"payload", Warn, "max_payload is 1 MiB and not 8 MiB: a turn whose changes and reply have more than 1008 KiB", func(f *Facts) { f.Server.PayloadMax = 1 << 20 }},
	{"payload", Bad, "no record fits", func(f *Facts) { f.Server.PayloadMax = 16 << 10 }},

	{"sync", Warn, "every 100ms", func(f *Facts) { f.Workers.System.Workers[0].Host.Sync = "100ms" }},
	{"sync", Unseen, "cannot be seen", func(f *Facts) { f.Workers = Workers{Err: nats.ErrTimeout} }},
	{"sync", Unseen, "(refused)", func(f *Facts) { f.Workers.System.Workers[0].Host.Sync, f.MonitorErr = "", errors.New("refused") }},
	{"sync", OK, "before it is acknowledged", outside(true, 2*time.Minute)},
	{"sync", Bad, "every 2m0s", outside(false, 2*time.Minute)},
	{"sync", Warn, "every 1s", outside(false, time.Second)},
	{"sync", Warn, "a majority of them", func(f *Facts) { outside(false, 2*time.Minute)(f); f.Journal.Namespace.Replicas = 3 }},
	{"sync", Warn, "of another server, X", func(f *Facts) { outside(true, 0)(f); f.Monitor.ServerID = "X" }},

	{"storage", Bad, "has no JetStream", func(f *Facts) { f.Account.Err = natsjs.ErrJetStreamNotEnabledForAccount }},
	{"storage", Unseen, "cannot be seen", func(f *Facts) { f.Account.Err = context.DeadlineExceeded }},
	{"storage", OK, "the account stores 69 bytes of at most 100 bytes", func(f *Facts) { f.Account = Account{Store: 69, StoreMax: 100} }},
	{"storage", Warn, "the account stores 7 GiB of at most 10 GiB", func(f *Facts) { f.Account = Account{Store: 7<<30 + 1000, StoreMax: 10 << 30} }},
	{"storage", Bad, "the account stores 10 GiB of at most 10 GiB", func(f *Facts) { f.Account = Account{Store: 10 << 30, StoreMax: 10 << 30} }},
	{"storage", Bad, "the server stores 95 GiB of at most 100 GiB", monitored(95<<30, 100<<30)},
	{"storage", Bad, "the account stores", func(f *Facts) { f.Account = Account{Store: 95, StoreMax: 100}; monitored(95<<30, 100<<30)(f) }},
	{"storage", OK, "of at most 1 EiB", monitored(95<<30, 1<<60)},

	{"streams", Bad, "no objects are here", func(f *Facts) { f.Journal = Journal{Err: fmt.Errorf("namespace: %w", journal.ErrMissing)} }},
	{"streams", Bad, "cannot be read", func(f *Facts) { f.Journal = Journal{Err: errors.New("speaks version 2")} }},
	{"streams", Unseen, "does not say", func(f *Facts) { f.Journal = Journal{Err: context.DeadlineExceeded} }},
	{"streams", Bad, "max age is 1h and must be 0", func(f *Facts) {
		f.Journal.Streams[1].Err = &jetstream.SettingsError{Stream: "objects-0", Differences: []string{"max age is 1h and must be 0"}}
	}},
	{"streams", Bad, "missing", func(f *Facts) {
		f.Journal.Streams[2] = jetstream.StreamReport{Name: "objects-1", Err: journal.ErrMissing}
	}},
	{"replicas", Warn, `the cluster "east"`, func(f *Facts) { f.Server.Cluster = "east" }},
	{"replicas", OK, "3 of each", func(f *Facts) { f.Server.Cluster, f.Journal.Namespace.Replicas = "east", 3 }},
	{"replicas", Warn, "its replica on n2 is offline or behind (12 messages)", func(f *Facts) {
		f.Journal.Namespace.Replicas = 3
		f.Journal.Streams[1].Info.Cluster = &natsjs.ClusterInfo{Replicas: []*natsjs.PeerInfo{{Name: "n1", Current: true}, {Name: "n2", Lag: 12}}}
	}},
	{"size", Warn, "10000000 subjects, 0 messages, 0 bytes; the subjects take about 1.3 GiB", func(f *Facts) { f.Journal.Streams[1].Info.State.NumSubjects = 10_000_000 }},

	{"journal", Bad, "went back", func(f *Facts) {
		f.Journal.Owners[1].Loss = &engine.Loss{Partition: 1, Stream: "objects-1", Why: "journal went back"}
	}},
	{"journal", Bad, "cannot be read: partition 1", func(f *Facts) { f.Journal.OwnersErr = errors.New("partition 1: corrupt") }},
	{"worker", Bad, "no worker answers", func(f *Facts) {
		f.Workers = Workers{Err: engine.Errorf(engine.Unavailable, "nobody: %w", nats.ErrNoResponders)}
	}},
	{"worker", Unseen, "cannot be seen", func(f *Facts) { f.Workers = Workers{Err: engine.Errorf(engine.Unavailable, "no answer")} }},
	{"worker", Bad, "partition 1 is not owned", func(f *Facts) { f.Workers.System.Partitions[1].Owned = false }},
	{"worker", Bad, "partition 1: journal went back", func(f *Facts) { f.Workers.System.Partitions[1].Alarm = "journal went back" }},
	{"worker", Bad, "partition 1 is not served", func(f *Facts) {
		f.Workers.System.Partitions[1].Alarm = "journal went back: long"
		f.Journal.Owners[1].Loss = &engine.Loss{Partition: 1, Stream: "objects-1", Why: "journal went back"}
	}},
	{"worker", Bad, "commits are refused by worker w: 5 MiB", func(f *Facts) { f.Workers.System.Workers[0].DiskFull = "5 MiB of disk are free" }},
	{"mapping", Bad, "no responders", func(f *Facts) { f.Mapping.Slot, f.Workers = -1, Workers{} }},
	{"mapping", Warn, "a worker passes each on", func(f *Facts) { f.Mapping.Slot = -1 }},
	{"mapping", Warn, "to slot 3 and not 7", func(f *Facts) { f.Mapping.Slot = 3 }},
	{"mapping", Unseen, "permissions", func(f *Facts) { f.Mapping.Err = nats.ErrPermissionViolation }},
	{"epochs", Warn, "partition 1 began 12 epochs", func(f *Facts) { f.Journal.Owners[1].Begun = began(12, time.Minute) }},
	{"epochs", OK, "", func(f *Facts) { f.Journal.Owners[1].Begun = append(began(100, 2*time.Hour), began(11, time.Minute)...) }},
	{"lease", Warn, "the lease is for 2s and the server is 150ms away", func(f *Facts) { f.Server.RoundTrip = 150 * time.Millisecond }},

	{"clock", Warn, "the server's clock is 150ms ahead", func(f *Facts) { f.Journal.Streams[1].Ahead = 150 * time.Millisecond }},
	{"clock", OK, "", func(f *Facts) { f.Journal.Streams[1].Ahead = -99 * time.Millisecond }},
	{"clock", Bad, "the clock of worker w is 30s behind", func(f *Facts) { f.Workers.Ahead[0], f.Journal.Owners = -30*time.Second, nil }},
	{"clock", Bad, "the last record of partition 0 was made at 2026-11-24T13:00:00Z, 1h0m0s ahead", func(f *Facts) { f.Journal.Owners[0].Recorded = noon.Add(time.Hour) }},
	{"software", Warn, "a worker is 0.9.0, this program 1.0.0", func(f *Facts) { f.Workers.System.Workers[0].Host.Version = "0.9.0" }},
	{"software", Warn, "a worker is 0.9.0", func(f *Facts) { f.Workers.System.Workers[0].Host, f.Journal.Owners[1].Software = nil, "0.9.0" }},
	{"folder", Unseen, "--data FOLDER", func(f *Facts) { f.Workers.System.Workers[0].Host = nil }},
	{"folder", Bad, "in memory", func(f *Facts) { f.Workers.System.Workers[0].Host.Folder.Filesystem = "tmpfs" }},
}

func TestChecks(t *testing.T) {
	t.Parallel()
	for _, c := range ill {
		f := healthy()
		c.change(f)
		var found []Finding
		for _, finding := range Examine(f) {
			if finding.Check == c.check {
				found = append(found, finding)
			}
		}
		if len(found) != 1 || found[0].Status != c.status || !strings.Contains(found[0].What+found[0].Fix, c.says) {
			t.Errorf("%s: %+v; want %s and %q", c.check, found, c.status, c.says)
		}
		for _, finding := range found {
			if (finding.Fix == "") != (finding.Status == OK) {
				t.Errorf("%s: a fix belongs to what is not ok, and to nothing else: %+v", c.check, finding)
			}
		}
	}
}

func TestAllIsWell(t *testing.T) {
	t.Parallel()
	list := Examine(healthy())
	if len(list) != len(checks) {
		t.Errorf("%d findings of %d checks: %+v", len(list), len(checks), list)
	}
	for _, f := range list {
		if f.Status != OK || f.Check == "" || f.What == "" {
			t.Errorf("%+v", f)
		}
	}
}

// TestOneFaultIsSaidOnce: a server without JetStream has no streams either, which nobody needs to be told.
func TestOneFaultIsSaidOnce(t *testing.T) {
	t.Parallel()
	f := healthy()
	f.Account.Err = nats.ErrNoResponders
	f.Journal = Journal{Err: fmt.Errorf("nobody answers: %w", nats.ErrNoResponders)}
	for _, finding := range Examine(f) {
		if finding.Status == Bad && finding.Check != "storage" {
			t.Errorf("%+v", finding)
		}
	}
}

func TestFolder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status Status
		says   string
		change func(*Folder)
	}{
		{OK, "100 GiB free of 200 GiB on ext4, a sync takes 300µs", func(f *Folder) { f.Sync = 300 * time.Microsecond }},
		{OK, "on a filesystem that is not known", func(f *Folder) { f.Filesystem = "" }},
		{Bad, "on a network", func(f *Folder) { f.Filesystem = "nfs" }},
		{Warn, "gone with the container", func(f *Folder) { f.Filesystem = "overlay" }},
		{Bad, "commits are refused", func(f *Folder) { f.Free = 9 << 30 }},
		{Warn, "19 GiB are free of 200 GiB, and 10 GiB are kept", func(f *Folder) { f.Free = 19 << 30 }},
		{Warn, "snapshots.corrupt-1 was damaged", func(f *Folder) { f.SetAside = []string{"data/snapshots.corrupt-1"} }},
		{Warn, "a sync to disk takes 12ms", func(f *Folder) { f.Sync = 12300 * time.Microsecond }},
	} {
		f := healthy().Workers.System.Workers[0].Host.Folder
		c.change(&f)
		if list := ExamineFolder(f); len(list) != 1 || list[0].Status != c.status || !strings.Contains(list[0].What, c.says) {
			t.Errorf("%+v; want %s and %q", list, c.status, c.says)
		}
	}
}

func TestAFolderIsReadAndLeftAsItWas(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := ReadFolder(dir)
	if err != nil || f.Free == 0 || f.Total < f.Free {
		t.Errorf("%+v, %v", f, err)
	}
	if took, err := MeasureSync(dir); err != nil || took <= 0 {
		t.Errorf("%v, %v", took, err)
	}
	if left := mustList(t, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := ReadFolder(dir + "/missing"); err == nil {
		t.Error("a folder that is not there was read")
	}
}

func mustList(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
