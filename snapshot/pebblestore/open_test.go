package pebblestore

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func TestFolderOfAnotherNamespaceIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s := mustOpen(t, dir, options(fs))
	writeSteps(t, s, 1, 3)
	mustClose(t, s)

	opts := options(fs)
	opts.Namespace = "life-2"
	_, err := Open(dir, opts)
	if !errors.Is(err, ErrNamespace) {
		t.Fatalf("open: %v, want ErrNamespace", err)
	}
	for _, want := range []string{dir, namespace, "life-2", "delete"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	s = mustOpen(t, dir, options(fs))
	defer mustClose(t, s)
	if got := readSteps(t, s); got != 3 {
		t.Errorf("%d steps are left of 3", got)
	}
}

func TestOptionsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	_, err := Open(dir, Options{FS: vfs.NewMem(), CacheBytes: -1, MemTableBytes: 1})
	for _, want := range []string{"Namespace", "CacheBytes", "MemTableBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s: %v", want, err)
		}
	}
}

func TestFolderInUseIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "pebble")
	for name, opts := range map[string]Options{folder: options(nil), dir: options(vfs.NewMem())} {
		s := mustOpen(t, name, opts)
		if _, err := Open(name, opts); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), name) {
			t.Errorf("open again: %v, want ErrLocked and the folder", err)
		}
		writeSteps(t, s, 1, 3)
		if got := readSteps(t, s); got != 3 {
			t.Errorf("%d steps are left of 3", got)
		}
		mustClose(t, s)
	}
}

// holderEnv has the folder that this test binary is to open and hold as another process.
const holderEnv = "PEBBLESTORE_TEST_HOLD"

func TestFolderInUseByAnotherProcessIsRefusedAndKept(t *testing.T) {
	t.Parallel()
	if folder := os.Getenv(holderEnv); folder != "" {
		hold(t, folder)
		return
	}
	folder := filepath.Join(t.TempDir(), "pebble")
	holder := exec.Command(os.Args[0], "-test.run=^TestFolderInUseByAnotherProcessIsRefusedAndKept$")
	holder.Env = append(os.Environ(), holderEnv+"="+folder)
	in, err1 := holder.StdinPipe()
	out, err2 := holder.StdoutPipe()
	if err := errors.Join(err1, err2, holder.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len(held))); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(folder, options(nil)); !errors.Is(err, ErrLocked) {
		t.Errorf("open: %v, want ErrLocked", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, folder, options(nil))
	defer mustClose(t, s)
	if got := readSteps(t, s); got != 3 {
		t.Errorf("%d steps are left of 3", got)
	}
}

const held = "held\n"

// hold keeps the folder open until its input ends.
func hold(t *testing.T, folder string) {
	s := mustOpen(t, folder, options(nil))
	defer mustClose(t, s)
	writeSteps(t, s, 1, 3)
	os.Stdout.WriteString(held)
	io.Copy(io.Discard, os.Stdin)
}

// damages are what can happen to a file.
var damages = map[string]func(data []byte) []byte{
	"emptied":   func([]byte) []byte { return []byte{} },
	"cut":       func(data []byte) []byte { return data[:len(data)/2] },
	"garbled":   func(data []byte) []byte { return bytes.Repeat([]byte{0xa5}, len(data)) },
	"bit flips": flip,
	"one bit":   func(data []byte) []byte { data[len(data)/2] ^= 0x10; return data },
	"deleted":   func([]byte) []byte { return nil },
}

// flip flips a bit in every hundredth byte.
func flip(data []byte) []byte {
	data = bytes.Clone(data)
	for i := min(50, len(data)/2); i < len(data); i += 100 {
		data[i] ^= 0x10
	}
	return data
}

// writtenFolder is a folder with a table and a log.
func writtenFolder(t *testing.T) *vfs.MemFS {
	t.Helper()
	fs := vfs.NewCrashableMem()
	s := mustOpen(t, dir, options(fs))
	syncParents(t, fs)
	writeSteps(t, s, 1, 100)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	writeSteps(t, s, 101, 200)
	mustClose(t, s)
	return fs
}

// Whatever happens to a file, a worker gets a store that has a first part of the steps or nothing: when it opens the
// folder, or, if the damage shows only later, when it opens it again.
func TestDamagedFolderIsSetAsideAndTheStoreBeginsEmpty(t *testing.T) {
	t.Parallel()
	whole := writtenFolder(t)
	files, err := whole.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	for how, damage := range damages {
		for _, file := range files {
			t.Run(file+" "+how, func(t *testing.T) {
				t.Parallel()
				fs := whole.CrashClone(vfs.CrashCloneCfg{})
				rewrite(t, fs, file, damage)
				openDamaged(t, fs)
			})
		}
	}
}

// openDamaged opens the folder, and again if its damage shows while it is open.
func openDamaged(t *testing.T, fs vfs.FS) {
	for range 2 {
		var told atomic.Bool
		opts := options(fs)
		opts.OnFatal = func(error) { told.Store(true) }
		s := mustOpen(t, dir, opts)
		steps, err := countSteps(s)
		if err == nil {
			err = applySteps(s, steps+1, steps+5)
		}
		if err == nil {
			_, err = countSteps(s)
		}
		err = errors.Join(err, s.Close())
		if err == nil {
			return
		}
		if !told.Load() || !errors.Is(err, ErrFailed) {
			t.Errorf("told: %t, error: %v; want damage told as fatal", told.Load(), err)
		}
	}
	t.Error("the store is damaged still after it was opened again")
}

func TestDamageThatShowsLaterIsFatalAndTheNextOpenSetsTheFolderAside(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	opts := options(fs)
	told := make(chan error, 10)
	opts.OnFatal = func(err error) { told <- err }
	s := mustOpen(t, dir, opts)
	writeSteps(t, s, 1, 100)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	spoilTables(t, fs)
	if _, err := countSteps(s); !errors.Is(err, ErrFailed) {
		t.Errorf("read: %v, want ErrFailed", err)
	}
	if err := <-told; !errors.Is(err, ErrFailed) || !pebble.IsCorruptionError(err) {
		t.Errorf("told: %v; want ErrFailed and the damage", err)
	}
	wantFailed(t, s)

	s = mustOpen(t, dir, opts)
	defer mustClose(t, s)
	if got := readSteps(t, s); got != 0 || len(asides(t, fs)) != 1 {
		t.Errorf("%d steps, set aside: %q; want none and one folder", got, asides(t, fs))
	}
}

// spoilTables overwrites the middle of each table in place.
func spoilTables(t *testing.T, fs vfs.FS) {
	t.Helper()
	files, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, ".sst") {
			continue
		}
		f, err := fs.OpenReadWrite(fs.PathJoin(dir, file), vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt(make([]byte, 100), info.Size()/2)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func rewrite(t *testing.T, fs vfs.FS, name string, damage func([]byte) []byte) {
	t.Helper()
	path := fs.PathJoin(dir, name)
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close(), fs.Remove(path)); err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 {
		data = damage(data)
	}
	if data == nil {
		return
	}
	f, err = fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestFolderIsSetAsideWithAWarningAndItsFiles(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*testing.T, vfs.FS){
		"a garbled manifest": func(t *testing.T, fs vfs.FS) {
			files, err := fs.List(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if strings.HasPrefix(file, "MANIFEST-") {
					rewrite(t, fs, file, damages["garbled"])
				}
			}
		},
		"a format of the future":   func(t *testing.T, fs vfs.FS) { setFormat(t, fs, "2") },
		"entries without a format": func(t *testing.T, fs vfs.FS) { setFormat(t, fs, "") },
		"the mark of damage": func(t *testing.T, fs vfs.FS) {
			newFatal(dir, options(fs)).markDamaged()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fs := writtenFolder(t)
			spoil(t, fs)
			var out bytes.Buffer
			opts := options(fs)
			opts.Logger = slog.New(slog.NewTextHandler(&out, nil))
			s := mustOpen(t, dir, opts)
			if got := readSteps(t, s); got != 0 {
				t.Errorf("the store has %d steps, want none", got)
			}
			mustClose(t, s)
			aside := asides(t, fs)
			if len(aside) != 1 {
				t.Fatalf("set aside: %q, want one folder", aside)
			}
			if files, err := fs.List("data/" + aside[0]); err != nil || len(files) < 5 {
				t.Errorf("the folder that was set aside has %q, %v", files, err)
			}
			if log := out.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, aside[0]) {
				t.Errorf("the warning does not say where the folder is:\n%s", log)
			}
		})
	}
}

func setFormat(t *testing.T, fs vfs.FS, version string) {
	t.Helper()
	s := mustOpen(t, dir, options(fs))
	defer mustClose(t, s)
	err := s.db.Set(formatKey, []byte(version), pebble.Sync)
	if version == "" {
		err = s.db.Delete(formatKey, pebble.Sync)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTwoFoldersAreSetAsideInOneSecond(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	for range 2 {
		mustClose(t, mustOpen(t, dir, options(fs)))
		newFatal(dir, options(fs)).markDamaged()
	}
	mustClose(t, mustOpen(t, dir, options(fs)))
	if aside := asides(t, fs); len(aside) != 2 {
		t.Errorf("set aside: %q, want two folders", aside)
	}
}

func TestMissingFileOnDiskIsDamage(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "pebble")
	mustClose(t, mustOpen(t, folder, options(nil)))
	manifests, err := filepath.Glob(filepath.Join(folder, "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("manifests: %q, %v", manifests, err)
	}
	for _, manifest := range manifests {
		if err := os.Remove(manifest); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, mustOpen(t, folder, options(nil)))
	if aside, err := filepath.Glob(folder + ".corrupt-*"); err != nil || len(aside) != 1 {
		t.Errorf("set aside: %q, %v; want one folder", aside, err)
	}
}

func TestTroubleOfTheSystemIsAnErrorAndTheFolderIsKept(t *testing.T) {
	t.Parallel()
	fs := writtenFolder(t)
	for _, kind := range []errorfs.OpKind{errorfs.OpOpen, errorfs.OpCreate, errorfs.OpFileRead, errorfs.OpFileWrite, errorfs.OpList} {
		trouble := errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == kind && !strings.HasSuffix(op.Path, damageFile) {
				return syscall.EIO
			}
			return nil
		})
		opts := options(errorfs.Wrap(fs, trouble))
		opts.OnFatal = func(err error) { t.Errorf("operation %d: told as fatal what Open returns: %v", kind, err) }
		if _, err := Open(dir, opts); !errors.Is(err, syscall.EIO) {
			t.Errorf("operation %d: open: %v, want EIO", kind, err)
		}
	}
	if aside := asides(t, fs); len(aside) > 0 {
		t.Errorf("set aside: %q", aside)
	}
	s := mustOpen(t, dir, options(fs))
	defer mustClose(t, s)
	if got := readSteps(t, s); got != 200 {
		t.Errorf("%d steps are left of 200", got)
	}
}

func TestFolderThatCannotBeReadIsAnErrorAndKept(t *testing.T) {
	t.Parallel()
	parent := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(parent, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(parent, "pebble"), options(nil))
	if err == nil || errors.Is(err, ErrLocked) || errors.Is(err, errDamaged) {
		t.Errorf("open below a file: %v, want what the system says", err)
	}
}
