// Package history keeps what concurrent callers asked of objects and were told, and has porcupine judge it: could objects
// that do one thing after the other have told it? It is for tests.
package history

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what an operation does with its object, which is a number and begins with 0.
type Kind string

// The kinds.
const (
	Add  Kind = "add"  // adds N and tells the sum
	Take Kind = "take" // takes N and tells what is left; if less than N is there it takes nothing and says so
	Read Kind = "read" // tells the number
)

// Op is one operation.
type Op struct {
	Object string
	Kind   Kind
	N      int64
}

// Told is the answer to an operation: the number, or that there is too little to take.
type Told struct {
	Value int64
	Short bool
}

// History is what callers did, in one process. Its zero value is empty. Safe for concurrent use.
type History struct {
	Name string // of the page of one that fails; so it can say what repeats it

	mu    sync.Mutex
	clock int64 // orders what it is told
	all   []*Pending
}

// Pending is an operation that was sent. Its outcome is unknown, for as long as the history lasts, until one of its
// methods says something else.
type Pending struct {
	h      *History
	client int
	op     Op
	sent   int64
	came   int64 // 0: no answer
	told   Told
	never  bool
}

// Begin says that a client, of those from 0, is about to send an operation.
func (h *History) Begin(client int, op Op) *Pending {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	p := &Pending{h: h, client: client, op: op, sent: h.clock}
	h.all = append(h.all, p)
	return p
}

// Told says what the answer was.
func (p *Pending) Told(told Told) {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.h.clock++
	p.came, p.told = p.h.clock, told
}

// Never says that the operation did not happen and never will.
func (p *Pending) Never() {
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	p.never = true
}

// Count is how many operations were answered, and of how many the outcome is unknown.
func (h *History) Count() (told, unknown int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.all {
		switch {
		case p.came != 0:
			told++
		case !p.never:
			unknown++
		}
	}
	return told, unknown
}

// Check returns an error if some object's answers do not fit into any order, and draws the first such history into a
// file, which the error names.
func (h *History) Check() error {
	objects := h.operations()
	for _, object := range slices.Sorted(maps.Keys(objects)) {
		ops := objects[object]
		if porcupine.CheckOperationsTimeout(model, ops, verdictWithin) == porcupine.Ok {
			continue
		}
		verdict, info := porcupine.CheckOperationsVerbose(model, ops, verdictWithin)
		return fmt.Errorf("the history of %s, %d operations, is not that of one object (%s): see %s", object, len(ops), verdict, h.draw(info))
	}
	return nil
}

// verdictWithin ends a search that would not end in a lifetime. It is no measure of anything: what is checked here takes
// milliseconds.
const verdictWithin = 2 * time.Minute

// operations are those that may have had an effect or were answered, by object. One without an answer may happen at any
// time from when it was sent: that it never happened is the same as that it happened last.
func (h *History) operations() map[string][]porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	objects := map[string][]porcupine.Operation{}
	for _, p := range h.all {
		if p.never || p.came == 0 && p.op.Kind == Read {
			continue
		}
		o := porcupine.Operation{ClientId: p.client, Input: p.op, Call: p.sent, Return: cmp.Or(p.came, math.MaxInt64)}
		if p.came != 0 {
			o.Output = p.told
		}
		objects[p.op.Object] = append(objects[p.op.Object], o)
	}
	return objects
}

// model is one object: the state is the number, the output a Told, or nil where the outcome is unknown.
var model = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		next, told := step(state.(int64), input.(Op))
		return output == nil || output == told, next
	},
	DescribeOperation: func(input, output any) string {
		op, text := input.(Op), "unknown"
		if told, ok := output.(Told); ok && told.Short {
			text = "too little"
		} else if ok {
			text = fmt.Sprint(told.Value)
		}
		return fmt.Sprintf("%s %d: %s", op.Kind, op.N, text)
	},
}

func step(n int64, op Op) (int64, Told) {
	switch {
	case op.Kind == Add:
		n += op.N
	case op.Kind == Take && n < op.N:
		return n, Told{Short: true}
	case op.Kind == Take:
		n -= op.N
	}
	return n, Told{Value: n}
}

// draw writes porcupine's picture of a history and returns the file's name, or why there is none.
func (h *History) draw(info porcupine.LinearizationInfo) string {
	f, err := os.CreateTemp("", "history-"+h.Name+"*.html")
	if err != nil {
		return err.Error()
	}
	if err := errors.Join(porcupine.Visualize(model, info, f), f.Close()); err != nil {
		return err.Error()
	}
	return f.Name()
}
