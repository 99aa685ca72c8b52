package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Partition checks a partition's stream up to where it ends now, and against what the bucket knows of it. An object by
// its name is read by its own subjects, everything else by reading all of the stream. It makes no consumer and wakes
// nothing. An error means that not all could be read; the report is of what was.
//
// The stream may grow and be purged meanwhile: what seems wrong is read once more, and told if it is still so.
func Partition(ctx context.Context, log journal.Log, meta journal.Meta, cfg Config) (Report, error) {
	first, err := pass(ctx, log, meta, cfg)
	if err != nil || first.Severe == 0 || len(first.Findings) == FindingsMax {
		return first, err
	}
	again, err := pass(ctx, log, meta, cfg)
	if err != nil {
		return first, err
	}
	type same struct {
		seq    journal.Seq
		object string
		rule   Rule
	}
	seen := map[same]bool{}
	for _, f := range first.Findings {
		seen[same{f.Seq, f.Object, f.Rule}] = true
	}
	confirmed := again
	confirmed.Findings, confirmed.Severe, confirmed.Warnings = nil, 0, 0
	for _, f := range again.Findings {
		if seen[same{f.Seq, f.Object, f.Rule}] {
			confirmed.add(f)
		}
	}
	return confirmed, nil
}

// pass reads once.
func pass(ctx context.Context, log journal.Log, meta journal.Meta, cfg Config) (Report, error) {
	// In this order: what the witness knows is in the stream by now, and all snapshot records are of listed objects.
	var err error
	if cfg.Witness, _, err = journal.ReadWitness(ctx, meta, cfg.Partition); err != nil {
		return Report{}, err
	}
	_, last, err := log.Range(ctx)
	if err != nil {
		return Report{}, err
	}
	c := New(cfg)
	messages := log.Read(ctx, ">", 1)
	if cfg.Name != "" {
		messages, err = Object(ctx, log, c.cfg, last)
	} else {
		c.cfg.Snapshotted, err = snapshotted(ctx, log, c.cfg)
	}
	if err != nil {
		return Report{}, err
	}
	read := journal.Seq(0)
	for m, err := range ahead(messages) {
		if err != nil {
			return c.sofar(last), fmt.Errorf("read stream %s behind sequence %d: %w", log.Stream(), read, err)
		}
		read = m.Seq
		if m.Seq > last && !c.Unfinished() {
			break
		}
		c.Message(m)
	}
	if cfg.Name == "" && read < last {
		if err := c.short(ctx, log, read, last); err != nil {
			return c.sofar(last), err
		}
	}
	return c.End(last), nil
}

// sofar is the report when reading ended early.
func (c *Checker) sofar(last journal.Seq) Report {
	c.report.Last, c.report.Objects = last, len(c.objects)
	c.report.sorted()
	return c.report
}

// short says what it means that nothing was read of the stream's last position.
func (c *Checker) short(ctx context.Context, log journal.Log, read, last journal.Seq) error {
	_, err := log.At(ctx, last)
	if err == nil {
		return fmt.Errorf("stream %s ends at %d, and a replica that is behind answered up to %d: try again", log.Stream(), last, read)
	}
	if !errors.Is(err, journal.ErrNotFound) {
		return err
	}
	if _, now, err := log.Range(ctx); err != nil || now != last {
		return errors.Join(err, fmt.Errorf("stream %s was purged up to %d while it was read: try again", log.Stream(), last))
	}
	c.severe(last, "", Witness, "the stream ends here, and the message is not there")
	return nil
}

// snapshotted lists the objects that have snapshot records.
func snapshotted(ctx context.Context, log journal.Log, cfg Config) (func(class, token string) bool, error) {
	of := cfg.Class
	if of == "" {
		of = "*"
	}
	listed := map[string]bool{}
	for subject, err := range log.Subjects(ctx, cfg.Namespace.SnapOf(of)) {
		if err != nil {
			return nil, fmt.Errorf("list the snapshot records of stream %s: %w", log.Stream(), err)
		}
		listed[subject] = true
	}
	return func(class, token string) bool { return listed[cfg.Namespace.Snap(class, token)] }, nil
}

// Object are the messages that one object's history is made of, in the stream's order: the epochs of its partition, its
// records and its snapshot records. They are all that there are up to a position of the stream, whichever replica
// answers, and may go on behind it. Of cfg it uses namespace, partition, class and name.
func Object(ctx context.Context, log journal.Log, cfg Config, through journal.Seq) (iter.Seq2[journal.Message, error], error) {
	token := wire.Escape(cfg.Name)
	subjects := []string{cfg.Namespace.Epoch(cfg.Partition), cfg.Namespace.Journal(cfg.Class, token), cfg.Namespace.Snap(cfg.Class, token)}
	tails, _, err := log.Tails(ctx, through, subjects...)
	if err != nil {
		return nil, fmt.Errorf("ask stream %s for the object's last messages: %w", log.Stream(), err)
	}
	var reads []iter.Seq2[journal.Message, error]
	for _, subject := range subjects {
		end := journal.Seq(0)
		if i := slices.IndexFunc(tails, func(m journal.Message) bool { return m.Subject == subject }); i >= 0 {
			end = tails[i].Seq
		}
		reads = append(reads, upTo(end, log.Read(ctx, subject, 1)))
	}
	return merged(reads), nil
}

// upTo adds an error to messages that end before a position.
func upTo(end journal.Seq, messages iter.Seq2[journal.Message, error]) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		read := journal.Seq(0)
		for m, err := range messages {
			read = m.Seq
			if !yield(m, err) || err != nil {
				return
			}
		}
		if read < end {
			yield(journal.Message{}, fmt.Errorf("its subject was read up to %d, and its last message is at %d: a replica is behind; try again", read, end))
		}
	}
}

// merged puts messages of several subjects into the order of the stream.
func merged(reads []iter.Seq2[journal.Message, error]) iter.Seq2[journal.Message, error] {
	return func(yield func(journal.Message, error) bool) {
		type source struct {
			head journal.Message
			next func() (journal.Message, error, bool)
		}
		var open []*source
		for _, r := range reads {
			next, stop := iter.Pull2(r)
			defer stop()
			open = append(open, &source{next: next})
		}
		advance := func(s *source) bool { // false: yield has had an error
			m, err, ok := s.next()
			if err != nil {
				yield(m, err)
				return false
			}
			if s.head = m; !ok {
				open = slices.DeleteFunc(open, func(o *source) bool { return o == s })
			}
			return true
		}
		for _, s := range slices.Clone(open) {
			if !advance(s) {
				return
			}
		}
		for len(open) > 0 {
			first := slices.MinFunc(open, func(a, b *source) int { return cmp.Compare(a.head.Seq, b.head.Seq) })
			if !yield(first.head, nil) || !advance(first) {
				return
			}
		}
	}
}

// One batch of what is read ahead has so much at most.
const (
	aheadMessages = 256
	aheadBytes    = 1 << 20
)

// ahead reads a few batches ahead, so that the server works while the messages before are checked.
func ahead(messages iter.Seq2[journal.Message, error]) iter.Seq2[journal.Message, error] {
	type read struct {
		m   journal.Message
		err error
	}
	return func(yield func(journal.Message, error) bool) {
		batches, stop := make(chan []read, 2), make(chan struct{})
		var reading sync.WaitGroup
		reading.Go(func() {
			defer close(batches)
			var batch []read
			size := 0
			send := func() bool {
				select {
				case batches <- batch:
					batch, size = nil, 0
					return true
				case <-stop:
					return false
				}
			}
			for m, err := range messages {
				batch = append(batch, read{m, err})
				size += m.Size()
				if (len(batch) == aheadMessages || size >= aheadBytes) && !send() {
					return
				}
			}
			send()
		})
		defer reading.Wait()
		defer close(stop)
		for batch := range batches {
			for _, r := range batch {
				if !yield(r.m, r.err) {
					return
				}
			}
		}
	}
}
