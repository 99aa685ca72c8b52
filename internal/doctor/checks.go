package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/engine"
	"github.com/perdure/perdure/internal/embed"
	"github.com/perdure/perdure/journal"
	"github.com/perdure/perdure/journal/jetstream"
)

// checks are in the order in which they are shown.
var checks = []struct {
	name string
	of   func(*Facts) []Finding
}{
	{"server", checkServer},
	{"access", checkAccess},
	{"payload", checkPayload},
	{"sync", checkSync},
	{"storage", checkStorage},
	{"streams", checkStreams},
	{"replicas", checkReplicas},
	{"size", checkSize},
	{"journal", checkJournal},
	{"worker", checkWorker},
	{"mapping", checkMapping},
	{"epochs", checkEpochs},
	{"lease", checkLease},
	{"clock", checkClock},
	{"software", checkSoftware},
	{"folder", checkHostFolder},
}

// Examine judges what was found. It asks nobody.
func Examine(f *Facts) (list []Finding) {
	for _, c := range checks {
		list = append(list, named(c.name, c.of(f))...)
	}
	return list
}

// The server's versions: from the first on it can do what the journal needs (atomic batches), and the tests run with the
// second.
var (
	versionNeeded = [2]int{2, 12}
	versionTested = [2]int{2, 15}
)

func checkServer(f *Facts) []Finding {
	have, ok := majorMinor(f.Server.Version)
	switch {
	case !ok:
		return one(Unseen, "see: nats-server --version", "the server's version %q cannot be read", f.Server.Version)
	case slices.Compare(have[:], versionNeeded[:]) < 0:
		return one(Bad, "upgrade nats-server to 2.15", "nats-server %s has no atomic batches: no partition can be owned", f.Server.Version)
	case slices.Compare(have[:], versionTested[:]) < 0:
		return one(Warn, "upgrade nats-server to 2.15", "nats-server %s; the tests run with 2.15", f.Server.Version)
	}
	return fine("nats-server %s; a round trip takes %v", f.Server.Version, short(f.Server.RoundTrip))
}

func majorMinor(version string) (v [2]int, ok bool) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return v, false
	}
	var err, err2 error
	v[0], err = strconv.Atoi(parts[0])
	v[1], err2 = strconv.Atoi(parts[1])
	return v, err == nil && err2 == nil
}

func checkAccess(f *Facts) []Finding {
	switch {
	case f.Server.AuthRequired:
		return fine("the server asks who connects")
	case f.Server.Loopback:
		return fine("the server asks nobody who they are; it was reached on this machine")
	}
	return one(Warn, "give the server accounts or users, or let it listen on 127.0.0.1",
		"the server is reached from elsewhere and asks nobody who they are: whoever reaches it can purge a stream")
}

func checkPayload(f *Facts) []Finding {
	const fix = "set max_payload: 8MB in the server's configuration"
	record := int64(engine.LargestRecord(int(f.Server.PayloadMax)))
	switch most := size(f.Server.PayloadMax); {
	case record <= 0:
		return one(Bad, fix, "max_payload is %s: no record fits", most)
	case f.Server.PayloadMax < embed.PayloadBytesMax:
		return one(Warn, fix, "max_payload is %s and not %s: a turn whose changes and reply have more than %s is refused as tooLarge",
			most, size(embed.PayloadBytesMax), size(record))
	default:
		return fine("max_payload is %s", most)
	}
}

// syncMax is the longest interval that may be meant: what a power cut may take then is little.
const syncMax = time.Second

func checkSync(f *Facts) []Finding {
	always, every, seen := f.sync()
	if m := f.Monitor; m != nil && m.ServerID != f.Server.ID {
		return one(Warn, "give --monitor the address of the server at --server", "the monitor is of another server, %s", m.ServerID)
	}
	replicas := f.Journal.Namespace.Replicas
	switch {
	case !seen:
		why := ""
		if f.MonitorErr != nil {
			why = fmt.Sprintf(" (%v)", f.MonitorErr)
		}
		return one(Unseen, "run with --monitor http://SERVER:8222, or look for sync_interval in the server's configuration; its default is 2m",
			"how often the server syncs to disk cannot be seen from here%s", why)
	case always:
		return fine("every record is on disk before it is acknowledged")
	case replicas > 1:
		return one(Warn, "sync_interval: always, if all servers can lose power at once",
			"the servers sync every %v: if a majority of them loses power at once, what was answered since is lost", every)
	case every > syncMax:
		return one(Bad, "jetstream { sync_interval: always } in the server's configuration, or --sync always of perdure dev",
			"the server syncs every %v: a power cut loses as much of what was answered", every)
	}
	return one(Warn, "--sync always, if that is not meant", "the server syncs every %v: a power cut loses as much of what was answered", every)
}

// sync is how the server syncs, by the worker in its process or by its monitor.
func (f *Facts) sync() (always bool, every time.Duration, seen bool) {
	for _, h := range f.hosts() {
		if h.Sync != "" {
			every, err := time.ParseDuration(h.Sync)
			return err != nil, every, true
		}
	}
	if f.Monitor == nil {
		return false, 0, false
	}
	c := f.Monitor.JetStream.Config
	return c.SyncAlways, c.SyncInterval, true
}

// The shares of a limit on storage from which it is worth saying.
const (
	storageWarnPercent = 70
	storageBadPercent  = 90
)

func checkStorage(f *Facts) []Finding {
	err := f.Account.Err
	if errors.Is(err, natsjs.ErrJetStreamNotEnabled) || errors.Is(err, natsjs.ErrJetStreamNotEnabledForAccount) || errors.Is(err, nats.ErrNoResponders) {
		return one(Bad, "start nats-server with -js, and enable JetStream for the account", "the server has no JetStream for this account")
	}
	if err != nil {
		return one(Unseen, "allow this user $JS.API.>", "what JetStream gives this account cannot be seen: %v", err)
	}
	used, most, whose, fix := f.Account.Store, f.Account.StoreMax, "the account", "raise the account's limit on disk storage"
	if m := f.Monitor; m != nil && m.ServerID == f.Server.ID && m.JetStream.Config.StoreMax > 0 {
		if all := m.JetStream; most <= 0 || all.Config.StoreMax-all.Stats.Store < most-used {
			used, most, whose, fix = all.Stats.Store, all.Config.StoreMax, "the server", "raise max_file_store in the server's configuration"
		}
	}
	if most <= 0 {
		return fine("JetStream stores %s, and the account has no limit", size(used))
	}
	what := fmt.Sprintf("%s stores %s of at most %s; beyond that no commit is stored", whose, size(used), size(most))
	switch percent := 100 * float64(used) / float64(most); {
	case percent >= storageBadPercent:
		return one(Bad, fix, "%s", what)
	case percent >= storageWarnPercent:
		return one(Warn, fix, "%s", what)
	}
	return fine("%s stores %s of at most %s", whose, size(used), size(most))
}

func checkStreams(f *Facts) (list []Finding) {
	j := f.Journal
	if j.Err != nil {
		return noJournal(j.Err)
	}
	for _, s := range j.Streams {
		if s.Err == nil {
			continue
		}
		fix := "see what the server logs"
		if _, ok := errors.AsType[*jetstream.SettingsError](s.Err); ok {
			fix = "nats stream edit " + s.Name
		} else if errors.Is(s.Err, journal.ErrMissing) {
			fix = "restore it from a backup, or use the right server"
		}
		list = append(list, said(Bad, fix, "%v", s.Err))
	}
	if len(list) == 0 {
		return fine("the bucket and %d streams are as they must be", j.Namespace.Partitions)
	}
	return list
}

// noJournal says why there is no namespace.
func noJournal(err error) []Finding {
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil // no JetStream: said under storage
	case errors.Is(err, journal.ErrMissing), errors.Is(err, journal.ErrNotFound):
		return one(Bad, "start a worker, which makes it; or see --server, --context and --namespace", "no objects are here: %v", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return one(Unseen, "allow this user $JS.API.>, or give more time with --timeout", "the server does not say what it keeps: %v", err)
	}
	return one(Bad, "use the version of the program that the worker has", "what is kept cannot be read: %v", err)
}

func checkReplicas(f *Facts) (list []Finding) {
	if f.Journal.Err != nil {
		return nil // said already
	}
	n := f.Journal.Namespace.Replicas
	if n == 1 && f.Server.Cluster != "" {
		return one(Warn, "use a namespace that is made with 3 replicas", "the servers are the cluster %q and each stream is on one of them: if that is lost, so is the stream", f.Server.Cluster)
	}
	for _, s := range f.Journal.Streams {
		if s.Info == nil || s.Info.Cluster == nil {
			continue
		}
		for _, r := range s.Info.Cluster.Replicas {
			if r.Offline || !r.Current {
				list = append(list, said(Warn, "start it, or see nats server report jetstream", "stream %s: its replica on %s is offline or behind (%d messages)", s.Name, r.Name, r.Lag))
			}
		}
	}
	if len(list) == 0 {
		return fine("%d of each stream", n)
	}
	return list
}

// What a subject costs a server in memory, measured with a million of them, and how many are worth a word.
const (
	subjectBytes = 140
	subjectsWarn = 10_000_000
)

func checkSize(f *Facts) []Finding {
	var subjects, messages, bytes uint64
	for _, s := range f.Journal.Streams {
		if s.Info != nil {
			subjects, messages, bytes = subjects+s.Info.State.NumSubjects, messages+s.Info.State.Msgs, bytes+s.Info.State.Bytes
		}
	}
	what := fmt.Sprintf("%d subjects, %d messages, %s; the subjects take about %s of the server's memory",
		subjects, messages, size(bytes), size(subjects*subjectBytes))
	switch {
	case f.Journal.Err != nil:
		return nil
	case subjects >= subjectsWarn:
		return one(Warn, "see that the server has this much, twice over; fewer and larger objects need less", "%s", what)
	}
	return fine("%s", what)
}

func checkJournal(f *Facts) (list []Finding) {
	if f.Journal.OwnersErr != nil {
		return one(Bad, "see what the worker and the server log", "who owns the partitions cannot be read: %v", f.Journal.OwnersErr)
	}
	for _, o := range f.Journal.Owners {
		if l := o.Loss; l != nil {
			list = append(list, said(Bad, fmt.Sprintf("restore a better copy of stream %s, or perdure accept-journal %d", l.Stream, l.Partition), "%s", l.Why))
		}
	}
	if len(list) > 0 || len(f.Journal.Owners) == 0 {
		return list
	}
	return fine("every stream has all that is known of it")
}

// hosts are where the workers run that say so.
func (f *Facts) hosts() (hosts []*Host) {
	if s := f.Workers.System; s != nil {
		for i := range s.Workers {
			if h := s.Workers[i].Host; h != nil {
				hosts = append(hosts, h)
			}
		}
	}
	return hosts
}

func checkWorker(f *Facts) (list []Finding) {
	s := f.Workers.System
	if errors.Is(f.Workers.Err, nats.ErrNoResponders) {
		return one(Bad, "start a worker; if one runs, see --namespace", "no worker answers: nothing is served")
	}
	if s == nil {
		return one(Unseen, "allow this user "+f.Namespace.Admin(">"), "what the workers do cannot be seen: %v", f.Workers.Err)
	}
	for _, p := range s.Partitions {
		switch {
		case f.lost(p.Partition): // said under journal
			list = append(list, said(Bad, "as under journal", "partition %d is not served, since its journal went back", p.Partition))
		case p.Alarm != "":
			list = append(list, said(Bad, fmt.Sprintf("restore a better copy of its stream, or perdure accept-journal %d", p.Partition), "partition %d: %s", p.Partition, p.Alarm))
		case !p.Owned:
			list = append(list, said(Bad, "see what the workers log", "partition %d is not owned: its objects are not served", p.Partition))
		}
	}
	ids := make([]string, len(s.Workers))
	for i, r := range s.Workers {
		if ids[i] = r.ID; r.DiskFull != "" {
			list = append(list, said(Bad, "make room on the disk; nothing else is needed", "commits are refused by worker %s: %s", r.ID, r.DiskFull))
		}
	}
	for _, id := range s.Silent {
		list = append(list, said(Warn, "look again in some seconds; if it stays, see whether it runs", "worker %s does not answer", id))
	}
	if len(list) == 0 {
		return fine("all %d partitions are owned, by %s", len(s.Partitions), strings.Join(ids, ", "))
	}
	return list
}

// lost tells whether a witness knows more of a partition than its stream has.
func (f *Facts) lost(partition int) bool {
	return slices.ContainsFunc(f.Journal.Owners, func(o engine.Ownership) bool { return o.Partition == partition && o.Loss != nil })
}

func checkMapping(f *Facts) []Finding {
	from, to := f.Namespace.Mapping()
	reads, toReads := f.Namespace.ReadMapping()
	fix := fmt.Sprintf("mappings: { %q: %q, %q: %q } in the server's configuration, of the account", from, to, reads, toReads)
	switch m := f.Mapping; {
	case m.Err != nil:
		return one(Unseen, "allow this user to publish and subscribe to "+string(f.Namespace)+".>", "the subject mapping cannot be seen: %v", m.Err)
	case m.Slot < 0 && f.Workers.System == nil:
		return one(Bad, fix, "the server does not map calls to their slots: a call over NATS finds no responders")
	case m.Slot < 0:
		return one(Warn, fix, "the server does not map calls to their slots: a worker passes each on, which costs a hop, and what one publisher sends to an object may change places")
	case m.Slot != m.Want:
		return one(Warn, fix, "the server maps a call to slot %d and not %d: each such call takes one more hop", m.Slot, m.Want)
	}
	return fine("the server maps calls to their slots")
}

// epochsPerHour is how many epochs of one partition in an hour are worth a word: each is a pause, and restarts alone do
// not make so many.
const epochsPerHour = 12

func checkEpochs(f *Facts) (list []Finding) {
	since := f.Now.Add(-time.Hour)
	for _, o := range f.Journal.Owners {
		n := 0
		for _, at := range o.Begun {
			if at.After(since) {
				n++
			}
		}
		if n >= epochsPerHour {
			list = append(list, said(Warn, "the worker's log says why each ended: a slow disk, a lost connection, a foreign message in the stream",
				"partition %d began %d epochs within the last hour; each is a pause", o.Partition, n))
		}
	}
	if len(list) == 0 && len(f.Journal.Owners) > 0 {
		return fine("no partition changes hands often")
	}
	return list
}

func checkLease(f *Facts) []Finding {
	term := time.Duration(0)
	for _, o := range f.Journal.Owners {
		if o.LeaseTerm > 0 && !o.Released && (term == 0 || o.LeaseTerm < term) {
			term = o.LeaseTerm
		}
	}
	switch {
	case term == 0:
		return nil // nobody owns anything
	case term < 20*f.Server.RoundTrip:
		return one(Warn, "raise LeaseTerm, or run the worker near its server", "the lease is for %v and the server is %v away: a few slow answers end it", term, short(f.Server.RoundTrip))
	}
	return fine("for %v, renewed each quarter", term)
}

// Differences between clocks that are worth a word. Requests have 30 s if they say nothing else.
const (
	clockWarn = 100 * time.Millisecond
	clockBad  = 10 * time.Second
)

func checkClock(f *Facts) (list []Finding) {
	off := func(whose string, ahead time.Duration) {
		if ahead.Abs() < clockWarn {
			return
		}
		s := Warn
		if ahead.Abs() >= clockBad {
			s = Bad
		}
		list = append(list, said(s, "run NTP on both", "%s %v: requests that say until when are refused too early, or run too late", whose, apart(ahead)))
	}
	var server time.Duration
	for _, s := range f.Journal.Streams {
		if s.Ahead.Abs() > server.Abs() {
			server = s.Ahead
		}
	}
	off("the server's clock is", server)
	worker := map[string]time.Duration{}
	for i, ahead := range f.Workers.Ahead {
		id := f.Workers.System.Workers[i].ID
		worker[id] = ahead
		off("the clock of worker "+id+" is", ahead)
	}
	for _, o := range f.Journal.Owners {
		if ahead := o.Recorded.Sub(f.Now.Add(cmp.Or(worker[o.Worker], server))); !o.Recorded.IsZero() && ahead >= clockBad {
			list = append(list, said(Bad, "wait, or see that no clock is wrong: an object's time never goes back",
				"the last record of partition %d was made at %s, %v ahead: until then requests for its object are refused", o.Partition, o.Recorded.Format(time.RFC3339), short(ahead)))
		}
	}
	if len(list) > 0 {
		return list
	}
	return fine("this machine, server and workers agree to within %v", clockWarn)
}

// apart says how far a clock is off.
func apart(ahead time.Duration) string {
	if ahead < 0 {
		return short(-ahead).String() + " behind this machine's"
	}
	return short(ahead).String() + " ahead of this machine's"
}

func checkSoftware(f *Facts) []Finding {
	seen := map[string]bool{}
	hosts := f.hosts()
	for _, h := range hosts {
		seen[h.Version] = true
	}
	if len(hosts) == 0 {
		for _, o := range f.Journal.Owners {
			seen[o.Software] = !o.Released
		}
	}
	for v, is := range seen {
		if is && v != f.Software {
			return one(Warn, "use the same version everywhere", "a worker is %s, this program %s", v, f.Software)
		}
	}
	return fine("%s", f.Software)
}

func checkHostFolder(f *Facts) (list []Finding) {
	for _, h := range f.hosts() {
		if h.Folder.Path != "" {
			list = append(list, checkFolder(h.Folder)...)
		}
	}
	if len(list) > 0 {
		return list
	}
	return one(Unseen, "perdure doctor --data FOLDER, on the worker's and the server's machine", "the disk cannot be seen from here")
}

// short leaves the digits of a duration that matter.
func short(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Microsecond; unit /= 10 {
		if d >= 10*unit {
			return d.Round(unit)
		}
	}
	return d.Round(time.Microsecond)
}

// size is a number of bytes for people.
func size[N int | int64 | uint64](n N) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, i := float64(n)/(1<<10), 0
	for ; v >= 1<<10 && i < len(units)-1; i++ {
		v /= 1 << 10
	}
	return strings.TrimSuffix(strconv.FormatFloat(v, 'f', 1, 64), ".0") + " " + units[i:i+1] + "iB"
}
