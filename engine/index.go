package engine

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/snapshot"
)

// index tells which partitions' names the store lists completely. New objects are added with their first commit; what
// was there before, and what a crash left out, is read from the streams' subjects when an epoch begins. Until that is
// done nothing is listed: a list that lacks names looks like one that does not.
//
// That takes the server and the store as long as all else of a start with many objects. So it begins when somebody asks
// for a list, or after a while.
type index struct {
	complete []atomic.Bool
	asked    chan struct{} // closed when somebody has asked
	ask      func()        // closes it
}

func newIndex(partitions int) index {
	asked := make(chan struct{})
	return index{make([]atomic.Bool, partitions), asked, sync.OnceFunc(func() { close(asked) })}
}

const (
	indexBatch = 1000
	indexAfter = 4 * time.Second
)

// build adds all names of a partition.
func (x *index) build(ep *epoch) {
	select {
	case <-x.asked:
	case <-time.After(jitter(indexAfter, ep.w.cfg.ID, ep.p, ep.id.Number)):
	case <-ep.done:
		return
	}
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		err := ep.listNames()
		if err == nil {
			x.complete[ep.p].Store(true)
			return
		}
		if ep.over.Load() {
			return
		}
		ep.w.log.Warn("names not listed; asking again", "partition", ep.p, "err", err)
		if sleep(ep.ctx, wait) != nil {
			return
		}
	}
}

func (ep *epoch) listNames() error {
	ids := make([]snapshot.ID, 0, indexBatch)
	add := func() error {
		if err := ep.write(func() error { return ep.w.store.Index(ids...) }); errors.Is(err, errEpochOver) {
			return err
		} else if err != nil {
			return ep.storeFailed(err)
		}
		ids = ids[:0]
		return nil
	}
	for subject, err := range ep.log.Subjects(ep.ctx, ep.ns.JournalOf("*")) {
		if err != nil {
			return err
		}
		if class, token, ok := ep.ns.Object(subject); ok {
			ids = append(ids, snapshot.ID(class+"."+token))
		}
		if len(ids) == indexBatch {
			if err := add(); err != nil {
				return err
			}
		}
	}
	return add()
}

// newborn lists an object with its first commit.
func (o *object) newborn() {
	err := o.ep.write(func() error { return o.ep.w.store.Index(o.id) })
	if err != nil && !errors.Is(err, errEpochOver) {
		_ = o.ep.storeFailed(err)
	}
}

// retryListing is when a list that is not complete yet is worth asking for again.
const retryListing = time.Second
