package journal

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// EpochID names an epoch: a number that grows by one, and 64 random bits, by which two epochs of one number (in a
// stream that came back shorter) are told apart.
type EpochID struct {
	Number uint64 `json:"number"`
	Token  Token  `json:"token"`
}

// String is the form in the header of a record: number, space, token.
func (e EpochID) String() string { return strconv.FormatUint(e.Number, 10) + " " + e.Token.String() }

// ParseEpochID reads the form that String writes.
func ParseEpochID(s string) (EpochID, error) {
	number, token, _ := strings.Cut(s, " ")
	n, err := strconv.ParseUint(number, 10, 64)
	t, err2 := parseToken(token)
	if err != nil || err2 != nil {
		return EpochID{}, fmt.Errorf("epoch %q is not a number, a space and 16 hex digits", s)
	}
	return EpochID{n, t}, nil
}

// Token is 64 random bits, written as 16 hex digits.
type Token uint64

func (t Token) String() string { return fmt.Sprintf("%016x", uint64(t)) }

// MarshalText writes the hex digits.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads them.
func (t *Token) UnmarshalText(b []byte) (err error) {
	*t, err = parseToken(string(b))
	return err
}

func parseToken(s string) (Token, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 8 {
		return 0, fmt.Errorf("token %q is not 16 hex digits", s)
	}
	var t Token
	for _, c := range b {
		t = t<<8 | Token(c)
	}
	return t, nil
}

// Incarnation names one life of a worker's lease: the revision of the key that created it, and 64 random bits.
type Incarnation struct {
	Revision Seq   `json:"revision"`
	Nonce    Token `json:"nonce"`
}

// EpochRecord is a message on a partition's epoch subject: a worker begins an epoch, or releases the one it has.
type EpochRecord struct {
	V           int         `json:"v"`
	Release     bool        `json:"release,omitempty"`
	Epoch       EpochID     `json:"epoch"`  // a release names the epoch that it ends
	Before      uint64      `json:"before"` // number of the epoch before it; 0: there was none
	Worker      string      `json:"worker"`
	Incarnation Incarnation `json:"incarnation"`
	Window      int         `json:"window"`         // how many messages its owner may have in flight
	Server      string      `json:"server"`         // the id of the server's run
	Software    string      `json:"software"`       // its owner's version
	Heir        string      `json:"heir,omitempty"` // in a release: who should go first, a hint
	At          time.Time   `json:"at"`
}

// Encode is the record as a payload.
func (r EpochRecord) Encode() []byte {
	r.V = 1
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("journal: an epoch record does not encode: %v", err)) // its fields always do
	}
	return b
}

// DecodeEpoch reads an epoch record.
func DecodeEpoch(data []byte) (EpochRecord, error) {
	var r EpochRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("epoch record: %w", err)
	}
	switch {
	case r.V != 1:
		return r, fmt.Errorf("epoch record of version %d; this program reads 1", r.V)
	case r.Epoch.Number == 0 || r.Worker == "" || r.Window < 1:
		return r, fmt.Errorf("epoch record %.80q lacks a number, a worker or a window", data)
	}
	return r, nil
}
