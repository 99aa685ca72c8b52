package natsbus

import (
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/wire"
)

func TestWordReachesTheOthers(t *testing.T) {
	t.Parallel()
	ns := wire.Subjects("words") // the server is that of all tests
	heard := make(chan engine.Word, 10)
	one, other := connect(t), connect(t)
	if _, err := Peers(one, ns, func(w engine.Word) { heard <- w }); err != nil {
		t.Fatal(err)
	}
	if err := one.Flush(); err != nil {
		t.Fatal(err)
	}
	tell, err := Peers(other, ns, func(engine.Word) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Publish("words.control.word.nonsense", nil); err != nil {
		t.Fatal(err)
	}
	for _, w := range []engine.Word{{Partition: -1}, {Partition: 0}, {Partition: 255}} {
		tell(w)
		select {
		case got := <-heard:
			if got != w {
				t.Errorf("told %v, heard %v", w, got)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody heard of %v", w)
		}
	}
	for _, token := range []string{"", "-1", "256", "1x", "shares"} {
		if w, ok := engine.ParseWord(token); ok {
			t.Errorf("%q is the word %v", token, w)
		}
	}
}
