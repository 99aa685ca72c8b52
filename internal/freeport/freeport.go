// Package freeport finds ports for processes that are ended and begun again: tests, drills, benches and clusters on one machine.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are looked for below those that systems give to outgoing connections: one of these could take the port of a process
// that is down for a moment.
const (
	least = 15000
	most  = 32000
)

const host = "127.0.0.1"

// Find returns n different ports of 127.0.0.1 that nobody listened on a moment ago.
func Find(n int) ([]int, error) {
	var ports []int
	for range 100 * (n + 1) {
		if len(ports) == n {
			return ports, nil
		}
		port := least + rand.IntN(most-least)
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue // somebody has it
		}
		defer func() { _ = l.Close() }() // when all are found, so that they differ
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("no %d free ports from %d to %d", n, least, most)
}

// Addresses is [Find] with the host before each: 127.0.0.1:15001.
func Addresses(n int) ([]string, error) {
	ports, err := Find(n)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, p := range ports {
		addresses = append(addresses, address(p))
	}
	return addresses, nil
}

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
