package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
)

// child is this program once more, in a process of its own: servers or a worker. It tells its usage at the start, and whenever it is asked.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *json.Decoder
}

func spawn(env []string, args ...string) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(program, args...)}
	c.cmd.Stderr, c.cmd.Env = os.Stderr, append(os.Environ(), env...)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.answers = json.NewDecoder(out)
	return c, c.cmd.Start()
}

func (c *child) answer() (u usage, err error) { return u, c.answers.Decode(&u) }

func (c *child) usage() (usage, error) {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		return usage{}, err
	}
	return c.answer()
}

func (c *child) stop() {
	_ = c.in.Close() // it ends then
	_ = c.cmd.Wait()
}

// answerAll is what a child does until its input ends.
func answerAll(in io.Reader, out io.Writer, now func() (usage, error)) error {
	answers := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); ; {
		u, err := now()
		if err == nil {
			err = answers.Encode(u)
		}
		if err != nil {
			return err
		}
		if !lines.Scan() {
			return lines.Err()
		}
	}
}
