package verify

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// counted is a log of counters: so many objects with so many records each, and a snapshot record every so many.
func counted(objects, records, snapEvery int) *hand {
	h := newHand()
	h.begin()
	late := noon.Add(1000 * time.Hour)
	for n := range records {
		for i := range objects {
			name := fmt.Sprint("checkout-cart-", i)
			h.record(name, numbered(uint64(n*objects+i), uint64(n*objects+i), late, put("count", fmt.Sprint(n+1))))
			if snapEvery > 0 && (n+1)%snapEvery == 0 {
				h.snap(name, 1)
			}
		}
	}
	return h
}

// BenchmarkChecker checks counters that a client increments; an operation is a message.
func BenchmarkChecker(b *testing.B) {
	for _, c := range []struct{ objects, records, snapEvery int }{{20_000, 1, 0}, {100, 200, 0}, {100, 200, 100}} {
		h := counted(c.objects, c.records, c.snapEvery)
		b.Run(fmt.Sprintf("objects=%d/records=%d/snapshots=%v", c.objects, c.records, c.snapEvery > 0), func(b *testing.B) {
			bytes := 0
			for _, m := range h.messages {
				bytes += len(m.Data)
			}
			b.SetBytes(int64(bytes / len(h.messages)))
			b.ReportAllocs()
			var kept *Checker
			for i := 0; b.Loop(); i++ {
				if n := i % len(h.messages); n == 0 {
					kept = New(Config{Partitions: 1, Snapshotted: func(string, string) bool { return c.snapEvery > 0 }})
				}
				kept.Message(h.messages[i%len(h.messages)])
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			b.ReportMetric(perObject(h, c.snapEvery > 0), "B/object")
		})
	}
}

// perObject is how many bytes a checker keeps for an object.
func perObject(h *hand, tracked bool) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := New(Config{Partitions: 1, Snapshotted: func(string, string) bool { return tracked }})
	for _, m := range h.messages {
		c.Message(m)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	defer runtime.KeepAlive(c)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(len(c.objects))
}

// BenchmarkPartition reads the same from a log in memory; an operation is the whole stream.
func BenchmarkPartition(b *testing.B) {
	h := counted(100, 200, 100)
	_, s := h.server()
	for b.Loop() {
		r, err := Partition(b.Context(), s.Log(0), s.Meta(), Config{Partitions: 1})
		if err != nil || len(r.Findings) > 0 {
			b.Fatal(r.Findings, err)
		}
	}
	b.ReportMetric(float64(b.N*len(h.messages))/b.Elapsed().Seconds(), "messages/s")
}
