package bench

import (
	"strings"
	"testing"
	"time"
)

// TestASystemThatEndsIsNotWaitedFor: one that cannot start says why.
func TestASystemThatEndsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	s, err := newProcess("ls", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.begin(t.Context()); err == nil || !strings.Contains(err.Error(), "ls: ") {
		t.Errorf("%v", err)
	}
	if took := time.Since(began); took > startTimeout/2 {
		t.Errorf("it took %v", took)
	}
}
