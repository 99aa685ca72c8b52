package jetstream

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamReport is what the server says of one stream of a namespace, or of its bucket.
type StreamReport struct {
	Name string

	// Err is what is wrong: a [SettingsError], journal.ErrMissing, or that the server did not answer.
	Err error

	// Info is nil if the stream was not seen.
	Info *jetstream.StreamInfo

	// Ahead is how far the clock of the server that leads the stream is ahead of this machine's, at least; negative: how
	// far it is behind. What the round trip may account for counts as 0.
	Ahead time.Duration
}

// Survey compares the bucket and all streams of the session's namespace with what they must be, as [Session.Open] does,
// and makes and changes nothing. It goes on behind what is wrong. The error is that of [Session.Find].
func (s *Session) Survey(ctx context.Context) (Namespace, []StreamReport, error) {
	ns, err := s.Find(ctx)
	if err != nil {
		return ns, nil, err
	}
	js, err := jetstream.New(s.main, jetstream.WithDefaultTimeout(apiTimeout))
	if err != nil {
		return ns, nil, err
	}
	reports := []StreamReport{s.report(ctx, js, s.bucketConfig(ns.Replicas))}
	for _, cfg := range s.streamConfigs(ns) {
		reports = append(reports, s.report(ctx, js, cfg))
	}
	return ns, reports, nil
}

func (s *Session) report(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) StreamReport {
	sent := time.Now()
	info, err := s.findStream(ctx, js, want)
	r := StreamReport{Name: want.Name, Err: err, Info: info}
	if info != nil {
		r.Ahead = Ahead(info.TimeStamp, sent, time.Now())
	}
	return r
}

// Ahead is how far another clock is ahead of this machine's, at least, if it told a time between a question and its
// answer; negative: how far it is behind. What the round trip may account for counts as 0.
func Ahead(told, asked, answered time.Time) time.Duration {
	asked, answered = asked.Round(0), answered.Round(0) // of the day
	switch {
	case told.After(answered):
		return told.Sub(answered)
	case told.Before(asked):
		return told.Sub(asked)
	}
	return 0
}
