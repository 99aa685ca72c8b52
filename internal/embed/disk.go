package embed

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// DiskFree is how many bytes this process can still write on the disk that holds path, and that disk's size.
func DiskFree(path string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("free disk of %s: %w", path, err)
	}
	block := uint64(st.Bsize) // its type differs from system to system
	return st.Bavail * block, st.Blocks * block, nil
}
