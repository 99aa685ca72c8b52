// Package cart is a shopping cart: a stored collection of lines, in the order of their SKUs.
package cart

import (
	"net/http"

	"github.com/perdure/perdure/engine"
)

// Cart is one shopper's cart. Its lines are stored one by one, so a change of one does not write the others.
type Cart struct{}

// Line is so many of one article.
type Line struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
}

// Carts is the class.
var Carts = engine.Class[Cart]{Name: "cart"}

const lines = engine.Map[string, Line]("lines") // by SKU

// A cart is what one page can show.
const (
	linesMax = 200
	countMax = 1000 // of one article
)

// Add puts so many more into the cart, and tells how many there are.
func (*Cart) Add(ctx *engine.Ctx, in Line) (Line, error) {
	if in.SKU == "" || in.Count < 1 || in.Count > countMax {
		return Line{}, engine.Errorf(engine.Invalid, "want a sku and a count of 1 to %d", countMax)
	}
	old, there := lines.Lookup(ctx, in.SKU)
	in.Count += old.Count
	if in.Count > countMax || !there && full(ctx) {
		return Line{}, engine.Errorf(engine.Refused, "a cart has at most %d lines, and %d of each", linesMax, countMax)
	}
	lines.Put(ctx, in.SKU, in)
	return in, nil
}

// Remove takes a line out, whatever its count, and tells what it was.
func (*Cart) Remove(ctx *engine.Ctx, what Line) (Line, error) {
	old, there := lines.Lookup(ctx, what.SKU)
	if !there {
		return Line{}, engine.Errorf(engine.NotFound, "there is no %q in the cart", what.SKU)
	}
	lines.Delete(ctx, what.SKU)
	return old, nil
}

func full(v engine.View) bool {
	n := 0
	for range lines.All(v) {
		n++
	}
	return n >= linesMax
}

// Page asks for a part of the lines: those whose SKUs begin with Prefix, the first Limit of them (0: all).
type Page struct {
	Prefix string `json:"prefix"`
	Limit  int    `json:"limit"`
}

// Lines are the lines in the order of their SKUs.
func (*Cart) Lines(v engine.View, p Page) ([]Line, error) {
	page := []Line{}
	for _, line := range lines.Prefix(p.Prefix).Limit(p.Limit).All(v) {
		page = append(page, line)
	}
	return page, nil
}

// OnHTTP shows the cart.
func (c *Cart) OnHTTP(ctx *engine.Ctx, w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return engine.Errorf(engine.Invalid, "GET shows the cart; POST to /v1/objects/cart/%s/call/add changes it", ctx.Name())
	}
	all, err := c.Lines(ctx, Page{})
	if err != nil {
		return err
	}
	return engine.WriteJSON(w, map[string][]Line{"lines": all})
}
