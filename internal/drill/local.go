package drill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/perdure/perdure/internal/freeport"
)

// Local is a `perdure dev` that the drill starts itself: server, worker and gateway in one process, which is killed and
// started again.
type Local struct {
	program string
	args    []string
	http    string
	nats    string

	cmd    *exec.Cmd // nil: it does not run
	stderr bytes.Buffer
	ended  chan struct{}
}

// startWithin is how long a process may take to serve.
const startWithin = time.Minute

// NewLocal prepares a system with its data in a folder. Its ports are free now.
func NewLocal(program, dir string, args ...string) (*Local, error) {
	l := &Local{program: program}
	free, err := freeport.Addresses(2)
	if err != nil {
		return nil, err
	}
	l.http, l.nats = free[0], free[1]
	l.args = append([]string{"dev", "--data", filepath.Join(dir, "data"), "--listen", l.http, "--nats-listen", l.nats}, args...)
	return l, nil
}

// NATS is where its server listens, and HTTP its gateway.
func (l *Local) NATS() string { return "nats://" + l.nats }

// Targets implements [System].
func (l *Local) Targets() []Target { return []Target{{Worker, "dev"}} }

// Do implements [System].
func (l *Local) Do(ctx context.Context, act Act, _ Target) error {
	switch act {
	case Kill:
		return l.Stop()
	case Restart:
		return l.Start(ctx)
	case Pause:
		return l.cmd.Process.Signal(syscall.SIGSTOP)
	case Continue:
		return l.cmd.Process.Signal(syscall.SIGCONT)
	}
	return nil
}

// Start starts it, and returns when it serves.
func (l *Local) Start(ctx context.Context) error {
	c := exec.Command(l.program, l.args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the drill alone
	l.stderr.Reset()
	c.Stderr = &l.stderr
	if err := c.Start(); err != nil {
		return fmt.Errorf("start the system: %w", err)
	}
	l.cmd, l.ended = c, make(chan struct{})
	go func() {
		defer close(l.ended)
		_ = c.Wait() // how it ended is in stderr
	}()
	return l.ready(ctx)
}

func (l *Local) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx, "http://"+l.http+"/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
			continue
		case <-l.ended:
		case <-ctx.Done():
		}
		_ = l.Stop() // it never fails
		return fmt.Errorf("the system does not serve: %w\n%s", err, l.stderr.String())
	}
}

func probe(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Stop is SIGKILL, and waits until the process is gone.
func (l *Local) Stop() error {
	if l.cmd != nil {
		_ = l.cmd.Process.Kill() // it may have ended by itself
		<-l.ended
		l.cmd = nil
	}
	return nil
}

// HTTP implements [Own]: calls go to it over NATS.
func (l *Local) HTTP() []string { return nil }
