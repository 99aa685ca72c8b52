package engine

import (
	"cmp"
	"errors"
	"fmt"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/perdure/perdure/internal/wire"
	"github.com/perdure/perdure/journal"
)

// HeaderBytesMax is how long a request's headers may be together on the wire. The largest request and the largest record
// are the server's max_payload less as much, so that they fit with their headers.
const HeaderBytesMax = 16 << 10

// ReadHeader fills in what the headers of a message say of the request: [Request.Header] is the way back. Names are found
// in any case; a header of ours that is not known, or not understood, is [Invalid].
func (r *Request) ReadHeader(h map[string][]string) error {
	v, err := collect(h)
	if err != nil {
		return err
	}
	return v.parse(r)
}

// Header is what carries the request, beside its subject and its body, over a wire. A value that the wire would change is
// [Invalid].
func (r *Request) Header() (map[string][]string, error) {
	v := headerValues{hWire: wire.Version, hID: r.ID, hCaller: cmp.Or(r.Caller.Verified, r.Caller.Claimed), hChain: formatChain(r.Chain), hTrace: r.Trace}
	deadline := r.Deadline
	if r.Session != nil {
		v[hSession] = formatSession(r.Session)
		if deadline.IsZero() {
			deadline = r.Session.Deadline
		}
	}
	switch {
	case !deadline.IsZero():
		v[hDeadline] = deadline.UTC().Format(time.RFC3339Nano)
	case r.Limit != 0:
		v[hDeadline] = r.Limit.String()
	}
	if r.Read {
		v[hRead] = "true"
	}
	if r.Eventual {
		v[hConsistency] = eventual
	}
	if r.MinVersion != 0 {
		v[hMinVersion] = strconv.FormatUint(uint64(r.MinVersion), 10)
	}
	h := make(map[string][]string, headers)
	for i, value := range v {
		// NATS would change these on the way, and an id would be another id there.
		if strings.ContainsAny(value, "\r\n") || strings.Trim(value, " \t") != value {
			return nil, invalidHeader(i, value, "want no line break in it and no space around it")
		}
		if value != "" {
			h[headerNames[i]] = []string{value}
		}
	}
	return h, nil
}

// headerRead is "true" for a request that is refused if its method may change the object.
const headerRead = "Perdure-Read"

// What a read may ask for.
const (
	eventual = "eventual"
	strong   = "strong"
)

// The headers of a request, as they are numbered in values.
const (
	hWire = iota
	hSession
	hID
	hDeadline
	hCaller
	hChain
	hRead
	hConsistency
	hMinVersion
	hContentType
	hTrace
	headers
)

var headerNames = [headers]string{
	hWire: wire.HeaderWire, hSession: wire.HeaderSession, hID: wire.HeaderRequestID, hDeadline: wire.HeaderDeadline,
	hCaller: wire.HeaderCaller, hChain: wire.HeaderChain, hRead: headerRead, hConsistency: wire.HeaderConsistency, hMinVersion: wire.HeaderMinVersion, hContentType: wire.HeaderContentType,
	hTrace: wire.HeaderTrace,
}

// values are the headers of a request as they were sent, empty where absent.
type headerValues [headers]string

// collect picks them out of a message. Names are found in any case, since NATS keeps the case that other clients choose:
// a request id that went unread would let a repeat run twice, without a word. For the same reason a header of ours that
// is not known is refused. Those of others are not looked at.
func collect(h map[string][]string) (v headerValues, err error) {
	for name, all := range h {
		i := headerIndex(name)
		switch {
		case i < 0 && hasPrefixFold(name, "Perdure-"):
			return v, Errorf(Invalid, "requests have no header %q; there are: %s", name, strings.Join(headerNames[:], ", "))
		case i < 0:
		case len(all) != 1 || v[i] != "":
			return v, Errorf(Invalid, "header %s is there more than once; want it once", headerNames[i])
		default:
			v[i] = all[0]
		}
	}
	return v, nil
}

func headerIndex(name string) int {
	for i, known := range headerNames {
		if len(known) == len(name) && strings.EqualFold(known, name) {
			return i
		}
	}
	return -1
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// parse fills in what the headers say of a request.
func (v *headerValues) parse(r *Request) (err error) {
	switch {
	case v[hWire] != "" && v[hWire] != wire.Version:
		return invalidHeader(hWire, v[hWire], "this worker speaks "+wire.Version)
	case !isJSON(v[hContentType]):
		return invalidHeader(hContentType, v[hContentType], "want application/json, or no such header")
	case v[hRead] != "" && v[hRead] != "true":
		return invalidHeader(hRead, v[hRead], "want true, or no such header")
	case v[hSession] != "" && v[hID] != "":
		return Errorf(Invalid, "there are both %s and %s; want one of them", wire.HeaderSession, wire.HeaderRequestID)
	}
	// Ids and callers go into records, which are JSON: another encoding would not come back as it was.
	for _, i := range []int{hID, hCaller} {
		if !utf8.ValidString(v[i]) {
			return invalidHeader(i, v[i], "want UTF-8")
		}
	}
	r.Read, r.ID, r.Caller.Claimed = v[hRead] != "", v[hID], v[hCaller]
	if err := r.ReadConsistency(v[hConsistency], v[hMinVersion]); err != nil {
		return err
	}
	if isTrace(v[hTrace]) {
		r.Trace = v[hTrace]
	}
	if r.Deadline, r.Limit, err = parseDeadline(v[hDeadline]); err != nil {
		return invalidHeader(hDeadline, v[hDeadline], err.Error())
	}
	if v[hSession] != "" {
		if r.Session, err = parseSession(v[hSession], r.Deadline); err != nil {
			return invalidHeader(hSession, v[hSession], err.Error())
		}
	}
	if r.Chain, err = parseChain(v[hChain]); err != nil {
		return invalidHeader(hChain, v[hChain], err.Error())
	}
	return nil
}

// ReadConsistency fills in what Perdure-Consistency and Perdure-Min-Version say of a read; empty: they are not there.
func (r *Request) ReadConsistency(consistency, minVersion string) error {
	switch consistency {
	case eventual:
		r.Eventual = true
	case strong, "":
	default:
		return invalidHeader(hConsistency, consistency, "want "+eventual+" or "+strong)
	}
	if minVersion == "" {
		return nil
	}
	v, err := strconv.ParseUint(minVersion, 10, 64)
	if err != nil {
		return invalidHeader(hMinVersion, minVersion, "want a version as "+wire.HeaderVersion+" has it")
	}
	r.MinVersion = journal.Version(v)
	return nil
}

func invalidHeader(header int, value, why string) error {
	return Errorf(Invalid, "header %s is %.100q: %s", headerNames[header], value, why)
}

func isJSON(contentType string) bool {
	if contentType == "" || contentType == "application/json" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && media == "application/json"
}

// isTrace tells a W3C traceparent. Another is left out, as that specification asks, and is no reason to refuse a request.
func isTrace(s string) bool {
	if len(s) != len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") {
		return false
	}
	for i := range len(s) {
		if dash := i == 2 || i == 35 || i == 52; dash && s[i] != '-' || !dash && !isHex(s[i]) {
			return false
		}
	}
	return true
}

func isHex(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' }

// parseDeadline reads a point in time, or a duration from receipt.
func parseDeadline(s string) (at time.Time, limit time.Duration, err error) {
	switch {
	case s == "":
		return at, 0, nil
	case len(s) > 4 && s[4] == '-':
		at, err = time.Parse(time.RFC3339, s)
	default:
		limit, err = time.ParseDuration(s)
	}
	if err != nil || at.IsZero() && limit <= 0 {
		return at, 0, errors.New("want a time such as 2026-01-02T15:04:05Z, or a duration from receipt such as 5s")
	}
	return at, limit, nil
}

// senderDigits is how long a sender's name is: 128 bits in hex.
const senderDigits = 32

// parseSession reads <sender> <n> <m>. The deadline is part of the number: an object forgets a sender after its latest
// one, so a copy of a request must not come with a later one than the request itself.
func parseSession(s string, deadline time.Time) (*SessionNumber, error) {
	if deadline.IsZero() {
		return nil, errors.New("want " + wire.HeaderDeadline + " with it, as a time: a numbered request has the same deadline whenever it is repeated")
	}
	sender, rest, _ := strings.Cut(s, " ")
	first, second, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(first, 10, 64)
	m, err2 := strconv.ParseUint(second, 10, 64)
	ok := len(sender) == senderDigits && err == nil && err2 == nil
	for i := 0; ok && i < len(sender); i++ {
		ok = isHex(sender[i])
	}
	switch {
	case !ok:
		return nil, fmt.Errorf("want <sender> <n> <m>: %d lower-case hex digits and two decimal numbers, one space between", senderDigits)
	case m > n:
		return nil, fmt.Errorf("want a mark m that is not above the number n: a request above it is not abandoned; have n=%d, m=%d", n, m)
	}
	return &SessionNumber{Sender: sender, N: n, M: m, Deadline: deadline}, nil
}

func formatSession(n *SessionNumber) string {
	b := make([]byte, 0, senderDigits+16)
	b = append(append(b, n.Sender...), ' ')
	b = append(strconv.AppendUint(b, n.N, 10), ' ')
	return string(strconv.AppendUint(b, n.M, 10))
}

// A chain separates objects with commas, and a name may have some. There they are escaped too; the escape of names never
// writes this one, so it can be undone first.
const escapedComma = "%2C"

// parseChain reads <class>/<name token>, with commas between.
func parseChain(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	chain := make([]string, 0, strings.Count(s, ",")+1)
	for object := range strings.SplitSeq(s, ",") {
		class, token, ok := strings.Cut(object, "/")
		if !ok {
			return nil, fmt.Errorf("want class/name, with commas between; have %.100q", object)
		}
		if err := wire.CheckIdentifier(class); err != nil {
			return nil, fmt.Errorf("class: %w", err)
		}
		name, err := wire.Unescape(strings.ReplaceAll(token, escapedComma, ","))
		if err != nil {
			return nil, err
		}
		if name != token {
			object = class + "/" + name
		}
		chain = append(chain, object)
	}
	return chain, nil
}

func formatChain(chain []string) string {
	var b strings.Builder
	for i, object := range chain {
		if i > 0 {
			b.WriteByte(',')
		}
		class, name, _ := strings.Cut(object, "/")
		b.WriteString(class)
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(wire.Escape(name), ",", escapedComma))
	}
	return b.String()
}
