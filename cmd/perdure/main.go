// Command perdure is the command line with the example classes.
package main

import (
	"github.com/perdure/perdure/cmd"
	"github.com/perdure/perdure/examples/account"
	"github.com/perdure/perdure/examples/cart"
	"github.com/perdure/perdure/examples/counter"
	"github.com/perdure/perdure/examples/limiter"
	"github.com/perdure/perdure/examples/stock"
	"github.com/perdure/perdure/examples/tally"
)

func main() {
	cmd.Main(counter.Counters, tally.Tallies, account.Accounts, limiter.Limiters, cart.Carts, stock.Stocks)
}
