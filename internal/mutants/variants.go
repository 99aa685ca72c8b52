package main

// variant is the program with one line broken. The simulation has to see it; where it cannot, other is the test that does,
// and why says what the simulation does not have.
type variant struct {
	name     string
	property string // of docs/design.md
	file     string
	old, new string // old stands in the file once
	other    string // package and test: "./journal/jetstream TestJetStream"
	why      string
}

var variants = []variant{
	// The gate.
	{name: "the gate opens when the turn ends", property: "I4", file: "engine/object.go",
		old: "	o.waiters = append(o.waiters, waiter{c.version, o.answerer(tk, c.version, reply, false)})",
		new: "	go o.answerer(tk, c.version, reply, false)(nil)"},
	{name: "a read does not wait for what it saw", property: "I5", file: "engine/object.go",
		old: "	o.gate(version, func(err error) {\n		if err == nil {\n			err = o.ep.mayAnswer()",
		new: "	o.gate(0, func(err error) {\n		if err == nil {\n			err = o.ep.mayAnswer()"},
	{name: "an error that tells of the state does not wait", property: "I5", file: "engine/object.go",
		old: "	o.gate(o.state.version, func(lost error) {", new: "	o.gate(0, func(lost error) {"},
	{name: "a call leaves before the caller's earlier changes are durable", property: "I4", file: "engine/turn.go",
		old: "t.o.waitDurable(ctx, t.version)", new: "t.o.waitDurable(ctx, 0)"},
	{name: "what was sent is told as not done", property: "I4", file: "engine/object.go",
		old: "		if w.version <= sent {", new: "		if w.version < 0*sent {"},

	// The window and the committer.
	{name: "answers count by arrival", property: "I4", file: "engine/window.go",
		old:   "	if i < len(open) && open[i].last == last && !open[i].answered {",
		new:   "	for i = 0; i < len(open) && open[i].answered; i++ {\n	}\n	if i < len(open) {",
		other: "./engine TestWindowTellsEachOnceAndNothingStoredBehindAGap", why: "one that is stored proves those before it, so nothing false is told"},
	{name: "an answer opens what is before it", property: "I4", file: "engine/window.go",
		old: "	if i < len(open) && open[i].last == last && !open[i].answered {\n		open[i].answered, open[i].outcome = true, o\n	}",
		new: "	for j := 0; j <= i && i < len(open); j++ {\n		open[j].answered, open[j].outcome = true, o\n	}"},
	{name: "what is behind one that is not stored is told by its own answer", property: "I4", file: "engine/window.go",
		old: "	w.failed = w.failed || o != journal.Stored\n", new: "",
		other: "./engine TestWindowTellsEachOnceAndNothingStoredBehindAGap", why: "the committer has ended the epoch by then"},
	{name: "an append without an answer is waited for, for ever", property: "I9", file: "engine/committer.go",
		old: "> c.ep.w.cfg.AckTimeout", new: "> 1000*c.ep.w.cfg.AckTimeout"},
	{name: "a version is left out", property: "I1", file: "engine/object.go",
		old: "dst = journal.AppendRecord(dst, r.first, o.last, encoded)", new: "dst = journal.AppendRecord(dst, r.first+r.first/4, o.last, encoded)"},
	{name: "prev is that of the record before the last one", property: "I1", file: "engine/object.go",
		old: "	o.last, o.sent = r.hash, r.last", new: "	if o.sent = r.last; r.first%3 > 0 {\n		o.last = r.hash\n	}"},

	// Epochs and leases.
	{name: "objects outlive their epoch", property: "I9", file: "engine/epoch.go",
		old: "		o.drop()\n", new: ""},
	{name: "a fence of one record", property: "I1", file: "engine/session.go",
		old: "	for range journal.Window {\n		messages = append(messages, journal.Message{Subject: ep.ns.Fence(ep.p), Header: ep.header})\n	}\n	end, err := ep.log.Begin(ctx, last, messages...)\n	if err != nil {\n		return 0, fmt.Errorf(\"begin epoch %d: %w\", ep.id.Number, err)\n	}\n	ep.seq = end - journal.Window\n",
		new: "	for range 1 {\n		messages = append(messages, journal.Message{Subject: ep.ns.Fence(ep.p), Header: ep.header})\n	}\n	end, err := ep.log.Begin(ctx, last, messages...)\n	if err != nil {\n		return 0, fmt.Errorf(\"begin epoch %d: %w\", ep.id.Number, err)\n	}\n	ep.seq = end - 1\n"},
	{name: "an epoch begins without compare-and-set", property: "I8", file: "engine/session.go",
		old: "	end, err := ep.log.Begin(ctx, last, messages...)",
		new: "	if m, err := ep.log.Last(ctx, ep.ns.Epoch(ep.p)); err == nil {\n		last = m.Seq\n	}\n	end, err := ep.log.Begin(ctx, last, messages...)"},
	{name: "a new owner does not wait for the lease", property: "I8", file: "engine/lease.go",
		old: "	return mustWait\n}", new: "	return mayBegin\n}"},
	{name: "a lease is closed before its term is over", property: "I8", file: "engine/lease.go",
		old: "return term + term/10 }", new: "return term / 10 }"},
	{name: "a lease is trusted from the answer on", property: "I8", file: "engine/session.go",
		old: "	s.lease, s.rev = next, rev\n", new: "	s.lease, s.rev = next, rev\n	sent = s.w.clock.Boot()\n"},
	{name: "reads without a lease", property: "I5", file: "engine/epoch.go",
		old: "	case !ep.ses.valid():\n		return errNoLease\n", new: ""},
	{name: "answers after a release", property: "I8", file: "engine/session.go",
		old: "	ep.end(errStopped)\n	if n := ep.committer.inFlight(); n > 0 {", new: "	defer ep.end(errStopped)\n	if n := ep.committer.inFlight(); n > 0 {"},
	{name: "a release with appends in flight", property: "I8", file: "engine/session.go",
		old: "n := ep.committer.inFlight(); n > 0 {", new: "n := ep.committer.inFlight(); n > 1<<20 {"},
	{name: "the epoch before is gone on with: no new one is acknowledged", property: "I1", file: "engine/session.go",
		old: "	end, err := ep.log.Begin(ctx, last, messages...)",
		new: "	if m, err := ep.log.Last(ctx, ep.ns.Epoch(ep.p)); err == nil {\n		if r, err := journal.DecodeEpoch(m.Data); err == nil && !r.Release && r.Incarnation == s.incarnation {\n" +
			"			_, end, err := ep.log.Range(ctx)\n			ep.id, ep.seq, ep.header = r.Epoch, m.Seq, m.Header\n			return end + 1, err\n		}\n	}\n	end, err := ep.log.Begin(ctx, last, messages...)"},

	// Replay.
	{name: "the store is trusted over an own new epoch", property: "I5", file: "engine/replay.go",
		old: "s.base.Epoch == ep.id && s.base.Life", new: "s.base.Life"},
	{name: "Tails may be older than what was acknowledged", property: "I5", file: "engine/replay.go",
		old: "ep.log.Tails(ctx, ep.committer.high(), epochs", new: "ep.log.Tails(ctx, 0, epochs"},
	{name: "a record that is missing counts as absent", property: "I5", file: "engine/replay.go",
		old: "	case !reached:\n", new: "	case !reached && r == nil:\n"},
	{name: "a snapshot from before an accepted loss is a base", property: "I5", file: "engine/replay.go",
		old: "b.Seq < last.Seq && b.Life == ep.life", new: "b.Seq < last.Seq",
		other: "./engine TestASnapshotFromBeforeALossIsNotABase", why: "it seldom tells the story: one of 5,000 did"},
	{name: "prev is not checked", property: "I1", file: "engine/replay.go",
		old: "rec.First != r.at.version+1 || rec.Prev != r.at.hash {", new: "rec.First != r.at.version+1 {",
		other: "./engine TestOnlyTheObjectWithABrokenRecordStops", why: "needs a journal that somebody else has written into"},
	{name: "the first record of an activation is not checked against the object's last", property: "I1", file: "engine/object.go",
		old: "	if o.fresh {\n", new: "	if o.fresh && o == nil {\n",
		other: "./engine TestACommitOnAnOutdatedCopyIsRefused", why: "needs a replica that lies about its position"},
	{name: "a lost epoch record is not noticed", property: "I5", file: "engine/replay.go",
		old: "err == nil && id.Number > ep.epochAt(m.Seq).Number {", new: "err == nil && id.Number > 1<<40 {",
		other: "./engine TestALostFormerEpochRecordIsDamage", why: "needs a journal that lost a message in its middle"},

	// States and snapshots.
	{name: "the store is written before the gate", property: "I7", file: "engine/object.go",
		old: "		o.waiters = append(o.waiters, waiter{c.version, func(err error) { o.captured(folded, err) }})",
		new: "		o.acked.version = c.version\n		go o.captured(folded, nil)"},
	{name: "a state is written as of any record", property: "I7", file: "engine/object.go",
		old: "		if c.version == o.barrier {\n			break\n		}\n", new: ""},
	{name: "a snapshot record with the position of the record before", property: "I7", file: "engine/persist.go",
		old: "Version: b.Version, Seq: b.Seq, Hash: b.Hash, At: b.At, Entries: entries}", new: "Version: b.Version, Seq: b.Seq - 1, Hash: b.Hash, At: b.At, Entries: entries}"},
	{name: "a snapshot record without what answers repeats", property: "I7", file: "engine/persist.go",
		old: "snapshot.KV, snapshot.State, snapshot.Window} {", new: "snapshot.KV, snapshot.State} {"},
	{name: "a late write of an epoch that ended", property: "I7", file: "engine/worker.go",
		old: "	ep.waitWritten()\n", new: "",
		other: "./engine TestALateFlushOfAFormerEpochDoesNotOverwriteALaterOne", why: "needs a write that lasts until the next epoch has written too"},
	{name: "an epoch goes on when the store has failed", property: "I3", file: "engine/epoch.go",
		old: "	err = ep.w.storeFailed(err)\n	ep.end(err)\n", new: "	err = ep.w.storeFailed(err)\n"},
	{name: "events are folded twice after a replay from the store", property: "I6", file: "engine/state.go",
		old: "	for _, c := range s.tail {\n		if err := applyEvents(act, c); err != nil {",
		new: "	for _, c := range append(s.tail, s.tail[:min(1, len(s.tail))]...) {\n		if err := applyEvents(act, c); err != nil {"},
	{name: "an activation outlives a failed turn that emitted", property: "I6", file: "engine/object.go",
		old: "	if t.emitted || errors.As(err, new(panicked)) {\n", new: "	if errors.As(err, new(panicked)) {\n"},

	// Once and only once.
	{name: "no request is known", property: "I3", file: "engine/once.go",
		old: "	case r.Session != nil:\n		found, err = o.findNumber", new: "	case r.Session != nil && o == nil:\n		found, err = o.findNumber"},
	{name: "a number below the mark runs", property: "I3", file: "engine/once.go",
		old: "	case n.N < s.M:\n", new: "	case n.N < s.M && o == nil:\n"},
	{name: "a client is forgotten by the wall clock", property: "I3", file: "engine/once.go",
		old: "	if s != nil && s.Deadline.Before(recorded) {\n		s = nil", new: "	if s != nil && s.Deadline.Before(now) {\n		o.drop(n.Sender)\n		s = nil"},
	{name: "deadlines are ignored", property: "I3", file: "engine/object.go",
		old: "	if tk.req.Deadline.Before(now) {", new: "	if tk.req.Deadline.Before(now.AddDate(-1, 0, 0)) {"},
	{name: "own ids are not in the store", property: "I7", file: "engine/once.go",
		old: "		put(idKey(c.ID), a.stored())\n", new: ""},
	{name: "what is not durable makes an object forget", property: "I7", file: "engine/state.go",
		old: "s.once.ids-ownIDs(s.tail[n:])", new: "s.once.ids"},
	{name: "a long reply without the position of its record", property: "I7", file: "engine/once.go",
		old: "			a.Seq, a.Reply = c.seq, nil", new: "			a.Seq, a.Reply = 0, nil"},

	// The witness.
	{name: "the witness is not compared", property: "I2", file: "engine/witness.go",
		old: "	case w.Acked > end:\n", new: "	case w.Acked > end && s == nil:\n"},
	{name: "what the worker knows itself is not compared", property: "I2", file: "engine/witness.go",
		old: "own > end {", new: "own > end && s == nil {"},
	{name: "an accepted loss lifts nothing", property: "I3", file: "engine/witness.go",
		old: "loss.Known+journal.Window)", new: "0)"},

	// What is durable.
	{name: "an epoch begins before its fence is durable", property: "I5", file: "engine/session.go",
		old: "if err := s.w.settle(ctx, log.Stream(), first-1); err != nil {", new: "if err := error(nil); err != nil {",
		other: "./engine TestAnEpochBeginsWithWhatAPowerCutCannotTake", why: "a power cut seldom comes between the two"},
	{name: "a witness knows what is not durable", property: "I9", file: "engine/witness.go",
		old: "	high := ep.committer.lasting()\n", new: "	high := ep.committer.high()\n",
		other: "./engine TestNobodySeesWhatAPowerCutCouldTake", why: "the alarm that follows is one that it accepts"},
	{name: "what is looked at may go", property: "I5", file: "engine/inspect.go",
		old: "	if shown <= ep.committer.lasting() {", new: "	if shown > 0 {",
		other: "./engine TestNobodySeesWhatAPowerCutCouldTake", why: "who looks is told nothing of positions"},
	{name: "a round tells before it syncs", property: "I4", file: "internal/blocksync/syncer.go",
		old: "		if err := s.round(waiting,", new: "		for _, w := range waiting {\n			w.open()\n		}\n		waiting = nil\n		if err := s.round(waiting,",
		other: powerCut, why: noDisk},
	{name: "a round tells those who came during it", property: "I4", file: "internal/blocksync/syncer.go",
		old: "		if len(waiting) > 0 {", new: "		s.mu.Lock()\n		waiting = append(waiting, s.waiting...)\n		s.waiting = nil\n		s.mu.Unlock()\n		if len(waiting) > 0 {",
		other: "./internal/blocksync TestARoundTellsThoseWhoCameBeforeIt", why: noDisk},
	{name: "a block is forgotten when the next one begins", property: "I2", file: "internal/blocksync/syncer.go",
		old: "	if err := st.flush(o); err != nil {\n		return err\n	}\n	for _, n", new: "	if len(later) == 0 {\n		if err := st.flush(o); err != nil {\n			return err\n		}\n	}\n	for _, n",
		other: powerCut, why: noDisk},
	{name: "the folder of a new block is not synced", property: "I2", file: "internal/blocksync/syncer.go",
		old: "		if err := syncFile(st.msgs); err != nil {\n			return err\n		}\n		o.trace(st.msgs, int64(st.newest))\n", new: "",
		other: powerCut, why: noDisk},
	{name: "the bucket is not synced", property: "I2", file: "internal/blocksync/syncer.go",
		old: "		st := s.streams[f.key()]\n", new: "		if f.stream[:2] == \"KV\" {\n			continue\n		}\n		st := s.streams[f.key()]\n",
		other: powerCut, why: noDisk},
	{name: "blocks behind a hole stay", property: "I9", file: "internal/blocksync/marks.go",
		old: "	for ; i+1 < len(blocks); i++ {", new: "	for ; i < 0; i++ {",
		other: "./internal/blocksync TestBlocksBehindAHoleArePutAside", why: noDisk},
	{name: "a sync that failed is passed over", property: "I4", file: "internal/blocksync/syncer.go",
		old: "	if err := o.datasync(st.file); err != nil {\n		return err\n	}", new: "	_ = o.datasync(st.file)",
		other: "./internal/blocksync TestAFailedSyncTellsNobodyAnythingAnyMore", why: noDisk},
}

const (
	powerCut = "./internal/blocksync TestAPowerCutTakesNothingThatWasAnswered"
	noDisk   = "it has no files"
)
