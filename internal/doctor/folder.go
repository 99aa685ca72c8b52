package doctor

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/embed"
)

// Folder is a data folder. Sizes are in bytes.
type Folder struct {
	Path       string        `json:"path"`
	Filesystem string        `json:"filesystem,omitempty"` // its kind; empty if that is not known
	Free       uint64        `json:"free_bytes"`
	Total      uint64        `json:"total_bytes"`
	Reserve    uint64        `json:"reserve_bytes"` // below it nothing is written
	SetAside   []string      `json:"set_aside,omitempty"`
	Sync       time.Duration `json:"-"` // how long a sync of 4 KiB takes, the median of some; 0: not measured
}

// ReadFolder looks at a data folder that is there, and at its disk. It does not know Reserve, and does not measure Sync.
func ReadFolder(dir string) (Folder, error) {
	f := Folder{Path: dir, Filesystem: embed.Filesystem(dir)}
	var err error
	if f.Free, f.Total, err = embed.DiskFree(dir); err != nil {
		return f, err
	}
	f.SetAside, err = filepath.Glob(filepath.Join(dir, "snapshots.corrupt-*"))
	return f, err
}

const syncsMeasured = 21

// MeasureSync writes 4 KiB into a new file of a folder and syncs it, some times over, and returns the median of how long
// that took. The file is removed.
func MeasureSync(dir string) (median time.Duration, err error) {
	f, err := os.CreateTemp(dir, "doctor-*.tmp")
	if err != nil {
		return 0, fmt.Errorf("measure a sync: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := bytes.Repeat([]byte("perdure\n"), 512)
	var took []time.Duration
	for range syncsMeasured {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// ExamineFolder judges a data folder. It asks nobody.
func ExamineFolder(f Folder) []Finding { return named("folder", checkFolder(f)) }

// syncWarn is how long a sync to disk may take: with it a single caller gets 200 answers a second.
const syncWarn = 5 * time.Millisecond

func checkFolder(f Folder) (list []Finding) {
	add := func(s Status, fix, what string, args ...any) { list = append(list, said(s, fix, what, args...)) }
	switch f.Filesystem {
	case "tmpfs", "ramfs":
		add(Bad, "choose a folder on a disk with --data", "%s is in memory (%s): the journal is gone when the machine restarts", f.Path, f.Filesystem)
	case "nfs", "smb", "9p":
		add(Bad, "choose a folder on a local disk with --data", "%s is on a network (%s): its lock does not prove that a former process is gone", f.Path, f.Filesystem)
	case "overlay":
		add(Warn, "mount a volume, and choose it with --data", "%s is in the container's own layer: the journal is gone with the container", f.Path)
	}
	switch disk := fmt.Sprintf("%s are free of %s, and %s are kept as a reserve", size(f.Free), size(f.Total), size(f.Reserve)); {
	case f.Free < f.Reserve:
		add(Bad, "make room", "%s: commits are refused", disk)
	case f.Free < 2*f.Reserve:
		add(Warn, "make room", "%s: below it commits are refused", disk)
	}
	for _, dir := range f.SetAside {
		add(Warn, "remove it, if nobody wants to know why", "%s was damaged and set aside; it takes room", filepath.Base(dir))
	}
	if f.Sync > syncWarn {
		add(Warn, "use a disk with a write cache that survives a power cut, or --sync 100ms", "a sync to disk takes %v: a single caller waits as long for each answer", short(f.Sync))
	}
	if len(list) > 0 {
		return list
	}
	kind := cmp.Or(f.Filesystem, "a filesystem that is not known")
	if f.Sync > 0 {
		kind += fmt.Sprintf(", a sync takes %v", short(f.Sync))
	}
	return fine("%s free of %s on %s", size(f.Free), size(f.Total), kind)
}
