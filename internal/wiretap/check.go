package wiretap

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/journal"
)

// Request is a call as it was heard on its way to the owner.
type Request struct {
	Object string // class/token
	ID     string // of the caller's number or own id; empty: none
	Reply  string // where the answer goes; no two requests have the same
	Method string
	After  int // so many answers were heard before it
}

// Answer is what was heard on a reply subject.
type Answer struct {
	Reply    string
	Failed   bool // it is an error
	Replayed bool // it tells what an earlier call of the same id was told
	Version  journal.Version
}

// Heard is what was said, in the order in which the server passed it on.
type Heard struct {
	Requests []Request
	Answers  []Answer // those to the requests, and no others
	Members  []Members

	// Stopped says that processes were: one may have been between its last look at the lease and the sending, so that an answer leaves
	// after those of the next owner. It is still the right one for who had asked before these came.
	Stopped bool
}

// Without is what was heard but for the calls of some methods, and their answers: those that read.
func (h Heard) Without(methods ...string) Heard {
	left := map[string]bool{}
	h.Requests = slices.DeleteFunc(slices.Clone(h.Requests), func(r Request) bool {
		gone := slices.Contains(methods, r.Method)
		left[r.Reply] = left[r.Reply] || gone
		return gone
	})
	h.Answers = slices.Clone(h.Answers)
	for i, a := range h.Answers {
		if left[a.Reply] {
			h.Answers[i] = Answer{} // not taken out, since requests say how many were before them
		}
	}
	return h
}

// Members is who was subscribed at one moment.
type Members struct {
	At time.Duration // since the tap began
	Of map[string]int
}

// Commit is what the journal says of a version of an object.
type Commit struct {
	ID     string // of the request that it is of, as in [Request]
	Epoch  journal.EpochID
	Worker string // whose epoch that is
}

// Commits are those of the journal, by object and version.
type Commits map[string]map[journal.Version]Commit

// Finding is something that must not be.
type Finding struct {
	Object string
	What   string
}

func (f Finding) String() string { return f.Object + ": " + f.What }

// Check judges what was heard, of requests that change their object, in one epoch after the other. overlap is how long two may be subscribed to
// one subject.
func Check(h Heard, commits Commits, overlap time.Duration) []Finding {
	c := checker{commits: commits, stopped: h.Stopped, asked: map[string]Request{}, told: map[string]bool{}, last: map[string]Commit{},
		began: map[string]int{}, version: map[string]journal.Version{}}
	for _, r := range h.Requests {
		if _, twice := c.asked[r.Reply]; twice {
			c.find(r.Object, "two requests want their answer on %s", r.Reply)
		}
		c.asked[r.Reply] = r
	}
	for i, a := range h.Answers {
		if a != (Answer{}) {
			c.answer(i, a)
		}
	}
	c.members(h.Members, overlap)
	return c.found
}

type checker struct {
	commits Commits
	stopped bool
	asked   map[string]Request
	told    map[string]bool            // reply subjects that had an answer
	last    map[string]Commit          // by object: of the last answer
	began   map[string]int             // by object: the first answer under that epoch
	version map[string]journal.Version // likewise
	found   []Finding
}

func (c *checker) find(object, format string, args ...any) {
	c.found = append(c.found, Finding{object, fmt.Sprintf(format, args...)})
}

func (c *checker) answer(i int, a Answer) {
	r, ok := c.asked[a.Reply]
	if !ok {
		c.find("?", "an answer on %s, and nobody asked", a.Reply)
		return
	}
	if c.told[a.Reply] {
		c.find(r.Object, "request %s is answered twice on %s", r.ID, a.Reply)
	}
	c.told[a.Reply] = true
	if a.Failed {
		return
	}
	by, ok := c.commits[r.Object][a.Version]
	switch {
	case !ok:
		c.find(r.Object, "request %s is answered with version %d, which the journal does not have", r.ID, a.Version)
		return
	case by.ID != r.ID:
		c.find(r.Object, "request %s is answered with version %d, which is of request %s", r.ID, a.Version, by.ID)
	}
	if a.Replayed {
		return // by whoever owns it now, under an epoch of which that says nothing
	}
	last := c.last[r.Object]
	if c.stopped && by.Epoch.Number < last.Epoch.Number && r.After <= c.began[r.Object] {
		return
	}
	switch {
	case by.Epoch.Number < last.Epoch.Number, by.Epoch.Number == last.Epoch.Number && by.Epoch != last.Epoch:
		c.find(r.Object, "worker %s answers under epoch %s after worker %s did under epoch %s", by.Worker, by.Epoch, last.Worker, last.Epoch)
	case a.Version <= c.version[r.Object]:
		c.find(r.Object, "version %d is answered after version %d", a.Version, c.version[r.Object])
	}
	if by.Epoch != last.Epoch {
		c.began[r.Object] = i
	}
	c.last[r.Object], c.version[r.Object] = by, a.Version
}

// members looks for subjects that more than one is subscribed to.
func (c *checker) members(all []Members, overlap time.Duration) {
	since := map[string]time.Duration{}
	told := map[string]bool{}
	for _, m := range all {
		for subject := range since {
			if m.Of[subject] < 2 {
				delete(since, subject)
			}
		}
		for _, subject := range slices.Sorted(maps.Keys(m.Of)) {
			n := m.Of[subject]
			began, ok := since[subject]
			if !ok {
				began = m.At
			}
			if n < 2 {
				continue
			}
			if since[subject] = began; m.At-began >= overlap && !told[subject] {
				told[subject] = true
				c.find(subject, "%d are subscribed to it, for %v at least", n, m.At-began)
			}
		}
	}
}
