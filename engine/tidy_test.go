package engine

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/boottime"
	"github.com/perdure/perdure/snapshot"
)

// timedStore takes a while to write an object, and notes when it began to.
type timedStore struct {
	snapshot.Store
	takes time.Duration

	mu    sync.Mutex
	began []time.Duration
}

func (s *timedStore) Apply(id snapshot.ID, b snapshot.Batch) error {
	if strings.HasPrefix(string(id), "brief.") {
		s.mu.Lock()
		s.began = append(s.began, boottime.Now())
		s.mu.Unlock()
		time.Sleep(s.takes) // sleeps: it is a slow disk
	}
	return s.Store.Apply(id, b)
}

// TestWhatIsIdleLeavesMemoryInAFifthOfTheTime: else all that is idle at once, because something holds up the callers, would hold them up more.
func TestWhatIsIdleLeavesMemoryInAFifthOfTheTime(t *testing.T) {
	t.Parallel()
	const n = 40
	w := newServer(t)
	store := &timedStore{Store: snapshot.NewMemory(), takes: 5 * time.Millisecond}
	worker := w.worker("w", func(c *Config) {
		c.Store, c.Classes = store, []AnyClass{Class[register]{Name: "brief", Limits: Limits{Idle: time.Second}}}
	})
	w.ready(worker)
	for i := range n {
		must(worker.Do(t.Context(), Request{Class: "brief", Name: fmt.Sprint(i), Method: "add", Body: []byte("1")}))(t)
	}
	eventually(t, "all have left memory", func() bool { return worker.Status().Resident == 0 })
	store.mu.Lock()
	defer store.mu.Unlock()
	if len(store.began) != n {
		t.Fatalf("%d writes of %d objects", len(store.began), n)
	}
	for i := 1; i < n; i++ {
		if apart := store.began[i] - store.began[i-1]; apart < (1+pauseRatio)*store.takes {
			t.Errorf("object %d is written %v after the one before it; the pause is at least %v", i, apart, pauseRatio*store.takes)
		}
	}
}
