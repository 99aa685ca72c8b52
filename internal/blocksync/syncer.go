package blocksync

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Options say what to sync. Dir is required.
type Options struct {
	Dir   string        // the server's store folder
	Every time.Duration // how often all that has grown is synced without being asked for; default 100ms
	// Ends tells how far each stream of the account $G goes; it is asked once a second, for the marks. Default: nobody knows.
	Ends func() (map[string]uint64, error)
	// OnFatal is told, once, that a sync failed. After that the page cache proves nothing: the process must end, and
	// nothing is told as durable any more. Required.
	OnFatal func(error)

	// For tests: how a file is synced, and what is told when so much of a file is durable, or a folder up to a block.
	datasync func(*os.File) error
	trace    func(file string, size int64)
}

// A Syncer makes a server's streams durable, in rounds. Safe for concurrent use.
type Syncer struct {
	o       Options
	wake    chan struct{}
	opened  chan []wait
	closing chan struct{}
	ended   sync.WaitGroup

	mu      sync.Mutex
	waiting []wait
	failed  error

	// Owned by the rounds, one at a time.
	boot    string
	streams map[string]*stream // by key
	kept    marks              // as they are on disk
	synced  time.Time          // when all was
	noted   time.Time          // when it was asked how far the streams go
}

// wait is somebody who waits for what a stream has.
type wait struct {
	stream string
	open   func()
}

// New takes over the folder of a server that is ready: it syncs everything that is there, and from then on what grows. It
// returns an error with [ErrLayout] if the folder's layout is not the one that this package knows; the folder has no marks
// then, since they say nothing of what another one syncs.
func New(o Options) (*Syncer, error) {
	o.Every = cmp.Or(o.Every, 100*time.Millisecond)
	if o.datasync == nil {
		o.datasync = datasync
	}
	if o.trace == nil {
		o.trace = func(string, int64) {}
	}
	s := &Syncer{o: o, wake: make(chan struct{}, 1), opened: make(chan []wait, 1), closing: make(chan struct{}),
		boot: bootID(), streams: map[string]*stream{}}
	if err := s.begin(); err != nil {
		return nil, fmt.Errorf("sync %s: %w", o.Dir, err)
	}
	s.ended.Go(s.run)
	s.ended.Go(s.tell)
	return s, nil
}

// begin syncs what is there and finds the streams.
func (s *Syncer) begin() error {
	if err := recognise(s.o.Dir); errors.Is(err, ErrLayout) {
		return errors.Join(err, removeMarks(s.o.Dir))
	} else if err != nil {
		return err
	}
	if err := filepath.WalkDir(s.o.Dir, func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = syncFile(name)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the server has removed it
		}
		return err
	}); err != nil {
		return err
	}
	return s.round(nil, true)
}

// recognise holds the newest blocks against the layout.
func recognise(dir string) error {
	all, err := folders(dir)
	if err != nil {
		return err
	}
	records := 0
	for _, f := range all {
		blocks, err := f.blocks()
		if err != nil {
			return err
		}
		for _, n := range blocks[max(0, len(blocks)-1):] {
			span, err := f.scanQuiet(n)
			if err != nil {
				return err
			}
			if !span.whole {
				return fmt.Errorf("%w: %s has %d records, and then something else", ErrLayout, f.block(n), span.records)
			}
			records += span.records
		}
	}
	if records == 0 {
		return fmt.Errorf("%w: no stream of a running server has a record in %s", ErrLayout, dir)
	}
	return nil
}

// scanQuiet scans a block that the server may be writing to: as of a moment when it was not.
func (f folder) scanQuiet(n int) (s span, err error) {
	for {
		if s, err = f.scan(n); err != nil || s.whole {
			return s, err
		}
		stat, err := os.Stat(f.block(n))
		if err != nil || stat.Size() == int64(s.bytes) {
			return s, err
		}
	}
}

// Durable runs open when all that a stream of the account $G has now is durable. It does not block; opens run one at a
// time, in the order of the calls. After a failure, or [Syncer.Close], open never runs.
func (s *Syncer) Durable(stream string, open func()) {
	s.mu.Lock()
	s.waiting = append(s.waiting, wait{stream, open})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close syncs what is left, when the server has stopped, and notes that nothing is missing. Who still waits is not told.
func (s *Syncer) Close() error {
	close(s.closing)
	s.ended.Wait()
	s.mu.Lock()
	err := s.failed
	s.mu.Unlock()
	if err == nil {
		err = s.round(nil, true)
	}
	for _, st := range s.streams {
		st.close()
	}
	if err == nil {
		err = s.keep(true)
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", s.o.Dir, err)
	}
	return nil
}

// run makes the rounds. While one syncs, the next one's waiters gather.
func (s *Syncer) run() {
	defer close(s.opened)
	tick := time.NewTicker(min(s.o.Every, noteEvery))
	defer tick.Stop()
	last := 0 // how many waited for the last round
	for {
		select {
		case <-s.closing:
			return
		case <-s.wake:
		case <-tick.C:
		}
		if !s.pause(last) {
			return
		}
		s.mu.Lock()
		waiting := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		last = len(waiting)
		if err := s.round(waiting, time.Since(s.synced) >= s.o.Every); err != nil {
			s.mu.Lock()
			s.failed = err
			s.mu.Unlock()
			s.o.OnFatal(fmt.Errorf("sync %s: %w; what is not synced yet may be lost", s.o.Dir, err))
			return
		}
		if len(waiting) > 0 {
			select {
			case s.opened <- waiting:
			case <-s.closing:
				return
			}
		}
	}
}

// pause lets more come when many do: a sync costs the same for all of them, and where many wait the processor is short. It
// returns false when the syncer closes.
func (s *Syncer) pause(many int) bool {
	if many < pauseFrom {
		return true
	}
	t := time.NewTimer(min(time.Duration(many)*pauseEach/time.Duration(runtime.GOMAXPROCS(0)), pauseMax))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.closing:
		return false
	}
}

// A pause is shorter than it takes to serve those who waited.
const (
	pauseFrom = 8
	pauseEach = 20 * time.Microsecond // of all processors together: serving one takes twice that
	pauseMax  = time.Millisecond
)

// tell runs the opens of the rounds that have ended, while the next one syncs.
func (s *Syncer) tell() {
	for waiting := range s.opened {
		for _, w := range waiting {
			w.open()
		}
	}
}

// round syncs the streams that are waited for, or all. When it returns without error, what the streams had when it began
// is durable.
func (s *Syncer) round(waiting []wait, all bool) error {
	asked := map[*stream]bool{}
	for _, w := range waiting {
		st, err := s.stream(globalAccount + "/" + w.stream)
		if err != nil {
			return err
		}
		asked[st] = true
	}
	dirty := slices.Collect(maps.Keys(asked))
	if all {
		s.synced = time.Now()
		found, err := s.find()
		if err != nil {
			return err
		}
		dirty = found
	}
	errs := make([]error, len(dirty))
	var syncing sync.WaitGroup
	for i, st := range dirty[min(1, len(dirty)):] {
		syncing.Go(func() { errs[i+1] = st.sync(&s.o, asked[st]) })
	}
	if len(dirty) > 0 {
		errs[0] = dirty[0].sync(&s.o, asked[dirty[0]])
	}
	syncing.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.note()
	return s.keep(false)
}

// stream is the stream of a key. One that was deleted has nothing left to sync.
func (s *Syncer) stream(key string) (*stream, error) {
	if s.streams[key] == nil {
		if _, err := s.find(); err != nil {
			return nil, err
		}
	}
	if st := s.streams[key]; st != nil {
		return st, nil
	}
	return &stream{}, nil
}

// find finds streams that are new, lets go of those that are gone, and returns all.
func (s *Syncer) find() (all []*stream, err error) {
	found, err := folders(s.o.Dir)
	if err != nil {
		return nil, err
	}
	gone := maps.Clone(s.streams)
	for _, f := range found {
		st := s.streams[f.key()]
		if st == nil {
			if err := syncParents(s.o.Dir, f.msgs); err != nil {
				return nil, err
			}
			st = &stream{folder: f}
			s.streams[f.key()] = st
		}
		delete(gone, f.key())
		all = append(all, st)
	}
	for key, st := range gone {
		st.close()
		delete(s.streams, key)
	}
	return all, nil
}

// noteEvery is how often the marks are brought up to how far the streams go.
const noteEvery = time.Second

func (s *Syncer) note() {
	if s.o.Ends == nil || time.Since(s.noted) < noteEvery {
		return
	}
	s.noted = time.Now()
	ends, err := s.o.Ends()
	if err != nil {
		return // the server is stopping: the marks stay as they are
	}
	for name, end := range ends {
		if st := s.streams[globalAccount+"/"+name]; st != nil {
			st.Acked = max(st.Acked, end)
		}
	}
}

// keep writes the marks if they have changed: that a block is sealed is on disk before anything behind it is told.
func (s *Syncer) keep(clean bool) error {
	same := clean == s.kept.Clean && len(s.streams) == len(s.kept.Streams)
	for key, st := range s.streams {
		same = same && st.mark == s.kept.Streams[key]
	}
	if same {
		return nil
	}
	m := marks{Boot: s.boot, Clean: clean, Streams: map[string]mark{}}
	for key, st := range s.streams {
		m.Streams[key] = st.mark
	}
	s.kept = m
	return m.write(s.o.Dir)
}

// stream is a stream's blocks, as far as they are synced.
type stream struct {
	folder
	newest int      // the last block that is known, 0 if there is none
	file   *os.File // of it
	size   int64    // that is synced
	mark            // what the next start has to know of it
}

// sync makes durable what the stream has now. A block is complete when there is a later one: so that is looked for first.
func (st *stream) sync(o *Options, asked bool) error {
	later, err := st.later(asked)
	if err != nil {
		return err
	}
	if err := st.flush(o); err != nil {
		return err
	}
	for _, n := range later {
		f, err := os.Open(st.block(n))
		if errors.Is(err, fs.ErrNotExist) {
			continue // emptied and removed
		}
		if err != nil {
			return err
		}
		st.close()
		st.file, st.newest, st.size = f, n, -1
		if err := st.flush(o); err != nil {
			return err
		}
	}
	if len(later) > 0 {
		if err := syncFile(st.msgs); err != nil {
			return err
		}
		o.trace(st.msgs, int64(st.newest))
		st.Sealed = st.newest - 1
	}
	return nil
}

// later are the blocks behind the newest that is known. Mostly there is none, and one question tells. The folder is read
// when there is one, and when the newest has not grown although somebody waits: then the next one may be gone again.
func (st *stream) later(asked bool) (later []int, err error) {
	if st.file != nil {
		_, err := os.Lstat(st.block(st.newest + 1))
		stat, err2 := st.file.Stat()
		switch {
		case err2 != nil:
			return nil, err2
		case removed(stat): // the stream was made anew, perhaps
			st.close()
			st.newest, st.Sealed = 0, 0
		case errors.Is(err, fs.ErrNotExist) && (stat.Size() != st.size || !asked):
			return nil, nil
		}
	}
	all, err := st.blocks()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	if all[len(all)-1] < st.newest { // another stream of the same name
		st.close()
		st.newest, st.Sealed = 0, 0
	}
	for _, n := range all {
		if n > st.newest {
			later = append(later, n)
		}
	}
	return later, nil
}

// flush syncs the newest block that is known.
func (st *stream) flush(o *Options) error {
	if st.file == nil {
		return nil
	}
	stat, err := st.file.Stat()
	if err != nil || stat.Size() == st.size {
		return err
	}
	if err := o.datasync(st.file); err != nil {
		return err
	}
	st.size = stat.Size()
	o.trace(st.block(st.newest), st.size)
	return nil
}

func (st *stream) close() {
	if st.file != nil {
		_ = st.file.Close() // it was only synced through
		st.file = nil
	}
}

// removed tells whether a file has no name any more.
func removed(stat fs.FileInfo) bool {
	s, ok := stat.Sys().(*syscall.Stat_t)
	return ok && s.Nlink == 0
}

// syncFile syncs a file or a folder.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncParents syncs a stream's files that tell what it is, and the folders above it, up to dir.
func syncParents(dir, msgs string) error {
	names, err := filepath.Glob(filepath.Join(filepath.Dir(msgs), "meta.*"))
	if err != nil {
		return err
	}
	for at := msgs; ; at = filepath.Dir(at) {
		names = append(names, at)
		if at == dir || at == filepath.Dir(at) {
			break
		}
	}
	for _, name := range names {
		if err := syncFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
