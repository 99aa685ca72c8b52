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

// linesMax keeps a cart what one page can show.
const linesMax = 200

// Add changes a line by so many, less if it is negative; a line that comes to nothing goes.
func (*Cart) Add(ctx *engine.Ctx, in Line) (Line, error) {
	if in.SKU == "" || in.Count == 0 {
		return Line{}, engine.Errorf(engine.Invalid, "want a sku and a count that is not 0")
	}
	old, there := lines.Lookup(ctx, in.SKU)
	in.Count += old.Count
	switch {
	case in.Count < 0:
		return Line{}, engine.Errorf(engine.Refused, "%d of %s are in the cart", old.Count, in.SKU)
	case !there && full(ctx):
		return Line{}, engine.Errorf(engine.Refused, "a cart has at most %d lines", linesMax)
	case in.Count == 0:
		lines.Delete(ctx, in.SKU)
	default:
		lines.Put(ctx, in.SKU, in)
	}
	return in, nil
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
