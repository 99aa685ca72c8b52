// Package stock is the stock of one article: what is free, and what is reserved for which order.
package stock

import "github.com/perdure/perdure/engine"

// Stock is the stock of the article that its object is named after.
type Stock struct{}

// Amount is so many pieces.
type Amount struct {
	Count int64 `json:"count"`
}

// Reservation is so many pieces for an order.
type Reservation struct {
	Order string `json:"order"`
	Count int64  `json:"count"`
}

// Stocks is the class.
var Stocks = engine.Class[Stock]{Name: "stock"}

const (
	free     = engine.Key[int64]("free")
	reserved = engine.Map[string, int64]("reserved") // by order
)

const countMax = 1_000_000_000 // in one request, so that sums stay far from the end of the numbers

// Receive puts pieces on the shelf, and tells how many are free.
func (*Stock) Receive(ctx *engine.Ctx, in Amount) (Amount, error) {
	if in.Count < 1 || in.Count > countMax {
		return Amount{}, engine.Errorf(engine.Invalid, "want a count of 1 to %d", countMax)
	}
	n := free.Get(ctx) + in.Count
	free.Put(ctx, n)
	return Amount{n}, nil
}

// Reserve takes pieces off the shelf for an order, all or none, and tells how many are left. Of an order that has some
// already it wants no second word, however long ago that was: ids of requests are not kept for ever.
func (*Stock) Reserve(ctx *engine.Ctx, in Reservation) (Amount, error) {
	if in.Order == "" || in.Count < 1 || in.Count > countMax {
		return Amount{}, engine.Errorf(engine.Invalid, "want an order and a count of 1 to %d", countMax)
	}
	if has, there := reserved.Lookup(ctx, in.Order); there {
		return Amount{}, engine.Errorf(engine.Conflict, "order %s has %d already", in.Order, has)
	}
	n := free.Get(ctx)
	if in.Count > n {
		return Amount{}, engine.Errorf(engine.Refused, "%d asked, %d free", in.Count, n)
	}
	free.Put(ctx, n-in.Count)
	reserved.Put(ctx, in.Order, in.Count)
	return Amount{n - in.Count}, nil
}

// Release puts back what is reserved for an order, and tells how many are free.
func (*Stock) Release(ctx *engine.Ctx, order string) (Amount, error) {
	has, there := reserved.Lookup(ctx, order)
	if !there {
		return Amount{}, engine.Errorf(engine.NotFound, "nothing is reserved for order %q", order)
	}
	n := free.Get(ctx) + has
	free.Put(ctx, n)
	reserved.Delete(ctx, order)
	return Amount{n}, nil
}

// Free is how many are free.
func (*Stock) Free(v engine.View, _ engine.None) (Amount, error) { return Amount{free.Get(v)}, nil }
