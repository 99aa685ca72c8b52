package journal

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// Extra is the fields of a JSON object that this program does not know: a newer one wrote them. Records stay as they are; but
// what is read, changed and written again, a key of the bucket, would lose them. So whoever decodes it keeps them, and
// writes them back.
type Extra map[string]json.RawMessage

// DecodeKeeping decodes a JSON object into a struct, and returns the fields that it has no place for.
func DecodeKeeping[T any](data []byte, v *T) (Extra, error) {
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if strict.Decode(v) == nil && strict.InputOffset() == int64(len(data)) {
		return nil, nil // the usual case, in one pass
	}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, err
	}
	var fields Extra
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		known, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		for name := range fields {
			if strings.EqualFold(name, known) { // as encoding/json does
				delete(fields, name)
			}
		}
	}
	if len(fields) == 0 {
		return nil, nil
	}
	return fields, nil
}

// EncodeKeeping encodes a struct, whose fields all have names for JSON, and behind them what was kept.
func EncodeKeeping[T any](v T, kept Extra) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil || len(kept) == 0 {
		return b, err
	}
	more, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	b = b[:len(b)-1]
	if len(b) > 1 { // it has fields of its own
		b = append(b, ',')
	}
	return append(b, more[1:]...), nil
}
