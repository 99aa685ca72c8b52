package engine

import (
	"errors"
	"time"

	"github.com/perdure/perdure/journal"
)

// Observer is told what happens. Nil functions are not called; the others are called from many goroutines and must be
// quick.
type Observer struct {
	Turn func(class, method string, code Code, waited, ran time.Duration) // code is empty for success
	Wake func(class string, took time.Duration, records int)              // records: how many were replayed

	CopyRead func(answered bool) // a read came to a standby's copy; not answered: its owner is asked

	Gate     func(waited time.Duration) // of each commit: from the end of its turn until it was durable
	Append   func(took time.Duration)   // of each record or snapshot: from sending it until it was durable
	Unstored func(journal.Outcome)      // an append that was refused, or whose outcome is unknown
	Stray    func(journal.Message)      // a message that a reader did not count
	Dead     func(journal.Message)      // a message to an object became a dead letter

	Incarnation func(journal.Incarnation) // the worker has a lease anew
	Renewed     func(took time.Duration)  // its lease was renewed
	Unrenewed   func(error)               // a renewal failed
	Begun       func(took time.Duration)  // an epoch, from when the worker wanted it: waiting for a former owner is in it
	Ended       func(Ending)              // an epoch
	HandedOver  func(took time.Duration)  // a partition, from when its requests were not taken any more until it was released
}

// observe tells one thing.
func observe[T any](f func(T), what T) {
	if f != nil {
		f(what)
	}
}

// Ending is why an epoch ended.
type Ending string

// Reasons for the end of an epoch.
const (
	EndReleased   Ending = "released"     // on purpose: handed over, or a clean stop
	EndKilled     Ending = "killed"       // the worker ended without finishing anything
	EndRefused    Ending = "refused"      // an append was: the stream holds something else at its place
	EndUnknown    Ending = "unknown"      // the outcome of an append is
	EndLease      Ending = "lease"        // the lease ran out, or another worker closed it
	EndConnection Ending = "connection"   // that to the server ended
	EndFollowed   Ending = "followed"     // somebody else began an epoch
	EndWentBack   Ending = "journal_back" // the alarm "journal went back"
	EndOther      Ending = "other"        // such as a disk that failed; the log says it
)

// Endings are all reasons, so that each can be shown before it comes.
var Endings = []Ending{EndReleased, EndKilled, EndRefused, EndUnknown, EndLease, EndConnection, EndFollowed, EndWentBack, EndOther}

var (
	errConnection = errors.New("the connection to the journal ended")
	errLeaseTaken = errors.New("the lease was taken")
	errLeaseOver  = errors.New("the lease ran out")
	errRefused    = errors.New("refused")
	errUnknown    = errors.New("unknown")
)

// unstored is the outcome of an append that is not stored, as an error.
func unstored(o journal.Outcome) error {
	if o == journal.Refused {
		return errRefused
	}
	return errUnknown
}

// endings are what an end's cause is, the first that it is.
var endings = []struct {
	cause  error
	ending Ending
}{
	{errStopped, EndReleased}, {errDrain, EndReleased},
	{errKilled, EndKilled},
	{errConnection, EndConnection},
	{errRefused, EndRefused},
	{errUnknown, EndUnknown}, {errNoAnswer, EndUnknown},
	{errLeaseTaken, EndLease}, {errLeaseOver, EndLease}, {errNoLease, EndLease},
	{errEpochOver, EndFollowed},
}

func ending(cause error) Ending {
	if _, back := errors.AsType[*journal.WentBackError](cause); back {
		return EndWentBack
	}
	for _, e := range endings {
		if errors.Is(cause, e.cause) {
			return e.ending
		}
	}
	return EndOther
}
