package bench

import (
	"math"
	"testing"
	"time"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		of    []time.Duration
		share float64
		want  time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.99, 1},
		{hundred[:2], 0.5, 1},
		{hundred[:3], 0.5, 2},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 0.991, 100},
		{hundred, 1, 100},
	} {
		if got := percentile(c.of, c.share); got != c.want {
			t.Errorf("%v of %d values: %d; want %d", c.share, len(c.of), got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 100, 2}, 3}} {
		if got := Median(c.of); got != c.want {
			t.Errorf("%v: %v; want %v", c.of, got, c.want)
		}
	}
}

func TestTheRatioIsThatOfPairs(t *testing.T) {
	t.Parallel()
	// In the second round the machine was busy with something else: both were slow, and it changes nothing.
	r := Row{Against: "pipe", Rounds: []Round{{Measured: 50, Yardstick: 100, CPU: 9}, {Measured: 5, Yardstick: 10, CPU: 7}, {Measured: 60, Yardstick: 100, CPU: 8}}, Goal: Goal{RatioAbove, 0.5, 0.6}}
	r.settle()
	if r.Ratio != 0.5 || r.Beyond != -40 || r.Measured != 50 || r.Yardstick != 100 || r.CPU != 8 || r.Reached != "at least" {
		t.Errorf("%+v", r)
	}
}

func TestGoals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		goal      Goal
		measured  float64
		yardstick float64
		want      string
		bars      [2]string
	}{
		{Goal{}, 1, 1, "", [2]string{"-", "-"}},
		{Goal{RatioAbove, 0.6, 0.8}, 59, 100, "no", [2]string{"0.6 x", "0.8 x"}},
		{Goal{RatioAbove, 0.6, 0.8}, 60, 100, "at least", [2]string{"0.6 x", "0.8 x"}},
		{Goal{RatioAbove, 0.6, 0.8}, 80, 100, "proud", [2]string{"0.6 x", "0.8 x"}},
		{Goal{BeyondBelow, 30, 15}, 131, 100, "no", [2]string{"+30 B", "+15 B"}},
		{Goal{BeyondBelow, 30, 15}, 120, 100, "at least", [2]string{"+30 B", "+15 B"}},
		{Goal{BeyondBelow, 30, 15}, 90, 100, "proud", [2]string{"+30 B", "+15 B"}},
		{Goal{ValueAbove, 1000, 0}, 1000, 0, "at least", [2]string{"1,000 B", "-"}},
		{Goal{ValueBelow, 1000, 0}, 1001, 0, "no", [2]string{"1,000 B", "-"}},
		{Goal{ValueBelow, 1000, 300}, 300, 0, "proud", [2]string{"1,000 B", "300 B"}},
		{Goal{Kind: RatioAbove, Proud: 0.5}, 49, 100, "no", [2]string{"-", "0.5 x"}},
	} {
		r := Row{Unit: "B", Against: "x", Goal: c.goal, Rounds: []Round{{Measured: c.measured, Yardstick: c.yardstick}}}
		r.settle()
		atLeast, proud := r.Bars()
		if r.Reached != c.want || atLeast != c.bars[0] || proud != c.bars[1] {
			t.Errorf("%+v: %v beside %v is %q, bars %q %q", c.goal, c.measured, c.yardstick, r.Reached, atLeast, proud)
		}
	}
}

func TestNumbersAreForPeople(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 7: "7", 0.517: "0.52", 9.994: "9.99", 37.52: "37.5", 99.99: "100.0", 100.4: "100", 1000: "1,000",
		-1234567.8: "-1,234,568", math.Pi: "3.14", -0.5: "-0.50"} {
		if got := Number(v); got != want {
			t.Errorf("%v: %s; want %s", v, got, want)
		}
	}
}

func TestEveryRowHasANameOfItsOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range rows(Options{Objects: 10, Callers: 10}) {
		if r.Name == "" || r.What == "" || r.Unit == "" || seen[r.Name] || r.measure == nil {
			t.Errorf("row %+v", r.Row)
		}
		seen[r.Name] = true
		if r.Goal.Kind == RatioAbove && r.Against == "" {
			t.Errorf("%s has a ratio to nothing", r.Name)
		}
	}
	if chosen := (&row{Row: Row{Name: "large-x"}}).chosen(nil); chosen {
		t.Error("rows that take minutes are measured without being asked for")
	}
}
