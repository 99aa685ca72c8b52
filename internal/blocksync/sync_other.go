//go:build !linux

package blocksync

import "os"

// datasync returns when what was written to the file is on disk.
func datasync(f *os.File) error { return f.Sync() }
