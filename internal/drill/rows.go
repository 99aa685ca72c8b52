package drill

import (
	"fmt"
	"time"
)

// About is what a report says besides the result.
type About struct {
	Version  string // of the program
	Server   string // of the NATS server
	Settings []Row
	Error    string // why the drill could not be run or checked to its end
}

// Row is a line of a table.
type Row struct{ What, Value string }

// String is the duration as people read it.
func (m Millis) String() string {
	switch d := time.Duration(float64(m) * float64(time.Millisecond)); {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(m))
	}
	return fmt.Sprintf("%.1f ms", float64(m))
}

func (s Spread) String() string {
	return fmt.Sprintf("p50 %s, p99 %s, longest %s (%d)", s.P50, s.P99, s.Max, s.Of)
}

// Rows are the result as a table.
func (r *Result) Rows() []Row {
	n := func(what string, n int) Row { return Row{what, fmt.Sprint(n)} }
	rows := []Row{
		n("calls", r.Calls), n("acknowledged", r.Acknowledged), n("refused", r.Refused), n("unknown outcome", r.Unknown),
		n("of these applied", r.Applied), n("lost", r.Lost), n("applied twice", r.Twice), n("out of order", r.OutOfOrder),
		n("unasked changes", r.Unasked), n("wrong states", r.State), n("severe in the journal", r.Journal),
		n("failed tries", r.Failures), {"latency", r.Latency.String()},
	}
	if len(r.Disturbances) > 0 {
		rows = append(rows, Row{"without answer, undisturbed", r.Calm.String()}, Row{"without answer, disturbed", r.Unanswered.String()})
	}
	verdict := string(r.Verdict)
	if r.Verdict == Unproven {
		verdict = "unproven"
	}
	return append(rows, Row{"verdict", verdict})
}
