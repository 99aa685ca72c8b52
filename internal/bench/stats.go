package bench

import (
	"slices"
	"time"
)

// percentile is the smallest of the sorted values that at least that share of all is not above (nearest rank); share is
// from 0 to 1. It is 0 if there are no values.
func percentile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	// The smallest i with (i+1)/n >= share; a float's last bit must not make it one more.
	i := int(share*float64(len(sorted))-1e-9+1) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// Median is the middle of the values, the mean of the two in the middle if their number is even; 0 if there are none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// pairwise is the median of f over pairs of a round: what disturbs one round moves one pair.
func pairwise(rounds []Round, f func(measured, yardstick float64) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = f(r.Measured, r.Yardstick)
	}
	return Median(values)
}

// Load is what callers saw in a round.
type Load struct {
	Calls int           `json:"calls"` // that were answered
	Took  time.Duration `json:"took"`  // from the first request to the last answer
	P50   time.Duration `json:"p50"`   // of the time from request to answer
	P99   time.Duration `json:"p99"`
	CPU   time.Duration `json:"cpu"` // that the system's process took meanwhile; 0 if that is not known
}

// Rate is in calls per second.
func (l Load) Rate() float64 { return float64(l.Calls) / l.Took.Seconds() }

// cpu is what a call cost the system's process, in µs.
func cpu(l Load) float64 { return micros(l.CPU) / float64(max(l.Calls, 1)) }

// merge is the load of callers that ran side by side for so long.
func merge(took time.Duration, latencies [][]time.Duration) Load {
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return Load{Calls: len(all), Took: took, P50: percentile(all, 0.5), P99: percentile(all, 0.99)}
}
