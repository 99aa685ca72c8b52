package engine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

func message(seq journal.Seq, id string) journal.Message {
	return journal.Message{Seq: seq, Subject: id, Time: time.Unix(int64(seq), 0)}
}

func TestPassageStories(t *testing.T) {
	tell(t, "passage", func() func(string, []string) string {
		p := restored(journal.InboxMark{}, time.Time{}, 0)
		p.openMax = 100
		return func(command string, args []string) string {
			num := func(i int) int { n, _ := strconv.Atoi(args[i]); return n }
			switch command {
			case "open": // MAX
				p.openMax = num(0)
			case "take": // SEQ OBJECT
				p.take(message(journal.Seq(num(0)), args[1]), snapshot.ID(args[1]))
			case "settle": // SEQ OBJECT
				p.settle(snapshot.ID(args[1]), journal.Seq(num(0)))
			case "hold": // SEQ OBJECT
				p.hold(snapshot.ID(args[1]), journal.Seq(num(0)))
			case "free": // OBJECT
				delete(p.held, snapshot.ID(args[0]))
			case "again": // another owner goes on from the checkpoint
				p = restored(p.mark(1, time.Time{}, 0), time.Time{}, 0)
				p.openMax = 100
			default:
				return "no such command"
			}
			var said strings.Builder
			fmt.Fprintf(&said, "cursor %d, taken %d", p.cursor, p.position)
			for _, k := range p.mark(1, time.Time{}, 0).Held {
				fmt.Fprintf(&said, "; %s.%s from %d to %d", k.Class, k.Token, k.First, k.Last)
			}
			return said.String()
		}
	})
}

// TestThePassagePassesNothingThatIsNotAnsweredOrHeld holds the passage against its invariant under any order of events, with
// owners that go on from the checkpoint of the one before.
func TestThePassagePassesNothingThatIsNotAnsweredOrHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := []snapshot.ID{"c.a", "c.b", "c.d"}
		objects := map[journal.Seq]snapshot.ID{} // by message
		answered := map[journal.Seq]bool{}
		var end journal.Seq
		p := restored(journal.InboxMark{}, time.Time{}, 0)
		out := map[snapshot.ID][]journal.Seq{} // handed to an object, in order
		openMax := rapid.IntRange(1, 8).Draw(t, "open")
		p.openMax = openMax
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			id := rapid.SampledFrom(ids).Draw(t, "object")
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1: // the next message is taken
				seq := p.position + 1
				if seq > end {
					end, objects[seq] = seq, id
				}
				id = objects[seq]
				if p.held[id] == nil {
					out[id] = append(out[id], seq)
				}
				p.take(message(seq, string(id)), id)
			case 2, 3: // an object answers its next one
				if len(out[id]) > 0 {
					answered[out[id][0]] = true
					p.settle(id, out[id][0])
					out[id] = out[id][1:]
				}
			case 4: // it cannot, nor any that it was handed behind that one
				for _, seq := range out[id] {
					p.settle(id, seq)
					p.hold(id, seq)
				}
				delete(out, id)
			case 5: // its held ones are answered, if none of its is under way
				if h := p.held[id]; h != nil && len(out[id]) == 0 {
					for seq := h.first; seq <= h.seen; seq++ {
						answered[seq] = answered[seq] || objects[seq] == id
					}
					delete(p.held, id)
				}
			case 6: // another owner; what is under way ends without a word
				m := p.mark(1, time.Time{}, 0)
				if p = restored(m, time.Time{}, 0); rapid.Bool().Draw(t, "rarely") {
					p.openMax = openMax
				} else {
					p.openMax = 1000
				}
				clear(out)
			}
			m := p.mark(1, time.Time{}, 0)
			var at time.Time
			for seq := journal.Seq(1); seq <= m.Cursor; seq++ {
				i := slices.IndexFunc(m.Held, func(k journal.Held) bool { return snapshot.ID(k.Class+"."+k.Token) == objects[seq] })
				if !answered[seq] && (i < 0 || seq < m.Held[i].First || seq > m.Held[i].Last) {
					t.Fatalf("the cursor is at %d, and message %d to %s is not answered: %+v", m.Cursor, seq, objects[seq], m.Held)
				}
				at = message(seq, "").Time
			}
			if m.Cursor > 0 && (m.Hash != journal.MessageHash(message(m.Cursor, string(objects[m.Cursor]))) || !m.At.Equal(at)) {
				t.Fatalf("the mark %+v is not of the message at its cursor", m)
			}
			if len(p.open) > openMax+1 && p.openMax == openMax {
				t.Fatalf("%d messages are open; at most %d", len(p.open), openMax)
			}
		}
	})
}
