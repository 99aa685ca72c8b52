package cmd

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/blocksync"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// How `perdure dev` makes durable what its server has stored: package blocksync does it, many messages with one sync, and
// where that does not know the server's files, the server does it itself.

// serverSyncInterval is how often the server syncs by itself, where blocksync does it.
const serverSyncInterval = 2 * time.Minute

// natsDir is where the server stores.
func (d *dev) natsDir() string { return filepath.Join(d.data, "nats") }

// startServer starts the server, which syncs every so often by itself; 0: before each acknowledgement.
func (d *dev) startServer(every time.Duration) (err error) {
	d.server, err = embed.Start(embed.Options{Dir: d.natsDir(), Listen: d.natsListen, SyncInterval: every,
		HoldSends: every == serverSyncInterval && d.every == 0, Namespaces: []wire.Subjects{d.ns}, Logger: d.log})
	return err
}

// startSync takes the syncing over from the server, whose namespace is open.
func (d *dev) startSync(ctx context.Context) (err error) {
	if d.cut != nil {
		if err := d.noteCut(ctx); err != nil {
			return err
		}
	}
	o := blocksync.Options{Dir: d.natsDir(), Every: d.every, OnFatal: d.fail}
	if d.every > 0 {
		o.Ends = d.server.Ends // what is acknowledged and lost is told
	}
	d.syncer, err = blocksync.New(o)
	if !errors.Is(err, blocksync.ErrLayout) {
		return err
	}
	d.log.Warn("the server syncs by itself: --sync always costs a sync per record", "err", err)
	d.server.Shutdown()
	return d.startServer(d.every)
}

// noteCut tells of a power cut, and holds what was acknowledged before it against the streams.
func (d *dev) noteCut(ctx context.Context) error {
	d.log.Warn("the machine went down since the last start, without a clean stop", "sync", d.sync, "put aside", d.cut.Aside)
	s, err := d.session(ctx, d.ns)
	if err != nil {
		return err
	}
	defer s.Close()
	for p := range d.kept.Partitions {
		if acked := d.cut.Acked[d.ns.Stream(p)]; acked > 0 {
			if err := engine.Recall(ctx, s, p, "the file of marks", journal.Seq(acked)); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopServer stops the server, and then notes that all is synced.
func (d *dev) stopServer() error {
	if d.server == nil {
		return nil
	}
	d.server.Shutdown()
	if d.syncer == nil {
		return nil
	}
	return d.syncer.Close()
}
