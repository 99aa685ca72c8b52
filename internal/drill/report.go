package drill

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
)

//go:embed report.html
var reportHTML string

var reportPage = template.Must(template.New("report").Funcs(template.FuncMap{
	"number": number,
	"next":   func(i int) int { return i + 1 },
	"hue":    func(i int) int { return i % hues },
	"utc":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"plural": func(n int, one, many string) string {
		if n == 1 {
			return number(n) + " " + one
		}
		return number(n) + " " + many
	},
}).Parse(reportHTML))

// WriteReport writes the report: one page of HTML that needs nothing else, for a screen and for paper.
func WriteReport(w io.Writer, r *Result, about About) error {
	err := reportPage.Execute(w, struct {
		*Result
		About
		Counts  []tally
		Untold  int // findings beyond those that are told
		Checked bool
	}{r, about, r.tallies(), max(r.Faulty()-len(r.Findings), 0), r.Verdict != Unproven})
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// tally is a fault and how often it was found.
type tally struct {
	Fault Fault
	N     int
	Why   string
}

func (r *Result) tallies() []tally {
	return []tally{
		{Lost, r.Lost, "acknowledged calls that the journal does not have"},
		{Twice, r.Twice, "calls that the journal has more than once"},
		{OutOfOrder, r.OutOfOrder, "answers that do not come behind those before them, or that the journal has elsewhere"},
		{Unasked, r.Unasked, "changes that no call asked for, or whose caller was told that they were not done"},
		{State, r.State, "objects that are not what their commits come to, or whose invariant does not hold"},
		{Journal, r.Journal, "severe findings of perdure verify since the drill began"},
	}
}

// number is a whole number with commas between thousands.
func number(n int) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, digit := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}
