package engine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// session is one incarnation of a worker: a journal session, the lease that was created over it, and the partitions
// that it owns. When the lease is lost or a connection ends, all of it is over and the worker begins anew.
type session struct {
	w  *Worker
	js journal.Session

	incarnation journal.Incarnation
	until       atomic.Int64 // the lease is trusted until then, on the clock for durations; 0: it is void

	writing chan struct{} // has an element while the lease is written, which guards what follows
	lease   leaseValue
	rev     journal.Seq
	trust   trust
	joins   time.Duration // when it takes its share, on the clock for durations

	claims []claim       // by partition
	look   chan struct{} // has an element when the share is to be settled at once
	peers  Peers         // nil: there is no way to the others
	nonce  journal.Token

	formats formats

	mu      sync.Mutex
	roster  roster
	looks   uint64        // at the leases
	looked  time.Duration // when the last one began
	settled share         // as the last look had it
}

func newSession(w *Worker, js journal.Session) (*session, error) {
	s := &session{w: w, js: js, writing: make(chan struct{}, 1), claims: make([]claim, w.cfg.Partitions), look: make(chan struct{}, 1),
		roster: roster{}, nonce: newToken()}
	for p := range s.claims {
		s.claims[p].word = make(chan struct{}, 1)
	}
	if w.cfg.Peers == nil {
		return s, nil
	}
	var err error
	if s.peers, err = w.cfg.Peers(js, s.nonce, s.heard); err != nil {
		return nil, fmt.Errorf("listen to the other workers: %w", err)
	}
	return s, nil
}

// valid tells whether the lease may be relied on now.
func (s *session) valid() bool {
	select {
	case <-s.js.Done(): // callers may hear of the cut before our timers do
		return false
	default:
	}
	return int64(s.w.clock.Boot()) < s.until.Load()
}

// void ends the trust for good.
func (s *session) void() { s.until.Store(0) }

// run creates the lease, owns partitions, and returns when the session is over, or drained because ctx is done.
func (s *session) run(ctx context.Context) error {
	defer s.void()
	s.recallAll(ctx)
	if err := s.create(ctx); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	// Partitions hear of ctx's end first, with a valid lease, so that they can drain; the renewals stop behind them.
	life, lost := context.WithCancelCause(context.WithoutCancel(ctx))
	defer lost(nil)
	own, stop := context.WithCancelCause(life)
	s.tell(WordShare, 0)
	var renewing, owning sync.WaitGroup
	renewing.Go(func() {
		select {
		case <-ctx.Done():
		case <-life.Done():
		}
		if errors.Is(context.Cause(ctx), errDrain) { // the others get ready to follow
			s.leave(life)
		}
		stop(context.Cause(ctx))
	})
	renewing.Go(func() { lost(s.renew(life)) })
	renewing.Go(func() { s.share(own) })
	if s.peers != nil {
		renewing.Go(func() { s.probe(own) })
	}
	for p := range s.w.cfg.Partitions {
		owning.Go(func() { s.w.own(own, s, p) })
		if s.w.cfg.Standby {
			owning.Go(func() { s.stand(own, p) })
		}
	}
	owning.Wait()
	cause := context.Cause(life)
	if cause == nil { // not lost: a clean stop
		lost(errStopped)
		renewing.Wait()
		s.void()
		if errors.Is(context.Cause(ctx), errDrain) {
			s.close()
		}
		return nil
	}
	renewing.Wait()
	return cause
}

var errStopped = errors.New("stopped")

// create creates the lease: on top of an absent key, a closed one, or one of a former life of this worker, which the
// lock on the data folder proves to be gone; that one is closed first.
func (s *session) create(ctx context.Context) error {
	key := leaseKey(s.w.cfg.ID)
	old, err := s.readLease(ctx, s.w.cfg.ID)
	if err != nil {
		return err
	}
	former := old
	if !old.absent() && !old.Closed {
		if old.rev, err = s.closeAs(ctx, key, old, old.incarnation()); err != nil {
			return fmt.Errorf("close the former lease: %w", err)
		}
	}
	now := s.w.clock.Now()
	intake := "local"
	if s.w.cfg.OnlyNATS {
		intake = intakeNATS
	}
	s.lease = leaseValue{Nonce: s.nonce, TermMS: s.w.cfg.LeaseTerm.Milliseconds(), Intake: intake, Server: s.js.Server(), At: now, Began: now,
		Flaps: flapped(former, now), Software: s.w.cfg.Version, Reads: s.w.reads}
	if wait := flapWait(s.lease.Flaps, s.w.cfg.LeaseTerm); wait > 0 {
		s.lease.Standing, s.joins = joining, s.w.clock.Boot()+wait
	}
	s.trust.term = s.w.cfg.LeaseTerm
	sent := s.w.clock.Boot()
	rev, err := s.js.Meta().Put(ctx, key, s.lease.encode(), old.rev)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	s.rev = rev
	s.lease.Created = rev
	s.incarnation = journal.Incarnation{Revision: rev, Nonce: s.lease.Nonce}
	s.trust.renewed(sent)
	s.until.Store(int64(s.trust.until))
	observe(s.w.cfg.Observe.Incarnation, s.incarnation)
	if err = s.checkFormat(ctx); errors.As(err, new(*FormatError)) {
		s.close()
		s.w.Fail(err)
	}
	return err
}

// renew renews the lease every quarter of its term, and returns why it ended.
func (s *session) renew(ctx context.Context) error {
	tick := time.NewTicker(s.trust.renewEvery())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.js.Done():
			s.void()
			return errConnection
		case <-tick.C:
			if ctx.Err() != nil { // a tick that came while the last renewal took long: nothing is written any more
				continue
			}
			sent := s.w.awake()
			err := s.write(ctx, s.join)
			if err == nil {
				observe(s.w.cfg.Observe.Renewed, s.w.awake()-sent)
				s.tellRenewed()
				continue
			}
			if ctx.Err() == nil {
				observe(s.w.cfg.Observe.Unrenewed, err)
			}
			if errors.Is(err, journal.ErrConflict) {
				s.void()
				return fmt.Errorf("%w: %w", errLeaseTaken, err)
			} else if !s.valid() {
				return fmt.Errorf("%w: %w", errLeaseOver, err)
			}
			s.w.log.Warn("lease not renewed", "err", err)
		}
	}
}

// join has the worker take its share once it has waited for long enough.
func (s *session) join(l *leaseValue) {
	if l.Standing == joining && s.w.clock.Boot() >= s.joins {
		l.Standing = sharing
	}
}

// leave tells the other workers that this one is about to release what it has, and settles to whom. If they do not hear of it
// they see it later.
func (s *session) leave(ctx context.Context) {
	if err := s.write(ctx, func(l *leaseValue) { l.Standing = leaving }); err != nil {
		s.w.log.Warn("the others are not told that this worker leaves", "err", err)
	}
	s.tell(WordShare, 0)
	if _, err := s.settleShare(ctx, true); err != nil {
		s.w.log.Warn("share not settled", "err", err)
	}
}

// write renews the lease with a change. Trust counts from before it was sent.
func (s *session) write(ctx context.Context, change func(*leaseValue)) error {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // both may have come
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, s.trust.term/2)
	defer cancel()
	next := s.lease
	next.At = s.w.clock.Now()
	change(&next)
	sent := s.w.clock.Boot()
	rev, err := s.js.Meta().Put(ctx, leaseKey(s.w.cfg.ID), next.encode(), s.rev)
	// An earlier renewal without an answer may have been stored, or be about to: while the key has this incarnation nobody has taken the lease.
	for tried := s.rev; errors.Is(err, journal.ErrConflict); {
		now, err2 := s.readLease(ctx, s.w.cfg.ID)
		if err2 != nil {
			return err2
		}
		if now.incarnation() != s.incarnation || now.Closed {
			break
		}
		if now.rev == tried { // what it conflicts with cannot be read yet
			if err := sleep(ctx, conflictPause); err != nil {
				return err
			}
		}
		tried, sent = now.rev, s.w.clock.Boot()
		rev, err = s.js.Meta().Put(ctx, leaseKey(s.w.cfg.ID), next.encode(), tried)
	}
	if err != nil {
		return err
	}
	s.lease, s.rev = next, rev
	if s.until.Load() != 0 {
		s.trust.renewed(sent)
		s.until.Store(int64(s.trust.until))
	}
	return nil
}

// conflictPause is how long a server that has promised a write, and not done it, is left alone.
const conflictPause = 10 * time.Millisecond

// close closes the own lease at a clean stop, so that another may follow at once.
func (s *session) close() {
	ctx, cancel := s.parting()
	defer cancel()
	if err := s.write(ctx, func(l *leaseValue) { l.Closed = true }); err != nil {
		s.w.log.Warn("lease not closed; whoever follows waits for its term", "err", err)
	}
	s.tell(WordShare, 0)
}

func (s *session) readLease(ctx context.Context, worker string) (lease, error) {
	value, rev, err := s.js.Meta().Get(ctx, leaseKey(worker))
	if err != nil && !errors.Is(err, journal.ErrNotFound) {
		return lease{}, fmt.Errorf("read: %w", err)
	}
	return decodeLease(value, rev)
}

// closeAs writes that an incarnation is closed, if the key is still at the revision that was seen.
func (s *session) closeAs(ctx context.Context, key string, seen lease, inc journal.Incarnation) (journal.Seq, error) {
	v := seen.leaseValue
	v.Nonce, v.Created, v.Closed, v.At = inc.Nonce, inc.Revision, true, s.w.clock.Now()
	return s.js.Meta().Put(ctx, key, v.encode(), seen.rev)
}

// closeLease closes the lease of another worker's incarnation: when its key has not changed for a term and a tenth by
// this worker's clock. It returns without error when the lease is closed, and also when it is worth a look whether the worker
// still lives, or has released the partition.
//
// The time counts from when somebody of this session was first told of the key as it is now. Its holder had sent it before that, so it
// trusts it no longer than a term from then.
func (s *session) closeLease(ctx context.Context, p int, worker string, seen lease, inc journal.Incarnation) error {
	if worker == s.w.cfg.ID {
		// A later life of this worker was here and the bucket lost it. The lock on the data folder proves that it is gone.
		return s.write(ctx, func(l *leaseValue) { l.Gone = append(l.Gone, inc) })
	}
	now := s.w.clock.Boot()
	s.mu.Lock()
	until := s.roster.note(worker, seen, now).since + takerWait(max(seen.term(), s.w.cfg.LeaseTerm))
	s.mu.Unlock()
	if now < until {
		return s.claims[p].wait(ctx, min(until-now, s.trust.renewEvery())+time.Duration(p+1)*stagger/7)
	}
	if err := sleep(ctx, time.Duration(p)*stagger); err != nil { // one partition closes it, and the others see that
		return err
	}
	_, err := s.closeAs(ctx, leaseKey(worker), seen, inc)
	if errors.Is(err, journal.ErrConflict) {
		return nil // it lives
	}
	return err
}

// stagger is between what several partitions, or the share, would do at one instant.
const stagger = 100 * time.Microsecond

// errNotOurs says that the share gives the partition to another worker, and nothing of ours is left to release.
var errNotOurs = errors.New("the partition is another worker's share")

// begin begins an epoch of a partition, waiting for whoever must be waited for.
func (s *session) begin(ctx context.Context, p int) (*epoch, error) {
	log := s.js.Log(p)
	subject := s.w.ns.Epoch(p)
	claim := &s.claims[p]
	if claim.unsure {
		if err := s.recallNow(ctx, p); err != nil {
			return nil, err
		}
	}
	for waits := false; ; waits = true {
		// Before the last epoch, or one that begins in between would be a loss: the witness would know of it already.
		w, rev, err := journal.ReadWitness(ctx, s.js.Meta(), p)
		if err != nil {
			return nil, err
		}
		last, at, err := lastEpoch(ctx, log, subject)
		if err != nil {
			return nil, err
		}
		mine := last != nil && !last.Release && last.Worker == s.w.cfg.ID && last.Incarnation == s.incarnation
		if ours, _ := claim.get(); !ours && !mine && (!claim.open || at > claim.tried) {
			claim.open = false
			return nil, errNotOurs
		}
		if err := s.compare(ctx, log, p, w, last, at); err != nil {
			return nil, err
		}
		var holder lease
		if last != nil {
			if holder, err = s.readLease(ctx, last.Worker); err != nil {
				return nil, err
			}
		}
		if mayFollow(last, s.w.cfg.ID, s.incarnation, holder) == mustWait {
			if !waits {
				s.w.log.Info("waiting for another worker to release a partition, or for its lease to run out", "partition", p, "worker", last.Worker)
			}
			if err := s.closeLease(ctx, p, last.Worker, holder, last.Incarnation); err != nil {
				return nil, err
			}
			continue
		}
		ep := s.newEpoch(p, log, last, w)
		claim.open, claim.tried = true, at
		first, err := s.fence(ctx, ep, at)
		if err != nil {
			return nil, err // an unknown outcome too: the next compare-and-set decides
		}
		// What a former epoch had stored, and nobody was told of, is durable with this one's fence; so a replay finds nothing
		// that a power cut could still take.
		if err := s.w.settle(ctx, log.Stream(), first-1); err != nil {
			return nil, fmt.Errorf("make epoch %d durable: %w", ep.id.Number, err)
		}
		if !s.valid() {
			return nil, errNoLease // nothing is written or answered under an epoch without a lease
		}
		claim.takeCopy(ep.seq)
		return ep, s.enter(ctx, ep, w, rev, first)
	}
}

// lastEpoch is the last message on the epoch subject and its position; nil and 0 if there is none.
func lastEpoch(ctx context.Context, log journal.Log, subject string) (*journal.EpochRecord, journal.Seq, error) {
	m, err := log.Last(ctx, subject)
	if errors.Is(err, journal.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the last epoch: %w", err)
	}
	r, err := journal.DecodeEpoch(m.Data)
	if err != nil {
		return nil, 0, &journal.CorruptError{Stream: log.Stream(), Seq: m.Seq, Err: err}
	}
	return &r, m.Seq, nil
}

func (s *session) newEpoch(p int, log journal.Log, last *journal.EpochRecord, w journal.Witness) *epoch {
	number := w.Epoch.Number
	if last != nil {
		number = max(number, last.Epoch.Number)
	}
	ep := &epoch{w: s.w, ns: s.w.ns, ses: s, p: p, log: log, life: w.Life,
		id:        journal.EpochID{Number: number + 1, Token: newToken()},
		recordMax: LargestRecord(s.js.PayloadMax()),
		done:      make(chan struct{}), press: make(chan struct{}, 1), evicting: make(chan struct{}, evictingMax), objects: map[snapshot.ID]*object{}, index: newIndex()}
	ep.header = journal.Header{wire.HeaderFormat: "1", wire.HeaderEpoch: ep.id.String()}
	return ep
}

// payloadReserve is what a record leaves of the server's largest message, for headers.
const payloadReserve = 16 << 10

// fence appends the epoch record and its fillers, if the last message on the epoch subject is still the one that was
// looked at. From its acknowledgement on, nothing of a former owner is stored any more (package journal has the argument).
func (s *session) fence(ctx context.Context, ep *epoch, last journal.Seq) (first journal.Seq, err error) {
	record := journal.EpochRecord{Epoch: ep.id, Before: ep.id.Number - 1, Worker: s.w.cfg.ID, Incarnation: s.incarnation,
		Window: journal.Window, Server: s.js.Server(), Software: s.w.cfg.Version, At: s.w.clock.Now()}
	messages := make([]journal.Message, 0, 1+journal.Window)
	messages = append(messages, journal.Message{Subject: ep.ns.Epoch(ep.p), Header: ep.header, Data: record.Encode()})
	filler := journal.Message{Subject: ep.ns.Fence(ep.p), Header: ep.header}
	for range journal.Window {
		messages = append(messages, filler)
	}
	end, err := ep.log.Begin(ctx, last, messages...)
	if err != nil {
		return 0, fmt.Errorf("begin epoch %d: %w", ep.id.Number, err)
	}
	ep.seq = end - journal.Window
	return end + 1, nil
}

// enter makes the epoch ready: its witness is written before it serves.
func (s *session) enter(ctx context.Context, ep *epoch, w journal.Witness, rev journal.Seq, first journal.Seq) error {
	if err := ep.readHistory(ctx); err != nil {
		return err
	}
	if n := len(ep.history); n == 0 || ep.history[n-1].seq != ep.seq {
		return fmt.Errorf("%w: the epoch record at %d is not the last on its subject", errEpochOver, ep.seq)
	}
	if err := s.takeWitness(ctx, ep, w, rev, first-1); err != nil {
		return fmt.Errorf("write the witness: %w", err)
	}
	ep.committer = newCommitter(ep, first)
	ep.ctx, ep.cancel = context.WithCancel(context.Background())
	writer, err := ep.log.Writer(ep.committer.answered)
	if err != nil {
		ep.cancel()
		return fmt.Errorf("open the writer: %w", err)
	}
	ep.committer.writer = writer
	return nil
}

// release ends the epoch in the log, so that another may follow at once. From sending it on nothing is answered,
// whatever its outcome. It has no fillers, so it is not sent while an append is in flight that could be stored behind it;
// then the lease, which is closed next, says that another may follow.
func (s *session) release(ep *epoch) {
	ep.end(errStopped)
	if n := ep.committer.inFlight(); n > 0 {
		s.w.log.Warn("partition not released; its last appends have no answer", "partition", ep.p, "in_flight", n)
		return
	}
	ctx, cancel := s.parting()
	defer cancel()
	record := journal.EpochRecord{Release: true, Epoch: ep.id, Before: ep.id.Number - 1, Worker: s.w.cfg.ID, Incarnation: s.incarnation,
		Window: journal.Window, Server: s.js.Server(), Software: s.w.cfg.Version, Heir: s.heir(ep.p), At: s.w.clock.Now()}
	m := journal.Message{Subject: ep.ns.Epoch(ep.p), Header: ep.header, Data: record.Encode()}
	s.claims[ep.p].tried = ep.seq
	end, err := ep.log.Begin(ctx, ep.seq, m)
	if err == nil {
		s.claims[ep.p].open = false
		err = s.w.settle(ctx, ep.log.Stream(), end)
	}
	if err != nil {
		s.w.log.Warn("partition not released; whoever follows waits for the lease", "partition", ep.p, "err", err)
		return
	}
	s.tell(WordFree, ep.p)
	if err := s.updateWitness(ctx, ep, end); err != nil { // whoever follows may have been quicker, and knows more
		s.w.log.Debug("witness of the release not written", "partition", ep.p, "err", err)
	}
}

// parting is a context for what is written at the end of something: a clean stop does not end it, a kill does.
func (s *session) parting() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), s.trust.term)
	unlink := context.AfterFunc(s.w.life, func() {
		if !errors.Is(context.Cause(s.w.life), errDrain) {
			cancel()
		}
	})
	return ctx, func() { unlink(); cancel() }
}

// heir is who should have the partition by the share as it was settled last; empty if that is this worker, or nobody.
func (s *session) heir(p int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if owners := s.settled.owners; p < len(owners) && owners[p] != s.w.cfg.ID {
		return owners[p]
	}
	return ""
}

// settle waits until what a stream has up to a position is durable.
func (w *Worker) settle(ctx context.Context, stream string, seq journal.Seq) error {
	if w.cfg.Durable == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	done := make(chan struct{})
	w.cfg.Durable(stream, seq, func() { close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func newToken() journal.Token {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return journal.Token(binary.BigEndian.Uint64(b[:]))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
