package jetstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// Namespace is what the key "namespace" of the bucket says: what was chosen when it was made.
type Namespace struct {
	Wire       int       `json:"wire"`       // version of the contract
	ID         string    `json:"id"`         // 128 random bits: the namespace's life
	Partitions int       `json:"partitions"` // how many streams; for ever
	Replicas   int       `json:"replicas"`
	Created    time.Time `json:"created"`
	Republish  bool      `json:"republish,omitempty"` // the server publishes each record again, as a change; it may be changed
}

const (
	wireVersion  = 1
	namespaceKey = "namespace"

	// DefaultPartitions is for one worker: each stream more is a file more to sync in each round.
	DefaultPartitions = 1
)

// Settings are what a namespace is made with. Zero is what it has, or the default if it is made now.
type Settings struct {
	Partitions int
	Replicas   int
	Republish  *bool // nil: as it is, or off

	// PartitionsOfNew are those of a namespace that is made now, if Partitions asks for none. Default [DefaultPartitions].
	PartitionsOfNew int
}

// NamespaceError says that a namespace was made with other settings than are asked for. They are for ever.
type NamespaceError struct {
	Namespace   wire.Subjects
	Differences []string
}

func (e *NamespaceError) Error() string {
	return fmt.Sprintf("namespace %q was %s", e.Namespace, strings.Join(e.Differences, "; it was "))
}

// against compares what is asked for with what a namespace has.
func (want Settings) against(s wire.Subjects, have Namespace) error {
	e := &NamespaceError{Namespace: s}
	for _, of := range []struct {
		what       string
		want, have int
	}{{"partitions", want.Partitions, have.Partitions}, {"replicas", want.Replicas, have.Replicas}} {
		if of.want != 0 && of.want != of.have {
			e.Differences = append(e.Differences, fmt.Sprintf("made with %d %s, which is for ever; %d were asked for", of.have, of.what, of.want))
		}
	}
	if len(e.Differences) == 0 {
		return nil
	}
	return e
}

// SettingsError says that a stream or bucket is there with other settings than its namespace needs. Nothing is changed:
// somebody may have had a reason.
type SettingsError struct {
	Stream      string
	Differences []string
}

func (e *SettingsError) Error() string {
	return fmt.Sprintf("stream %s has other settings than it needs: %s; change them back (nats stream edit), or use another namespace",
		e.Stream, strings.Join(e.Differences, "; "))
}

// Open makes the session's namespace if it is not there, and checks all of it if it is. The key that says that it is
// there is written last, so one that was made in part is completed. From then on a stream that is missing is refused
// (ErrMissing), never made anew: it would look like a journal without records.
func (s *Session) Open(ctx context.Context, want Settings) (Namespace, error) {
	js, err := jetstream.New(s.main, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return Namespace{}, err
	}
	bucket, err := s.openBucket(ctx, js, want)
	if err != nil {
		return Namespace{}, err
	}
	ns, err := s.Find(ctx)
	if errors.Is(err, journal.ErrNotFound) {
		return s.create(ctx, js, want, bucket)
	}
	if err == nil {
		err = compare(s.bucketConfig(ns.Replicas), bucket)
	}
	if err != nil {
		return ns, err
	}
	if err := want.against(s.ns, ns); err != nil {
		return ns, err
	}
	if want.Republish != nil {
		ns.Republish = *want.Republish
		if err := s.setRepublish(ctx, js, ns); err != nil {
			return ns, fmt.Errorf("switch the republishing of changes: %w", err)
		}
	}
	for _, cfg := range s.streamConfigs(ns) {
		if _, err := s.checkStream(ctx, js, cfg); err != nil {
			return ns, err
		}
	}
	return ns, nil
}

// setRepublish changes what the streams publish again, where it is not so, and then the key: what was begun and not ended is
// done when it is asked for again.
func (s *Session) setRepublish(ctx context.Context, js jetstream.JetStream, ns Namespace) error {
	for p := range ns.Partitions {
		cfg := s.streamConfig(p, ns)
		stream, err := js.Stream(ctx, cfg.Name)
		if err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
		have := stream.CachedInfo().Config
		but := cfg
		but.RePublish = have.RePublish
		if err := compare(but, have); err != nil {
			return err
		}
		if republish(cfg) == republish(have) {
			continue
		}
		if _, err := js.UpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	value, rev, err := s.Meta().Get(ctx, namespaceKey)
	var kept Namespace
	var extra journal.Extra
	if err == nil {
		extra, err = journal.DecodeKeeping(value, &kept)
	}
	if err != nil || kept.Republish == ns.Republish {
		return err
	}
	if value, err = journal.EncodeKeeping(ns, extra); err == nil {
		_, err = s.Meta().Put(ctx, namespaceKey, value, rev)
	}
	return err
}

// Find reads what the session's namespace was made with, and makes and checks nothing: ErrNotFound or ErrMissing if it
// is not there.
func (s *Session) Find(ctx context.Context) (Namespace, error) {
	var ns Namespace
	value, _, err := s.Meta().Get(ctx, namespaceKey)
	if err != nil {
		return ns, fmt.Errorf("namespace %q: %w", s.ns, err)
	}
	if err := json.Unmarshal(value, &ns); err != nil {
		return ns, fmt.Errorf("key %s: %w", namespaceKey, err)
	}
	if ns.Wire != wireVersion {
		return ns, fmt.Errorf("namespace %q speaks version %d of the contract, this program %d", s.ns, ns.Wire, wireVersion)
	}
	return ns, nil
}

func (s *Session) create(ctx context.Context, js jetstream.JetStream, want Settings, bucket jetstream.StreamConfig) (Namespace, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	ns := Namespace{Wire: wireVersion, ID: hex.EncodeToString(id[:]), Created: time.Now().UTC(),
		Partitions: cmp.Or(want.Partitions, want.PartitionsOfNew, DefaultPartitions), Replicas: cmp.Or(want.Replicas, 1),
		Republish: want.Republish != nil && *want.Republish}
	if ns.Partitions < 1 || ns.Partitions > wire.Slots {
		return ns, fmt.Errorf("%d partitions; want 1 to %d", ns.Partitions, wire.Slots)
	}
	if err := compare(s.bucketConfig(ns.Replicas), bucket); err != nil {
		return ns, err
	}
	for _, cfg := range s.streamConfigs(ns) {
		if _, err := js.CreateStream(ctx, cfg); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return ns, fmt.Errorf("make stream %s, of %d copies: %w", cfg.Name, ns.Replicas, err)
		}
		last, err := s.checkStream(ctx, js, cfg)
		if err != nil {
			return ns, err
		}
		if last == 0 || cfg.Name == s.ns.Inbox() { // whoever sends may be earlier than the first worker
			continue
		}
		if _, err := s.Find(ctx); err == nil {
			return s.Open(ctx, want) // another was first, and has begun to write
		}
		return ns, fmt.Errorf("stream %s ends at %d, so its namespace was there, but bucket %s lacks the key %s: %w; the server lost what the namespace "+
			"was made with and who owned it last: restore the bucket from a backup", cfg.Name, last, s.ns.Bucket(), namespaceKey, journal.ErrMissing)
	}
	value, err := json.Marshal(ns)
	if err != nil {
		return ns, err
	}
	if _, err = s.Meta().Put(ctx, namespaceKey, value, 0); errors.Is(err, journal.ErrConflict) {
		return s.Open(ctx, want) // another was first
	}
	return ns, err
}

// streamConfigs is what the streams of a namespace must be: those of the partitions, and the inbox.
func (s *Session) streamConfigs(ns Namespace) (all []jetstream.StreamConfig) {
	for p := range ns.Partitions {
		all = append(all, s.streamConfig(p, ns))
	}
	return append(all, s.inboxConfig(ns))
}

// inboxMessageMax is the largest message that the inbox takes: the largest body of a request, and its headers.
const inboxMessageMax = 1<<20 + 16<<10

// inboxConfig is what the stream of messages to objects must be. It captures what is published to it from outside, and puts
// the slot into its subject; a worker that stores messages for others publishes them with the slot in it.
func (s *Session) inboxConfig(ns Namespace) jetstream.StreamConfig {
	from, to := s.ns.InboxTransform()
	return jetstream.StreamConfig{
		Name:              s.ns.Inbox(),
		Description:       fmt.Sprintf("durable messages to objects of %s; purged when they are applied", s.ns),
		Subjects:          []string{s.ns.Sends(), s.ns.InboxAll(), s.ns.DeadAll()},
		SubjectTransform:  &jetstream.SubjectTransformConfig{Source: from, Destination: to},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: -1,
		MaxMsgSize:        inboxMessageMax,
		MaxConsumers:      -1,
		Storage:           jetstream.FileStorage,
		Replicas:          ns.Replicas,
		Duplicates:        100 * time.Millisecond, // it is per stream and not per object: one that is longer would lose messages
		AllowDirect:       true,
	}
}

// streamConfig is what a partition's stream must be. Every limit that could throw a message away is off, and new
// messages are refused before old ones are dropped.
func (s *Session) streamConfig(p int, ns Namespace) jetstream.StreamConfig {
	var changes *jetstream.RePublish
	if ns.Republish {
		from, to := s.ns.Republish()
		changes = &jetstream.RePublish{Source: from, Destination: to}
	}
	return jetstream.StreamConfig{
		RePublish:          changes,
		Name:               s.ns.Stream(p),
		Description:        fmt.Sprintf("journal of partition %d of %s; written by its owner alone", p, s.ns),
		Subjects:           s.ns.StreamSubjects(p, ns.Partitions),
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		MaxMsgs:            -1,
		MaxBytes:           -1,
		MaxMsgsPerSubject:  -1,
		MaxMsgSize:         -1,
		MaxConsumers:       -1,
		Storage:            jetstream.FileStorage,
		Replicas:           ns.Replicas,
		Duplicates:         100 * time.Millisecond, // the least there is: records carry no id
		AllowDirect:        true,
		AllowAtomicPublish: true,
	}
}

// checkStream compares a stream with what it must be, and returns its last position.
func (s *Session) checkStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (last uint64, err error) {
	info, err := s.findStream(ctx, js, want)
	if info == nil {
		return 0, err
	}
	return info.State.LastSeq, err
}

// findStream finds a stream and compares it with what it must be. If it is there with other settings there is both, the
// stream and an error.
func (s *Session) findStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (*jetstream.StreamInfo, error) {
	stream, err := s.stream(ctx, js, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("stream %s of namespace %q: %w; it was there when the namespace was made, so either the server lost it, or this is another server: "+
			"restore it from a backup, or use the right server; it is not made anew, since its objects would begin from nothing", want.Name, s.ns, journal.ErrMissing)
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", want.Name, err)
	}
	info := stream.CachedInfo()
	return info, compare(want, info.Config)
}

// Of a cluster a stream is missing, or has no leader that answers, only if that is so for a while.
const (
	missingAfter = 10 * time.Second
	missingAgain = 50 * time.Millisecond
	silentAfter  = 2 * time.Second
)

// stream finds a stream. A cluster also says that it is not there, or nothing, when its copies are still coming up: while
// another worker makes it, and when all servers have just started.
func (s *Session) stream(ctx context.Context, js jetstream.JetStream, name string) (jetstream.Stream, error) {
	if s.main.ConnectedClusterName() == "" {
		return js.Stream(ctx, name)
	}
	for deadline := time.Now().Add(missingAfter); ; {
		trying, stop := context.WithTimeout(ctx, silentAfter)
		stream, err := js.Stream(trying, name)
		stop()
		passes := errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, context.DeadlineExceeded)
		if !passes || ctx.Err() != nil || time.Now().After(deadline) {
			return stream, err
		}
		select {
		case <-time.After(missingAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// compare is a [SettingsError] if a stream is not what it must be.
func compare(want, have jetstream.StreamConfig) error {
	if diffs := differences(want, have); len(diffs) > 0 {
		return &SettingsError{want.Name, diffs}
	}
	return nil
}

func differences(want, have jetstream.StreamConfig) (diffs []string) {
	check := func(name string, want, have any) {
		if want != have {
			diffs = append(diffs, fmt.Sprintf("%s is %v and must be %v", name, have, want))
		}
	}
	slices.Sort(want.Subjects)
	slices.Sort(have.Subjects)
	if !slices.Equal(want.Subjects, have.Subjects) {
		diffs = append(diffs, fmt.Sprintf("subjects are %d (%s, …) and must be %d (%s, …)", len(have.Subjects), first(have.Subjects), len(want.Subjects), first(want.Subjects)))
	}
	check("retention", want.Retention, have.Retention)
	check("discard", want.Discard, have.Discard)
	check("max messages", want.MaxMsgs, have.MaxMsgs)
	check("max bytes", want.MaxBytes, have.MaxBytes)
	check("max age", want.MaxAge, have.MaxAge)
	check("max messages per subject", want.MaxMsgsPerSubject, have.MaxMsgsPerSubject)
	check("max message size", want.MaxMsgSize, have.MaxMsgSize)
	check("storage", want.Storage, have.Storage)
	check("replicas", want.Replicas, have.Replicas)
	check("direct gets", want.AllowDirect, have.AllowDirect)
	check("atomic publish", want.AllowAtomicPublish, have.AllowAtomicPublish)
	check("compression", want.Compression, have.Compression)
	check("persistence", want.PersistMode, have.PersistMode)
	check("message counter", want.AllowMsgCounter, have.AllowMsgCounter)
	check("message expiry", want.AllowMsgTTL, have.AllowMsgTTL)
	check("purge denied", want.DenyPurge, have.DenyPurge)
	check("no acknowledgements", want.NoAck, have.NoAck)
	check("sealed", want.Sealed, have.Sealed)
	check("republish", republish(want), republish(have))
	check("mirror", want.Mirror != nil, have.Mirror != nil)
	check("sources", len(want.Sources), len(have.Sources))
	check("subject transform", transform(want), transform(have))
	check("duplicate window", want.Duplicates, have.Duplicates)
	return diffs
}

func transform(c jetstream.StreamConfig) string {
	if t := c.SubjectTransform; t != nil {
		return t.Source + " to " + t.Destination
	}
	return "none"
}

func republish(c jetstream.StreamConfig) string {
	if r := c.RePublish; r != nil {
		return r.Source + " to " + r.Destination
	}
	return "none"
}

func first(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return list[0]
}

// openBucket makes the bucket if it is not there, and returns what it is.
func (s *Session) openBucket(ctx context.Context, js jetstream.JetStream, want Settings) (have jetstream.StreamConfig, err error) {
	cfg := s.bucketConfig(cmp.Or(want.Replicas, 1))
	stream, err := js.Stream(ctx, cfg.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = js.CreateStream(ctx, cfg)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		stream, err = s.stream(ctx, js, cfg.Name)
	}
	if err != nil {
		return have, fmt.Errorf("make bucket %s, of %d copies: %w", s.ns.Bucket(), cfg.Replicas, err)
	}
	have = stream.CachedInfo().Config
	cfg.Replicas = have.Replicas // the key in it says how many, and is not read yet
	return have, compare(cfg, have)
}

// bucketConfig is what the bucket's stream must be. Its reads must come from the leader, so it has no direct gets.
func (s *Session) bucketConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              "KV_" + s.ns.Bucket(),
		Description:       fmt.Sprintf("leases and settings of %s", s.ns),
		Subjects:          []string{"$KV." + s.ns.Bucket() + ".>"},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardNew,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgsPerSubject: 1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		Duplicates:        100 * time.Millisecond,
		AllowRollup:       true,
		DenyDelete:        true,
	}
}
