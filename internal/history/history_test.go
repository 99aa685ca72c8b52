package history

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// played is a history that a story tells, one step a line: "a add 5" sends, "a = 5" answers, "a short" says that there is
// too little, "a never" that it did not happen. Each letter is one operation.
func played(t *testing.T, story string) *History {
	t.Helper()
	h := &History{}
	pending := map[string]*Pending{}
	for _, line := range strings.Split(story, "; ") {
		f := strings.Fields(line)
		switch verb := f[1]; verb {
		case "add", "take", "read":
			pending[f[0]] = h.Begin(len(pending), Op{Object: "o", Kind: Kind(verb), N: number(f)})
		case "=":
			pending[f[0]].Told(Told{Value: number(f)})
		case "short":
			pending[f[0]].Told(Told{Short: true})
		case "never":
			pending[f[0]].Never()
		default:
			t.Fatalf("%q is no step", line)
		}
	}
	return h
}

func number(f []string) (n int64) {
	for _, digit := range strings.Join(f[2:], "") {
		n = 10*n + int64(digit-'0')
	}
	return n
}

func TestWhatOneObjectCanHaveToldIsAccepted(t *testing.T) {
	t.Parallel()
	for name, story := range map[string]string{
		"one after the other":                 "a add 5; a = 5; b take 3; b = 2; c take 3; c short; d read; d = 2",
		"at the same time, either way round":  "a add 5; b add 2; c read; c = 2; b = 2; a = 7",
		"unknown, and it happened":            "a add 5; b add 2; b = 7; c read; c = 7",
		"unknown, and it did not happen":      "a add 5; b add 2; b = 2; c read; c = 2",
		"unknown, and it happens late":        "a add 5; b read; b = 0; c read; c = 5",
		"never, and left out":                 "a add 5; a never; b read; b = 0",
		"unknown and short":                   "a take 5; b add 5; b = 5; c read; c = 5",
		"a read without an answer is nothing": "a read; b add 5; b = 5",
	} {
		if err := played(t, story).Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatNoObjectCanHaveToldIsRefused(t *testing.T) {
	t.Parallel()
	for name, story := range map[string]string{
		"lost":                         "a add 5; a = 5; b read; b = 0",
		"applied twice":                "a add 5; a = 5; b read; b = 10",
		"never, and it happened":       "a add 5; a never; b read; b = 5",
		"back again":                   "a add 5; b read; b = 5; c read; c = 0",
		"told to two":                  "a add 5; b add 5; a = 5; b = 5",
		"unknown, and applied twice":   "a add 5; b read; b = 10",
		"short where there was enough": "a add 5; a = 5; b take 5; b short",
		"taken where there was less":   "a add 5; a = 5; b take 6; b = 0",
	} {
		h := played(t, story)
		err := h.Check()
		if err == nil {
			t.Errorf("%s: %s is accepted", name, story)
			continue
		}
		file := regexp.MustCompile(`\S+\.html`).FindString(err.Error())
		if picture, e := os.ReadFile(file); e != nil || !strings.Contains(string(picture), "<html") {
			t.Errorf("%s: no picture: %v, %v", name, err, e)
		}
		_ = os.Remove(file) // the system's folder for such is cleared some time
	}
}

func TestCountTellsAnswersFromWhatIsUnknown(t *testing.T) {
	t.Parallel()
	if told, unknown := played(t, "a add 1; b add 2; c read; d take 1; a = 1; b never; d short").Count(); told != 2 || unknown != 1 {
		t.Errorf("%d are told, %d unknown; want 2 and 1", told, unknown)
	}
}
