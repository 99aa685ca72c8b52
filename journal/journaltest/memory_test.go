package journaltest

import (
	"testing"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

func TestMemory(t *testing.T) {
	Test(t, func(*testing.T) (wire.Subjects, func() journal.Session) {
		m := NewMemory()
		return "objects", func() journal.Session { return m.Session("objects", 2) }
	})
}
