package journaltest

import (
	"errors"
	"testing"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

func TestMemory(t *testing.T) {
	Test(t, func(*testing.T) (wire.Subjects, func() journal.Session) {
		m := NewMemory()
		return "objects", func() journal.Session { return m.Session("objects", 2) }
	})
}

// world is a stream in memory with the messages 1 to 5 on one subject.
func world(t *testing.T) (*Memory, journal.Log) {
	m := NewMemory()
	log := m.Session("objects", 1).Log(0)
	for i := range 5 {
		m.Publish(log.Stream(), journal.Message{Subject: "a", Data: []byte{byte('1' + i)}})
	}
	return m, log
}

// read is what Read yields, in one string.
func read(t *testing.T, log journal.Log) (data string, err error) {
	t.Helper()
	for m, err := range log.Read(t.Context(), "a", 1) {
		if err != nil {
			return data, err
		}
		data += string(m.Data)
	}
	return data, nil
}

func TestMemoryLosesItsEnd(t *testing.T) {
	t.Parallel()
	m, log := world(t)
	m.Truncate(log.Stream(), 2)
	if data, err := read(t, log); data != "123" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if last, err := log.Last(t.Context(), "a"); last.Seq != 3 || err != nil {
		t.Errorf("the last is %d, %v", last.Seq, err)
	}
	if _, _, err := log.Tails(t.Context(), 5, "a"); err == nil {
		t.Error("Tails answers as of a position that was lost")
	}
	if seq := m.Publish(log.Stream(), journal.Message{Subject: "a"}); seq != 4 {
		t.Errorf("the next is at %d", seq)
	}
}

func TestMemoryLosesTheMiddle(t *testing.T) {
	t.Parallel()
	m, log := world(t)
	m.Remove(log.Stream(), 3)
	m.Overwrite(log.Stream(), 4, []byte("x"))
	if data, err := read(t, log); data != "12x5" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := log.At(t.Context(), 3); !errors.Is(err, journal.ErrNotFound) {
		t.Error(err)
	}
}

func TestMemoryNamesWhatItCannotDeliver(t *testing.T) {
	t.Parallel()
	m, log := world(t)
	m.Damage(log.Stream(), 5)
	if data, err := read(t, log); data != "1234" || !errors.Is(err, journal.ErrDamaged) {
		t.Errorf("%q, %v", data, err)
	}
	_, last := log.Last(t.Context(), "a")
	_, at := log.At(t.Context(), 5)
	_, _, tails := log.Tails(t.Context(), 5, "a")
	for _, err := range []error{last, at, tails} {
		if !errors.Is(err, journal.ErrDamaged) {
			t.Error(err)
		}
	}
}
