package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/internal/freeport"
)

// process is a `perdure dev` in a process of its own, with the yardsticks in it. It ends when its standard input does,
// so nothing is left of it even if this process is killed.
type process struct {
	program string // the binary
	dir     string // its data
	args    []string
	http    string // host:port of the gateway
	nats    string // of the NATS server
	yard    string // of the yardsticks

	cmd     *exec.Cmd     // nil: it does not run
	stderr  bytes.Buffer  // read when it has ended
	ended   chan struct{} // closed then
	conns   []*nats.Conn
	callers *callers // over conns
}

const startTimeout = 2 * time.Minute

// newProcess prepares a process of the bench's binary. Its ports are free now.
func newProcess(program, dir string, args ...string) (*process, error) {
	s := &process{program: program, dir: dir, args: args}
	free, err := freeport.Addresses(3)
	if err != nil {
		return nil, err
	}
	s.http, s.nats, s.yard = free[0], free[1], free[2]
	return s, nil
}

// start starts the process and returns at once.
func (s *process) start() error {
	args := append([]string{"dev", "--data", s.dir, "--listen", s.http, "--nats-listen", s.nats, "--yardsticks", s.yard}, s.args...)
	c := exec.Command(s.program, args...)
	s.stderr.Reset()
	c.Stderr = &s.stderr
	if _, err := c.StdinPipe(); err != nil { // open until it has ended, or this process has
		return err
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("start the system: %w", err)
	}
	s.cmd, s.ended = c, make(chan struct{})
	go func() {
		defer close(s.ended)
		_ = c.Wait() // how it ended is in stderr
	}()
	return nil
}

// begin starts the process, and returns when it and its yardsticks answer.
func (s *process) begin(ctx context.Context) error {
	if err := s.start(); err != nil {
		return err
	}
	if err := s.until(ctx, func(ctx context.Context) error { return s.get(ctx, "http://"+s.http+"/readyz", nil) }); err != nil {
		return err
	}
	return s.until(ctx, func(ctx context.Context) error { return s.get(ctx, "http://"+s.yard+pipePath, nil) })
}

// until tries something until it succeeds.
func (s *process) until(ctx context.Context, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-s.ended:
		case <-ctx.Done():
		}
		s.kill()
		return fmt.Errorf("the system does not answer: %w\n%s", err, s.stderr.String())
	}
}

// kill is SIGKILL, and waits until the process is gone.
func (s *process) kill() {
	if s.cmd == nil {
		return
	}
	for _, nc := range s.conns {
		nc.Close()
	}
	s.conns, s.callers = nil, nil
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.ended
	s.cmd = nil
}

// connect opens n connections, which end with the process.
func (s *process) connect(n int) ([]*nats.Conn, error) {
	for len(s.conns) < n {
		nc, err := nats.Connect("nats://"+s.nats, nats.Name("perdure bench"), nats.NoReconnect())
		if err != nil {
			return nil, fmt.Errorf("connect to the system: %w", err)
		}
		s.conns = append(s.conns, nc)
	}
	return s.conns[:n], nil
}

// get reads JSON from an address into out.
func (s *process) get(ctx context.Context, url string, out any) error {
	return s.exchange(ctx, http.MethodGet, url, nil, out)
}

func (s *process) exchange(ctx context.Context, method, url string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return errors.New(resp.Status + ": " + string(answer))
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

func (s *process) memory(ctx context.Context) (m memoryUse, err error) {
	err = s.get(ctx, "http://"+s.yard+memoryPath, &m)
	return m, err
}

// cpu is how much processor time the process has taken.
func (s *process) cpu(ctx context.Context) (took time.Duration, err error) {
	err = s.get(ctx, "http://"+s.yard+cpuPath, &took)
	return took, err
}

// resident is how much memory the system counts for the process, in bytes.
func (s *process) resident() (int64, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(s.cmd.Process.Pid), "statm"))
	if err != nil {
		return 0, err
	}
	var size, pages int64
	_, err = fmt.Sscan(string(raw), &size, &pages)
	return pages * int64(os.Getpagesize()), err
}
