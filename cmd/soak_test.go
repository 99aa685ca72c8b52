package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/examples/counter"
	"github.com/perdure/perdure/examples/tally"
	"github.com/perdure/perdure/gateway"
	"github.com/perdure/perdure/internal/natsbus"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
	"github.com/perdure/perdure/snapshot/pebblestore"
)

// TestSoak churns over many names: calls and reads over HTTP and NATS, repeats, callers that leave, clients and workers
// that connect anew, objects that leave memory and come back. It prints what the process takes, and in the end everything
// has to be what it was, or in line with what was written. SOAK=3m is the long form, over a million names.
func TestSoak(t *testing.T) {
	s := &soak{t: t, length: 4 * time.Second, names: 20_000, every: time.Second, memoryMB: 2}
	if long := os.Getenv("SOAK"); long != "" {
		var err error
		if s.length, err = time.ParseDuration(long); err != nil {
			t.Fatalf("SOAK: %v; want a duration, such as 3m", err)
		}
		s.names, s.every, s.memoryMB = 1_000_000, 5*time.Second, 64
	}
	// The client and the runtime have some of their own from their first use on.
	before := takeStock("")
	s.start()
	<-time.After(time.Second) // the consumers of the inbox are made
	s.base = takeStock(s.d.data)
	s.print("ready", s.base)
	s.churn()
	s.idle()
	s.checkSizes()
	s.checkCounts()
	s.stop()
	eventually(t, func() bool { return takeStock(s.d.data).noMoreThan(before) })
	s.print("stopped", takeStock(s.d.data))
}

const (
	soakHot     = 20 // names that are called so often that they get snapshot records
	soakCallers = 8  // over HTTP, as many over NATS, and four times as many in the process
)

type soak struct {
	t        *testing.T
	length   time.Duration
	every    time.Duration
	names    int
	memoryMB int

	d     *dev
	http  *http.Client
	url   string
	began time.Time
	base  stock
	stop  func()

	mu       sync.Mutex
	sessions []*jetstream.Session // of the worker, the present one last

	next                                atomic.Int64 // names that were called
	calls, commits, repeats, left, anew atomic.Int64
	told, maybe                         [soakHot]atomic.Int64 // increments that were answered, and those that may have been applied
	peak                                stock
}

// stock is what the process has. Files are open ones: inside of the data folder, and others.
type stock struct {
	live, rss                 uint64
	goroutines, inside, files int
}

func takeStock(data string) (s stock) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	s.live, s.goroutines = sample[0].Value.Uint64(), runtime.NumGoroutine()
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, _ := strconv.ParseUint(strings.Fields(string(statm))[1], 10, 64)
		s.rss = pages * uint64(os.Getpagesize())
	}
	open, _ := filepath.Glob("/proc/self/fd/*") // none where there is no /proc
	for _, fd := range open {
		if to, err := os.Readlink(fd); err != nil {
			continue // it was that of the listing itself
		} else if data != "" && strings.HasPrefix(to, data) {
			s.inside++
		} else {
			s.files++
		}
	}
	return s
}

// noMoreThan leaves memory out: that is compared with what was written.
func (s stock) noMoreThan(base stock) bool {
	return s.goroutines <= base.goroutines && s.files <= base.files && s.inside <= base.inside
}

func (s *soak) print(when string, now stock) {
	resident := 0
	if s.d.worker != nil {
		resident = s.d.worker.Status().Resident
	}
	nats, snapshots := s.sizes()
	s.t.Logf("%-8s %8d calls %4d MiB live %5d MiB RSS %5d goroutines %4d files %6d resident; snapshots %5d MiB, streams %5d MiB", when, s.calls.Load(),
		now.live>>20, now.rss>>20, now.goroutines, now.inside+now.files, resident, snapshots>>20, nats>>20)
}

func (s *soak) sizes() (nats, snapshots int64) {
	return folderBytes(filepath.Join(s.d.data, "nats")), folderBytes(filepath.Join(s.d.data, "snapshots"))
}

func folderBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil { // else it is gone
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// start is what `perdure dev` does, with classes that are soon idle, and with a hand on the worker's sessions.
func (s *soak) start() {
	t := s.t
	counters, tallies := counter.Counters, tally.Tallies
	counters.Limits.Idle, tallies.Limits.Idle = time.Second, time.Second
	d := &dev{devFlags: devFlags{sync: "always", natsListen: "127.0.0.1:0"}, node: node{alone: true,
		nodeFlags: nodeFlags{data: filepath.Join(t.TempDir(), "data"), memoryMB: s.memoryMB}, want: jetstream.Settings{Partitions: 4},
		ns: wire.DefaultNamespace, classes: []engine.AnyClass{counters, tallies}, log: slog.New(slog.DiscardHandler), failed: make(chan error, 1)}}
	d.dial = d.inProcess
	s.d = d
	must(t, d.startServer(serverSyncInterval))
	must(t, d.openNamespace(t.Context()))
	must(t, d.startSync(t.Context()))
	d.waitForDisk()
	var err error
	d.store, err = pebblestore.Open(filepath.Join(d.data, "snapshots"), pebblestore.Options{Namespace: d.kept.ID, Logger: d.log})
	must(t, err)
	d.metrics = gateway.NewMetrics(Version)
	posts, err := nats.Connect("", d.server.InProcess())
	must(t, err)
	d.bus = natsbus.NewClient(posts, d.ns)
	cfg := d.config("w")
	cfg.LeaseTerm = 10 * time.Second // the machine may be busy
	listening, listen := atomic.Int64{}, cfg.Listen
	cfg.Listen = func(js journal.Session, p int, serve func(engine.Request, func(engine.Reply, error))) (func(), error) {
		defer listening.Add(1)
		return listen(js, p, serve)
	}
	cfg.Connect = func(ctx context.Context) (journal.Session, error) {
		session, err := d.session(ctx, d.ns)
		if err == nil {
			s.mu.Lock()
			s.sessions = append(s.sessions[len(s.sessions):], session)
			s.mu.Unlock()
		}
		return session, err
	}
	d.worker, err = engine.New(cfg)
	must(t, err)
	classes, err := d.worker.Classes(t.Context())
	must(t, err)
	d.service = natsbus.NewService(d.ns, "w", Version, d.kept.Partitions, classes)
	d.http, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.url = "http://" + d.http.Addr().String()
	s.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: soakCallers}}

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.serve(ctx, func() {}) }() // ends with stop
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		posts.Close()
		must(t, d.store.Close())
		must(t, d.stopServer())
	})
	t.Cleanup(s.stop)
	eventually(t, func() bool {
		return int(listening.Load()) == d.kept.Partitions &&
			!slices.ContainsFunc(d.worker.Status().Owned, func(p engine.PartitionStatus) bool { return !p.Inbox.Following })
	})
	s.began = time.Now()
}

// churn runs the callers for the length, and until everything has happened that is to happen; it prints and keeps what
// the process takes meanwhile.
func (s *soak) churn() {
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	var wg sync.WaitGroup
	for range soakCallers {
		wg.Go(func() { s.overHTTP(ctx) })
		wg.Go(func() { s.overNATS(ctx) })
		for range 4 {
			wg.Go(func() { s.tallies(ctx, s.d.worker, math.MaxInt) })
		}
	}
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for n := 1; time.Since(s.began) < s.length || min(s.repeats.Load(), s.left.Load(), s.anew.Load()) == 0; n++ {
		<-tick.C
		now := takeStock(s.d.data)
		s.peak.live, s.peak.goroutines, s.peak.files = max(s.peak.live, now.live), max(s.peak.goroutines, now.goroutines), max(s.peak.files, now.files+now.inside)
		s.print(time.Since(s.began).Round(time.Second).String(), now)
		if n%3 == 2 {
			s.cut()
		}
	}
	stop()
	wg.Wait()
	s.t.Logf("%d calls of %d names, of them %d repeated, %d left early; the worker connected %d times anew; at most %d MiB live, %d goroutines, %d files",
		s.calls.Load(), min(s.next.Load(), int64(s.names)), s.repeats.Load(), s.left.Load(), s.anew.Load(), s.peak.live>>20, s.peak.goroutines, s.peak.files)
}

// cut ends the worker's session, as a broken connection does.
func (s *soak) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[len(s.sessions)-1].Close()
	s.anew.Add(1)
}

// pick is an object's name: one of the hot ones, or the next of all, or one that was called before. hot is -1 for others.
func (s *soak) pick() (name string, hot int) {
	switch n := s.next.Load(); rand.IntN(10) {
	case 0:
		hot = rand.IntN(soakHot)
		return fmt.Sprintf("hot-%d", hot), hot
	case 1, 2, 3:
		return soakName(rand.Int64N(min(n, int64(s.names)) + 1)), -1
	}
	return soakName(s.next.Add(1) % int64(s.names)), -1
}

func soakName(n int64) string { return fmt.Sprintf("n%07d", n) }

// count notes what an increment may have done.
func (s *soak) count(hot int, err error) {
	s.calls.Add(1)
	s.commits.Add(1)
	switch {
	case hot < 0:
	case err == nil:
		s.told[hot].Add(1)
	default:
		s.maybe[hot].Add(1)
	}
}

func (s *soak) overHTTP(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		name, hot := s.pick()
		switch rand.IntN(10) {
		case 0: // the caller leaves
			short, cancel := context.WithTimeout(ctx, rand.N(2*time.Millisecond))
			_, err := s.send(short, "POST", "/counter/"+name)
			cancel()
			s.left.Add(1)
			s.count(hot, err)
		case 1: // asks again
			id := strconv.Itoa(int(rand.Int64()))
			first, err := s.send(context.WithoutCancel(ctx), "POST", "/counter/"+name, "Idempotency-Key", id)
			s.count(hot, err)
			again, err2 := s.send(context.WithoutCancel(ctx), "POST", "/counter/"+name, "Idempotency-Key", id)
			s.repeats.Add(1)
			if err == nil && err2 == nil && first != again {
				s.t.Errorf("%s: answered %s, and to the repeat %s", name, first, again)
			}
		case 2, 3:
			_, err := s.send(ctx, "GET", "/counter/"+name)
			s.calls.Add(1)
			s.refused(ctx, err)
		default:
			_, err := s.send(context.WithoutCancel(ctx), "POST", "/counter/"+name)
			s.count(hot, err)
			s.refused(ctx, err)
		}
	}
}

func (s *soak) send(ctx context.Context, method, path string, header ...string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, nil)
	if err != nil {
		return "", err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	return string(body), err
}

// refused fails the test: a caller who waits hears of no connection that was cut, since gateway and client repeat.
func (s *soak) refused(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		s.t.Errorf("refused: %v", err)
	}
}

func (s *soak) overNATS(ctx context.Context) {
	for ctx.Err() == nil {
		nc, err := nats.Connect(s.d.server.URL())
		if err != nil {
			s.t.Error(err)
			return
		}
		s.tallies(ctx, natsbus.NewClient(nc, s.d.ns), 500)
		nc.Close()
	}
}

// tallies makes so many calls and reads over a transport, or until ctx is done.
func (s *soak) tallies(ctx context.Context, over engine.Transport, n int) {
	env := engine.NewClient(over).With(context.WithoutCancel(ctx))
	for ; n > 0 && ctx.Err() == nil; n-- {
		name, _ := s.pick()
		var err error
		if rand.IntN(5) == 0 {
			_, err = engine.Read(env, tally.Tallies.Get(name), (*tally.Tally).Value, nil)
		} else {
			_, err = engine.Call(env, tally.Tallies.Get(name), (*tally.Tally).Add, tally.Added{By: 1})
			s.commits.Add(1)
		}
		s.calls.Add(1)
		s.refused(ctx, err)
	}
}

// What is in line with what was written, for each subject of the streams: most of the heap that stays is the server's
// index of them. It also caches the blocks of a stream that it read, for some seconds: while it does, all of them.
const (
	liveBytes, snapshotBytes = 400, 600
	slack                    = 64 << 20
	filesOpenMax             = 1100 // in the data folder
)

// streams is what is in the streams of the partitions.
func (s *soak) streams() (subjects, messages, bytes uint64) {
	nc, err := nats.Connect("", s.d.server.InProcess())
	must(s.t, err)
	defer nc.Close()
	js, err := natsjs.New(nc)
	must(s.t, err)
	for p := range s.d.kept.Partitions {
		stream, err := js.Stream(s.t.Context(), s.d.ns.Stream(p))
		must(s.t, err)
		st := stream.CachedInfo().State
		subjects, messages, bytes = subjects+st.NumSubjects, messages+st.Msgs, bytes+st.Bytes
	}
	return subjects, messages, bytes
}

// idle waits until everything that came with the callers is gone again. Files of the data folder may stay open.
func (s *soak) idle() {
	s.http.CloseIdleConnections()
	subjects, _, _ := s.streams()
	base := s.base
	base.inside, base.live = filesOpenMax, s.base.live+slack+subjects*liveBytes
	resident := func() int { return s.d.worker.Status().Resident }
	end := time.Now().Add(2 * time.Minute)
	for {
		runtime.GC()
		runtime.GC() // what pools keep outlives one
		now := takeStock(s.d.data)
		if resident() == 0 && now.noMoreThan(base) && now.live <= base.live {
			s.print("idle", now)
			return
		}
		if time.Now().After(end) {
			s.print("busy", now)
			s.t.Errorf("not idle after 2m: %d objects, %+v; want none, and at most %+v", resident(), now, base)
			return
		}
		<-time.After(500 * time.Millisecond)
	}
}

// checkSizes holds memory and disk against what was written.
func (s *soak) checkSizes() {
	subjects, messages, bytes := s.streams()
	streams, snapshots := s.sizes()
	live := takeStock("").live
	s.t.Logf("%d commits: %d messages on %d subjects, %d bytes each; per subject %d bytes live, %d in snapshots; streams take %.2f of their messages",
		s.commits.Load(), messages, subjects, bytes/messages, (live-s.base.live)/subjects, uint64(snapshots)/subjects, float64(streams)/float64(bytes))
	for _, bound := range []struct {
		what       string
		have, most uint64
	}{
		{"live heap at its peak", s.peak.live, s.base.live + 3*slack + subjects*liveBytes + bytes*3/2 + 4*uint64(s.memoryMB)<<20},
		{"goroutines at their peak", uint64(s.peak.goroutines), 2000},
		{"open files at their peak", uint64(s.peak.files), filesOpenMax + 500},
		{"messages", messages, uint64(s.commits.Load())*11/10 + 20_000}, // epochs, and their fillers
		{"bytes of streams", uint64(streams), bytes*3/2 + slack},
		{"bytes of snapshots", uint64(snapshots), subjects*snapshotBytes + slack},
	} {
		if bound.have > bound.most {
			s.t.Errorf("%s: %d; want at most %d", bound.what, bound.have, bound.most)
		}
	}
}

// checkCounts compares the hot counters with what their callers were told.
func (s *soak) checkCounts() {
	for i := range soakHot {
		body, err := s.send(s.t.Context(), "GET", fmt.Sprintf("/counter/hot-%d", i))
		var n int64
		if _, scan := fmt.Sscanf(body, `{"count":%d}`, &n); errors.Join(err, scan) != nil {
			s.t.Fatalf("%s %v", body, err)
		}
		if told, maybe := s.told[i].Load(), s.maybe[i].Load(); n < told || n > told+maybe {
			s.t.Errorf("hot-%d: %d; %d were told, and %d more may have been", i, n, told, maybe)
		}
	}
	s.http.CloseIdleConnections()
}
