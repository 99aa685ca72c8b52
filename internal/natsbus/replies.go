package natsbus

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// replies are the reply subjects of messages that are passed on: what is answered comes to subjects of our own first.
type replies struct {
	prefix string

	mu      sync.Mutex
	n       uint64
	waiting map[uint64]waiting
}

// waiting is a caller that waits for an answer.
type waiting struct {
	reply string
	since time.Time
}

// waitingMax bounds the callers that wait; those whose answer got lost are forgotten then.
const (
	waitingMax = 1 << 16
	waitingFor = 30 * time.Second
)

func newReplies() *replies {
	return &replies{prefix: nats.NewInbox() + ".", waiting: map[uint64]waiting{}}
}

// all matches the subjects of all answers.
func (r *replies) all() string { return r.prefix + "*" }

// wait is where the answer comes that is for a reply subject. ok is false if too many wait.
func (r *replies) wait(reply string) (subject string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if len(r.waiting) >= waitingMax {
		for n, w := range r.waiting {
			if now.Sub(w.since) > waitingFor {
				delete(r.waiting, n)
			}
		}
	}
	if len(r.waiting) >= waitingMax {
		return "", false
	}
	r.n++
	r.waiting[r.n] = waiting{reply, now}
	return r.prefix + strconv.FormatUint(r.n, 10), true
}

// take is whom an answer is for, which came to a subject of wait's.
func (r *replies) take(subject string) (reply string, ok bool) {
	n, _ := strconv.ParseUint(strings.TrimPrefix(subject, r.prefix), 10, 64) // there are none other
	r.mu.Lock()
	defer r.mu.Unlock()
	w, ok := r.waiting[n]
	delete(r.waiting, n)
	return w.reply, ok
}

// none tells whether nobody waits.
func (r *replies) none() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiting) == 0
}
