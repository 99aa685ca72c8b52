package blocksync

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync returns when what was written to the file is on disk.
func datasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
