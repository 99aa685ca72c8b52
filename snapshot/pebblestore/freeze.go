package pebblestore

import "github.com/cockroachdb/pebble/v2/vfs"

// freezingFS keeps failed writes from Pebble, which ends the process when it cannot write its log, and retries for ever,
// in its Open too, when it cannot write a table.
//
// When the first write fails, that is the store's fatal error and the folder freezes: it stays as it is, as if the process
// had been killed at that moment, which is a state that Open knows. Pebble is told that all is well, and its new files
// are in memory, until the store is closed. Nobody reads any of it: Open and all methods return the error by then.
type freezingFS struct {
	vfs.FS
	fatal *fatal
	mem   *vfs.MemFS // the files made since the folder froze
}

func newFreezingFS(disk vfs.FS, f *fatal) freezingFS {
	return freezingFS{FS: disk, fatal: f, mem: vfs.NewMem()}
}

func (s freezingFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.create(name, func() (vfs.File, error) { return s.FS.Create(name, category) })
}

func (s freezingFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.create(newname, func() (vfs.File, error) { return s.FS.ReuseForWrite(oldname, newname, category) })
}

func (s freezingFS) create(name string, onDisk func() (vfs.File, error)) (vfs.File, error) {
	if !s.frozen() {
		f, err := onDisk()
		if err == nil {
			return freezingFile{File: f, fatal: s.fatal}, nil
		}
		s.fatal.fail(err)
	}
	if err := s.mem.MkdirAll(s.mem.PathDir(name), 0o755); err != nil {
		return nil, err
	}
	return s.mem.Create(name, vfs.WriteCategoryUnspecified)
}

// Open finds new files where they are: a compaction that misses one would be tried again without a pause.
func (s freezingFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if s.frozen() {
		if f, err := s.mem.Open(name, opts...); err == nil {
			return f, nil
		}
	}
	return s.FS.Open(name, opts...)
}

func (s freezingFS) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return freezingFile{File: f, fatal: s.fatal}, nil
}

func (s freezingFS) Remove(name string) error {
	if s.frozen() {
		return nil
	}
	return s.FS.Remove(name)
}

func (s freezingFS) Rename(oldname, newname string) error {
	return s.fatal.hide(func() error { return s.FS.Rename(oldname, newname) })
}

func (s freezingFS) frozen() bool { return s.fatal.failure() != nil }

func (s freezingFS) Unwrap() vfs.FS { return s.FS }

// freezingFile is a file, or a folder, that was opened before the folder froze.
type freezingFile struct {
	vfs.File
	fatal *fatal
}

func (f freezingFile) Write(p []byte) (int, error) {
	return len(p), f.fatal.hide(func() error {
		_, err := f.File.Write(p)
		return err
	})
}

func (f freezingFile) Preallocate(offset, length int64) error {
	return f.fatal.hide(func() error { return f.File.Preallocate(offset, length) })
}

func (f freezingFile) Sync() error { return f.fatal.hide(f.File.Sync) }

func (f freezingFile) SyncData() error { return f.fatal.hide(f.File.SyncData) }

func (f freezingFile) SyncTo(length int64) (fullSync bool, err error) {
	err = f.fatal.hide(func() (err error) {
		fullSync, err = f.File.SyncTo(length)
		return err
	})
	return fullSync, err
}

// Close closes the file also when the folder is frozen.
func (f freezingFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.fatal.fail(err)
	}
	return nil
}

// hide does a write, unless the folder is frozen, and keeps its error from Pebble.
func (f *fatal) hide(write func() error) error {
	if f.failure() == nil {
		if err := write(); err != nil {
			f.fail(err)
		}
	}
	return nil
}
