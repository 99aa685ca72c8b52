package bench

import "fmt"

const largeRow = "large"

// rows are all figures, in the order of the table.
func rows(o Options) []row {
	n := fmt.Sprintf("%s objects", Number(float64(o.Objects)))
	callers := fmt.Sprintf("%d callers", o.Callers)
	rate := func(name, what, against string, goal Goal, figure, yardstick side) row {
		figure.callers, yardstick.callers = o.Callers, o.Callers
		return natsRow(Row{Name: name, What: what, Unit: "calls/s", Against: against, Goal: goal}, figure, yardstick, Load.Rate)
	}
	return []row{
		rate("hot-relaxed", "one hot object, "+callers+", relaxed sync", "pipe, joined", Goal{RatioAbove, 0.6, 0.8},
			side{sync: relaxed, objects: 1, method: incrementMethod}, side{sync: relaxed, objects: 1, method: Joined}),
		rate("many-relaxed", n+", "+callers+", relaxed sync", "pipe", Goal{RatioAbove, 0.5, 0.75},
			side{sync: relaxed, objects: o.Objects, method: incrementMethod}, side{sync: relaxed, objects: o.Objects, method: Single}),
		rate("hot-always", "one hot object, "+callers+", sync always", "pipe, joined", Goal{RatioAbove, 0.5, 0.8},
			side{sync: always, objects: 1, method: incrementMethod}, side{sync: always, objects: 1, method: Joined}),
		rate("many-always", n+", "+callers+", sync always", "pipe", Goal{RatioAbove, 0.5, 0.75},
			side{sync: always, objects: o.Objects, method: incrementMethod}, side{sync: always, objects: o.Objects, method: Single}),
		rate("many-always-relaxed", n+", "+callers+", sync always", "the same, relaxed", Goal{RatioAbove, 0.75, 0.9},
			side{sync: always, objects: o.Objects, method: incrementMethod}, side{sync: relaxed, objects: o.Objects, method: incrementMethod}),
		rate("reads", "reads of one object, "+callers, "request and reply", Goal{RatioAbove, 0.7, 0.9},
			side{sync: relaxed, objects: 1, method: valueMethod}, side{sync: relaxed, objects: 1, method: Echo}),
	}
}
