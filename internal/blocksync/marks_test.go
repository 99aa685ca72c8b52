package blocksync

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/minio/highwayhash"
)

// TestBlocksBehindAHoleArePutAside: blocks whose predecessor lost its end, or all it had, unless all was synced when they
// were told of.
func TestBlocksBehindAHoleArePutAside(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	blocks := []int{1, 2, 3}
	const all = 1000 // more messages than a block has
	for _, test := range []struct {
		what   string
		cut    int     // block
		loses  float64 // so many messages of its end
		sealed int
		left   []int
	}{
		{"nothing is lost", 1, 0, 0, blocks},
		{"the end of the first is lost", 1, 0.5, 0, []int{1}},
		{"the last message of the first is lost", 1, 1, 0, []int{1}},
		{"all of the first is lost", 1, all, 0, []int{1}},
		{"the end of the second is lost", 2, 0.5, 0, []int{1, 2}},
		{"all of the second is lost", 2, all, 0, []int{1, 2}},
		{"all of the second is lost, and the first is sealed", 2, all, 1, []int{1, 2}},
		{"the end of the last is lost", 3, 0.5, 0, blocks},
		{"all of the last is lost", 3, all, 2, blocks},
		{"behind a sealed block it is damage, which the server tells", 1, 0.5, 1, blocks},
	} {
		t.Run(test.what, func(t *testing.T) {
			dir := t.TempDir()
			server, js := startServer(t, dir, "s", 0)
			for range 20 { // a block has 8 MiB
				publish(t, js, "s", strings.Repeat("x", 900<<10))
			}
			server.Shutdown()
			f := folder{globalAccount, "s", filepath.Join(dir, "jetstream", globalAccount, "streams", "s", "msgs")}
			if got, err := f.blocks(); err != nil || !slices.Equal(got, blocks) {
				t.Fatalf("blocks %v, %v; want %v", got, err, blocks)
			}
			s, err := f.scan(test.cut)
			if err != nil || !s.whole {
				t.Fatalf("%+v, %v", s, err)
			}
			size := float64(s.bytes / s.records)
			if err := os.Truncate(f.block(test.cut), max(0, int64(float64(s.bytes)-test.loses*size))); err != nil {
				t.Fatal(err)
			}
			if err := (marks{Boot: "another", Streams: map[string]mark{f.key(): {Sealed: test.sealed}}}).write(dir); err != nil {
				t.Fatal(err)
			}
			cut, err := Repair(dir, log)
			if err != nil || cut == nil {
				t.Fatalf("%+v, %v", cut, err)
			}
			if got, err := f.blocks(); err != nil || !slices.Equal(got, test.left) {
				t.Errorf("blocks %v are left, %v; want %v", got, err, test.left)
			}
			if want := len(blocks) - len(test.left); len(cut.Aside) != want {
				t.Errorf("%v are aside; want %d", cut.Aside, want)
			}
		})
	}
}

// TestBlocksBehindOneWithoutMessagesStay: it has tombstones, which say how far the stream went.
func TestBlocksBehindOneWithoutMessagesStay(t *testing.T) {
	dir := t.TempDir()
	server, js := startServer(t, dir, "s", 0)
	for range 20 {
		publish(t, js, "s", strings.Repeat("x", 900<<10))
	}
	server.Shutdown()
	f := folder{globalAccount, "s", filepath.Join(dir, "jetstream", globalAccount, "streams", "s", "msgs")}
	behind, err := f.scan(3)
	if err != nil || behind.first < 2 {
		t.Fatalf("%+v, %v", behind, err)
	}
	for _, test := range []struct {
		seq  uint64
		left []int
	}{{behind.first - 1, []int{1, 2, 3}}, {behind.first - 2, []int{1, 2}}} {
		if err := os.WriteFile(f.block(2), tombstone(t, f, 2, test.seq), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.repair(1); err != nil {
			t.Fatal(err)
		}
		if got, err := f.blocks(); err != nil || !slices.Equal(got, test.left) {
			t.Errorf("with a tombstone for %d, before %d: blocks %v are left, %v; want %v", test.seq, behind.first, got, err, test.left)
		}
	}
}

// tombstone is the record that the server writes to block n when message seq goes.
func tombstone(t *testing.T, f folder, n int, seq uint64) []byte {
	t.Helper()
	le := binary.LittleEndian
	buf := le.AppendUint32(nil, recordHeader+recordChecksum)
	buf = le.AppendUint64(buf, seq|bitTombstone)
	buf = le.AppendUint64(buf, 0) // time
	buf = le.AppendUint16(buf, 0) // the subject's length
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", f.stream, n))
	hash, err := highwayhash.New64(key[:])
	if err != nil {
		t.Fatal(err)
	}
	_, _ = hash.Write(buf[4:20])
	return hash.Sum(buf)
}
