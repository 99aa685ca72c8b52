package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/perdure/perdure/snapshot"
)

// index tells whether the store lists all names of a partition. New objects are added with their first commit; what was
// there before, what a crash left out, and what another worker has made meanwhile is read from the stream's subjects when an
// epoch begins. Until that is done nothing is listed: a list that lacks names looks like one that does not.
//
// That takes the server and the store as long as all else of a start with many objects. So it begins when somebody asks
// for a list, or after a while.
type index struct {
	asked    latch // somebody has asked
	complete latch
}

// latch is something that happens once.
type latch struct {
	done chan struct{}
	set  func()
}

func newLatch() latch {
	done := make(chan struct{})
	return latch{done, sync.OnceFunc(func() { close(done) })}
}

func newIndex() index { return index{newLatch(), newLatch()} }

// waitListed waits a while until the names of all the partitions of some epochs are listed.
func waitListed(ctx context.Context, epochs []*epoch) error {
	for _, ep := range epochs {
		ep.index.asked.set()
	}
	ctx, cancel := context.WithTimeout(ctx, retryListing)
	defer cancel()
	for _, ep := range epochs {
		select {
		case <-ep.index.complete.done:
		case <-ctx.Done():
			return Errorf(Unavailable, "the names of partition %d are being read", ep.p).RetryIn(retryListing)
		}
	}
	return nil
}

const (
	indexBatch = 1000
	indexAfter = 4 * time.Second
)

// build adds all names of a partition.
func (x *index) build(ep *epoch) {
	select {
	case <-x.asked.done:
	case <-time.After(jitter(indexAfter, ep.w.cfg.ID, ep.p, ep.id.Number)):
	case <-ep.done:
		return
	}
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		err := ep.listNames()
		if err == nil {
			x.complete.set()
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

// retryListing is how long who asks waits for a list that is not complete yet, and when it is worth asking again.
const retryListing = time.Second
