package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/perdure/perdure/internal/freeport"
)

// Config says what a cluster consists of. Dir and Program are required.
type Config struct {
	// Dir is the folder of everything that is kept. What an earlier cluster of as many servers left there is used again.
	Dir string `json:"-"`

	// Program is the perdure binary, with the classes that the workers serve.
	Program string `json:"program"`

	// Servers is how many NATS servers there are, 1 to 5. Default 3. Of two, neither works when one is down.
	Servers int `json:"servers"`

	// Workers and Gateways may be none.
	Workers  int `json:"workers"`
	Gateways int `json:"gateways"`

	// ServerArgs, WorkerArgs and GatewayArgs are added to their command lines.
	ServerArgs  []string `json:"server_args,omitempty"`
	WorkerArgs  []string `json:"worker_args,omitempty"`
	GatewayArgs []string `json:"gateway_args,omitempty"`

	// NATSPort is the first of the servers' ports for clients; those for the other servers are 2000 above, those of their
	// health 4000. HTTPPort is the first of the gateways' ports; the workers' are 100 above. 0: ports that are free.
	NATSPort int `json:"nats_port"`
	HTTPPort int `json:"http_port"`

	// Detached processes outlive the one that starts them, and a Ctrl-C in its terminal. Others end with it, on Linux also
	// when it is killed.
	Detached bool `json:"detached"`
}

const serversMax = 5

func (c Config) withDefaults() Config {
	c.Servers = cmp.Or(c.Servers, 3)
	return c
}

func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Dir != "", "Dir is required")
	check(c.Program != "", "Program is required")
	check(c.Servers >= 1 && c.Servers <= serversMax, "Servers is %d; want 1 to %d", c.Servers, serversMax)
	check(c.Workers >= 0, "Workers is %d; want at least 0", c.Workers)
	check(c.Gateways >= 0, "Gateways is %d; want at least 0", c.Gateways)
	check(c.NATSPort >= 0 && c.NATSPort <= 60000, "NATSPort is %d; want at most 60000, since others are above it", c.NATSPort)
	check(c.HTTPPort >= 0 && c.HTTPPort <= 65000, "HTTPPort is %d; want at most 65000, since others are above it", c.HTTPPort)
	return errors.Join(errs...)
}

// Replicas is how many copies of each stream the servers can keep: an odd number, so that a majority is left.
func (c Config) Replicas() int {
	n := c.withDefaults().Servers
	return n - 1 + n%2
}

// ports are those of all processes, each by its number.
type ports struct {
	Client  []int `json:"client"`
	Route   []int `json:"route"`
	Monitor []int `json:"monitor"`
	Worker  []int `json:"worker"`
	Gateway []int `json:"gateway"`
}

// check wants as many as there are processes.
func (p ports) check(c Config) error {
	for _, list := range [][]int{p.Client, p.Route, p.Monitor} {
		if len(list) != c.Servers {
			return fmt.Errorf("%d ports for %d servers", len(list), c.Servers)
		}
	}
	if len(p.Worker) != c.Workers || len(p.Gateway) != c.Gateways {
		return fmt.Errorf("%d ports for %d workers, %d for %d gateways", len(p.Worker), c.Workers, len(p.Gateway), c.Gateways)
	}
	return nil
}

func (c Config) ports() (ports, error) {
	free, err := freeport.Find(3*c.Servers + c.Workers + c.Gateways)
	if err != nil {
		return ports{}, err
	}
	take := func(n, first, above int) []int {
		list := slices.Clone(free[:n])
		free = free[n:]
		for i := range list {
			if first != 0 {
				list[i] = first + above + i
			}
		}
		return list
	}
	return ports{
		Client: take(c.Servers, c.NATSPort, 0), Route: take(c.Servers, c.NATSPort, 2000), Monitor: take(c.Servers, c.NATSPort, 4000),
		Worker: take(c.Workers, c.HTTPPort, 100), Gateway: take(c.Gateways, c.HTTPPort, 0),
	}, nil
}

const host = "127.0.0.1"

func address(port int) string { return fmt.Sprintf("%s:%d", host, port) }
