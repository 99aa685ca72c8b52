package cmd

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
)

// The reserve of free disk: a share of it, and at least so much.
const (
	reservePercent  = 5
	reserveBytesMin = 256 << 20
)

func lockFolder(dir string) (*embed.Lock, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	lock, err := embed.LockDir(dir)
	if errors.Is(err, embed.ErrLocked) {
		return nil, advise(err, "one process at a time has a data folder: stop the other one, or choose another with --data")
	}
	return lock, err
}

// workerID is the worker's name, made once and kept in the data folder, whose lock says that nobody else has it.
func workerID(dir string) (string, error) {
	file := filepath.Join(dir, "worker.id")
	kept, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newWorkerID(file)
	}
	if err != nil {
		return "", fmt.Errorf("worker id: %w", err)
	}
	id := strings.TrimSpace(string(kept))
	if err := wire.CheckIdentifier(id); err != nil {
		return "", advise(fmt.Errorf("worker id in %s: %w", file, err), "move the file away: the worker gets a new name, and waits for the leases of the old one")
	}
	return id, nil
}

// newWorkerID makes a name and keeps it. The file gets its own name when it is whole and on disk: a crash leaves none
// rather than an empty one.
func newWorkerID(file string) (string, error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	id := "w" + hex.EncodeToString(b[:])
	if err := writeSynced(file+".new", id+"\n"); err != nil {
		return "", fmt.Errorf("worker id: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return "", fmt.Errorf("worker id: %w", err)
	}
	return id, nil
}

func writeSynced(file, content string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// mayWrite keeps a reserve of free disk: a stream that meets a full one stops until its server starts again.
func mayWrite(dir string, reserveMin uint64) error {
	free, total, err := embed.DiskFree(dir)
	if err != nil {
		return nil //nolint:nilerr // not knowing is no reason to stop; a full disk will say so
	}
	if reserve := reserveOf(total, reserveMin); free < reserve {
		return fmt.Errorf("%d MiB of disk are free, and %d MiB are kept as a reserve", free>>20, reserve>>20)
	}
	return nil
}

// reserveOf is how many bytes of a disk of so many are kept free.
func reserveOf(total, reserveMin uint64) uint64 { return max(total/100*reservePercent, reserveMin) }
