package limiter

import (
	"testing"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

func TestAKeyHasItsOwnBucketAndARefusalNoRecord(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Limiters)
	key := Limiters.Get("key-1")
	if left := enginetest.Call(w, key, (*Limiter).Take, burst); left != 0 {
		t.Fatal(left)
	}
	err := enginetest.Fails(w, engine.Limited, key, (*Limiter).Take, 2)
	if err.RetryAfter != 2*time.Second || !err.Overloaded() {
		t.Fatal(err.RetryAfter)
	}
	enginetest.Call(w, Limiters.Get("key-2"), (*Limiter).Take, 1) // its own bucket
	if code, body := enginetest.HTTP(w, key, "POST", "/limiter/key-1"); code != 429 {
		t.Fatal(code, body)
	}
	w.Advance(3 * every)
	if left := enginetest.Call(w, key, (*Limiter).Take, 1); left != 2 {
		t.Fatal(left)
	}
	if n := len(enginetest.Journal(w, key)); n != 2 {
		t.Fatal(n, "records")
	}
}
