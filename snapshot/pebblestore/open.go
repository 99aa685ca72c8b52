package pebblestore

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

var (
	// ErrNamespace is the error for a folder that belongs to another namespace, or to an earlier life of this one.
	ErrNamespace = errors.New("the snapshot folder belongs to another namespace")

	// ErrLocked is the error for a folder that another process, or this one, has open.
	ErrLocked = errors.New("the snapshot folder is in use")

	// errDamaged is the error for a folder that has to be set aside.
	errDamaged = errors.New("the snapshot folder is damaged")
)

// Open opens the store in the folder dir and makes the folder if there is none. A folder that is damaged, or that has
// a format this version does not know, is moved to dir.corrupt-<unix time> with a warning; it is not used again and may
// be deleted. A folder of another namespace ([ErrNamespace]) or one that is in use ([ErrLocked]) is left as it is.
func Open(dir string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("open snapshot store %s: %w", dir, err)
	}
	s, err := open(dir, opts)
	if errors.Is(err, errDamaged) {
		s, err = open(dir, opts)
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshot store %s: %w", dir, err)
	}
	return s, nil
}

// open opens the folder. If it is damaged it is gone from its place when open returns errDamaged.
func open(dir string, opts Options) (_ *Store, err error) {
	lock, err := lockDir(dir, opts)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	f := newFatal(dir, opts)
	db, err := openDB(dir, opts, lock, f)
	if errors.Is(err, errDamaged) {
		return nil, setAside(dir, opts, err)
	}
	if err != nil {
		return nil, err
	}
	return &Store{reader: reader{from: db, fatal: f}, db: db, lock: lock}, nil
}

// lockDir makes the folder and locks it, so that it can be looked at and moved while nobody else has it open.
func lockDir(dir string, opts Options) (*pebble.Lock, error) {
	if err := opts.FS.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, opts.FS)
	// A lock of this process is an error without a number.
	if _, ok := errors.AsType[syscall.Errno](err); err != nil && (!ok || errors.Is(err, syscall.EAGAIN)) {
		return nil, fmt.Errorf("%w: another worker has it open. Stop that one, or give this one its own data folder (%w)", ErrLocked, err)
	}
	return lock, err
}

// openDB opens the database and checks whose it is.
func openDB(dir string, opts Options, lock *pebble.Lock, f *fatal) (*pebble.DB, error) {
	if _, err := opts.FS.Stat(opts.FS.PathJoin(dir, damageFile)); err == nil {
		return nil, fmt.Errorf("%w: it was marked so by the last process that used it", errDamaged)
	}
	db, err := pebble.Open(dir, opts.pebbleOptions(lock, f))
	if err == nil {
		if err = checkFormat(db, opts.Namespace); err == nil {
			err = f.arm(opts.OnFatal)
		}
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if err != nil {
		// What failed first says more than what came of it.
		return nil, sortOut(cmp.Or(f.failure(), err))
	}
	return db, nil
}

// sortOut tells damage from trouble. What the operating system reports (no permission, no space, a failing disk) another
// start may find gone, so the folder stays; but a missing file is damage, as is all that Pebble itself finds.
func sortOut(err error) error {
	_, system := errors.AsType[syscall.Errno](err)
	if errors.Is(err, ErrNamespace) || system && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%w: %w", errDamaged, err)
}

// checkFormat checks the format and the namespace, or writes them into a new database. They are its first batch, so no
// crash leaves entries without them.
func checkFormat(db *pebble.DB, namespace string) error {
	version, err := getString(db, formatKey)
	if err != nil {
		return err
	}
	if version == "" {
		return writeFormat(db, namespace)
	}
	if version != formatVersion {
		return fmt.Errorf("it has format %q; this version knows %q", version, formatVersion)
	}
	found, err := getString(db, namespaceKey)
	if err != nil {
		return err
	}
	if found != namespace {
		return fmt.Errorf("%w: it keeps %q, and this worker serves %q. Give each namespace its own data folder, or delete "+
			"this one: it can be rebuilt from its journal", ErrNamespace, found, namespace)
	}
	return nil
}

func writeFormat(db *pebble.DB, namespace string) error {
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	used := it.First()
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return err
	}
	if used {
		return errors.New("it has entries and no format")
	}
	batch := db.NewBatch()
	err = errors.Join(
		batch.Set(formatKey, []byte(formatVersion), nil),
		batch.Set(namespaceKey, []byte(namespace), nil),
	)
	if err != nil {
		return errors.Join(err, batch.Close())
	}
	return errors.Join(batch.Commit(pebble.NoSync), batch.Close())
}

// getString is a value, empty if there is none.
func getString(db *pebble.DB, key []byte) (string, error) {
	value, closer, err := db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return string(value), closer.Close()
}

// setAside moves the folder away and returns the reason. It is still locked by us, so nobody else is in it.
func setAside(dir string, opts Options, reason error) error {
	at := time.Now().Unix()
	aside := fmt.Sprintf("%s.corrupt-%d", dir, at)
	for {
		if _, err := opts.FS.Stat(aside); errors.Is(err, os.ErrNotExist) {
			break
		}
		at++
		aside = fmt.Sprintf("%s.corrupt-%d", dir, at)
	}
	if err := opts.FS.Rename(dir, aside); err != nil {
		return fmt.Errorf("set the folder aside: %w (it has to be: %v)", err, reason) //nolint:errorlint // not errDamaged: it is still there
	}
	opts.Logger.Warn("snapshot store is damaged and begins empty; objects are rebuilt from the journal",
		"dir", dir, "aside", aside, "hint", "the folder that was set aside is not used again and may be deleted", "err", reason)
	return reason
}
