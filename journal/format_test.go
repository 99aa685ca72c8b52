package journal

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestARecordSaysTheLowestFormatThatReadsIt: not the one of the program, and if commits were joined, the highest of theirs.
func TestARecordSaysTheLowestFormatThatReadsIt(t *testing.T) {
	c := golden()["first"].Commits[0]
	if got := c.MinReader(); got != 1 {
		t.Errorf("a put needs a reader of format %d", got)
	}
	one := Encoded{JSON: AppendCommit(nil, &c), At: noon}
	newest := one
	newest.MinReader = Format + 1
	for name, commits := range map[string][]Encoded{"1": {one, one}, "2": {one, newest, one}} {
		var r Record
		data := AppendRecord(nil, 1, Hash{}, commits)
		if err := json.Unmarshal(data, &struct{ *Record }{&r}); err != nil || r.V != r.MinReader || !strings.HasPrefix(string(data), `{"v":`+name+`,"min_reader":`+name+`,`) {
			t.Errorf("%s is to need format %s; %v", data, name, err)
		}
		if _, err := DecodeRecord(data); (name == "2") != errors.Is(err, ErrNewer) {
			t.Errorf("of format %s: %v", name, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a kind without a format may be written")
		}
	}()
	c.Changes[0].Kind = "teleport"
	c.MinReader()
}

// TestFieldsOfANewerVersionAreIgnored: of whatever is in a stream, wherever they are. The files were written by hand: a version that adds
// fields, and needs none of them to be understood.
func TestFieldsOfANewerVersionAreIgnored(t *testing.T) {
	read := func(name string) (newer, plain []byte) {
		data, err := os.ReadFile(filepath.Join("testdata", "skew", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err = json.Marshal(without(data)); err != nil || strings.Contains(string(plain), "later") || !strings.Contains(string(data), "later") {
			t.Fatalf("%s: %s, %v", name, plain, err)
		}
		return data, plain
	}
	for name, decode := range map[string]func([]byte) (any, error){
		"record":     func(b []byte) (any, error) { return DecodeRecord(b) },
		"epoch":      func(b []byte) (any, error) { return DecodeEpoch(b) },
		"snap":       func(b []byte) (any, error) { return DecodeSnap(b) },
		"checkpoint": func(b []byte) (any, error) { return DecodeCheckpoint(b) },
		"dead":       func(b []byte) (any, error) { return DecodeDeadLetter(b) },
	} {
		newer, plain := read(name)
		got, err := decode(newer)
		want, err2 := decode(plain)
		if err := errors.Join(err, err2); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s is read differently:\n%s", name, diff)
		}
	}
}

// without is a JSON value without the fields "later", wherever they are.
func without(data []byte) any {
	var v any
	_ = json.Unmarshal(data, &v)
	var strip func(any)
	strip = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "later")
			for _, of := range v {
				strip(of)
			}
		case []any:
			for _, of := range v {
				strip(of)
			}
		}
	}
	strip(v)
	return v
}

// TestWhatIsWrittenAgainKeepsWhatIsNotKnown: also fields whose names differ from known ones, which are not taken for those.
func TestWhatIsWrittenAgainKeepsWhatIsNotKnown(t *testing.T) {
	var w Witness
	kept, err := DecodeKeeping([]byte(`{"acked":7,"LIFE":2,"ackedBy":"x","later":{"a":[1,2]},"alarm":null}`), &w)
	if err != nil || w.Acked != 7 || w.Life != 2 || len(kept) != 2 {
		t.Fatalf("%+v and %v, %v", w, kept, err)
	}
	w.Acked = 8
	data, err := EncodeKeeping(w, kept)
	if err != nil || !strings.HasPrefix(string(data), `{"epoch":`) || !strings.Contains(string(data), `"acked":8,`) || !strings.HasSuffix(string(data), `,"ackedBy":"x","later":{"a":[1,2]}}`) {
		t.Errorf("%s, %v", data, err)
	}
	if data, err = EncodeKeeping(struct{}{}, kept); err != nil || string(data) != `{"ackedBy":"x","later":{"a":[1,2]}}` {
		t.Errorf("%s, %v", data, err)
	}
	if kept, err = DecodeKeeping([]byte(`{"acked":7}`), &w); err != nil || kept != nil {
		t.Errorf("%v, %v", kept, err)
	}
	if _, err = DecodeKeeping([]byte(`[]`), &w); err == nil {
		t.Error("a list is read")
	}
}
