package wiretap

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// ReadCommits reads the journal: the commits of all records that count, since their epoch is the last one before them.
func ReadCommits(ctx context.Context, s journal.Session, ns wire.Subjects, partitions int) (Commits, error) {
	all := Commits{}
	for p := range partitions {
		log := s.Log(p)
		owners := map[journal.Seq]journal.EpochRecord{} // by position
		var begun []journal.Seq
		for m, err := range log.Read(ctx, ns.Epoch(p), 1) {
			if err != nil {
				return nil, err
			}
			r, err := journal.DecodeEpoch(m.Data)
			if err != nil {
				return nil, fmt.Errorf("stream %s: sequence %d: %w", log.Stream(), m.Seq, err)
			}
			if !r.Release {
				owners[m.Seq], begun = r, append(begun, m.Seq)
			}
		}
		for m, err := range log.Read(ctx, ns.JournalOf("*"), 1) {
			if err != nil {
				return nil, err
			}
			for len(begun) > 1 && begun[1] < m.Seq {
				begun = begun[1:]
			}
			if len(begun) == 0 || m.Header[wire.HeaderEpoch] != owners[begun[0]].Epoch.String() {
				continue
			}
			if err := all.add(ns, m, owners[begun[0]]); err != nil {
				return nil, fmt.Errorf("stream %s: sequence %d: %w", log.Stream(), m.Seq, err)
			}
		}
	}
	return all, nil
}

func (c Commits) add(ns wire.Subjects, m journal.Message, owner journal.EpochRecord) error {
	r, err := journal.DecodeRecord(m.Data)
	if err != nil {
		return err
	}
	_, _, class, token, _ := ns.SplitObject(m.Subject)
	object := class + "/" + token
	if c[object] == nil {
		c[object] = map[journal.Version]Commit{}
	}
	for i, commit := range r.Commits {
		id := commit.ID
		if commit.Session != nil {
			id = fmt.Sprintf("%s %d", commit.Session.Sender, commit.Session.N)
		}
		c[object][r.First+journal.Version(i)] = Commit{id, owner.Epoch, owner.Worker}
	}
	return nil
}
