package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestWhatTheOperatorReadsAfterARestore pastes docs/operate.md into a shell.
func TestWhatTheOperatorReadsAfterARestore(t *testing.T) {
	t.Parallel()
	s := newShell(t, freePort(t), freePort(t))
	for _, b := range s.blocks("docs/operate.md") {
		s.paste(b)
	}
}

// TestWhatIsRestoredInPart: each case of the table in docs/operate.md where nothing tells of a loss, with workers that had not released what
// they had. Streams without the bucket are among those that tell (TestWorkersThatShareTellOfAJournalThatWentBack).
func TestWhatIsRestoredInPart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		put   func(*wentBack)
		count string // where the counters are then
	}{
		"all, and workers that know nothing": {func(w *wentBack) {
			w.restore()
			for _, worker := range w.workers {
				must(w.t, os.RemoveAll(worker.dir))
			}
		}, `{"count":2}`},
		"the bucket alone": {func(w *wentBack) { w.restoreOnly(bucketStream) }, `{"count":5}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWentBack(t)
			for _, worker := range w.workers {
				worker.end(syscall.SIGKILL)
			}
			c.put(w)
			for _, worker := range w.workers {
				worker.start()
			}
			for i, worker := range w.workers {
				worker.ready()
				id, err := workerID(worker.dir)
				must(t, err)
				w.ids[i] = id
			}
			eventually(t, func() bool { return w.owned(0) == 2 && w.owned(1) == 2 })
			for i := range wentBackCounters {
				if got := w.workers[i%2].want(200, "GET", "/counter/c"+string(rune('0'+i%10)), ""); got != c.count {
					t.Errorf("c%d is %s; want %s", i%10, got, c.count)
				}
			}
			if stdout, stderr, code := w.workers[0].run("verify", "--json"); code != 0 || !strings.Contains(stdout, `"severe":0`) {
				t.Errorf("perdure verify: exit code %d\n%s%s", code, stdout, stderr)
			}
		})
	}
}

// bucketStream is the stream of the namespace's bucket.
const bucketStream = "KV_objects-meta"

// restoreOnly puts the older copy of some streams in the place of those that there are.
func (w *wentBack) restoreOnly(streams ...string) {
	w.t.Helper()
	w.server.Shutdown()
	for _, stream := range streams {
		in := filepath.Join("jetstream", "$G", "streams", stream)
		must(w.t, os.RemoveAll(filepath.Join(w.folder(), in)))
		must(w.t, os.CopyFS(filepath.Join(w.folder(), in), os.DirFS(filepath.Join(w.copied, in))))
	}
	w.begin()
}
