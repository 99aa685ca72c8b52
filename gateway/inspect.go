package gateway

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/journal"
)

// journalPage is how many commits are read at a time; each may hold large values.
const journalPage = 100

func (g *Gateway) state(w *response, r *http.Request, t *target) error {
	s, err := g.Inspector.State(r.Context(), t.class, t.name)
	if err != nil {
		return err
	}
	tag := etag(uint64(s.Version))
	w.Header().Set("ETag", tag)
	if matches(r.Header, tag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return engine.WriteJSON(w, s)
}

// matches tells whether If-None-Match names the tag. Ours have no comma inside.
func matches(h http.Header, tag string) bool {
	for _, v := range h.Values("If-None-Match") {
		for one := range strings.SplitSeq(v, ",") {
			one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
			if one == tag || one == "*" {
				return true
			}
		}
	}
	return false
}

// journal writes one commit a line, page by page. What goes wrong after the first page is the last line.
func (g *Gateway) journal(w *response, r *http.Request, t *target) error {
	if preferred(r.Header, typeNDJSON, typeSSE) == typeSSE {
		return g.followJournal(w, r, t)
	}
	from, _, err := number(t, "from", 0, math.MaxUint64)
	if err != nil {
		return err
	}
	left, limited, err := number(t, "limit", 1, math.MaxUint64)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(w)
	flush := http.NewResponseController(w).Flush
	for next := journal.Seq(from); ; {
		page := journalPage
		if limited {
			page = int(min(left, journalPage))
		}
		var entries []engine.JournalEntry
		entries, next, err = g.Inspector.Journal(r.Context(), t.class, t.name, next, page)
		if err != nil {
			if w.status == 0 {
				return err
			}
			return lines.Encode(engine.ProblemOf(err))
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
		for i := range entries {
			if err := lines.Encode(&entries[i]); err != nil {
				return err
			}
		}
		left -= min(left, uint64(len(entries)))
		if next == 0 || limited && left == 0 || r.Method == http.MethodHead {
			return nil
		}
		if err := flush(); err != nil {
			return err
		}
	}
}

// objects lists the objects of a class, or of all.
func (g *Gateway) objects(w *response, r *http.Request, t *target) error {
	limit, limited, err := number(t, "limit", 1, engine.ListMax)
	if err != nil {
		return err
	}
	if !limited {
		limit = engine.ListMax
	}
	list, next, err := g.Inspector.Objects(r.Context(), t.class, t.query.Get("prefix"), t.query.Get("cursor"), int(limit))
	if err != nil {
		return err
	}
	return engine.WriteJSON(w, objectsPage{orEmpty(list), next})
}

// Answers about more than one thing.
type (
	objectsPage struct {
		Objects []engine.ObjectInfo `json:"objects"`
		Next    string              `json:"next,omitempty"`
	}
	classesPage struct {
		Classes []engine.ClassInfo `json:"classes"`
	}
)

func (g *Gateway) classes(w *response, r *http.Request, _ *target) error {
	list, err := g.Inspector.Classes(r.Context())
	if err != nil {
		return err
	}
	return engine.WriteJSON(w, classesPage{orEmpty(list)})
}

// orEmpty makes JSON's [] of no slice.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// number is a parameter from least to most.
func number(t *target, name string, least, most uint64) (n uint64, given bool, err error) {
	if !t.query.Has(name) {
		return 0, false, nil
	}
	v := t.query.Get(name)
	n, err = strconv.ParseUint(v, 10, 64)
	if err != nil || n < least || n > most {
		return 0, true, engine.Errorf(engine.Invalid, "parameter %q is %q; want a number from %d to %d", name, v, least, most)
	}
	return n, true, nil
}
