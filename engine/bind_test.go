package engine

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// TestAnArgumentIsReadByItself: decoders are used again and again, and what one read before leaves no trace.
func TestAnArgumentIsReadByItself(t *testing.T) {
	type argument struct {
		A int
		B []string
		C json.RawMessage
		D map[string]*int
	}
	rapid.Check(t, func(t *rapid.T) {
		inputs := rapid.SliceOfN(rapid.SampledFrom([]string{`{"A":1}`, `{"A":2,"B":["x","y"],"C":{"z":[1, 2]}}`, ` {"D":{"k":7}} `, `{`, `{"A":"no number"}`, `{"E":1}`, `{} {}`, `{}]`, "null", "", " ", `{"B":["` + "\xff" + `"]}`}), 1, 30).Draw(t, "inputs")
		for _, in := range inputs {
			var got, want argument
			err := decodeArgument([]byte(in), &got)
			fresh := json.NewDecoder(bytes.NewReader([]byte(in)))
			fresh.DisallowUnknownFields()
			bad := fresh.Decode(&want) != nil
			if _, err := fresh.Token(); err != io.EOF {
				bad = true
			}
			if in == "" {
				bad = false
			}
			if (err != nil) != bad || !bad && !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: %+v, %v; want %+v, an error: %v", in, got, err, want, bad)
			}
		}
	})
}
