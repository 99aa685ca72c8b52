package engine

import (
	"fmt"
	"testing"
	"time"
)

// slashed has a key that would be an entry of a Map.
type slashed struct{}

var slashes = Class[slashed]{Name: "slashed"}

func (*slashed) Put(ctx *Ctx, _ None) (None, error) { Key[int]("pages/a").Put(ctx, 1); return nil, nil }

func (*slashed) PutMap(ctx *Ctx, _ None) (None, error) {
	Map[string, int]("pages/a").Put(ctx, "b", 1)
	return nil, nil
}

// Panic panics after it changed something.
func (*slashed) Panic(ctx *Ctx, _ None) (None, error) {
	Key[int]("n").Put(ctx, 1)
	panic(fmt.Sprintf("secret of %s", ctx.Name()))
}

func (*slashed) N(v View, _ None) (int, error) { return Key[int]("n").Get(v), nil }

// sleepy has an OnWake that the test holds up, or lets fail.
type sleepy struct{ cached int }

var sleepies = Class[sleepy]{Name: "sleepy", Limits: Limits{Turn: 20 * time.Millisecond, Idle: time.Hour}}

var wakes = map[string]chan error{"slow": make(chan error, 1), "fails": make(chan error, 1)}

func (s *sleepy) OnWake(v View) error {
	s.cached = Key[int]("n").Get(v) + 1
	if c := wakes[v.Name()]; c != nil {
		return <-c
	}
	return nil
}

func (s *sleepy) Cached(View, None) (int, error) { return s.cached, nil }
func (s *sleepy) Set(ctx *Ctx, n int) (None, error) {
	Key[int]("n").Put(ctx, n)
	return nil, nil
}

func TestOnWakeFillsTheCacheAndMayFailOrTakeTooLong(t *testing.T) {
	t.Parallel()
	w := newServer(t)
	worker := w.worker("w", func(c *Config) { c.Classes = []AnyClass{sleepies} })
	env := NewClient(worker).With(t.Context())
	must(Call(env, sleepies.Get("a"), (*sleepy).Set, 41))(t)
	o := residentObject(worker, "sleepy", "a")
	o.chore(o.evict)
	eventually(t, "evicted", func() bool { return worker.Status().Resident == 0 })
	if n := must(Read(env, sleepies.Get("a"), (*sleepy).Cached, nil))(t); n != 42 {
		t.Errorf("%d", n)
	}

	wakes["fails"] <- Errorf(Refused, "not today")
	_, err := Read(env, sleepies.Get("fails"), (*sleepy).Cached, nil)
	wantCode(t, err, Refused, "not today")
	wakes["fails"] <- nil
	eventually(t, "it is tried again", func() bool {
		n, err := Read(env, sleepies.Get("fails"), (*sleepy).Cached, nil)
		return err == nil && n == 1
	})

	_, err = Read(env, sleepies.Get("slow"), (*sleepy).Cached, nil)
	wantCode(t, err, Timeout)
	wakes["slow"] <- nil // the one that was given up ends
	wakes["slow"] <- nil
	if n := must(Read(env, sleepies.Get("slow"), (*sleepy).Cached, nil))(t); n != 1 {
		t.Errorf("%d", n)
	}
}
