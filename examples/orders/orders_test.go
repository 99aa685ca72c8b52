// Package orders tests the two services beside the real server: processes that are killed.
package orders

import (
	"bytes"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// build builds a command as the test is built: with the race detector or without.
func build(t *testing.T, dir, of string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(of))
	args := []string{"build", "-o", path, of}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = slices.Insert(args, 1, "-race")
	}
	c := exec.Command("go", args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", of, err, out)
	}
	return path
}

// freeAddress was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a program that the test kills and starts again. Nothing else may end it.
type process struct {
	t     *testing.T
	argv  []string
	alive string // a URL that answers when it serves

	mu     sync.Mutex
	cmd    *exec.Cmd
	stderr bytes.Buffer // of all its lives
	kills  int
}

func (p *process) begin() {
	p.mu.Lock()
	p.cmd = exec.Command(p.argv[0], p.argv[1:]...)
	p.cmd.Stderr = &p.stderr
	err := p.cmd.Start()
	p.mu.Unlock()
	if err != nil {
		p.t.Error(err)
		return
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get(p.alive)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 500 {
				return
			}
		}
		if time.Now().After(deadline) {
			p.t.Errorf("%s does not serve: %v", p.argv[0], err)
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

// kill is SIGKILL. A process that has ended by itself, or has a race, is a failure.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // the status tells
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL || bytes.Contains(p.stderr.Bytes(), []byte("DATA RACE")) {
		p.t.Errorf("%s: %v\n%s", p.argv[0], p.cmd.ProcessState, p.stderr.Bytes())
	}
	p.cmd = nil
	p.kills++
}
