package wiretap

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/journal"
)

// TestCheckFindsWhatMustNotBe: each story is told and one thing in it is wrong, or nothing.
func TestCheckFindsWhatMustNotBe(t *testing.T) {
	epoch := func(n uint64) journal.EpochID { return journal.EpochID{Number: n, Token: journal.Token(n)} }
	commits := Commits{"counter/a": {
		1: {"s 1", epoch(1), "w"}, 2: {"s 2", epoch(1), "w"}, 3: {"s 3", epoch(2), "v"}, 4: {"s 4", epoch(2), "v"},
	}}
	asks := func(ids ...int) (list []Request) {
		for i, id := range ids {
			list = append(list, Request{Object: "counter/a", ID: fmt.Sprint("s ", id), Reply: fmt.Sprint("r", i)})
		}
		return list
	}
	later := func(all []Request, answers int) []Request { // the last one is asked after so many answers
		all[len(all)-1].After = answers
		return all
	}
	ok := func(i int, v journal.Version) Answer { return Answer{Reply: fmt.Sprint("r", i), Version: v} }
	at := func(ms int, a, b int) Members {
		return Members{time.Duration(ms) * time.Millisecond, map[string]int{"a": a, "b": b}}
	}
	for name, c := range map[string]struct {
		heard Heard
		want  string
	}{
		"all is well":            {Heard{Requests: asks(1, 2, 3, 4), Answers: []Answer{ok(0, 1), ok(1, 2), ok(2, 3), ok(3, 4)}}, ""},
		"some are not answered":  {Heard{Requests: asks(1, 2, 2, 3), Answers: []Answer{ok(0, 1), ok(2, 2)}}, ""},
		"a repeat":               {Heard{Requests: asks(3, 1), Answers: []Answer{ok(0, 3), {Reply: "r1", Version: 1, Replayed: true}}}, ""},
		"an error":               {Heard{Requests: asks(3, 1), Answers: []Answer{ok(0, 3), {Reply: "r1", Failed: true}}}, ""},
		"two answers":            {Heard{Requests: asks(1), Answers: []Answer{ok(0, 1), {Reply: "r0", Failed: true}}}, "answered twice"},
		"a former owner answers": {Heard{Requests: asks(3, 2), Answers: []Answer{ok(0, 3), ok(1, 2)}}, "worker w answers under epoch 1 0000000000000001 after worker v"},
		"a former owner is late": {Heard{Requests: asks(3, 2), Answers: []Answer{ok(0, 3), ok(1, 2)}, Stopped: true}, ""},
		"it was asked later":     {Heard{Requests: later(asks(3, 2), 1), Answers: []Answer{ok(0, 3), ok(1, 2)}, Stopped: true}, "worker w answers under epoch 1"},
		"a read":                 {Heard{Requests: append(asks(1), Request{Object: "counter/a", ID: "s 9", Reply: "r1", Method: "value"}), Answers: []Answer{ok(0, 1), ok(1, 1)}}.Without("value"), ""},
		"another order":          {Heard{Requests: asks(1, 2), Answers: []Answer{ok(1, 2), ok(0, 1)}}, "version 1 is answered after version 2"},
		"not in the journal":     {Heard{Requests: asks(1), Answers: []Answer{ok(0, 9)}}, "which the journal does not have"},
		"another's":              {Heard{Requests: asks(1), Answers: []Answer{ok(0, 2)}}, "which is of request s 2"},
		"another's, as a repeat": {Heard{Requests: asks(1), Answers: []Answer{{Reply: "r0", Version: 2, Replayed: true}}}, "which is of request s 2"},
		"nobody asked":           {Heard{Answers: []Answer{ok(0, 1)}}, "nobody asked"},
		"one reply subject":      {Heard{Requests: append(asks(1), asks(2)...)}, "two requests"},
		"one member each":        {Heard{Members: []Members{at(0, 1, 1), at(10, 0, 1), at(20, 1, 1)}}, ""},
		"two for a moment":       {Heard{Members: []Members{at(0, 1, 2), at(49, 1, 2), at(50, 2, 1), at(99, 2, 1)}}, ""},
		"two, again and again":   {Heard{Members: []Members{at(0, 2, 1), at(40, 2, 1), at(50, 1, 1), at(60, 2, 1)}}, ""},
		"two for too long":       {Heard{Members: []Members{at(0, 1, 1), at(10, 1, 2), at(20, 1, 3), at(60, 1, 2)}}, "b: 2 are subscribed"},
	} {
		var got []string
		for _, f := range Check(c.heard, commits, 50*time.Millisecond) {
			got = append(got, f.String())
		}
		if all := strings.Join(got, "\n"); c.want == "" && all != "" || !strings.Contains(all, c.want) || len(got) > 1 {
			t.Errorf("%s: %q; want %q", name, all, c.want)
		}
	}
	other := Commits{"counter/a": {1: {"s 1", epoch(1), "w"}, 2: {"s 2", journal.EpochID{Number: 1, Token: 9}, "v"}}}
	if got := Check(Heard{Requests: asks(1, 2), Answers: []Answer{ok(0, 1), ok(1, 2)}}, other, 0); len(got) != 1 {
		t.Errorf("two epochs of one number: %v", got)
	}
}
