package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// tells listens until n commits were told, or it ends by itself.
func (w *world) tells(h *Hub, want Want, n int) (got []commit, place string, err error) {
	l, err := h.Listen(w.t.Context(), want)
	if err != nil {
		return nil, "", err
	}
	err = l.Run(w.t.Context(), func(events []Event) error {
		for _, e := range events {
			got, place = append(got, w.of(e)), e.ID
		}
		if len(got) >= n {
			return errLeft
		}
		return nil
	})
	if err == errLeft {
		err = nil
	}
	return got, place, err
}

// settled waits until listeners have rested, and nothing goes on any more.
func settled() {
	<-time.After(time.Millisecond)
	synctest.Wait()
}

func TestWhatIsNotDurableIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var open func()
		h := w.hub(Config{Durable: func(_ string, _ journal.Seq, f func()) { open = f }})
		w.commit("a", "x", 1, false)
		told := make(chan commit, 10)
		var begun bool
		go func() {
			l, err := h.Listen(t.Context(), Want{From: Start})
			if err != nil {
				t.Error(err)
				return
			}
			begun = true
			_ = l.Run(t.Context(), func(events []Event) error {
				for _, e := range events {
					told <- w.of(e)
				}
				return nil
			})
		}()
		synctest.Wait()
		if begun {
			t.Error("it begins at what may be lost")
		}
		open()
		if c := <-told; c.version != 1 {
			t.Error(c)
		}
		open = nil
		for range 3 {
			w.commit("a", "x", 1, false)
		}
		settled()
		if len(told) != 0 || open == nil {
			t.Fatalf("%d told", len(told))
		}
		ask := open
		open = nil
		ask() // of the first that came
		settled()
		if len(told) != 1 || open == nil {
			t.Errorf("%d told", len(told))
		}
		open()
		settled()
		if len(told) != 3 {
			t.Errorf("%d told", len(told))
		}
		h.Close()
	})
}

func TestWhoListensToOneObjectIsNotCutByTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		h := w.hub(Config{MemoryBytes: 5000})
		l, err := h.Listen(t.Context(), Want{Class: "a", Name: "quiet"})
		if err != nil {
			t.Fatal(err)
		}
		var got []commit
		ended := make(chan error, 1)
		go func() {
			ended <- l.Run(t.Context(), func(events []Event) error {
				for _, e := range events {
					got = append(got, w.of(e))
				}
				if len(got) == 2 {
					return errLeft
				}
				return nil
			})
		}()
		synctest.Wait() // it listens
		for range 2 {
			for range 100 { // more than memory holds, and nothing wakes it
				w.commit("a", "loud", 1, false)
			}
			synctest.Wait()
			w.commit("a", "quiet", 1, false)
			<-time.After(time.Second) // it rests between two looks
		}
		if err := <-ended; err != errLeft || len(got) != 2 {
			t.Errorf("%v, %v", got, err)
		}
		h.Close()
	})
}

func TestWhatWasPurgedIsNotPassedOverInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		purge := func(name string, before journal.Seq) {
			t.Helper()
			s, err := w.connect(t.Context())
			if err == nil {
				err = s.Log(0).Purge(t.Context(), ns.Journal("a", name), before)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		h := w.hub(Config{})
		w.commit("a", "kept", 1, false)
		w.commit("a", "purged", 1, false)
		first := w.commit("a", "purged", 1, false)
		_, place, err := w.tells(h, Want{From: Start}, 3)
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			w.commit("a", "kept", 1, false)
			w.commit("a", "purged", 1, false)
		}
		w.commit("a", "new", 1, false)
		purge("purged", first) // nothing that is to be told
		if got, _, err := w.tells(h, Want{From: place}, 11); err != nil || len(got) != 11 {
			t.Errorf("%d, %v", len(got), err)
		}
		last := w.commit("a", "purged", 1, false)
		purge("purged", last)
		got, _, err := w.tells(h, Want{From: place}, 100)
		if !errors.Is(err, engine.Conflict) || !strings.Contains(err.Error(), "a/purged were purged") || len(got) != 6 {
			t.Errorf("%d told, %v", len(got), err)
		}
		if _, _, err := w.tells(h, Want{From: fmt.Sprint(first), Class: "a", Name: "purged"}, 1); !errors.Is(err, engine.Conflict) {
			t.Errorf("of one object: %v", err)
		}
		if got, _, err := w.tells(h, Want{From: Start}, 8); err != nil || len(got) != 8 || got[7].version != 8 {
			t.Errorf("from the start: %v, %v", got, err)
		}
		h.Close()
	})
}

// TestThePastEndsAlthoughItsLastRecordWasPurged: memory begins at a record that is purged while a listener reads up to it.
func TestThePastEndsAlthoughItsLastRecordWasPurged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		for range 3 {
			w.commit("b", "x", 1, false)
		}
		low := w.commit("a", "x", 1, false)
		h := w.hub(Config{})
		l, err := h.Listen(t.Context(), Want{Class: "b", From: Start}) // memory begins at low
		if err != nil {
			t.Fatal(err)
		}
		w.commit("a", "x", 1, false)
		s, _ := w.connect(t.Context())
		if err := s.Log(0).Purge(t.Context(), ns.Journal("a", "x"), low+1); err != nil {
			t.Fatal(err)
		}
		w.commit("b", "x", 1, false)
		var got []commit
		if err := l.Run(t.Context(), func(events []Event) error {
			for _, e := range events {
				got = append(got, w.of(e))
			}
			if len(got) == 4 {
				return errLeft
			}
			return nil
		}); err != errLeft {
			t.Error(err)
		}
		if diff := missing(w.wanted(Want{Class: "b"}), byPartition(got)); diff != "" {
			t.Error(diff)
		}
		h.Close()
	})
}

func TestListenersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.commit("a", "x", 1, false)
		h := w.hub(Config{ListenersMax: 2, ReadersMax: 1})
		first, err := h.Listen(t.Context(), Want{From: Start})
		if err != nil || h.Listeners() != 1 {
			t.Fatal(err)
		}
		_, err = h.Listen(t.Context(), Want{From: Start})
		if e, ok := errors.AsType[*engine.Error](err); !ok || e.Code != engine.Overloaded || e.RetryAfter != retryListen || !strings.Contains(e.Detail, "read the past") {
			t.Error(err)
		}
		second, err := h.Listen(t.Context(), Want{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Listen(t.Context(), Want{}); !errors.Is(err, engine.Overloaded) || !strings.Contains(err.Error(), "at most 2") {
			t.Error(err)
		}
		first.Close()
		first.Close()
		third, err := h.Listen(t.Context(), Want{From: Start})
		if err != nil {
			t.Error(err)
		}
		third.Close()
		second.Close()
		synctest.Wait()
		if h.tail != nil || h.Listeners() != 0 || len(h.readers) != 0 {
			t.Errorf("nobody listens, and %v is followed; %d, %d", h.tail, h.Listeners(), len(h.readers))
		}
		h.Close()
		if _, err := h.Listen(t.Context(), Want{}); !errors.Is(err, engine.Unavailable) {
			t.Error(err)
		}
	})
}

func TestAHubThatCannotConnectSaysSo(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Life: life, Partitions: 1, Connect: func(context.Context) (journal.Session, error) { return nil, errors.New("no server") }})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for range 2 {
		if _, err := h.Listen(t.Context(), Want{}); !errors.Is(err, engine.Unavailable) || !strings.Contains(err.Error(), "no server") {
			t.Error(err)
		}
	}
	if _, err := New(Config{Partitions: 1 + wire.Slots, MemoryBytes: -1}); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Error(err)
	}
}

func TestPlacesAreReadAsTheyAreWritten(t *testing.T) {
	t.Parallel()
	at := []spot{{seq: 260}, {}, {seq: 17, part: 2}}
	text := formatPlace(life, at)
	if text != "3f9a0c12.260.0.17:2" {
		t.Error(text)
	}
	got, err := parsePlace(text, life, 3)
	if err != nil || formatPlace(life, got) != text {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "3f9a0c12", "3f9a0c12.1", "3f9a0c12.1.2.3.4", "3f9a0c13.1.2.3", "3f9a0c12.1.2.x", "3f9a0c12.1.2.", "3f9a0c12.1.2.3:0",
		"3f9a0c12.1.2.0:1", "3f9a0c12.1.2.3:", "3f9a0c12.1.2.-3", "3f9a0c12.1.2.18446744073709551616", "3f9a0c12.1.2.3:99999999999"} {
		if got, err := parsePlace(bad, life, 3); !errors.Is(err, engine.Invalid) {
			t.Errorf("%q: %v, %v", bad, got, err)
		}
	}
}

func FuzzPlace(f *testing.F) {
	f.Add("3f9a0c12.260.0.17:2")
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parsePlace(text, life, 3)
		if err != nil {
			return
		}
		again, err := parsePlace(formatPlace(life, at), life, 3)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(at) {
			t.Errorf("%q: %v, %v, %v", text, at, again, err)
		}
	})
}

func TestAHeartbeatComesWhileThePastIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.commit("a", "x", 1, false)
		low := w.commit("a", "x", 1, false)
		h := w.hub(Config{Heartbeat: time.Second})
		l, err := h.Listen(t.Context(), Want{Class: "b", From: Start})
		if err != nil {
			t.Fatal(err)
		}
		s, _ := w.connect(t.Context())
		if err := s.Log(0).Purge(t.Context(), ns.Journal("a", "x"), low+1); err != nil { // by hand: nothing is left
			t.Fatal(err)
		}
		beats := 0
		err = l.Run(t.Context(), func(events []Event) error {
			if len(events) == 0 {
				beats++
			}
			return nil
		})
		if !errors.Is(err, engine.Unavailable) || !strings.Contains(err.Error(), "does not deliver") || beats < 50 {
			t.Errorf("%d, %v", beats, err)
		}
		h.Close()
	})
}

// TestWhatWasPurgedWhileThePastWasReadIsFound: what is left of the object came after memory began, and is told from there.
func TestWhatWasPurgedWhileThePastWasReadIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		h := w.hub(Config{})
		w.commit("a", "x", 1, false)
		_, place, err := w.tells(h, Want{From: Start}, 1)
		if err != nil {
			t.Fatal(err)
		}
		w.commit("a", "x", 1, false)
		w.commit("b", "y", 1, false)
		l, err := h.Listen(t.Context(), Want{From: place}) // memory begins
		if err != nil {
			t.Fatal(err)
		}
		last := w.commit("a", "x", 1, false)
		s, _ := w.connect(t.Context())
		if err := s.Log(0).Purge(t.Context(), ns.Journal("a", "x"), last); err != nil {
			t.Fatal(err)
		}
		settled()
		n := 0
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := l.Run(ctx, func(events []Event) error { n += len(events); return nil }); !errors.Is(err, engine.Conflict) || n != 1 {
			t.Errorf("%d told, %v", n, err)
		}
		h.Close()
	})
}
