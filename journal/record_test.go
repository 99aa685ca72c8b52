package journal

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden records that are not there yet")

var noon = time.Date(2026, 11, 24, 12, 0, 0, 123, time.UTC)

// golden are records of every shape. Their files are kept for ever: every later version reads them.
func golden() map[string]Record {
	later := noon.Add(time.Second)
	return map[string]Record{
		"first": {V: 1, MinReader: 1, First: 1, At: noon, Commits: []Commit{{
			At: noon, ID: "order-17", Hash: HashOf([]byte("x")), Source: "call", Method: "increment", Caller: Caller{Claimed: "shop", Verified: "nkey"},
			Changes: []Change{{Kind: Put, Key: "count", Data: []byte(`3`)}}, Reply: &Reply{Status: 200, Body: []byte(`3`)}}}},
		"joined": {V: 1, MinReader: 1, First: 7, Prev: HashOf([]byte("before")), At: later, Commits: []Commit{
			{At: noon, Session: &SessionNumber{Sender: strings.Repeat("ab", 16), N: 12, M: 9, Deadline: later}, Source: "http", Method: "http",
				Caller: Caller{Verified: "v"}, Trace: "00-11-22-01",
				Changes: []Change{{Kind: Delete, Key: "a \"quoted\" <key> ü"}, {Kind: Event, Type: "added.v2", Data: []byte(`{"by":3}`)}},
				Reply:   &Reply{Status: 201, Header: map[string][]string{"Content-Type": {"text/plain"}, "Set-Cookie": {"a=1", "b=2"}}, Body: []byte("a\ntext"), Raw: true}},
			{At: later, Source: "call", Method: "put", Changes: []Change{{Kind: Put, Key: "", Data: []byte{0, 255}, Raw: true}},
				Reply: &Reply{Status: 204, Body: []byte{1, 200}, Raw: true}},
			{At: later, Source: "call", Method: "put", Changes: []Change{{Kind: Put, Key: "k", Data: []byte("null")}}}}},
		"sent": {V: 1, MinReader: 1, First: 3, Prev: HashOf([]byte("before")), At: later, Commits: []Commit{
			{At: later, ID: "order-17", Hash: HashOf([]byte("x")), Source: "inbox", Inbox: &Sent{Seq: 41, At: noon}, Method: "increment",
				Changes: []Change{{Kind: Put, Key: "count", Data: []byte(`3`)}}, Reply: &Reply{Status: 200, Body: []byte(`3`)}},
			{At: later, ID: "order-17", Source: "inbox", Inbox: &Sent{Seq: 42, At: noon, Outcome: SentRepeat}, Method: "increment", Changes: []Change{}},
			{At: later, Source: "inbox", Inbox: &Sent{Life: 1, Seq: 40, At: later, Outcome: SentDead, Tries: 7}, Method: "increment", Changes: []Change{},
				Reply: &Reply{Status: 500, Body: []byte(`{"title":"internal"}`)}}}},
	}
}

func encode(r Record) []byte {
	var commits []Encoded
	for i := range r.Commits {
		commits = append(commits, Encoded{JSON: AppendCommit(nil, &r.Commits[i]), At: r.Commits[i].At})
	}
	return AppendRecord(nil, r.First, r.Prev, commits)
}

func TestGoldenRecordsAreWrittenAndRead(t *testing.T) {
	for name, want := range golden() {
		file := filepath.Join("testdata", "v1", name+".json")
		got := encode(want)
		if _, err := os.Stat(file); *update && os.IsNotExist(err) {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(kept), string(got)); diff != "" {
			t.Errorf("%s is written differently:\n%s", name, diff)
		}
		rec, err := DecodeRecord(kept)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, *rec); diff != "" {
			t.Errorf("%s is read differently:\n%s", name, diff)
		}
	}
}

func TestRecordsAreValidCompactJSON(t *testing.T) {
	for name, r := range golden() {
		got := encode(r)
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(json.RawMessage(got)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if strings.TrimSpace(b.String()) != string(got) {
			t.Errorf("%s is not compact", name)
		}
	}
}

func TestWhatIsNoRecordIsRefused(t *testing.T) {
	good := string(encode(golden()["first"]))
	for name, c := range map[string]struct{ data, want string }{
		"empty":              {"", "unexpected end"},
		"garbage":            {"hello", "invalid character"},
		"truncated":          {good[:len(good)/2], "unexpected end"},
		"another object":     {`{"a":1}`, "no v or min_reader"},
		"newer reader":       {strings.Replace(good, `"min_reader":1`, `"min_reader":2`, 1), "needs a reader of format 2"},
		"newer, other shape": {`{"v":9,"min_reader":9,"commits":"packed"}`, "needs a reader of format 9"},
		"unknown kind":       {strings.Replace(good, `"kind":"put"`, `"kind":"fork"`, 1), `kind "fork": written by a newer version`},
		"no kind":            {strings.Replace(good, `"kind":"put",`, ``, 1), "without a kind"},
		"no value":           {strings.Replace(good, `,"value":3`, ``, 1), "neither value nor base64"},
		"no key":             {strings.Replace(good, `"key":"count",`, ``, 1), "without a key"},
		"no commits":         {strings.Replace(good, `"commits":[`, `"was":[`, 1), "no commits"},
		"no time":            {strings.Replace(good, `"at":"2026`, `"was":"2026`, 1), "no time"},
		"prev of a first":    {strings.Replace(good, `"prev":""`, `"prev":"`+strings.Repeat("00", 15)+`01"`, 1), "first is 1 and prev"},
		"short hash":         {strings.Replace(good, `"prev":""`, `"prev":"00"`, 1), "not 32 hex digits"},
		"version 0":          {strings.Replace(good, `"first":1`, `"first":0`, 1), "no first version"},
	} {
		_, err := DecodeRecord([]byte(c.data))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
		if strings.Contains(c.want, "newer") && !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v does not match ErrNewer", name, err)
		}
	}
}

func TestUnknownFieldsAreIgnored(t *testing.T) {
	good := string(encode(golden()["first"]))
	more := strings.Replace(good, `{"v":1`, `{"turn":3,"last":true,"enc":"key-1","v":1`, 1)
	if _, err := DecodeRecord([]byte(more)); err != nil {
		t.Error(err)
	}
}

func TestSnapshotRecordsRoundTrip(t *testing.T) {
	want := Snap{V: 1, MinReader: 1, Part: 2, Of: 3, Version: 9, Seq: 77, Hash: HashOf([]byte("r")), At: noon, Entries: []SnapEntry{
		{Space: "k", Key: "lines/a<b", Data: []byte(`{"n":"<1>"}`)}, {Space: "k", Key: "", Data: []byte{0xff}, Raw: true}}}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSnap(data)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`{}`, `x`, strings.Replace(string(data), `"part":2`, `"part":4`, 1)} {
		if _, err := DecodeSnap([]byte(bad)); err == nil {
			t.Errorf("%.40s is read", bad)
		}
	}
	if _, err := DecodeSnap([]byte(strings.Replace(string(data), `"min_reader":1`, `"min_reader":2`, 1))); !errors.Is(err, ErrNewer) {
		t.Error(err)
	}
}

func TestEpochRecordsRoundTrip(t *testing.T) {
	want := EpochRecord{V: 1, Epoch: EpochID{7, 0xfedcba9876543210}, Before: 6, Worker: "w", Incarnation: Incarnation{12, 3}, Window: 256, Server: "S", Software: "1", At: noon}
	got, err := DecodeEpoch(want.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	id, err := ParseEpochID(want.Epoch.String())
	if err != nil || id != want.Epoch {
		t.Error(id, err)
	}
	for _, bad := range []string{"", "7", "7 xyz", "x fedcba9876543210", "7 fedcba98765432100"} {
		if _, err := ParseEpochID(bad); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	for _, bad := range []string{"", "{}", `{"v":2,"epoch":{"number":1},"worker":"w","window":1}`} {
		if _, err := DecodeEpoch([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

// FuzzDecodeRecord: whatever comes, there is no panic; and what is read can be written and read again, the same.
func FuzzDecodeRecord(f *testing.F) {
	files, _ := filepath.Glob("testdata/v1/*.json")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"v":1,"min_reader":1,"first":1,"at":"2026-01-01T00:00:00Z","commits":[{"changes":[]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeRecord(data)
		if err != nil {
			return
		}
		for i := range r.Commits {
			if y := r.Commits[i].At.Year(); y < 0 || y > 9999 {
				t.Skip("a year that is not written")
			}
		}
		again, err := DecodeRecord(encode(*r))
		if err != nil {
			t.Fatalf("%s\nis read, written and not read: %v\n%s", data, err, encode(*r))
		}
		if string(encode(*again)) != string(encode(*r)) {
			t.Fatalf("%s\nis not %s", encode(*again), encode(*r))
		}
	})
}

// FuzzDecodeEpoch: what is read can be written and read again, the same.
func FuzzDecodeEpoch(f *testing.F) {
	for _, s := range []string{`{}`, `{"v":1,"release":true,"epoch":{"number":3,"token":"00000000000000ff"},"before":2,"worker":"w","window":256,"at":"2026-01-01T00:00:00Z"}`,
		`{"v":1,"epoch":{"number":1},"worker":"w","incarnation":{"revision":7,"nonce":"0123456789abcdef"},"window":1,"heir":"x","at":"2026-01-01T00:00:00.5+01:00"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeEpoch(data)
		if err != nil {
			return
		}
		again, err := DecodeEpoch(r.Encode())
		if err != nil || !again.At.Equal(r.At) {
			t.Fatalf("%s\nis read, written and not read: %v", data, err)
		}
		if again.At = r.At; again != r {
			t.Fatalf("%+v\nis not %+v", again, r)
		}
	})
}

// FuzzEpochID: the header of every record.
func FuzzEpochID(f *testing.F) {
	for _, s := range []string{"", "1 0000000000000001", "18446744073709551615 ffffffffffffffff", "1  0000000000000001", "+1 0000000000000001", "1 000000000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseEpochID(s)
		if err != nil {
			return
		}
		if again, err := ParseEpochID(id.String()); err != nil || again != id {
			t.Fatalf("%q is %+v, and written and read again %+v, %v", s, id, again, err)
		}
	})
}

func FuzzDecodeSnap(f *testing.F) {
	f.Add([]byte(`{"v":1,"min_reader":1,"part":1,"of":1,"version":1,"seq":1,"hash":"00000000000000000000000000000001","at":"2026-01-01T00:00:00Z","entries":[{"space":"k","key":"a","value":1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) { _, _ = DecodeSnap(data) })
}

func BenchmarkAppendRecord(b *testing.B) {
	r := golden()["first"]
	var buf, commit []byte
	b.ReportAllocs()
	for b.Loop() {
		commit = AppendCommit(commit[:0], &r.Commits[0])
		buf = AppendRecord(buf[:0], 1, Hash{}, []Encoded{{JSON: commit, At: noon}})
	}
}

func BenchmarkAppendCommit(b *testing.B) {
	for name, r := range golden() {
		b.Run(name, func(b *testing.B) {
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = AppendCommit(buf[:0], &r.Commits[0])
			}
		})
	}
}

func BenchmarkHashOf(b *testing.B) {
	data := encode(golden()["first"])
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		_ = HashOf(data)
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	data := encode(golden()["first"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRecord(data); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTimesHaveTheirFormat(t *testing.T) {
	for _, at := range []time.Time{
		{}, time.Unix(0, 0), time.Unix(0, 1), time.Unix(1_700_000_000, 123_456_789), time.Unix(1_709_251_199, 999_999_999),
		time.Date(2026, 12, 31, 23, 59, 59, 100, time.FixedZone("", -5*3600)), time.Date(0, 1, 2, 3, 4, 5, 60, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 1, time.UTC), time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		if got, want := string(appendTime(nil, at)), at.UTC().Format(`"`+timeFormat+`"`); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
}
