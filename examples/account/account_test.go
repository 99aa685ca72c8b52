package account

import (
	"testing"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/engine/enginetest"
)

func TestARefusalLeavesNoTrace(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Accounts)
	ann := Accounts.Get("ann")
	enginetest.Fails(w, engine.Refused, ann, (*Account).Deposit, Money{100})
	enginetest.Call(w, ann, (*Account).Open, "Ann")
	enginetest.Fails(w, engine.Conflict, ann, (*Account).Open, "Bob")
	enginetest.Call(w, ann, (*Account).Deposit, Money{100})
	enginetest.Call(w, ann, (*Account).Withdraw, Money{30})
	err := enginetest.Fails(w, engine.Refused, ann, (*Account).Withdraw, Money{71})
	if err.Error() != "account/ann: refused: 71 asked, 70 there" || !err.Remote || err.Retryable() {
		t.Fatal(err)
	}
	for _, again := range []func(){w.Restart, w.Crash} {
		again()
		if m := enginetest.Read(w, ann, (*Account).Balance, nil); m.Cents != 70 {
			t.Fatal(m)
		}
	}
	if n := len(enginetest.Journal(w, ann)); n != 3 {
		t.Fatal(n)
	}
}

func TestTheSameRequestDepositsOnce(t *testing.T) {
	t.Parallel()
	w := enginetest.New(t, Accounts)
	ann := Accounts.Get("ann")
	enginetest.Call(w, ann, (*Account).Open, "Ann")
	for _, again := range []func(){func() {}, func() {}, w.Restart, w.Crash} {
		again()
		if m, err := engine.Call(w, ann, (*Account).Deposit, Money{5}, engine.RequestID("order-17")); err != nil || m.Cents != 5 {
			t.Fatal(m, err)
		}
	}
}
