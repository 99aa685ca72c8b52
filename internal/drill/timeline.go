package drill

import (
	"math/bits"
	"slices"
	"time"
)

// BucketWidth is the grain of the time line.
const BucketWidth = 100 * time.Millisecond

// Bucket is what came in [BucketWidth].
type Bucket struct {
	Answers  int // of calls
	Failures int // tries without an answer, or with one that says to try again
	P50      time.Duration
	P99      time.Duration
	Max      time.Duration
}

// timeline keeps buckets, and the latencies of the last one only. Times never decrease.
type timeline struct {
	buckets []Bucket
	open    []time.Duration
}

// at is the bucket of a time.
func (t *timeline) at(now time.Duration) *Bucket {
	i := int(now / BucketWidth)
	if len(t.buckets) <= i {
		t.close()
		t.buckets = append(t.buckets, make([]Bucket, i+1-len(t.buckets))...)
	}
	return &t.buckets[len(t.buckets)-1]
}

func (t *timeline) answer(now, took time.Duration) {
	t.at(now).Answers++
	t.open = append(t.open, took)
}

// close ends the last bucket.
func (t *timeline) close() {
	if len(t.open) == 0 {
		return
	}
	slices.Sort(t.open)
	b := &t.buckets[len(t.buckets)-1]
	b.P50, b.P99, b.Max = percentile(t.open, 0.5), percentile(t.open, 0.99), t.open[len(t.open)-1]
	t.open = t.open[:0]
}

// percentile is the smallest of the sorted values that at least that share of all is not above; 0 if there are none.
func percentile[T ~int64 | ~uint32](sorted []T, share float64) T {
	if len(sorted) == 0 {
		return 0
	}
	i := int(share*float64(len(sorted))-1e-9+1) - 1 // a float's last bit must not make it one more
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// histogram counts durations in µs, to a thirty-second of their size.
type histogram struct {
	counts [64 * 32]int
	n      int
	max    time.Duration
}

const histogramBits = 5

func (h *histogram) add(d time.Duration) {
	v := uint64(max(d.Microseconds(), 0))
	shift := max(bits.Len64(v)-histogramBits-1, 0)
	h.counts[shift<<histogramBits+int(v>>shift)]++
	h.n++
	h.max = max(h.max, d)
}

// percentile is at least that of what was added, and at most a thirty-second above.
func (h *histogram) percentile(share float64) time.Duration {
	want, seen := int(share*float64(h.n)-1e-9+1), 0
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= want {
			shift, v := 0, i
			if i >= 2<<histogramBits {
				shift = i>>histogramBits - 1
				v = i - shift<<histogramBits
			}
			return min(time.Duration((v+1)<<shift-1)*time.Microsecond, h.max)
		}
	}
	return 0
}
