package freeport

import (
	"net"
	"slices"
	"testing"
)

func TestPortsAreFreeAndDiffer(t *testing.T) {
	t.Parallel()
	addresses, err := Addresses(50)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addresses)
	if n := len(slices.Compact(addresses)); n != 50 {
		t.Errorf("%d different ones of 50", n)
	}
	l, err := net.Listen("tcp", addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
