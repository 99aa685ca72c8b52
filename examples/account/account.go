// Package account is a bank account: typed events, rules that refuse.
package account

import "github.com/perdure/perdure/engine"

// Account is what its events say.
type Account struct {
	Owner string
	Money
}

type Money struct {
	Cents int64 `json:"cents"`
}

type (
	Opened    struct{ Owner string }
	Deposited struct{ Money }
	Withdrawn struct{ Money }
)

func (e Opened) Apply(a *Account)    { a.Owner = e.Owner }
func (e Deposited) Apply(a *Account) { a.Cents += e.Cents }
func (e Withdrawn) Apply(a *Account) { a.Cents -= e.Cents }

var Accounts = engine.Class[Account]{
	Name: "account",
	Events: engine.Events[Account]{
		"opened":    Opened{},
		"deposited": Deposited{},
		"withdrawn": Withdrawn{},
	},
}

func (a *Account) Open(ctx *engine.Ctx, owner string) (engine.None, error) {
	if a.Owner != "" {
		return nil, engine.Errorf(engine.Conflict, "account %s is %s's", ctx.Name(), a.Owner)
	}
	engine.Emit(ctx, a, Opened{owner})
	return nil, nil
}

func (a *Account) Deposit(ctx *engine.Ctx, m Money) (Money, error) {
	if err := a.check(m); err != nil {
		return Money{}, err
	}
	engine.Emit(ctx, a, Deposited{m})
	return a.Money, nil
}

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
