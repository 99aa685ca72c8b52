package journal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// Records are written by hand, not by reflection: they are on the hot path, a turn encodes its own commit while others
// run, and the committer only joins what is encoded. The tests hold the result against encoding/json.

// timeFormat has all nine digits, so that times in a journal line up and sort as text.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// AppendCommit appends a commit as it stands in a record, without its closing brace and without its time: what
// [AppendRecord] takes. The data of changes and the body of the reply must be valid, compact JSON unless they are raw.
func AppendCommit(b []byte, c *Commit) []byte {
	b = append(b, '{')
	if c.ID != "" {
		b = appendString(append(b, `"id":`...), c.ID)
		b = append(b, ',')
	}
	if s := c.Session; s != nil {
		b = appendString(append(b, `"session":{"sender":`...), s.Sender)
		b = strconv.AppendUint(append(b, `,"n":`...), s.N, 10)
		b = strconv.AppendUint(append(b, `,"m":`...), s.M, 10)
		b = appendTime(append(b, `,"deadline":`...), s.Deadline)
		b = append(b, `},`...)
	}
	if c.Hash != (Hash{}) {
		b = append(b, `"hash":"`...)
		b = appendHex(b, c.Hash[:])
		b = append(b, `",`...)
	}
	b = appendString(append(b, `"source":`...), c.Source)
	if m := c.Inbox; m != nil {
		b = append(b, `,"inbox":`...)
		b = appendSent(b, m)
	}
	b = appendString(append(b, `,"method":`...), c.Method)
	if c.Caller != (Caller{}) {
		b = append(b, `,"caller":{`...)
		if c.Caller.Claimed != "" {
			b = appendString(append(b, `"claimed":`...), c.Caller.Claimed)
		}
		if c.Caller.Verified != "" {
			if c.Caller.Claimed != "" {
				b = append(b, ',')
			}
			b = appendString(append(b, `"verified":`...), c.Caller.Verified)
		}
		b = append(b, '}')
	}
	if c.Trace != "" {
		b = appendString(append(b, `,"trace":`...), c.Trace)
	}
	b = append(b, `,"changes":[`...)
	for i := range c.Changes {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendChange(b, &c.Changes[i])
	}
	b = append(b, ']')
	if c.Reply != nil {
		b = appendReply(append(b, `,"reply":`...), c.Reply)
	}
	return b
}

func appendSent(b []byte, m *Sent) []byte {
	b = append(b, '{')
	if m.Life != 0 {
		b = strconv.AppendUint(append(b, `"life":`...), m.Life, 10)
		b = append(b, ',')
	}
	b = strconv.AppendUint(append(b, `"seq":`...), uint64(m.Seq), 10)
	b = appendTime(append(b, `,"at":`...), m.At)
	if m.Outcome != "" {
		b = appendString(append(b, `,"outcome":`...), m.Outcome)
	}
	if m.Tries != 0 {
		b = strconv.AppendInt(append(b, `,"tries":`...), int64(m.Tries), 10)
	}
	return append(b, '}')
}

// Encoded is a commit on its way into a record.
type Encoded struct {
	JSON      []byte // what [AppendCommit] appended
	At        time.Time
	MinReader int // that of the commit; 0: the base
}

// RecordOverhead is more than a record has beyond the encoded commits in it, and CommitOverhead more than each adds.
const (
	RecordOverhead = 160
	CommitOverhead = 48
)

// AppendRecord appends a record of consecutive commits, of which the first makes version first.
func AppendRecord(b []byte, first Version, prev Hash, commits []Encoded) []byte {
	at, format := commits[len(commits)-1].At, uint64(FormatBase)
	for i := range commits {
		format = max(format, uint64(commits[i].MinReader))
	}
	b = strconv.AppendUint(append(b, `{"v":`...), format, 10)
	b = strconv.AppendUint(append(b, `,"min_reader":`...), format, 10)
	b = append(b, `,"first":`...)
	b = strconv.AppendUint(b, uint64(first), 10)
	b = append(b, `,"prev":"`...)
	if prev != (Hash{}) {
		b = appendHex(b, prev[:])
	}
	b = appendTime(append(b, `","at":`...), at)
	b = append(b, `,"commits":[`...)
	for i, c := range commits {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.JSON...)
		if !c.At.Equal(at) {
			b = appendTime(append(b, `,"at":`...), c.At)
		}
		b = append(b, '}')
	}
	return append(b, `]}`...)
}

func appendChange(b []byte, c *Change) []byte {
	b = appendString(append(b, `{"kind":`...), c.Kind)
	switch c.Kind {
	case Put, Delete:
		b = appendString(append(b, `,"key":`...), c.Key)
	case Event:
		b = appendString(append(b, `,"type":`...), c.Type)
	}
	if c.Kind == Put || c.Kind == Event {
		b = appendValue(append(b, ','), "value", c.Data, c.Raw)
	}
	return append(b, '}')
}

func appendReply(b []byte, r *Reply) []byte {
	b = strconv.AppendInt(append(b, `{"status":`...), int64(r.Status), 10)
	b = appendHeader(b, r.Header)
	switch {
	case len(r.Body) == 0:
	case r.Raw && utf8.Valid(r.Body):
		b = appendString(append(b, `,"text":`...), string(r.Body))
	default:
		b = appendValue(append(b, ','), "body", r.Body, r.Raw)
	}
	return append(b, '}')
}

func appendHeader(b []byte, h map[string][]string) []byte {
	names := make([]string, 0, len(h))
	for name, values := range h {
		if len(values) > 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return b
	}
	slices.Sort(names)
	sep := `,"header":{`
	for _, name := range names {
		b = append(appendString(append(b, sep...), name), ':')
		sep = ","
		open := byte('[')
		for _, v := range h[name] {
			b = appendString(append(b, open), v)
			open = ','
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func appendValue(b []byte, name string, data []byte, raw bool) []byte {
	if !raw {
		b = append(b, '"')
		b = append(b, name...)
		return append(append(b, `":`...), data...)
	}
	b = append(b, `"base64":"`...)
	b = base64.StdEncoding.AppendEncode(b, data)
	return append(b, '"')
}

// appendTime appends a time in timeFormat. By hand: there is one in each commit, and the format would be parsed each time.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	if year < 0 || year > 9999 {
		return append(t.AppendFormat(append(b, '"'), timeFormat), '"')
	}
	b = appendDigits(append(b, '"'), 4, year)
	b = appendDigits(append(b, '-'), 2, int(month))
	b = appendDigits(append(b, '-'), 2, day)
	b = appendDigits(append(b, 'T'), 2, hour)
	b = appendDigits(append(b, ':'), 2, minute)
	b = appendDigits(append(b, ':'), 2, second)
	b = appendDigits(append(b, '.'), 9, t.Nanosecond())
	return append(b, `Z"`...)
}

// appendDigits appends the last n decimal digits of v.
func appendDigits(b []byte, n, v int) []byte {
	b = append(b, "000000000"[:n]...)
	for i := len(b) - 1; v > 0 && n > 0; i, n, v = i-1, n-1, v/10 {
		b[i] = byte('0' + v%10)
	}
	return b
}

func appendHex(b, raw []byte) []byte {
	const digits = "0123456789abcdef"
	for _, c := range raw {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// appendString appends a JSON string. What needs an escape is left to encoding/json, which also makes U+FFFD of bytes
// that are no UTF-8.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(s) // a string always encodes
			return append(b, bytes.TrimSuffix(buf.Bytes(), []byte{'\n'})...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
