package engine

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/journal"
)

func parseOutcome(s string) journal.Outcome {
	return map[string]journal.Outcome{"stored": journal.Stored, "refused": journal.Refused, "unknown": journal.Unknown}[s]
}

func TestWindowStories(t *testing.T) {
	tell(t, "window", func() func(string, []string) string {
		w := &window[string]{next: 1}
		return func(command string, args []string) string {
			num := func(i int) int { n, _ := strconv.Atoi(args[i]); return n }
			switch command {
			case "send": // NAME [messages]
				n := 1
				if len(args) > 1 {
					n = num(1)
				}
				return fmt.Sprintf("behind %d", w.send(n, 100*n, args[0]))
			case "fill": // N
				for i := range num(0) {
					w.send(1, 100, fmt.Sprint("r", i+1))
				}
				return fmt.Sprintf("%d in flight", w.inFlight())
			case "answer": // POSITION OUTCOME
				w.answer(journal.Seq(num(0)), parseOutcome(args[1]))
			case "fail":
				w.fail()
			case "room": // messages bytes
				return fmt.Sprint(w.room(num(0), num(1)))
			default:
				return "no such command"
			}
			var told []string
			for {
				what, last, o, ok := w.tell()
				if !ok {
					break
				}
				told = append(told, fmt.Sprintf("%s at %d: %s", what, last, o))
			}
			return strings.Join(told, "\n")
		}
	})
}

// TestWindowTellsEachOnceAndNothingStoredBehindAGap holds the window against its contract under any order of answers.
func TestWindowTellsEachOnceAndNothingStoredBehindAGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &window[int]{next: 1}
		answers := map[journal.Seq]journal.Outcome{}
		var told []journal.Outcome
		pump := func() {
			for {
				what, last, o, ok := w.tell()
				if !ok {
					return
				}
				if what != len(told) || int(last) != what+1 {
					t.Fatalf("told %d at %d, want %d", what, last, len(told))
				}
				told = append(told, o)
			}
		}
		sent := 0
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			if sent < 550 && rapid.Bool().Draw(t, "send") {
				if w.room(1, 100) {
					w.send(1, 100, sent)
					sent++
				} else if !w.failed && w.inFlight() < journal.Window {
					t.Fatal("no room in a window that is not full")
				}
			} else if sent > 0 {
				seq := journal.Seq(rapid.IntRange(1, sent).Draw(t, "seq"))
				o := journal.Outcome(rapid.SampledFrom([]int{1, 1, 1, 1, 1, 1, 1, 1, 2, 0}).Draw(t, "outcome"))
				if _, twice := answers[seq]; !twice && int(seq) > len(told) {
					answers[seq] = o
				}
				w.answer(seq, o)
			}
			pump()
		}
		w.fail()
		pump()
		if len(told) != sent || w.inFlight() != 0 || w.bytes != 0 {
			t.Fatalf("%d told of %d; %d messages and %d bytes left", len(told), sent, w.inFlight(), w.bytes)
		}
		broken := false
		for i, o := range told {
			if o == journal.Stored && (broken || answers[journal.Seq(i+1)] != journal.Stored) {
				t.Fatalf("%d told as stored", i+1)
			}
			broken = broken || o != journal.Stored
		}
	})
}
