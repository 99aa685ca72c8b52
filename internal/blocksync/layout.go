package blocksync

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/minio/highwayhash"
)

// ErrLayout says that a store folder is not laid out as this package knows it.
var ErrLayout = errors.New("the NATS server's files are not as expected")

// The layout of nats-server 2.15 (filestore.go), below the store folder:
//
//	jetstream/<account>/streams/<stream>/msgs/<n>.blk    n grows; only the last is written to
//
// A block is records: length (4, with a bit for headers), sequence (8, with bits for erased and for tombstones), time (8),
// subject's length (2), subject, headers' length (4, if any) and headers, data, checksum (8): HighwayHash-64 of sequence,
// time, subject, headers and data, with the SHA-256 of "<stream>-<n>" as its key.
const (
	recordHeader   = 4 + 8 + 8 + 2
	recordChecksum = 8
	recordBytesMax = 32 << 20

	bitHeaders   = 1 << 31
	bitErased    = 1 << 63
	bitTombstone = 1 << 62
)

// folder is a stream's folder.
type folder struct {
	account, stream string
	msgs            string // where its blocks are
}

func (f folder) key() string { return f.account + "/" + f.stream }

func (f folder) block(n int) string { return filepath.Join(f.msgs, strconv.Itoa(n)+".blk") }

// folders are all streams of a store folder.
func folders(dir string) (all []folder, err error) {
	root := filepath.Join(dir, "jetstream")
	accounts, err := readDir(root)
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		streams, err := readDir(filepath.Join(root, a, "streams"))
		if err != nil {
			return nil, err
		}
		for _, s := range streams {
			all = append(all, folder{a, s, filepath.Join(root, a, "streams", s, "msgs")})
		}
	}
	return all, nil
}

// readDir are the names in a folder, none if it is not there.
func readDir(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// blocks are the numbers of a stream's blocks, in order.
func (f folder) blocks() (all []int, err error) {
	names, err := readDir(f.msgs)
	for _, name := range names {
		if number, ok := strings.CutSuffix(name, ".blk"); ok {
			if n, err := strconv.Atoi(number); err == nil {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all, err
}

// span is what a block holds up to its first record that is not whole.
type span struct {
	first   uint64 // its first message's sequence; 0 if it has none
	last    uint64 // how far the stream went, as its messages and tombstones say; 0 if it has none
	records int
	bytes   int  // of the file
	whole   bool // it holds nothing else
}

// scan reads a block as the server does when it recovers.
func (f folder) scan(n int) (s span, err error) {
	buf, err := os.ReadFile(f.block(n))
	if err != nil {
		return s, err
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", f.stream, n))
	hash, err := highwayhash.New64(key[:])
	if err != nil {
		return s, err
	}
	s.bytes = len(buf)
	for len(buf) > 0 {
		size, seq, ok := record(buf, func(parts ...[]byte) []byte {
			hash.Reset()
			for _, p := range parts {
				_, _ = hash.Write(p) // never fails
			}
			return hash.Sum(nil)
		})
		if !ok {
			return s, nil
		}
		buf = buf[size:]
		s.records++
		tombstone := seq&bitTombstone != 0
		seq &^= bitErased | bitTombstone
		if s.first == 0 && !tombstone {
			s.first = seq
		}
		s.last = max(s.last, seq)
	}
	s.whole = true
	return s, nil
}

// record reads the record that buf begins with; ok is false if it is not whole.
func record(buf []byte, sum func(parts ...[]byte) []byte) (size int, seq uint64, ok bool) {
	if len(buf) < recordHeader {
		return 0, 0, false
	}
	le := binary.LittleEndian
	length, subject := le.Uint32(buf), int(le.Uint16(buf[20:]))
	size = int(length &^ bitHeaders)
	if size > len(buf) || size > recordBytesMax || size < recordHeader+subject+recordChecksum {
		return 0, 0, false
	}
	data := buf[recordHeader : size-recordChecksum]
	rest := data[subject:]
	if length&bitHeaders != 0 {
		if len(rest) < 4 {
			return 0, 0, false
		}
		rest = rest[4:]
	}
	return size, le.Uint64(buf[4:]), bytes.Equal(sum(buf[4:20], data[:subject], rest), buf[size-recordChecksum:size])
}
