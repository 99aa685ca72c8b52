package cmd

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/doctor"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// wentBack is two workers over a server whose journal will go back. Each counter stood at 2 when it was copied, and then came to 5.
type wentBack struct {
	*pair
	copied string        // of the server's folder
	ends   []journal.Seq // of the streams, which all witnesses know
}

const wentBackCounters = 12

func newWentBack(t *testing.T) *wentBack {
	t.Helper()
	w := &wentBack{pair: newPair(newFleet(t).begin(), "--lease-term", "1s")}
	w.copied = filepath.Join(w.dir, "copied")
	w.count(1, 2)
	w.server.Shutdown()
	must(t, os.CopyFS(w.copied, os.DirFS(w.folder())))
	w.begin()
	eventually(t, func() bool { return w.owned(0) == 2 && w.owned(1) == 2 })
	w.count(3, 4, 5)
	s, err := jetstream.Dial(t.Context(), jetstream.Config{Options: []nats.Option{w.server.InProcess()}, Namespace: wire.DefaultNamespace})
	must(t, err)
	defer s.Close()
	for p := range 4 {
		var end journal.Seq
		eventually(t, func() bool {
			known, _, err := journal.ReadWitness(t.Context(), s.Meta(), p)
			must(t, err)
			_, end, err = s.Log(p).Range(t.Context())
			must(t, err)
			return known.Acked >= end
		})
		w.ends = append(w.ends, end)
	}
	return w
}

func (w *wentBack) folder() string { return filepath.Join(w.dir, "nats") }

// count increments all counters, through both workers in turn, and wants these answers.
func (w *wentBack) count(want ...int) {
	w.t.Helper()
	for _, n := range want {
		for i := range wentBackCounters {
			if got := w.workers[(i+n)%2].want(200, "POST", fmt.Sprintf("/counter/c%d", i), ""); got != fmt.Sprintf(`{"count":%d}`, n) {
				w.t.Errorf("c%d is %s; want %d", i, got, n)
			}
		}
	}
}

// restore puts the older copy in the place of the server's folder.
func (w *wentBack) restore() {
	w.t.Helper()
	w.server.Shutdown()
	must(w.t, os.RemoveAll(w.folder()))
	must(w.t, os.CopyFS(w.folder(), os.DirFS(w.copied)))
	w.begin()
}

// remake deletes a stream and makes it anew.
func (w *wentBack) remake() {
	w.t.Helper()
	nc, err := nats.Connect("nats://" + w.nats)
	must(w.t, err)
	defer nc.Close()
	js, err := natsjs.New(nc)
	must(w.t, err)
	stream, err := js.Stream(w.t.Context(), "objects-1")
	must(w.t, err)
	must(w.t, js.DeleteStream(w.t.Context(), "objects-1"))
	_, err = js.CreateStream(w.t.Context(), stream.CachedInfo().Config)
	must(w.t, err)
}

// cut takes the end of a stream's last block, as a power cut does that comes before the server's next sync.
func (w *wentBack) cut() {
	w.t.Helper()
	w.server.Shutdown()
	dir := filepath.Join(w.folder(), "jetstream", "$G", "streams", "objects-1", "msgs")
	blocks, err := filepath.Glob(filepath.Join(dir, "*.blk"))
	must(w.t, err)
	number := func(path string) int {
		n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".blk"))
		must(w.t, err)
		return n
	}
	last := slices.MaxFunc(blocks, func(a, b string) int { return number(a) - number(b) })
	info, err := os.Stat(last)
	must(w.t, err)
	must(w.t, os.Truncate(last, info.Size()-500))
	must(w.t, os.RemoveAll(filepath.Join(dir, "index.db")))
	w.begin()
}

// alarmed are the partitions that tell of a journal that went back, and that no worker serves.
func (w *wentBack) alarmed() (list []int) {
	var now doctor.System
	if out, _, code := w.workers[1].run("status", "--json"); code != 0 || json.Unmarshal([]byte(out), &now) != nil {
		return nil // the workers are not back yet
	}
	for _, of := range w.partitions() {
		if strings.Contains(of.Alarm, "journal went back") && !slices.ContainsFunc(now.Partitions, func(s doctor.Partition) bool { return s.Partition == of.Partition && s.Owned }) {
			list = append(list, of.Partition)
		}
	}
	return list
}

// TestWorkersThatShareTellOfAJournalThatWentBack: nothing of it is served until that is accepted, everything else is, and then it goes on,
// behind every position that there was. Workers that are down meanwhile come up one after the other, so that the first has all when the
// other tells what it knows.
func TestWorkersThatShareTellOfAJournalThatWentBack(t *testing.T) {
	t.Parallel()
	all := []int{0, 1, 2, 3}
	for name, c := range map[string]struct {
		down syscall.Signal // 0: the workers live
		back func(*wentBack)
		lost []int
	}{
		"an older copy":                       {0, (*wentBack).restore, all},
		"an older copy while workers stopped": {syscall.SIGTERM, (*wentBack).restore, all},
		"an older copy without the bucket": {syscall.SIGKILL, func(w *wentBack) {
			w.restoreOnly("objects-0", "objects-1", "objects-2", "objects-3", "objects-inbox")
		}, all},
		"a stream made anew":          {0, (*wentBack).remake, []int{1}},
		"a power cut":                 {0, (*wentBack).cut, []int{1}},
		"a power cut of all machines": {syscall.SIGKILL, (*wentBack).cut, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWentBack(t)
			if c.down != 0 {
				for _, worker := range w.workers {
					worker.end(c.down)
				}
			}
			c.back(w)
			if c.down != 0 {
				w.workers[1].start()
				eventually(t, func() bool { return w.owned(1)+len(w.alarmed()) == 4 })
				w.workers[0].start()
			}
			eventually(t, func() bool { return slices.Equal(w.alarmed(), c.lost) })
			w.refused(c.lost)
			for _, p := range c.lost {
				w.wants(0, "sequences are lost", "accept-journal", fmt.Sprint(p), "--yes")
			}
			for _, worker := range w.workers {
				worker.ready()
			}
			eventually(t, func() bool { return len(w.alarmed()) == 0 && w.owned(0) == 2 && w.owned(1) == 2 })
			w.goesOn(c.lost, len(c.lost) == 4)
		})
	}
}

// refused wants nothing of these partitions to be served, through either worker, and all else.
func (w *wentBack) refused(lost []int) {
	w.t.Helper()
	for _, worker := range w.workers {
		for i := range wentBackCounters {
			name := fmt.Sprint("c", i)
			if !slices.Contains(lost, partOf(name)) {
				worker.want(200, "GET", "/counter/"+name, "")
				continue
			}
			for _, method := range []string{"GET", "POST"} {
				status, _, body, err := worker.send(w.t.Context(), method, "/counter/"+name, "", wire.HeaderDeadline, "50ms")
				if err != nil || status < 500 {
					w.t.Errorf("%s of %s while the alarm stands: %d %s, %v", method, name, status, body, err)
				}
			}
		}
	}
	if out, _, code := w.workers[1].run("doctor"); code != 1 || !strings.Contains(out, "journal\tbad\tjournal went back") {
		w.t.Errorf("doctor: %d %s", code, out)
	}
}

// goesOn wants the counters to go on from what there is, each at a position that nothing had.
func (w *wentBack) goesOn(lost []int, copied bool) {
	w.t.Helper()
	for i := range wentBackCounters {
		name := fmt.Sprint("c", i)
		p := partOf(name)
		var before int
		_, err := fmt.Sscanf(w.workers[0].want(200, "GET", "/counter/"+name, ""), `{"count":%d}`, &before)
		must(w.t, err)
		if is := slices.Contains(lost, p); is && copied && before != 2 || !is && before != 5 || before > 5 {
			w.t.Errorf("%s is %d", name, before)
		}
		for j, worker := range w.workers {
			if got := worker.want(200, "POST", "/counter/"+name, ""); got != fmt.Sprintf(`{"count":%d}`, before+j+1) {
				w.t.Errorf("%s goes on with %s from %d", name, got, before)
			}
		}
		if entries := w.workers[0].entries("counter/" + name); entries[len(entries)-2].Seq <= w.ends[p] {
			w.t.Errorf("%s goes on at %d; the stream had gone to %d", name, entries[len(entries)-2].Seq, w.ends[p])
		}
	}
	stdout, stderr, code := w.workers[0].run("verify", "--json")
	if code != 0 || !strings.Contains(stdout, `"severe":0`) || !strings.Contains(stdout, "a loss was accepted") {
		w.t.Errorf("perdure verify: exit code %d\n%s%s", code, stdout, stderr)
	}
	said := ""
	for _, worker := range w.workers {
		s, err := worker.stop()
		must(w.t, err)
		said += s
	}
	for _, p := range lost {
		if !strings.Contains(said, fmt.Sprintf("until `perdure accept-journal %d` says", p)) {
			w.t.Errorf("no log tells of partition %d: %s", p, said)
		}
	}
}
