package bench

import (
	"math"
	"strconv"
	"strings"
)

// Row is a figure as it was measured, beside its yardstick.
type Row struct {
	Name      string  `json:"name"` // what --only takes
	What      string  `json:"what"`
	Unit      string  `json:"unit"`
	Measured  float64 `json:"measured"` // median of the rounds
	Against   string  `json:"against,omitempty"`
	Yardstick float64 `json:"yardstick,omitempty"` // median of the rounds
	Ratio     float64 `json:"ratio,omitempty"`     // measured by yardstick: the median over pairs of rounds
	Beyond    float64 `json:"beyond,omitempty"`    // measured less yardstick, likewise
	Goal      Goal    `json:"goal"`
	Reached   string  `json:"reached,omitempty"` // "proud", "at least", "no"; empty without a goal
	Note      string  `json:"note,omitempty"`

	CPU          float64 `json:"cpu,omitempty"` // medians of the rounds
	YardstickCPU float64 `json:"yardstick_cpu,omitempty"`

	Rounds  []Round `json:"rounds,omitempty"`
	Calls   int     `json:"calls"`   // of the figure, answered, in all rounds
	Checked int     `json:"checked"` // increments that the objects were found to have, each acknowledged
}

// Round is one measurement of both. What a call costs the system's process, in µs of processor, says less than a rate, and
// the same however busy the machine is with other things.
type Round struct {
	Measured     float64 `json:"measured"`
	Yardstick    float64 `json:"yardstick"`
	CPU          float64 `json:"cpu,omitempty"`
	YardstickCPU float64 `json:"yardstick_cpu,omitempty"`
}

// GoalKind says what of a row a goal is about.
type GoalKind string

// What there is to be reached.
const (
	NoGoal      GoalKind = ""
	RatioAbove  GoalKind = "ratio"  // Ratio is at least so much
	BeyondBelow GoalKind = "beyond" // Beyond is at most so much
	ValueAbove  GoalKind = "above"  // Measured is at least so much
	ValueBelow  GoalKind = "below"  // Measured is at most so much
)

// Goal is what a figure is to be. A zero Proud is none.
type Goal struct {
	Kind    GoalKind `json:"kind,omitempty"`
	AtLeast float64  `json:"at_least,omitempty"`
	Proud   float64  `json:"proud,omitempty"`
}

// settle computes what follows from the rounds.
func (r *Row) settle() {
	median := func(of func(Round) float64) float64 {
		values := make([]float64, len(r.Rounds))
		for i, round := range r.Rounds {
			values[i] = of(round)
		}
		return Median(values)
	}
	r.Measured = median(func(r Round) float64 { return r.Measured })
	r.Yardstick = median(func(r Round) float64 { return r.Yardstick })
	r.CPU = median(func(r Round) float64 { return r.CPU })
	r.YardstickCPU = median(func(r Round) float64 { return r.YardstickCPU })
	if r.Against != "" {
		r.Ratio = pairwise(r.Rounds, func(m, y float64) float64 { return m / y })
		r.Beyond = pairwise(r.Rounds, func(m, y float64) float64 { return m - y })
	}
	r.Reached = r.Goal.reached(r)
}

func (g Goal) reached(r *Row) string {
	value, above := r.Measured, g.Kind == RatioAbove || g.Kind == ValueAbove
	switch g.Kind {
	case NoGoal:
		return ""
	case RatioAbove:
		value = r.Ratio
	case BeyondBelow:
		value = r.Beyond
	}
	has := func(bar float64) bool { return bar != 0 && (above && value >= bar || !above && value <= bar) }
	switch {
	case has(g.Proud):
		return "proud"
	case has(g.AtLeast):
		return "at least"
	}
	return "no"
}

// Bars are the goal's two numbers as people read them.
func (r *Row) Bars() (atLeast, proud string) { return r.bar(r.Goal.AtLeast), r.bar(r.Goal.Proud) }

func (r *Row) bar(v float64) string {
	switch {
	case v == 0:
		return "-"
	case r.Goal.Kind == RatioAbove:
		return strconv.FormatFloat(v, 'f', -1, 64) + " x"
	case r.Goal.Kind == BeyondBelow:
		return "+" + Number(v) + " " + r.Unit
	}
	return Number(v) + " " + r.Unit
}

// Number is a figure as people read it: three digits at least, and commas.
func Number(v float64) string {
	digits := 0
	if a := math.Abs(v); a < 100 && a != math.Trunc(a) {
		digits = 2 - int(math.Floor(math.Log10(math.Max(a, 1))))
	}
	whole, rest, _ := strings.Cut(strconv.FormatFloat(v, 'f', digits, 64), ".")
	sign, whole := whole[:len(whole)-len(strings.TrimPrefix(whole, "-"))], strings.TrimPrefix(whole, "-")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		rest = "." + rest
	}
	return sign + whole + rest
}
