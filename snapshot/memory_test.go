package snapshot_test

import (
	"testing"

	"github.com/perdure/perdure/snapshot"
	"github.com/perdure/perdure/snapshot/snapshottest"
)

func TestMemoryIsAStore(t *testing.T) {
	t.Parallel()
	snapshottest.Test(t, func(*testing.T) snapshot.Store { return snapshot.NewMemory() })
}
