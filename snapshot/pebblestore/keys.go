package pebblestore

import (
	"bytes"

	"github.com/perdure/perdure/snapshot"
)

// formatVersion is the version of the key layout. A folder with another one is set aside, as it can be rebuilt.
//
//	area    key                                        value
//	format  F format                                   formatVersion
//	        F namespace                                the namespace's life id
//	index   I <id>                                     nothing
//	objects O <id> 00 <space: 1 byte> <key: the rest>  the entry's value
//
//	O  c a r t . a  00  k  x        entry x of space k of the object cart.a
//	└──── object ────┘
//	└────── space ──────┘
//
// Keys are ordered as bytes, so an object's entries lie together, spaces lie together in them, and keys are ordered in
// a space. An id has no byte 0: the 0 behind it ends it, and no object's range reaches into that of an object whose id
// begins with its own. A key needs no escape, because it comes last.
const formatVersion = "1"

const (
	formatArea = 'F'
	indexArea  = 'I'
	objectArea = 'O'
)

var (
	formatKey    = []byte("Fformat")
	namespaceKey = []byte("Fnamespace")
)

// keySize is the length of an entry's key.
func keySize(id snapshot.ID, key string) int {
	return 1 + len(id) + 2 + len(key)
}

// appendKey appends an entry's key.
func appendKey(b []byte, id snapshot.ID, space snapshot.Space, key string) []byte {
	b = append(b, objectArea)
	b = append(b, id...)
	b = append(b, 0, byte(space))
	return append(b, key...)
}

// objectBounds are the first key that can be the object's and the first one behind them.
func objectBounds(id snapshot.ID) (lower, upper []byte) {
	lower = append(append([]byte{objectArea}, id...), 0)
	return lower, successor(lower)
}

// scanBounds are the bounds of a space's entries with from <= key < to.
func scanBounds(id snapshot.ID, space snapshot.Space, from, to string) (lower, upper []byte) {
	if to == "" {
		upper = successor(appendKey(nil, id, space, ""))
	} else {
		upper = appendKey(nil, id, space, to)
	}
	return appendKey(nil, id, space, from), upper
}

// indexKey is the key of a name in the list of all objects.
func indexKey(id snapshot.ID) []byte {
	return append([]byte{indexArea}, id...)
}

// indexBounds are the bounds of the names that begin with prefix and come after the name after.
func indexBounds(prefix, after string) (lower, upper []byte) {
	lower = append([]byte{indexArea}, prefix...)
	upper = successor(lower)
	if after >= prefix {
		lower = append(append([]byte{indexArea}, after...), 0)
	}
	return lower, upper
}

// successor is the first key behind all that begin with prefix. All our prefixes begin with an area, which is not 0xff,
// so there is one.
func successor(prefix []byte) []byte {
	last := len(prefix) - 1
	for prefix[last] == 0xff {
		last--
	}
	s := bytes.Clone(prefix[:last+1])
	s[last]++
	return s
}
