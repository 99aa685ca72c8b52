package feed

import (
	"strconv"
	"strings"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

// spot is how far something is told in one stream: all up to seq; or, if part is not 0, all before seq and the first part
// commits of the record at seq.
type spot struct {
	seq  journal.Seq
	part int
}

// whole is the position up to which all is told.
func (s spot) whole() journal.Seq {
	if s.part > 0 {
		return s.seq - 1
	}
	return s.seq
}

// append writes it: 17, or 17:2.
func (s spot) append(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(s.seq), 10)
	if s.part > 0 {
		b = strconv.AppendInt(append(b, ':'), int64(s.part), 10)
	}
	return b
}

func parseSpot(text string) (spot, error) {
	number, part, partly := strings.Cut(text, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	s := spot{seq: journal.Seq(seq)}
	if partly && err == nil {
		var n uint64
		n, err = strconv.ParseUint(part, 10, 31)
		s.part = int(n)
	}
	if err != nil || partly && (s.part == 0 || s.seq == 0) {
		return spot{}, engine.Errorf(engine.Invalid, "%.100q is no place in a journal; want the id of an event, now or start", text)
	}
	return s, nil
}

// ParseID reads the id of an event of one object: the sequence of its record, and which of its commits, 0 for the last.
func ParseID(text string) (seq journal.Seq, part int, err error) {
	s, err := parseSpot(text)
	return s.seq, s.part, err
}

// lifeDigits are so many of the digits of the namespace's id that a place begins with.
const lifeDigits = 8

// formatPlace is a place in all streams of a namespace: 3f9a0c12.260.0.17:2.5.
func formatPlace(life string, at []spot) string {
	b := append(make([]byte, 0, 64), life[:min(lifeDigits, len(life))]...)
	for _, s := range at {
		b = s.append(append(b, '.'))
	}
	return string(b)
}

func parsePlace(text, life string, partitions int) ([]spot, error) {
	parts := strings.Split(text, ".")
	at := make([]spot, len(parts)-1)
	for i, part := range parts[1:] {
		var err error
		if at[i], err = parseSpot(part); err != nil {
			return nil, err
		}
	}
	switch {
	case len(at) == 0:
		return nil, engine.Errorf(engine.Invalid, "%.100q is no place in the journals; want the id of an event, now or start", text)
	case parts[0] != life[:min(lifeDigits, len(life))] || len(at) != partitions:
		return nil, engine.Errorf(engine.Invalid, "%.100q is a place in another namespace, or in this one before it was made anew; begin from now or start", text)
	}
	return at, nil
}
