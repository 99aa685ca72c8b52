package verify

import (
	"hash/maphash"

	"github.com/perdure/perdure/journal"
)

// storage is what an object's puts and deletes come to: a hash of each key and its value, and of all together. It is
// whole from version 1 on, or from a snapshot record on; else it is what the records changed that were read.
type storage struct {
	whole bool
	large bool // too many keys for a snapshot record: nothing is kept
	keys  map[uint64]cell
	sum   uint64 // of the live cells
	n     int    // how many those are
}

// cell is a key's value.
type cell struct {
	sum     uint64 // of key and value; 0: deleted
	version journal.Version
}

// keysMax is more than a snapshot record of 16 MiB can hold, at 64 bytes and more for each key.
const keysMax = 1 << 18

func sumOf(seed maphash.Seed, key string, value []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(key) // never fails
	_ = h.WriteByte(0)
	_, _ = h.Write(value)
	return max(h.Sum64(), 1)
}

func (s *storage) apply(seed maphash.Seed, changes []journal.Change, version journal.Version) {
	for i := range changes {
		switch ch := &changes[i]; ch.Kind {
		case journal.Put:
			s.set(maphash.String(seed, ch.Key), cell{sumOf(seed, ch.Key, ch.Data), version})
		case journal.Delete:
			s.set(maphash.String(seed, ch.Key), cell{0, version})
		}
	}
}

func (s *storage) set(key uint64, to cell) {
	if s.large {
		return
	}
	if s.keys == nil {
		s.keys = map[uint64]cell{}
	}
	if old := s.keys[key]; old.sum != 0 {
		s.sum -= old.sum
		s.n--
	}
	if to.sum != 0 {
		s.sum += to.sum
		s.n++
	}
	if to.sum == 0 && s.whole {
		delete(s.keys, key)
	} else {
		s.keys[key] = to
	}
	if len(s.keys) > keysMax {
		*s = storage{large: true}
	}
}

// base takes what a snapshot record has, as of a version, as what is below the changes that were read. It returns false
// if they contradict it.
func (s *storage) base(entries map[uint64]uint64, version journal.Version) bool {
	for key, c := range s.keys {
		if c.version <= version && entries[key] != c.sum {
			return false
		}
	}
	later := s.keys
	*s = storage{whole: true}
	for key, sum := range entries {
		s.set(key, cell{sum, version})
	}
	for key, c := range later {
		if c.version > version {
			s.set(key, c)
		}
	}
	return true
}
