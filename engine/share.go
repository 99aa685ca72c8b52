package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/journal"
)

// Which worker ought to own which partition. Nothing about safety hangs on it: two workers that see it differently meet at
// the compare-and-set of the epoch, and the log decides.

// assign gives each partition to one of the workers: rendezvous hashing (Thaler and Ravishankar 1998) in which nobody has
// more than his share, rounded up, so few move when a worker comes or goes. A partition that somebody has moved stays with
// the worker that it was moved to while that is one of them. Nobody gets any if there are no workers.
func assign(partitions int, workers []string, moved map[int]string) []string {
	return deal(partitions, workers, moved, rank(partitions, workers))
}

// choice is a worker for a partition, and how much it is for it.
type choice struct {
	weight uint64
	p      int
	worker string
}

// rank are all choices that there are, the best ones first.
func rank(partitions int, workers []string) []choice {
	choices := make([]choice, 0, partitions*len(workers))
	for p := range partitions {
		for _, worker := range workers {
			choices = append(choices, choice{weigh(worker, p), p, worker})
		}
	}
	slices.SortFunc(choices, func(a, b choice) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.p, b.p), cmp.Compare(a.worker, b.worker))
	})
	return choices
}

// deal gives each partition to one of the workers. The choices may be among more workers than those.
func deal(partitions int, workers []string, moved map[int]string, choices []choice) []string {
	owners := make([]string, partitions)
	if len(workers) == 0 {
		return owners
	}
	load := map[string]int{}
	for _, worker := range workers {
		load[worker] = 0
	}
	for p, to := range moved {
		if _, there := load[to]; there && p < partitions {
			owners[p] = to
			load[to]++
		}
	}
	most := (partitions + len(workers) - 1) / len(workers)
	for _, pass := range []int{most, partitions} { // what was moved may leave too little room for the first
		for _, c := range choices {
			if n, there := load[c.worker]; there && owners[c.p] == "" && n < pass {
				owners[c.p] = c.worker
				load[c.worker]++
			}
		}
	}
	return owners
}

// share is who has which partition, and from what that follows.
type share struct {
	workers []string
	moved   map[int]string
	owners  []string // by partition
	next    []string // who would own it next; nil if nobody asks
}

// assignNext gives each partition to the worker that would own it if its owner were not there: nobody if he is the only one.
func assignNext(owners, workers []string, moved map[int]string) []string {
	next := make([]string, len(owners))
	choices := rank(len(owners), workers)
	for _, gone := range workers {
		if !slices.Contains(owners, gone) {
			continue
		}
		without := deal(len(owners), slices.DeleteFunc(slices.Clone(workers), func(w string) bool { return w == gone }), moved, choices)
		for p, owner := range owners {
			if owner == gone {
				next[p] = without[p]
			}
		}
	}
	return next
}

// weigh is how much a worker is for a partition.
func weigh(worker string, p int) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", p, worker)
	x := h.Sum64() // the end of what FNV has read changes only its low bits: they are spread (the finalizer of MurmurHash3)
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// standing is what a lease says of its worker's place in the share.
type standing string

const (
	sharing standing = ""        // it takes its share
	joining standing = "joining" // it ended too often of late: it gets something only if nobody shares
	leaving standing = "leaving" // it is about to end: it gives away what it has
)

// sighting is a lease, and since when it has not changed by the clock of who looks, at the least.
type sighting struct {
	lease
	since time.Duration
	heard time.Duration // when its worker last said that it had renewed it. That is for the share alone: no lease is closed by it
}

// alive tells whether the worker may still be there. Once it is not, its lease may be closed.
func (s sighting) alive(now time.Duration) bool {
	return !s.absent() && !s.Closed && now < s.until()
}

// until is when the worker may be taken for dead if nothing comes from it.
func (s sighting) until() time.Duration { return max(s.since, s.heard) + takerWait(s.term()) }

// roster is what is known of the workers.
type roster map[string]sighting

// note notes a lease as it was read and answered before now, and returns since when it has been like that.
func (r roster) note(worker string, l lease, now time.Duration) sighting {
	s, known := r[worker]
	if !known || s.rev != l.rev || s.incarnation() != l.incarnation() || s.Closed != l.Closed {
		s = sighting{l, now, s.heard}
		r[worker] = s
	}
	return s
}

// hear takes a worker's word that one of its lives goes on.
func (r roster) hear(worker string, life journal.Token, now time.Duration) {
	if s := r[worker]; s.Nonce == life && life != 0 {
		s.heard = now
		r[worker] = s
	}
}

// Where n workers read each other's leases, that is n times n questions to one server. So where there are many, each reads those that it had no
// word of, and of the others about so many at a time, in turn.
const leasesEach = 10

// turns is after how many looks every lease was read once.
func (r roster) turns(each int) uint64 {
	open := 0
	for _, s := range r {
		if !s.Closed {
			open++
		}
	}
	return uint64(max(1, open/each))
}

// known tells whether a lease may be as it was read: its worker has sent word since the last look, or it is closed. It need not be read then.
func (r roster) known(worker string, looked time.Duration) bool {
	s := r[worker]
	return s.heard > looked || s.Closed
}

// workers are those who share: who is alive, has not said that it leaves, was not drained, and has joined. If that is nobody, those
// share who have not joined yet, and at last those who were drained. It also tells when the first of the living may be taken for dead.
func (r roster) workers(now time.Duration, drained []string) (sharers []string, next time.Duration) {
	conditions := []func(string, sighting) bool{
		func(_ string, s sighting) bool { return s.Standing != leaving },
		func(worker string, _ sighting) bool { return !slices.Contains(drained, worker) },
		func(_ string, s sighting) bool { return s.Standing != joining },
	}
	var living []string
	for _, worker := range slices.Sorted(maps.Keys(r)) {
		if s := r[worker]; s.alive(now) {
			living = append(living, worker)
			if until := s.until(); next == 0 || until < next {
				next = until
			}
		}
	}
	for ; len(sharers) == 0 && len(conditions) > 0; conditions = conditions[:len(conditions)-1] {
		for _, worker := range living {
			if !slices.ContainsFunc(conditions, func(holds func(string, sighting) bool) bool { return !holds(worker, r[worker]) }) {
				sharers = append(sharers, worker)
			}
		}
	}
	return sharers, next
}

// The damper: a worker whose lives end too early is let in later each time, so that one that flaps does not stir everything.
const (
	flapForget = time.Minute      // a life as long as this forgets the ones before
	flapMost   = 30 * time.Second // it never waits longer
	flapFree   = 1                // so many times it is let in at once
)

// flapped is how many lives in a row ended early, when one follows the life that left this lease behind: any end but a clean one counts.
func flapped(former lease, now time.Time) int {
	switch {
	case former.absent(), former.Standing == leaving, now.Sub(former.Began) > flapForget:
		return 0
	}
	return former.Flaps + 1
}

// flapWait is how long a worker waits until it shares.
func flapWait(flaps int, term time.Duration) time.Duration {
	if flaps <= flapFree {
		return 0
	}
	return min(term<<min(flaps-flapFree, 8), flapMost)
}

// Placement is what somebody has asked the share to be, beside what the workers settle among themselves: the key "share".
type Placement struct {
	// Moved are partitions and the workers that are to own them, as long as they are there.
	Moved map[int]string `json:"moved,omitempty"`
	// Drained are workers that are to own nothing, as long as there are others.
	Drained []string `json:"drained,omitempty"`

	kept journal.Extra
}

// placementKey is the key of the bucket that holds a [Placement].
const placementKey = "share"

// ReadPlacement reads what was asked for, and the revision that it has.
func ReadPlacement(ctx context.Context, meta journal.Meta) (pl Placement, rev journal.Seq, err error) {
	value, rev, err := meta.Get(ctx, placementKey)
	if errors.Is(err, journal.ErrNotFound) {
		return pl, rev, nil
	}
	if err == nil {
		pl.kept, err = journal.DecodeKeeping(value, &pl)
	}
	if err != nil {
		return pl, rev, fmt.Errorf("placement: %w", err)
	}
	return pl, rev, nil
}

// ChangePlacement changes what is asked for. The workers see it within a quarter of a lease term.
func ChangePlacement(ctx context.Context, meta journal.Meta, change func(*Placement)) error {
	for {
		pl, rev, err := ReadPlacement(ctx, meta)
		if err != nil {
			return err
		}
		if pl.Moved == nil {
			pl.Moved = map[int]string{}
		}
		change(&pl)
		value, err := journal.EncodeKeeping(pl, pl.kept)
		if err != nil {
			return err
		}
		if _, err = meta.Put(ctx, placementKey, value, rev); !errors.Is(err, journal.ErrConflict) {
			return err
		}
	}
}

// Member is what the bucket says of a worker, to somebody who owns nothing.
type Member struct {
	Worker   string        `json:"worker"`
	Closed   bool          `json:"closed"`   // its last life has ended
	Renewed  time.Time     `json:"renewed"`  // by its own clock
	Began    time.Time     `json:"began"`    // its present life, likewise
	Term     time.Duration `json:"term"`     // of its lease
	Standing string        `json:"standing"` // sharing, joining or leaving
	Software string        `json:"software"` // its version
	Revision journal.Seq   `json:"revision"` // of its lease: while it lives that grows each quarter of the term
}

// ReadMembers reads the leases of all workers that there ever were, by name. One that is not closed may be dead nevertheless: then its
// revision stays as it is for longer than its term.
func ReadMembers(ctx context.Context, meta journal.Meta) (members []Member, err error) {
	leases, err := readLeases(ctx, meta)
	if err != nil {
		return nil, err
	}
	for _, worker := range slices.Sorted(maps.Keys(leases)) {
		l := leases[worker]
		members = append(members, Member{worker, l.Closed, l.At, l.Began, l.term(), cmp.Or(string(l.Standing), "sharing"), l.Software, l.rev})
	}
	return members, nil
}

// readLeases reads the leases of all workers.
func readLeases(ctx context.Context, meta journal.Meta) (map[string]lease, error) {
	return readLeasesOf(ctx, meta, func(string) bool { return true })
}

// readLeasesOf reads the leases of some workers.
func readLeasesOf(ctx context.Context, meta journal.Meta, of func(worker string) bool) (map[string]lease, error) {
	leases := map[string]lease{}
	prefix := leaseKey("")
	for key, err := range meta.Keys(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		if !of(key[len(prefix):]) {
			continue
		}
		value, rev, err := meta.Get(ctx, key)
		if errors.Is(err, journal.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if leases[key[len(prefix):]], err = decodeLease(value, rev); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return leases, nil
}

// claim is whether a partition is this worker's by the share. The zero value is no.
type claim struct {
	mu    sync.Mutex
	ours  bool
	copy  standby
	moved chan struct{} // closed at the next change; nil while nobody waits
	word  chan struct{} // has an element when another worker sent word of the partition

	// Owned by own. Whatever the share says, an epoch of ours that may be the last, or may come to be, is begun again and released: nobody
	// else may follow it while our lease lives. tried is where the last message on the epoch subject was when we sent something
	// there: it was stored at the next place, or is refused for ever once there is another.
	open  bool
	tried journal.Seq

	unsure bool // what the worker knows of the stream is not held against it yet; owned by own, once it runs
}

func (c *claim) set(ours bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ours == ours {
		return
	}
	c.ours = ours
	c.changed()
}

// changed wakes who waits for a change. Called with mu held.
func (c *claim) changed() {
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
}

// get tells whether it is ours, and what is closed when that changes.
func (c *claim) get() (ours bool, moved <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ours, c.change()
}

// change is what is closed at the next change. Called with mu held.
func (c *claim) change() <-chan struct{} {
	if c.moved == nil {
		c.moved = make(chan struct{})
	}
	return c.moved
}

// wait waits for a while, for word of the partition, or for a change of the claim.
func (c *claim) wait(ctx context.Context, d time.Duration) error {
	_, moved := c.get()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.word:
	case <-moved:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	takeWord(c.word)
	return nil
}

// takeWord takes a word that has come beside what is about to be looked at anyway, and tells whether there was one.
func takeWord(word chan struct{}) bool {
	select {
	case <-word:
		return true
	default:
		return false
	}
}

// share sets the claims as the leases and the placement say, again and again, until ctx is done. What cannot be read leaves them as
// they are.
func (s *session) share(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		told := false
		select {
		case <-timer.C:
		case <-s.look:
			told = true
		case <-ctx.Done():
			return
		}
		next, err := s.settleShare(ctx, takeWord(s.look) || told)
		if err != nil && ctx.Err() == nil {
			s.w.log.Warn("share not settled", "err", err)
		}
		wait := s.trust.renewEvery() * 97 / 101 // not when the lease is renewed
		if next > 0 {                           // as soon as somebody's silence has lasted long enough
			wait = min(wait, max(next-s.w.clock.Boot(), time.Millisecond))
		}
		timer.Reset(wait)
	}
}

// settleShare looks who is there and sets the claims. It tells when it is worth another look even if nothing is heard. All leases are
// read if somebody told that one has changed.
func (s *session) settleShare(ctx context.Context, told bool) (next time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.trust.term*13/14)
	defer cancel()
	began, turns := s.w.clock.Boot(), uint64(1)
	if told = told || s.formats.wanted.Load() > s.formats.may.Load(); !told {
		s.mu.Lock()
		turns = s.roster.turns(s.w.leasesEach)
		s.mu.Unlock()
	}
	leases, err := readLeasesOf(ctx, s.js.Meta(), func(worker string) bool { return turns == 1 || s.unknown(worker, turns) })
	if err != nil {
		return 0, err
	}
	pl, _, err := ReadPlacement(ctx, s.js.Meta())
	if err != nil {
		return 0, err
	}
	now := s.w.clock.Boot()
	s.mu.Lock()
	for worker, l := range leases {
		s.roster.note(worker, l, now)
	}
	me := s.roster[s.w.cfg.ID]
	me.since = now // it is alive, whatever others may make of its silence
	s.roster[s.w.cfg.ID] = me
	s.looks, s.looked = s.looks+1, began
	workers, next := s.roster.workers(now, pl.Drained)
	sh := s.settled
	s.mu.Unlock()
	if sh.owners == nil || !slices.Equal(workers, sh.workers) || !maps.Equal(pl.Moved, sh.moved) {
		sh = share{workers: workers, moved: pl.Moved, owners: assign(s.w.cfg.Partitions, workers, pl.Moved)}
		if s.w.cfg.Standby {
			sh.next = assignNext(sh.owners, workers, pl.Moved)
		}
		s.mu.Lock()
		s.settled = sh
		s.mu.Unlock()
	}
	for p, worker := range sh.owners {
		s.claims[p].set(worker == s.w.cfg.ID)
	}
	for p, worker := range sh.next {
		s.claims[p].setNext(worker == s.w.cfg.ID)
	}
	s.w.ses.Store(s)
	s.settleFormat(ctx, leases)
	if err := s.removeEnded(ctx, leases, now); err != nil {
		s.w.log.Warn("the lease of a worker that has ended is not removed yet", "err", err)
	}
	return next, nil
}

// unknown tells whether a lease is to be read at this look, if each is every so many looks.
func (s *session) unknown(worker string, turns uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return weigh(worker, 0)%turns == s.looks%turns || !s.roster.known(worker, s.looked)
}
