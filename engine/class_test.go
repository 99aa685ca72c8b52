package engine_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

type thing struct {
	N     int
	cache int
	kept  *engine.Ctx
}

type set struct{ N int }

func (e set) Apply(t *thing) { t.N = e.N }

var things engine.Class[thing] = engine.Class[thing]{Name: "thing", Events: engine.Events[thing]{"set": set{}}, Renamed: map[string]string{"old": "emit"}}

const (
	word   = engine.Key[string]("key")
	number = engine.Key[int]("key") // the same key, misread
)

var errPlain = errors.New("plain")

func (t *thing) Emit(ctx *engine.Ctx, n int) (int, error) {
	engine.Emit(ctx, t, set{n})
	if n < 0 {
		return 0, errPlain
	}
	return t.N, nil
}
func (t *thing) Put(ctx *engine.Ctx, s string) (engine.None, error) {
	word.Put(ctx, s)
	t.cache++
	if s == "" {
		return nil, errPlain
	}
	return nil, nil
}
func (t *thing) Misread(ctx *engine.Ctx, _ engine.None) (int, error) {
	defer func() { _ = recover() }()
	return number.Get(ctx) + 1, nil
}
func (t *thing) Cache(engine.View, engine.None) (int, error) { return t.cache, nil }
func (t *thing) Value(engine.View, engine.None) (int, error) { return t.N, nil }
func (t *thing) Keep(ctx *engine.Ctx, _ engine.None) (engine.None, error) {
	t.kept = ctx
	return nil, nil
}
func (t *thing) Late(engine.View, engine.None) (string, error) { return t.kept.Name(), nil }
func (t *thing) Circle(ctx *engine.Ctx, _ engine.None) (int, error) {
	return engine.Call(ctx, things.Get("b"), (*thing).Back, nil)
}
func (t *thing) Back(ctx *engine.Ctx, _ engine.None) (int, error) {
	return engine.Call(ctx, things.Get("a"), (*thing).Emit, 1)
}

func TestFailingTurns(t *testing.T) {
	w, a := enginetest.New(t, things), things.Get("a")
	enginetest.Call(w, a, (*thing).Emit, 7)
	enginetest.Call(w, a, (*thing).Put, "x")
	enginetest.Fails(w, engine.Internal, a, (*thing).Put, "") // dropped, but the activation and its cache stay
	if n := enginetest.Read(w, a, (*thing).Cache, nil); n != 2 {
		t.Error("cache", n)
	}
	if err := enginetest.Fails(w, engine.Internal, a, (*thing).Emit, -1); !errors.Is(err, errPlain) || !err.Remote {
		t.Error(err)
	}
	n := enginetest.Read(w, a, (*thing).Value, nil)
	if cache := enginetest.Read(w, a, (*thing).Cache, nil); n != 7 || cache != 0 { // rebuilt
		t.Error(n, cache)
	}
	t.Log(enginetest.Fails(w, engine.Internal, a, (*thing).Misread, nil))
	t.Log(enginetest.Fails(w, engine.Conflict, a, (*thing).Circle, nil))
	enginetest.Call(w, a, (*thing).Keep, nil)
	_, err := engine.Read(w, a, (*thing).Late, nil)
	if t.Log(err); err == nil || !strings.Contains(err.Error(), "used after its turn (keep) ended") {
		t.Error(err)
	}
	_, err = engine.Call(w, a, func(*thing, *engine.Ctx, int) (int, error) { return 0, nil }, 1)
	if t.Log(err); !errors.Is(err, engine.Invalid) {
		t.Error(err)
	}
}

type wrong struct{ Count int }

func (*wrong) Increment(ctx *engine.Ctx) int                       { return 0 }
func (*wrong) AddID(*engine.Ctx, engine.None) (engine.None, error) { return nil, nil }
func (*wrong) AddId(*engine.Ctx, engine.None) (engine.None, error) { return nil, nil }
func (*wrong) ID(engine.View, engine.None) (int, error)            { return 0, nil }
func (*wrong) Id(engine.View, engine.None) (int, error)            { return 0, nil }
func (*wrong) OnAlram(*engine.Ctx, int) error                      { return nil }
func (*wrong) OnAlarm(*engine.Ctx, string) error                   { return nil }
func (*wrong) OnHTTP(*engine.Ctx) error                            { return nil }

func TestStartTellsAllProblemsOfAllClasses(t *testing.T) {
	err := engine.CheckClasses(engine.Class[wrong]{Name: "wrong", Renamed: map[string]string{"incr": "inc"}}, things, things,
		engine.Class[empty]{Name: "v1"}, engine.Class[empty]{Name: "a b", Limits: engine.Limits{Queue: -1}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"(*engine_test.wrong).Increment is func(*engine.Ctx) int\na method has one of the forms",
		"OnAlram: there is no such hook", "OnAlarm: this version does not serve this hook", "a class's OnHTTP is",
		`ID and Id have the same name on the wire, "id"`, "wrong.Count is exported, so it is folded state",
		`Renamed: "incr" -> "inc", but there is no method "inc"`, `class "thing" is registered twice`,
		`"v1" cannot be a class`, `"a b" is no identifier`, "has a negative one",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in\n%v", want, err)
		}
	}
}

type empty struct{}
