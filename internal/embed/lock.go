package embed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another process uses the data folder. Stop it, or choose another folder.
var ErrLocked = errors.New("another process uses this data folder: stop it, or choose another folder with --data")

// lockName is the file in a data folder that carries its lock. It is never removed: whoever removed it would let a
// second process in beside the first.
const lockName = "lock"

// Lock is a process's hold on a data folder. The kernel ends it with the process, however that ends, so whoever has
// it knows that the process that had it before is gone.
type Lock struct{ file *os.File }

// LockDir takes the lock on a data folder, which it makes if it is missing. If another has it, it does not wait: the
// error is [ErrLocked] and names the folder and the process. The folder must be on a local disk.
func LockDir(dir string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := lockFile(f); err != nil {
		// Nothing was written, so closing has nothing to report.
		_ = f.Close()
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	return &Lock{f}, nil
}

func lockFile(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("held by process %s: %w", holder(f), ErrLocked)
	}
	if err != nil {
		return err
	}
	// The number is for people; the lock does not depend on it.
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// holder is the process that has the lock, as it wrote it down; it may not have come to that yet.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid := strings.TrimSpace(string(b))
	if err != nil || pid == "" {
		return "(unknown)"
	}
	return pid
}

// Close gives the lock up.
func (l *Lock) Close() error {
	// Closing alone would not do at once: a child process that is just being started still has the file open.
	return errors.Join(unix.Flock(int(l.file.Fd()), unix.LOCK_UN), l.file.Close())
}
