//go:build !linux

package cluster

import "syscall"

// attributes are those of a new process: in a session of its own, or beside this one.
func attributes(detached bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: detached, Setpgid: !detached}
}
