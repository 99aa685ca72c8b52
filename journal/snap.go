package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
)

// Snap is one part of a snapshot record: an object's whole state as of a record, so that replay need not begin at the
// first. All parts are stored by one atomic batch on the object's snapshot subject; each carries the manifest.
//
//	{"v":1,"min_reader":1,"part":1,"of":1,"version":120,"seq":9031,"hash":"…","at":"…","entries":[
//	  {"space":"k","key":"count","value":120}]}
//
// Increments (a snapshot on top of an earlier one) are left room for by base, which is reserved.
type Snap struct {
	V         int         `json:"v"`
	MinReader int         `json:"min_reader"`
	Part      int         `json:"part"` // from 1
	Of        int         `json:"of"`
	Version   Version     `json:"version"` // the state is that after this commit
	Seq       Seq         `json:"seq"`     // the position of the record whose last commit that is
	Hash      Hash        `json:"hash"`    // of that record's payload
	At        time.Time   `json:"at"`      // of that record
	Entries   []SnapEntry `json:"entries"`
}

// SnapEntry is one entry of the state: the spaces are those of package snapshot.
type SnapEntry struct {
	Space string
	Key   string
	Data  []byte // JSON, unless Raw
	Raw   bool
}

// MarshalJSON writes the entry as it stands in a snapshot record.
func (e SnapEntry) MarshalJSON() ([]byte, error) {
	b := appendString([]byte(`{"space":`), e.Space)
	b = appendString(append(b, `,"key":`...), e.Key)
	b = appendValue(append(b, ','), "value", e.Data, e.Raw)
	return append(b, '}'), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (e *SnapEntry) UnmarshalJSON(data []byte) (err error) {
	var f struct {
		Space, Key string
		value
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	*e = SnapEntry{Space: f.Space, Key: f.Key}
	e.Data, e.Raw, err = f.get()
	return err
}

// Encode is the part as a payload. Values stay as they are, byte for byte, as in a record.
func (s Snap) Encode() ([]byte, error) {
	s.V, s.MinReader = FormatBase, FormatBase
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(s)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}

// DecodeSnap reads one part.
func DecodeSnap(data []byte) (*Snap, error) {
	s := new(Snap)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("snapshot record: %w", err)
	}
	switch {
	case s.MinReader > Format:
		return nil, newer(s.MinReader)
	case s.V < 1 || s.Part < 1 || s.Of < s.Part || s.Of > BatchMax || s.Version < 1 || s.Seq < 1 || s.Hash == (Hash{}):
		return nil, fmt.Errorf("%w: snapshot record %.80q lacks part, version, seq or hash", errShape, data)
	}
	return s, nil
}
