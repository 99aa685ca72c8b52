package main

import (
	"strings"
	"testing"
)

func TestAnOrderIsCheckedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	pear := item{"pear", 1}
	long := strings.Repeat("x", nameMax+1)
	for _, bad := range []order{
		{}, {"", "ann", []item{pear}}, {"17", "", []item{pear}}, {"1/7", "ann", []item{pear}}, {"1\n7", "ann", []item{pear}},
		{long, "ann", []item{pear}}, {"17", "ann", nil}, {"17", "ann", make([]item, itemsMax+1)}, {"17", "ann", []item{pear, pear}},
		{"17", "ann", []item{{"pear", 0}}}, {"17", "ann", []item{{"pear", 1001}}}, {"17", "ann", []item{{long, 1}}},
	} {
		if bad.check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := (order{"17", "ann", []item{pear, {"fig/1", 1000}}}).check(); err != nil {
		t.Error(err)
	}
}

// TestTheSameOrderIsTheSameMessages: subject, id and body, which is what makes a repeat the same request.
func TestTheSameOrderIsTheSameMessages(t *testing.T) {
	t.Parallel()
	var got []string
	for _, m := range (order{"17", "ann@example.com", []item{{"pear", 2}, {"fig ü", 1}}}).messages() {
		got = append(got, m.Subject+" "+m.Header.Get("Perdure-Request-Id")+" "+string(m.Data))
	}
	want := `objects.send.cart.ann@example%2Ecom.add 17/pear {"sku":"pear","count":2}
objects.send.stock.pear.reserve 17/pear {"count":2,"order":"17"}
objects.send.cart.ann@example%2Ecom.add 17/fig ü {"sku":"fig ü","count":1}
objects.send.stock.fig%20%C3%BC.reserve 17/fig ü {"count":1,"order":"17"}`
	if have := strings.Join(got, "\n"); have != want {
		t.Errorf("%s\nwant %s", have, want)
	}
}
