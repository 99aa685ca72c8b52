package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Kind is what a process is.
type Kind string

// The kinds of process.
const (
	Server  Kind = "server"
	Worker  Kind = "worker"
	Gateway Kind = "gateway"
)

// Process is one process of a cluster, whether it runs or not. It is safe for concurrent use, but for two at a time that
// start it, stop it or kill it.
type Process struct {
	Name string // of its kind and number, such as worker1; servers are nats1, …, which is their name in the cluster, too
	Kind Kind
	URL  string // where clients of its kind connect: nats:// of a server, http:// of the others

	dir      string
	probe    string // URL that answers 200 when it is ready
	program  string
	args     []string
	env      []string
	detached bool
}

// ErrRunning means that a process, or the cluster of a folder, runs already. Stop it first.
var ErrRunning = errors.New("it runs already")

// A process that was told to end, or whose file is being looked at, gets this long.
const (
	goneTimeout  = 30 * time.Second
	claimTimeout = time.Second
	pollEvery    = 10 * time.Millisecond
)

// Dir is the folder of what the process keeps.
func (p *Process) Dir() string { return p.dir }

// Log is the file with what the process wrote.
func (p *Process) Log() string { return filepath.Join(p.dir, "log") }

func (p *Process) pidFile() string { return filepath.Join(p.dir, "pid") }

// Start starts the process and returns at once; [Process.Ready] waits for it. It is [ErrRunning] if it runs.
func (p *Process) Start() error {
	if err := os.MkdirAll(p.dir, 0o750); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	pid, err := p.claim()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer func() { _ = pid.Close() }() // the process keeps its own, and with it the lock
	log, err := os.OpenFile(p.Log(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer func() { _ = log.Close() }() // the process keeps its own
	c := exec.Command(p.program, p.args...)
	c.Env, c.Stdout, c.Stderr, c.ExtraFiles = p.env, log, log, []*os.File{pid}
	c.SysProcAttr = attributes(p.detached)
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() { _ = c.Wait() }() // only so that it is no zombie: it ends when the process does, which Kill and Stop wait for
	if _, err := pid.WriteAt([]byte(strconv.Itoa(c.Process.Pid)+"\n"), 0); err != nil {
		_ = c.Process.Kill() // nobody could find it
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	return nil
}

// claim opens the file of the process id, empty, with its lock.
func (p *Process) claim() (*os.File, error) {
	f, err := os.OpenFile(p.pidFile(), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(claimTimeout); ; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			break
		}
		<-time.After(pollEvery) // somebody who only looks has it for a moment
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrRunning
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Pid is the process's id; 0 if it does not run.
func (p *Process) Pid() (int, error) {
	f, err := os.Open(p.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if err == nil {
		return 0, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return 0, fmt.Errorf("look whether %s runs: %w", p.Name, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, 32))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s is just being started: try again", p.Name)
	}
	return pid, nil
}

// signal sends a signal if the process runs.
func (p *Process) signal(sig syscall.Signal) error {
	pid, err := p.Pid()
	if err != nil || pid == 0 {
		return err
	}
	if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%v to %s, process %d: %w", sig, p.Name, pid, err)
	}
	return nil
}

// Kill ends the process with SIGKILL, paused or not, and waits until it is gone.
func (p *Process) Kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), goneTimeout)
	defer cancel()
	return p.gone(ctx)
}

// Stop ends the process with SIGTERM, paused or not, and waits until it is gone or ctx is done; then it still runs.
func (p *Process) Stop(ctx context.Context) error {
	if err := errors.Join(p.signal(syscall.SIGTERM), p.signal(syscall.SIGCONT)); err != nil {
		return err
	}
	return p.gone(ctx)
}

// Pause has the system give the process no more time (SIGSTOP): its connections stay, and it answers nothing.
func (p *Process) Pause() error { return p.signal(syscall.SIGSTOP) }

// Continue ends a pause.
func (p *Process) Continue() error { return p.signal(syscall.SIGCONT) }

// Restart stops the process if it runs, and starts it.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start()
}

// gone waits until the process has ended.
func (p *Process) gone(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		pid, err := p.Pid()
		return pid == 0 && err == nil, err
	}, func() error { return fmt.Errorf("%s still runs; its log is %s", p.Name, p.Log()) })
}

// Ready waits until the process says that it is ready. If it ends instead, the error has the end of its log.
func (p *Process) Ready(ctx context.Context) error {
	why := errors.New("not asked yet")
	return poll(ctx, func() (bool, error) {
		if why = p.ask(ctx); why == nil {
			return true, nil
		}
		if pid, err := p.Pid(); err == nil && pid == 0 {
			return false, fmt.Errorf("%s has ended:\n%s", p.Name, p.tail())
		}
		return false, nil
	}, func() error { return fmt.Errorf("%s is not ready: %w; its log is %s", p.Name, why, p.Log()) })
}

// answerTimeout bounds a question to a process that may be paused.
const answerTimeout = 5 * time.Second

func (p *Process) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.probe, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return err
}

// tailBytes is how much of a log an error has.
const tailBytes = 2 << 10

func (p *Process) tail() string {
	text, err := os.ReadFile(p.Log())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytes):])
}

// poll tries until done, an error, or the end of ctx, of which late says what it means.
func poll(ctx context.Context, try func() (done bool, err error), late func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		done, err := try()
		if done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(late(), context.Cause(ctx))
		}
	}
}
