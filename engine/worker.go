package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/boottime"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/snapshot"
)

// Worker owns partitions and runs their objects. Safe for concurrent use.
type Worker struct {
	cfg     Config
	ns      wire.Subjects
	log     *slog.Logger
	clock   Clock
	store   snapshot.Store
	classes map[string]*class
	client  *Client // through which turns reach other objects

	memory atomic.Int64 // of the objects in memory
	queued atomic.Int64 // bytes of the requests that wait
	full   atomic.Pointer[error]
	epochs []atomic.Pointer[epoch]    // by partition; nil: not owned now
	copies []atomic.Pointer[follower] // by partition; nil: its copies answer nothing now
	ses    atomic.Pointer[session]    // nil: none that has settled its share
	when   thresholds
	bounds bounds

	probeEvery time.Duration
	leasesEach int
	endedFor   time.Duration             // how long the leases of workers that have ended are kept
	reads      int                       // the highest format that it reads
	needs      func(*journal.Commit) int // the format that a commit's readers need

	born    time.Time
	running sync.WaitGroup // all that epochs have started
	handing chan struct{}  // has an element while a partition is handed over
	resting chan func()    // takes work for a goroutine that has none
	rested  atomic.Int64   // how many wait for it

	life  context.Context // ends when Run is to end, with the reason as its cause
	kill  context.CancelCauseFunc
	ended chan struct{} // closed when Run has ended

	mu     sync.Mutex
	high   map[int]knowledge // by partition: the last epoch of this worker
	alarms map[int]error
	inbox  map[int]error // why a partition's messages are not answered
}

// New checks the configuration and the classes; its error lists every problem. [Worker.Run] starts the worker.
func New(cfg Config) (*Worker, error) {
	cfg, err := cfg.withDefaults()
	classes, err2 := bindAll(cfg.Classes)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	w := &Worker{cfg: cfg, ns: cfg.Namespace, log: cfg.Log, clock: cfg.Clock, store: cfg.Store, classes: classes,
		epochs: make([]atomic.Pointer[epoch], cfg.Partitions), copies: make([]atomic.Pointer[follower], cfg.Partitions),
		high: map[int]knowledge{}, alarms: map[int]error{}, inbox: map[int]error{},
		when: usual, bounds: usualBounds, probeEvery: probeEvery, leasesEach: leasesEach, endedFor: endedFor, reads: journal.Format, needs: (*journal.Commit).MinReader,
		born: time.Now(), resting: make(chan func()), handing: make(chan struct{}, 1), ended: make(chan struct{})}
	w.client = NewClient(w.Nearest())
	w.client.now = w.clock.Now
	w.life, w.kill = context.WithCancelCause(context.Background())
	return w, nil
}

var (
	errDrain  = errors.New("the worker is stopping")
	errKilled = errors.New("the worker was killed")
)

// Run owns partitions until ctx is done; then it drains: it stops taking requests, finishes those that it has, writes
// all states into the store and releases its partitions and its lease. It returns nil then, and the error if the
// worker cannot go on. A method that still runs 5 s later is left behind. It must be called once.
func (w *Worker) Run(ctx context.Context) error {
	defer close(w.ended)
	life, stop := w.life, w.kill
	defer stop(nil)
	unlink := context.AfterFunc(ctx, func() { stop(errDrain) })
	defer unlink()
	defer w.leave()
	w.remember()
	serving, served := context.WithCancel(context.Background()) // it serves while it drains, too
	defer served()
	w.running.Go(func() { w.checkDisk(serving) })
	w.running.Go(func() { w.tidy(life) })
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		began := w.awake()
		err := w.session(life)
		cause := context.Cause(life)
		switch {
		case errors.Is(cause, errDrain), errors.Is(cause, errKilled):
			return nil
		case cause != nil:
			return cause
		}
		w.log.Warn("session over", "err", err)
		if w.awake()-began > lastBackoff {
			backoff = firstBackoff
		}
		_ = sleep(life, jitter(backoff, w.cfg.ID, w.clock.Boot())) // its end is seen above
	}
}

// awake is how long the worker has been awake: for durations within it, such as how long a request waits. The lease needs
// a clock that also goes on while the machine sleeps, and that one costs a system call.
func (w *Worker) awake() time.Duration { return time.Since(w.born) }

// spawn runs f in a goroutine of its own: one that has just ended its work, if there is one, since its stack has the size
// that turns need.
func (w *Worker) spawn(f func()) {
	select {
	case w.resting <- f:
	default:
		w.running.Go(func() { w.work(f) })
	}
}

// work runs f, and what is given to it then, until too many rest, or it is dismissed.
func (w *Worker) work(f func()) {
	for f != nil {
		f()
		f = nil
		if w.rested.Add(1) <= restingMax {
			select {
			case f = <-w.resting:
			case <-w.life.Done():
			}
		}
		w.rested.Add(-1)
	}
}

// restingMax is how many goroutines wait for work.
const restingMax = 64

// dismiss ends the goroutines that rest now.
func (w *Worker) dismiss() {
	for range restingMax {
		select {
		case w.resting <- nil:
		default:
			return
		}
	}
}

// leave waits for all that still runs: what replays or writes ends with its epoch. A method that does not end with its
// context is left behind; it can reach neither the state of its object nor the journal any more.
func (w *Worker) leave() {
	done := make(chan struct{})
	go func() { w.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(leaveFor):
		w.log.Warn("the worker ends, and a method of a class still runs", "after", leaveFor)
	}
}

const (
	leaveFor     = 5 * time.Second
	firstBackoff = 20 * time.Millisecond
	lastBackoff  = 2 * time.Second
)

// jitter spreads what would come at once: by who waits, and since when. It draws nothing, so that a simulation repeats
// whichever goroutine comes first.
func jitter(d time.Duration, who ...any) time.Duration {
	h := fnv.New64a()
	fmt.Fprintln(h, who...)
	return d/2 + time.Duration(h.Sum64()%uint64(d))
}

// Kill ends the worker as a crash would: nothing is finished, written or released. It returns when Run has.
func (w *Worker) Kill() {
	w.kill(errKilled)
	<-w.ended
}

// Stop drains the worker, as the end of Run's context does, and returns when Run has.
func (w *Worker) Stop() {
	w.kill(errDrain)
	<-w.ended
}

// session is one incarnation: it connects, and returns when that is over.
func (w *Worker) session(ctx context.Context) error {
	js, err := w.cfg.Connect(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer js.Close()
	s, err := newSession(w, js)
	if err != nil {
		return err
	}
	defer w.ses.Store(nil)
	return s.run(ctx)
}

// own begins epochs of a partition and serves them, one after the other, while the share gives it to this worker, until ctx is
// done.
func (w *Worker) own(ctx context.Context, s *session, p int) {
	claim := &s.claims[p]
	for backoff := firstBackoff; ctx.Err() == nil; backoff = min(2*backoff, lastBackoff) {
		claim.giveCopy() // no epoch of ours writes into the store now
		if ours, moved := claim.get(); !ours && !claim.open && !claim.unsure {
			w.settled(p) // whoever has it tells of an alarm
			select {
			case <-moved:
			case <-ctx.Done():
				return
			}
			backoff = firstBackoff
		}
		wanted := w.awake()
		ep, err := s.begin(ctx, p)
		if err == nil {
			w.settled(p)
			began := w.awake()
			observe(w.cfg.Observe.Begun, began-wanted)
			w.log.Info("epoch begins", "partition", p, "epoch", ep.id.Number, "seq", ep.seq)
			err = w.serve(ctx, ep)
			if w.awake()-began > lastBackoff {
				backoff = firstBackoff
			}
			if err == nil && ctx.Err() == nil && !claim.open {
				w.log.Info("partition handed over", "partition", p, "epoch", ep.id.Number)
				continue
			}
		} else if errors.Is(err, errNotOurs) {
			continue
		} else if back, ok := errors.AsType[*journal.WentBackError](err); ok {
			w.alarm(p, back)
			backoff = lastBackoff
		}
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("partition not owned", "partition", p, "err", err)
		_ = sleep(ctx, jitter(backoff, w.cfg.ID, p, w.clock.Boot()))
	}
}

func (w *Worker) serve(ctx context.Context, ep *epoch) error {
	defer ep.cancel()
	w.epochs[ep.p].Store(ep)
	defer w.epochs[ep.p].CompareAndSwap(ep, nil)
	w.running.Go(func() { ep.index.build(ep) })
	err := ep.serve(ctx)
	ep.waitWritten()
	return errors.Join(err, w.know(ep))
}

func (w *Worker) listen(ep *epoch) (stop func(), err error) {
	if w.cfg.Listen == nil {
		return func() {}, nil
	}
	return w.cfg.Listen(ep.ses.js, ep.p, func(r Request, reply func(Reply, error)) {
		w.submit(r.Context(), r, reply) // not the worker's life: who drains finishes what it has
	})
}

// alarm stops serving a partition and says why, in the log once and wherever somebody looks.
func (w *Worker) alarm(p int, err error) {
	w.mu.Lock()
	known := w.alarms[p] != nil
	w.alarms[p] = err
	w.mu.Unlock()
	if !known {
		w.log.Error("alarm", "partition", p, "err", err)
	}
}

// alarm ends the epoch, after the witness knows it: the next one is not begun before that is accepted.
func (ep *epoch) alarm(err *journal.WentBackError) {
	if failed := ep.ses.raise(err); failed != nil {
		ep.w.log.Error("alarm not kept", "partition", ep.p, "err", failed)
	}
	ep.w.alarm(ep.p, err)
	ep.end(err)
}

// alarmInbox says why a partition's messages are not answered.
func (w *Worker) alarmInbox(p int, err error) {
	w.mu.Lock()
	known := w.inbox[p] != nil
	w.inbox[p] = err
	w.mu.Unlock()
	if !known {
		w.log.Error("alarm", "partition", p, "err", err)
	}
}

func (w *Worker) settledInbox(p int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.inbox, p)
}

func (w *Worker) settled(p int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.alarms, p)
}

// Status is what the worker is doing, for readiness and for people.
type Status struct {
	ID         string            `json:"id"`
	Owned      []PartitionStatus `json:"partitions"`
	Memory     int64             `json:"memory_bytes"`
	Queued     int64             `json:"queued_bytes"`
	Lease      time.Duration     `json:"lease"` // how long it may be relied on from now; 0 if not at all, or the share is not settled yet
	DiskFull   string            `json:"disk_full,omitempty"`
	Resident   int               `json:"resident"`
	Partitions int               `json:"partitions_total"`
}

// PartitionStatus is one partition: its epoch if it is owned, or why not.
type PartitionStatus struct {
	Partition int         `json:"partition"`
	Share     bool        `json:"share"` // it is this worker's to own
	Owned     bool        `json:"owned"`
	Epoch     uint64      `json:"epoch,omitempty"`
	High      journal.Seq `json:"high,omitempty"`
	Resident  int         `json:"resident"`
	Copied    journal.Seq `json:"copied,omitempty"` // how far a standby has followed it; 0: it does not
	Alarm     string      `json:"alarm,omitempty"`
	Inbox     InboxStatus `json:"inbox"`
}

// InboxStatus is how far the messages to a partition's objects are answered.
type InboxStatus struct {
	Following bool        `json:"following"`       // it is; else it is about to be, or Alarm says why not
	Cursor    journal.Seq `json:"cursor"`          // all up to it are answered, but those of held objects
	Taken     journal.Seq `json:"taken"`           // the last one that was taken from the stream
	Open      int         `json:"open"`            // taken, and neither answered nor passed
	Held      int         `json:"held"`            // objects whose messages wait, since one failed or takes long
	Alarm     string      `json:"alarm,omitempty"` // why none are answered
}

// Status is what the worker is doing now.
func (w *Worker) Status() Status {
	s := Status{ID: w.cfg.ID, Memory: w.memory.Load(), Queued: w.queued.Load(), Partitions: w.cfg.Partitions}
	if err := w.full.Load(); err != nil {
		s.DiskFull = (*err).Error()
	}
	ses := w.ses.Load()
	if ses != nil && ses.valid() {
		s.Lease = time.Duration(ses.until.Load()) - w.clock.Boot()
	}
	for p := range w.epochs {
		ps := PartitionStatus{Partition: p}
		if ses != nil {
			ps.Share, _ = ses.claims[p].get()
			ps.Copied = ses.claims[p].copied()
		}
		if ep := w.epochs[p].Load(); ep != nil && !ep.over.Load() {
			ep.mu.Lock()
			ps.Resident = len(ep.objects)
			ep.mu.Unlock()
			ps.Owned, ps.Epoch, ps.High = ep.listening.Load() && !ep.closing.Load(), ep.id.Number, ep.committer.high()
			if in := ep.inbox.Load(); in != nil {
				ps.Inbox = in.status()
			}
		}
		w.mu.Lock()
		if err := w.inbox[p]; err != nil {
			ps.Inbox.Alarm = err.Error()
		}
		if err := w.alarms[p]; err != nil {
			ps.Alarm = err.Error()
		}
		w.mu.Unlock()
		s.Resident += ps.Resident
		s.Owned = append(s.Owned, ps)
	}
	return s
}

// Ready is nil when the worker owns every partition that is its share, and otherwise says what is missing.
func (w *Worker) Ready() error {
	if w.ses.Load() == nil {
		return errors.New("the worker has no lease, or has not seen yet what its share is")
	}
	for _, p := range w.Status().Owned {
		if p.Alarm != "" {
			return fmt.Errorf("partition %d: %s", p.Partition, p.Alarm)
		}
		if p.Share && !p.Owned {
			return fmt.Errorf("partition %d is not owned yet", p.Partition)
		}
	}
	return nil
}

// reserve counts a request that waits against the bound of all.
func (w *Worker) reserve(n int) bool {
	if w.queued.Add(int64(n)) > w.cfg.QueueBytes {
		w.queued.Add(-int64(n))
		return false
	}
	return true
}

func (w *Worker) release(n int) { w.queued.Add(-int64(n)) }

// checkDisk asks each second whether there is room to write. Nothing rests longer than that, either.
func (w *Worker) checkDisk(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		w.dismiss()
		err := w.cfg.MayWrite()
		if was := w.full.Load(); (was == nil) != (err == nil) {
			w.log.Warn("writes", "refused", err != nil, "why", err)
		}
		if err == nil {
			w.full.Store(nil)
		} else {
			w.full.Store(&err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// mayWrite tells whether a turn may commit.
func (w *Worker) mayWrite() error {
	if err := w.full.Load(); err != nil {
		return Errorf(Full, "nothing is written: %w", *err).RetryIn(10 * time.Second)
	}
	return nil
}

// storeFailed shuts the worker down: its cache does not work. The journal has everything.
func (w *Worker) storeFailed(err error) error {
	err = fmt.Errorf("snapshot store: %w", err)
	w.Fail(err)
	return err
}

// Fail stops the worker at once because something that it needs has failed, such as the disk. [Worker.Run] returns err.
func (w *Worker) Fail(err error) {
	w.log.Error("the worker stops", "err", err)
	w.kill(err)
}

func (w *Worker) observeTurn(c *class, r *Request, err error, waited, ran time.Duration) {
	if f := w.cfg.Observe.Turn; f != nil {
		code := Code("")
		if err != nil {
			code = asError(err).Code
		}
		method := r.Method
		if r.HTTP != nil {
			method = "http"
		}
		f(c.Name, method, code, waited, ran)
	}
}

func (w *Worker) observeWake(c *class, took time.Duration, records int) {
	if f := w.cfg.Observe.Wake; f != nil {
		f(c.Name, took, records)
	}
}

type machineClock struct{}

func (machineClock) Now() time.Time      { return time.Now() }
func (machineClock) Boot() time.Duration { return boottime.Now() }
