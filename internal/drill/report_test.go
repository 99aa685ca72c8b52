package drill

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
)

var update = flag.Bool("update", false, "write golden files")

// invented is a drill of two workers, four partitions, a kill and a pause, with names that HTML would obey.
func invented() *Result {
	cfg := Config{Run: "abcd", Objects: 4, Partitions: 4}
	r := newResult(cfg)
	l := NewLedger("abcd", true, []string{"counter/<a>", "counter/b", "counter/c", "counter/d"}, func(object int) int { return object })
	versions, waiting := make([]int, 4), map[int]Call{}
	for now := time.Duration(0); now < 10*time.Second; now += 10 * time.Millisecond {
		switch now {
		case 3 * time.Second:
			l.Cut(now)
			r.disturbed(now, Step{Target: Target{Worker, "w<1>"}, Act: Kill, Long: time.Second})
			l.Done(now)
		case 6 * time.Second:
			l.Cut(now)
			r.disturbed(now, Step{Target: Target{Server, "n1"}, Act: Pause, Long: 500 * time.Millisecond})
			l.Done(10 * time.Second)
		}
		object := int(now/(10*time.Millisecond)) % 4
		if now > 3*time.Second && now < 4300*time.Millisecond && object < 2 {
			if l.Failed(now); waiting[object].number == 0 {
				waiting[object] = l.Begin(object, now)
			}
			continue
		}
		c := waiting[object]
		if delete(waiting, object); c.number == 0 {
			c = l.Begin(object, now)
		}
		versions[object]++
		l.Acknowledged(c, journal.Version(versions[object]), fmt.Sprint(versions[object]), now+4*time.Millisecond)
	}
	l.Cut(10 * time.Second)
	began := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	r.load(l, began, 10*time.Second)
	epoch := func(at time.Duration, n uint64, worker string) Epoch {
		return Epoch{At: began.Add(at), Record: journal.EpochRecord{Epoch: journal.EpochID{Number: n}, Worker: worker}}
	}
	first, second := epoch(-time.Minute, 1, "w<1>"), epoch(-time.Minute, 1, "w2")
	a := NewAudit(l, func(object int) string { return fmt.Sprint(object) })
	a.End()
	r.checked(l, reading{audit: a, epochs: [][]Epoch{{first, epoch(4200*time.Millisecond, 2, "w2")}, {first, epoch(4250*time.Millisecond, 2, "w2")}, {second}, {second}}}, 4)
	r.Findings = r.Findings[:3] // all is lost: nobody wrote a journal
	return r
}

func about() About {
	return About{Version: "0.0.0", Server: "2.0.0", Settings: []Row{{"Seed", "7"}, {"Calls", "<script>"}}}
}

// numbers are what a golden file of the page's structure is not about.
var numbers = regexp.MustCompile(`-?\d+(\.\d+)?`)

// TestTheReportIsWhatItWas: elements, classes and words of the page; numbers within the drawing are left out. -update writes
// the file anew.
func TestTheReportIsWhatItWas(t *testing.T) {
	t.Parallel()
	var page bytes.Buffer
	if err := WriteReport(&page, invented(), about()); err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(page.String(), "</style>")
	svg := regexp.MustCompile(`(?s)<svg viewBox="0 0 1000.*?</svg>`)
	got := svg.ReplaceAllStringFunc(body, func(s string) string { return numbers.ReplaceAllString(s, "#") })
	path := regexp.MustCompile(` d="[^"]*"`)
	got = path.ReplaceAllString(got, ` d=""`)
	golden := filepath.Join("testdata", "report.golden.html")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		if i >= len(gotLines) || i >= len(wantLines) || gotLines[i] != wantLines[i] {
			t.Fatalf("line %d differs (-update writes it anew):\n%s\nwant\n%s", i+1, strings.Join(gotLines[min(i, len(gotLines)):], "\n"), strings.Join(wantLines[min(i, len(wantLines)):], "\n"))
		}
	}
}

// TestTheReportNeedsNothingElse: no script, no other file; and what comes from elsewhere is text.
func TestTheReportNeedsNothingElse(t *testing.T) {
	t.Parallel()
	var page bytes.Buffer
	if err := WriteReport(&page, invented(), about()); err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{"<script", "http:", "https:", "url(", "@import", "src=", "href=", "w<1>"} {
		if strings.Contains(page.String(), never) {
			t.Errorf("the report has %q", never)
		}
	}
	for _, says := range []string{"prefers-color-scheme: dark", "@media print", "w&lt;1&gt;", "&lt;script&gt;"} {
		if !strings.Contains(page.String(), says) {
			t.Errorf("the report lacks %q", says)
		}
	}
}

// TestTheChartIsWellFormed, and lies within its frame.
func TestTheChartIsWellFormed(t *testing.T) {
	t.Parallel()
	for _, r := range []*Result{invented(), {}, {Seconds: 0.05, Partitions: 256}} {
		d := xml.NewDecoder(strings.NewReader(string(r.Chart())))
		d.Strict = true
		for {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, r.Chart())
			}
			if start, ok := token.(xml.StartElement); ok {
				for _, a := range start.Attr {
					if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
						t.Fatalf("%s %s is %s", start.Name.Local, a.Name.Local, a.Value)
					}
				}
			}
		}
	}
}

// TestAResultTellsWhoWasAffected: the objects of those partitions that changed owners.
func TestAResultTellsWhoWasAffected(t *testing.T) {
	t.Parallel()
	r := invented()
	kill, pause := r.Disturbances[0], r.Disturbances[1]
	if kill.Partitions != 2 || kill.Unanswered.Of != 2 || kill.Back < 1300 || kill.Back > 1400 || kill.Unanswered.Max < 1200 || kill.Unanswered.P50 < 1200 || kill.Others != 4 {
		t.Errorf("the kill: %+v; want 2 partitions with an object each that waited for 1.2 s, and that all serve after 1.3 s", kill)
	}
	if pause.Partitions != 0 || pause.Unanswered.Of != 4 || pause.Unanswered.Max != 4 || pause.Back != 0 {
		t.Errorf("the pause: %+v; want all objects, since no partition changed owners", pause)
	}
	if got := r.Workers(); !slices.Equal(got, []string{"w2", "w<1>"}) || len(r.Owners) != 6 {
		t.Errorf("workers %v, owners %+v", got, r.Owners)
	}
	if r.Owners[0].To != 4200 || r.Owners[0].From != 0 || r.Owners[1].To != 10_000 {
		t.Errorf("owners %+v", r.Owners[:2])
	}
}

func TestAColumnIsTheWorstOfItsBuckets(t *testing.T) {
	t.Parallel()
	buckets := make([]Bucket, 3*columnsMax)
	for i := range buckets {
		buckets[i] = Bucket{Answers: 1, Max: time.Duration(i)}
	}
	joined, width := columns(buckets)
	if len(joined) != columnsMax || width != 3*BucketWidth || joined[1].Answers != 3 || joined[1].Max != 5 {
		t.Errorf("%d columns of %v, the second is %+v", len(joined), width, joined[1])
	}
}

func TestAnInvariantAnswersTrue(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]bool{`true`: true, `{"ok":true}`: true, `{"ok":true,"sum":3}`: true,
		`false`: false, `{"ok":false}`: false, `{}`: false, `null`: false, ``: false, `"true"`: false, `1`: false} {
		if got := isWell([]byte(body)); got != want {
			t.Errorf("%s: %v; want %v", body, got, want)
		}
	}
}

// TestCommandsAreGivenTheTarget: no shell reads them.
func TestCommandsAreGivenTheTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &Commands{By: map[Act]string{Kill: "touch " + dir + "/{}", Restart: "ls " + dir + "/{}"}}
	target := Target{Worker, "a b;c"}
	if err := c.Do(t.Context(), Kill, target); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a b;c")); err != nil {
		t.Error(err)
	}
	if err := c.Do(t.Context(), Restart, Target{Worker, "none"}); err == nil || !strings.Contains(err.Error(), "none") || !strings.Contains(err.Error(), "exit status") {
		t.Errorf("it says %v", err)
	}
	if err := c.Do(t.Context(), Pause, target); err == nil {
		t.Error("there is no command for it")
	}
}
