package blocksync

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// marks are what the next start has to know of this one. They are on disk before anything that rests on them is told.
type marks struct {
	V       int             `json:"v"`
	Boot    string          `json:"boot"`  // the machine's boot: another one since, and what was not synced is gone
	Clean   bool            `json:"clean"` // all was synced when the process ended
	Streams map[string]mark `json:"streams"`
}

// mark is one stream's.
type mark struct {
	Sealed int    `json:"sealed"`          // blocks up to this one are complete and synced
	Acked  uint64 `json:"acked,omitempty"` // the stream went at least so far, synced or not
}

const marksVersion = 1

func marksFile(dir string) string { return filepath.Join(dir, "perdure-sync.json") }

// readMarks are the marks of the former start; ok is false if there are none.
func readMarks(dir string) (m marks, ok bool, err error) {
	raw, err := os.ReadFile(marksFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err == nil && m.V != marksVersion {
		err = fmt.Errorf("it has version %d; this program reads %d", m.V, marksVersion)
	}
	if err != nil {
		return m, false, fmt.Errorf("read %s: %w", marksFile(dir), err)
	}
	return m, true, nil
}

// write replaces the marks on disk, and returns when that is durable.
func (m marks) write(dir string) error {
	m.V = marksVersion
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	name := marksFile(dir)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	return syncFile(dir)
}

// removeMarks is for a folder that is not synced from here: Repair would take what its server synced for not synced.
func removeMarks(dir string) error {
	if err := os.Remove(marksFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Cut is what a power cut did, as far as the marks tell.
type Cut struct {
	// Aside are block files that stood behind a hole, where they are now.
	Aside []string
	// Acked is by stream how far it went, at least, when the marks were last written, if it is of the account $G. What a
	// stream has less of is lost: under relaxed sync that may be acknowledged messages.
	Acked map[string]uint64
}

// Repair makes a store folder one that a server may recover: after a power cut it puts block files aside that stand
// behind a hole in their stream. Nobody was told that what they hold is durable. It returns nil if there was no power cut
// since the folder was last used. It is called before the server starts, under the folder's lock.
func Repair(dir string, log *slog.Logger) (*Cut, error) {
	m, ok, err := readMarks(dir)
	switch {
	case err != nil || !ok:
		return nil, err
	case m.Clean:
		m.Clean, m.Boot = false, bootID() // from here on the server writes
		return nil, m.write(dir)
	case m.Boot == bootID() && m.Boot != "":
		return nil, nil
	}
	cut := &Cut{Acked: map[string]uint64{}}
	all, err := folders(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		mark := m.Streams[f.key()]
		if f.account == globalAccount {
			cut.Acked[f.stream] = mark.Acked
		}
		aside, err := f.repair(mark.Sealed)
		if err != nil {
			return nil, fmt.Errorf("repair stream %s after a power cut: %w", f.stream, err)
		}
		cut.Aside = append(cut.Aside, aside...)
		for _, name := range aside {
			log.Warn("put aside after a power cut: what is before it was not synced and is lost; nobody was told that it was durable",
				"stream", f.stream, "file", name)
		}
	}
	return cut, nil
}

// globalAccount is the account of a server without accounts.
const globalAccount = "$G"

// repair puts the blocks behind the first hole aside. Up to sealed, and within the next one, there is none. How far the
// stream goes before a block is what the records before it say, wherever they are: of the block just before it a power cut
// may leave nothing.
func (f folder) repair(sealed int) (aside []string, err error) {
	blocks, err := f.blocks()
	if err != nil {
		return nil, err
	}
	first, _ := slices.BinarySearch(blocks, sealed+1)
	last, whole := uint64(0), true
	for i := max(0, first-1); i < len(blocks); i++ {
		s, err := f.scan(blocks[i])
		if err != nil {
			return nil, err
		}
		if i > first && !(whole && blocks[i] == blocks[i-1]+1 && (s.first == 0 || s.first <= last+1)) {
			return f.putAside(blocks[i:])
		}
		last, whole = max(last, s.last), s.whole
	}
	return nil, nil
}

// putAside renames blocks to names that the server does not read.
func (f folder) putAside(blocks []int) (aside []string, err error) {
	for _, n := range blocks {
		to := fmt.Sprintf("%s.aside-%d", f.block(n), time.Now().UnixNano())
		if err := os.Rename(f.block(n), to); err != nil {
			return aside, err
		}
		aside = append(aside, to)
	}
	return aside, syncFile(f.msgs)
}

// bootID names the machine's present boot; empty where that is not known: then each start may be after a power cut.
func bootID() string {
	raw, err := os.ReadFile(cmp.Or(bootFile, "/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return string(raw[:min(len(raw), 36)])
}

// bootFile is set by tests, to be another boot.
var bootFile string
