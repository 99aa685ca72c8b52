package embed

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestDiskFreeIsPartOfTheDisk(t *testing.T) {
	t.Parallel()
	free, total, err := DiskFree(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if free == 0 || free > total {
		t.Errorf("%d bytes are free of %d", free, total)
	}
	if _, _, err := DiskFree(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("DiskFree of a missing folder returned %v", err)
	}
}
