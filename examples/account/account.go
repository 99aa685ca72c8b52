// Package account is a bank account: typed events, rules that refuse.
package account

import "github.com/perdure/perdure/engine"

// Account is what its events say.
type Account struct {
	Owner string `json:"owner"`
	Money
}

// Money is an amount, in deposits and withdrawals and as the balance.
type Money struct {
	Cents int64 `json:"cents"`
}

type (
	// Opened is the first event of an account.
	Opened struct {
		Owner string `json:"owner"`
	}
	// Deposited is money that came.
	Deposited struct{ Money }
	// Withdrawn is money that went.
	Withdrawn struct{ Money }
)

// Apply folds the event.
func (e Opened) Apply(a *Account) { a.Owner = e.Owner }

// Apply folds the event.
func (e Deposited) Apply(a *Account) { a.Cents += e.Cents }

// Apply folds the event. The rules were asked before it happened: it does not ask again.
func (e Withdrawn) Apply(a *Account) { a.Cents -= e.Cents }

// Accounts is the class.
var Accounts = engine.Class[Account]{
	Name: "account",
	Events: engine.Events[Account]{
		"opened":    Opened{},
		"deposited": Deposited{},
		"withdrawn": Withdrawn{},
	},
}

// Open gives the account its owner, once.
func (a *Account) Open(ctx *engine.Ctx, owner string) (engine.None, error) {
	if a.Owner != "" {
		return nil, engine.Errorf(engine.Conflict, "account %s is %s's", ctx.Name(), a.Owner)
	}
	engine.Emit(ctx, a, Opened{owner})
	return nil, nil
}

// Deposit puts money in, and tells the balance.
func (a *Account) Deposit(ctx *engine.Ctx, m Money) (Money, error) {
	if err := a.check(m); err != nil {
		return Money{}, err
	}
	engine.Emit(ctx, a, Deposited{m})
	return a.Money, nil
}

// Withdraw takes money that is there, and tells the balance.
func (a *Account) Withdraw(ctx *engine.Ctx, m Money) (Money, error) {
	if err := a.check(m); err != nil {
		return Money{}, err
	}
	if m.Cents > a.Cents {
		return Money{}, engine.Errorf(engine.Refused, "%d asked, %d there", m.Cents, a.Cents)
	}
	engine.Emit(ctx, a, Withdrawn{m})
	return a.Money, nil
}

// Balance is what is there.
func (a *Account) Balance(engine.View, engine.None) (Money, error) { return a.Money, nil }

func (a *Account) check(m Money) error {
	switch {
	case m.Cents <= 0:
		return engine.Errorf(engine.Invalid, "cents must be positive, not %d", m.Cents)
	case a.Owner == "":
		return engine.Errorf(engine.Refused, "the account is not open")
	}
	return nil
}
