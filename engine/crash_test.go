package engine

import (
	"strings"
	"testing"
)

type boom struct{}

var booms = Class[boom]{Name: "boom"}

func (*boom) Set(ctx *Ctx, n int) (None, error) {
	text.Put(ctx, strings.Repeat("x", n))
	ctx.OnCommit(func() { panic("in OnCommit") })
	return nil, nil
}

func TestCrashOnCommit(t *testing.T) {
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{booms} })
	w.ready(worker)
	if _, err := worker.Do(t.Context(), Request{Class: "boom", Name: "a", Method: "set", Body: []byte("70000")}); err != nil {
		t.Error(err)
	}
}

type frail struct{ N map[string]int }
type grown struct{ Key string }

var frailOK = true

func (e grown) Apply(f *frail) {
	if frailOK && f.N == nil {
		f.N = map[string]int{}
	}
	f.N[e.Key]++ // a later version of the class forgot the map
}
func (f *frail) Grow(ctx *Ctx, k string) (None, error) { Emit(ctx, f, grown{k}); return nil, nil }

func TestCrashApplyAtReplay(t *testing.T) {
	w := newServer(t)
	c := Class[frail]{Name: "frail", Events: Events[frail]{"grown": grown{}}}
	how := func(cfg *Config) { cfg.Classes = []AnyClass{c, registers} }
	worker := w.worker("w", how)
	w.ready(worker)
	if _, err := worker.Do(t.Context(), Request{Class: "frail", Name: "a", Method: "grow", Body: []byte(`"k"`)}); err != nil {
		t.Fatal(err)
	}
	worker.Kill()
	frailOK = false
	worker = w.worker("w", how)
	w.ready(worker)
	_, err := worker.Do(t.Context(), Request{Class: "frail", Name: "a", Method: "grow", Body: []byte(`"k"`)})
	t.Log(err)
}
