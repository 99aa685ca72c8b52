package jetstream

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/perdure/perdure/journal"
)

// An answer says "stored" only of the place that was predicted in this stream, and "refused" only of a wrong
// expectation: all else is unknown, and none of it is silence.
func TestAnAnswerIsStoredRefusedOrUnknown(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]journal.Outcome{
		`{"stream":"s", "seq":7}`:                                      journal.Stored,
		`{"stream":"s", "seq":8}`:                                      journal.Unknown,
		`{"stream":"other", "seq":7}`:                                  journal.Unknown,
		`{"error":{"code":400,"err_code":10071},"stream":"s","seq":0}`: journal.Refused,
		`{"error":{"code":400,"err_code":10164},"stream":"s","seq":0}`: journal.Refused,
		`{"error":{"code":503,"err_code":10077},"stream":"s","seq":0}`: journal.Unknown,
		`{"error":{"code":400,"err_code":10176},"stream":"s","seq":0}`: journal.Unknown,
		`nonsense`: journal.Unknown,
		``:         journal.Unknown,
	} {
		var got []journal.Answer
		w := &writer{log: &log{name: "s"}, answer: func(a journal.Answer) { got = append(got, a) }}
		w.answered(&nats.Msg{Subject: "_INBOX.x.7", Data: []byte(data)})
		if len(got) != 1 || got[0].Seq != 7 || got[0].Outcome != want || (got[0].Err == nil) != (want == journal.Stored) {
			t.Errorf("%s: %+v; want %s", data, got, want)
		}
	}
}

func TestAnAppendThatNobodyTakesIsUnknown(t *testing.T) {
	t.Parallel()
	s := dial(t, newNamespace(t)) // no streams
	answers := make(chan journal.Answer, 2)
	w := must[journal.Writer](t)(s.Log(0).Writer(func(a journal.Answer) { answers <- a }))
	one := journal.Message{Subject: s.ns.Epoch(0)}
	for _, messages := range [][]journal.Message{{one}, {one, one}} {
		if err := w.Append(0, journal.NoSubjectCheck, messages...); err != nil {
			t.Fatal(err)
		}
		if a := <-answers; a.Seq != journal.Seq(len(messages)) || a.Outcome != journal.Unknown || !errors.Is(a.Err, nats.ErrNoResponders) {
			t.Errorf("%+v", a)
		}
	}
	w.Close()
	if err := w.Append(2, journal.NoSubjectCheck, one); !errors.Is(err, errWriterClosed) {
		t.Errorf("a closed writer: %v", err)
	}
}

// Of a batch that fails before its commit, the commit's answer is the only one.
func TestABatchThatTheServerDoesNotTakeIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	_, l, subject := opened(t)
	answers := make(chan journal.Answer, 8)
	w := must[journal.Writer](t)(l.Writer(func(a journal.Answer) { answers <- a }))
	defer w.Close()
	batch := make([]journal.Message, journal.BatchMax+1)
	for i := range batch {
		batch[i].Subject = subject
	}
	if err := w.Append(0, 0, batch...); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.Seq != journal.Seq(len(batch)) || a.Outcome != journal.Unknown || a.Err == nil {
		t.Errorf("%+v", a)
	}
	if err := w.Append(0, 0, batch[0]); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.Seq != 1 || a.Outcome != journal.Stored {
		t.Errorf("%+v", a)
	}
	if _, last, err := l.Range(t.Context()); last != 1 || len(answers) != 0 || err != nil {
		t.Errorf("the stream ends at %d, %d answers too many, %v", last, len(answers), err)
	}
}
