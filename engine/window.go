package engine

import (
	"sort"

	"github.com/perdure/perdure/journal"
)

// window accounts for what a writer has sent in one epoch and was not told of yet. It starts nothing, waits for nothing
// and reads no clock. T is what a flight carries for its sender.
//
// Invariant: flights is sorted by position, without gaps, and ends before next.
// Once failed, a window stays failed: the epoch is over, and whatever is not told is unknown.
type window[T any] struct {
	next    journal.Seq // where the next message will be
	flights []flight[T]
	told    int // flights before it are told; the slice is moved when half of it is
	bytes   int
	failed  bool
}

// flight is one append: a message, or an atomic batch.
type flight[T any] struct {
	last     journal.Seq // position of its last message
	messages int
	bytes    int
	answered bool
	outcome  journal.Outcome
	what     T
}

// inFlight is how many messages are sent and not told.
func (w *window[T]) inFlight() int {
	n := 0
	if w.told < len(w.flights) {
		head := w.flights[w.told]
		n = int(w.next-head.last) - 1 + head.messages
	}
	return n
}

// room tells whether so much may be sent now. What is larger than the whole window goes when nothing is in flight.
func (w *window[T]) room(messages, bytes int) bool {
	n := w.inFlight()
	return !w.failed && n+messages <= journal.Window && (n == 0 || w.bytes+bytes <= journal.WindowBytes)
}

// send reserves the next positions and returns the one before them: what the append expects the stream to end with.
func (w *window[T]) send(messages, bytes int, what T) (behind journal.Seq) {
	behind = w.next - 1
	w.next += journal.Seq(messages)
	w.bytes += bytes
	w.flights = append(w.flights, flight[T]{last: w.next - 1, messages: messages, bytes: bytes, what: what})
	return behind
}

// answer notes an answer. One for a position that is not in flight is from before, and counts for nothing.
func (w *window[T]) answer(last journal.Seq, o journal.Outcome) {
	open := w.flights[w.told:]
	i := 0
	if len(open) > 0 && open[0].last != last { // mostly they come in order
		i = sort.Search(len(open), func(i int) bool { return open[i].last >= last })
	}
	if i < len(open) && open[i].last == last && !open[i].answered {
		open[i].answered, open[i].outcome = true, o
	}
}

// tell pops the next flight whose fate is certain: in order of position, so that a refusal that overtakes earlier
// answers waits for them, and behind one that is not stored all are unknown, whatever their own answers say.
func (w *window[T]) tell() (what T, last journal.Seq, o journal.Outcome, ok bool) {
	if w.told == len(w.flights) || !w.failed && !w.flights[w.told].answered {
		return what, 0, 0, false
	}
	f := &w.flights[w.told]
	o = f.outcome
	if w.failed {
		o = journal.Unknown
	}
	w.failed = w.failed || o != journal.Stored
	w.bytes -= f.bytes
	what, last = f.what, f.last
	*f = flight[T]{}
	w.told++
	if w.told == len(w.flights) {
		w.flights, w.told = w.flights[:0], 0
	} else if w.told >= journal.Window {
		w.flights, w.told = append(w.flights[:0], w.flights[w.told:]...), 0
	}
	return what, last, o, true
}

// fail ends the epoch: what is not told yet is unknown.
func (w *window[T]) fail() { w.failed = true }
