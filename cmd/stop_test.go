package cmd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// halfSent sends a request whose body is not complete yet, and then SIGTERM, and returns when no new connection is
// taken: from then on the process ends.
func (p *process) halfSent() net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.http)
	must(p.t, err)
	p.t.Cleanup(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "POST /v1/objects/counter/a/call/increment HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n")
	must(p.t, err)
	line, err := bufio.NewReader(c).ReadString('\n') // the gateway has begun to read the body
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		p.t.Fatalf("%q, %v", line, err)
	}
	must(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	p.gone()
	return c
}

// gone waits until the gateway takes no more connections.
func (p *process) gone() {
	p.t.Helper()
	eventually(p.t, func() bool {
		c, err := net.Dial("tcp", p.http)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
}

func TestARequestThatIsUnderWayIsAnsweredBeforeTheEnd(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	c := p.halfSent()
	_, err := io.WriteString(c, `{"by":2}`)
	must(t, err)
	must(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
	if stderr, code := p.wait(); code != exitOK {
		t.Errorf("ends with %d: %s", code, stderr)
	}
	p.begin()
	if n := len(p.entries("counter/a")); n != 1 {
		t.Errorf("%d changes", n)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	p.halfSent()
	began := time.Now()
	_, err := p.stop()
	if exit, ok := err.(*exec.ExitError); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("ends with %v; want by the signal", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}
