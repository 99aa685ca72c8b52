package cluster

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed nats.conf
var serverConfig []byte

// Cluster is the processes of one folder.
type Cluster struct {
	Servers, Workers, Gateways []*Process

	dir  string
	kept state
}

// state is what the folder says of the cluster.
type state struct {
	Config
	Ports ports `json:"ports"`
}

const (
	stateFile  = "cluster.json"
	configFile = "nats.conf"
)

// New prepares a cluster and starts nothing. It is [ErrRunning] if anything of the folder runs.
func New(cfg Config) (*Cluster, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	var err error
	for _, path := range []*string{&cfg.Dir, &cfg.Program} { // the processes may be started from another folder
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, fmt.Errorf("cluster: %w", err)
		}
	}
	if err := cfg.mayUse(); err != nil {
		return nil, err
	}
	kept := state{Config: cfg}
	if kept.Ports, err = cfg.ports(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	text, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	err = errors.Join(os.MkdirAll(cfg.Dir, 0o750),
		os.WriteFile(filepath.Join(cfg.Dir, stateFile), text, 0o640),
		os.WriteFile(filepath.Join(cfg.Dir, configFile), serverConfig, 0o640))
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	return of(kept), nil
}

// mayUse looks at what an earlier cluster left in the folder.
func (c Config) mayUse() error {
	old, err := Open(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	running, err := old.Running()
	switch {
	case err != nil:
		return err
	case len(running) > 0:
		return fmt.Errorf("cluster in %s: %s: %w", c.Dir, strings.Join(running, ", "), ErrRunning)
	case len(old.Servers) != c.Servers: // they know each other, and would wait for those that are gone
		return fmt.Errorf("the folder %s is of %d servers, and %d were asked for: take another folder, or delete it with what is in it",
			c.Dir, len(old.Servers), c.Servers)
	}
	return nil
}

// Open finds the cluster that was prepared in a folder, perhaps by another process. The error is [fs.ErrNotExist] if there
// is none.
func Open(dir string) (*Cluster, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	var kept state
	if err := json.Unmarshal(text, &kept); err != nil {
		return nil, fmt.Errorf("cluster: %s: %w", filepath.Join(dir, stateFile), err)
	}
	if kept.Dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := errors.Join(kept.validate(), kept.Ports.check(kept.Config)); err != nil {
		return nil, fmt.Errorf("cluster: %s: %w", filepath.Join(dir, stateFile), err)
	}
	return of(kept), nil
}

// of makes the processes of a cluster.
func of(kept state) *Cluster {
	c := &Cluster{dir: kept.Dir, kept: kept}
	for i, port := range kept.Ports.Client {
		p := c.process(Server, fmt.Sprintf("nats%d", i+1), fmt.Sprintf("http://%s/healthz", address(kept.Ports.Monitor[i])),
			append([]string{ServerCommand, "-c", filepath.Join(c.dir, configFile)}, kept.ServerArgs...))
		p.URL = "nats://" + address(port)
		p.env = append(p.env, c.serverEnv(i, p)...)
		c.Servers = append(c.Servers, p)
	}
	for i, port := range kept.Ports.Worker {
		name := fmt.Sprintf("worker%d", i+1)
		c.Workers = append(c.Workers, c.client(Worker, name, port, append([]string{"worker", "--data", filepath.Join(c.dir, name, "data"),
			"--replicas", strconv.Itoa(kept.Replicas()), "--listen", address(port)}, kept.WorkerArgs...)))
	}
	for i, port := range kept.Ports.Gateway {
		c.Gateways = append(c.Gateways, c.client(Gateway, fmt.Sprintf("gateway%d", i+1), port,
			append([]string{"gateway", "--listen", address(port)}, kept.GatewayArgs...)))
	}
	return c
}

func (c *Cluster) process(kind Kind, name, probe string, args []string) *Process {
	return &Process{Name: name, Kind: kind, dir: filepath.Join(c.dir, name), probe: probe,
		program: c.kept.Program, args: args, env: cleanEnv(), detached: c.kept.Detached}
}

// client is a worker or a gateway. A worker is ready when it answers: it need not own anything. The gateways say whether all
// objects can be reached.
func (c *Cluster) client(kind Kind, name string, port int, args []string) *Process {
	url := "http://" + address(port)
	probe := url + "/readyz"
	if kind == Worker {
		probe = url + "/livez"
	}
	p := c.process(kind, name, probe, args)
	p.URL, p.env = url, append(p.env, c.Env()...)
	return p
}

// serverEnv is what nats.conf asks the environment for.
func (c *Cluster) serverEnv(i int, p *Process) []string {
	routes, port := "[]", 0 // one server is no cluster
	if ports := c.kept.Ports.Route; len(ports) > 1 {
		var urls []string
		for _, port := range ports {
			urls = append(urls, "nats://"+address(port))
		}
		routes, port = "["+strings.Join(urls, ", ")+"]", ports[i]
	}
	return []string{"NATS_NAME=" + p.Name, "NATS_HOST=" + host, fmt.Sprintf("NATS_PORT=%d", c.kept.Ports.Client[i]),
		fmt.Sprintf("NATS_CLUSTER_PORT=%d", port), fmt.Sprintf("NATS_MONITOR_PORT=%d", c.kept.Ports.Monitor[i]),
		"NATS_ROUTES=" + routes, fmt.Sprintf("NATS_STORE=%q", filepath.Join(p.dir, "data"))}
}

// cleanEnv is this process's environment without what says where another system is, or who to be there.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NATS_") || strings.HasPrefix(v, "PERDURE_")
	})
}

// All are the processes in the order in which they start.
func (c *Cluster) All() []*Process { return slices.Concat(c.Servers, c.Workers, c.Gateways) }

// Dir is the folder of the cluster.
func (c *Cluster) Dir() string { return c.dir }

// NATS is where NATS clients connect: all servers, separated by commas.
func (c *Cluster) NATS() string {
	var urls []string
	for _, p := range c.Servers {
		urls = append(urls, p.URL)
	}
	return strings.Join(urls, ",")
}

// Env is the environment in which commands of the perdure binary, and the nats command, find the cluster.
func (c *Cluster) Env() []string { return []string{"NATS_URL=" + c.NATS()} }

// Running are the names of the processes that run, paused ones too.
func (c *Cluster) Running() (names []string, err error) {
	for _, p := range c.All() {
		pid, err := p.Pid()
		if err != nil {
			return nil, err
		}
		if pid != 0 {
			names = append(names, fmt.Sprintf("%s is process %d", p.Name, pid))
		}
	}
	return names, nil
}

// Start starts all processes and waits until they are ready: the servers first.
func (c *Cluster) Start(ctx context.Context) error {
	for _, kinds := range [][]*Process{c.Servers, slices.Concat(c.Workers, c.Gateways)} {
		for _, p := range kinds {
			if err := p.Start(); err != nil {
				return err
			}
		}
		if err := ready(ctx, kinds); err != nil {
			return err
		}
	}
	return nil
}

// Ready waits until all processes are ready.
func (c *Cluster) Ready(ctx context.Context) error { return ready(ctx, c.All()) }

// ready waits for processes side by side, until the first of them cannot be waited for.
func ready(ctx context.Context, list []*Process) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	_ = each(list, func(p *Process) error { // the cause has it
		err := p.Ready(ctx)
		if err != nil {
			cancel(err)
		}
		return err
	})
	return context.Cause(ctx)
}

// Stop ends all processes in good order, the servers last. What still runs when ctx is done is named.
func (c *Cluster) Stop(ctx context.Context) error {
	stop := func(p *Process) error { return p.Stop(ctx) }
	return errors.Join(each(c.Gateways, stop), each(c.Workers, stop), each(c.Servers, stop))
}

// Close ends all processes at once.
func (c *Cluster) Close() error { return each(c.All(), (*Process).Kill) }

// each does something with processes side by side.
func each(list []*Process, do func(*Process) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, p := range list {
		wg.Go(func() { errs[i] = do(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
