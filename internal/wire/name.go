package wire

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// NameBytesMax is the longest object name, in bytes of UTF-8.
const NameBytesMax = 512

// IdentifierBytesMax is the longest class or method name.
const IdentifierBytesMax = 64

// reserved are the words that a class cannot have as its name: they begin the gateway's own paths.
var reserved = map[string]bool{"v1": true, "livez": true, "readyz": true, "metrics": true}

// CheckName says what is wrong with an object's name, nil if nothing is: any UTF-8 of 1 to [NameBytesMax] bytes is a name.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the object's name is empty; want 1 to %d bytes of UTF-8", NameBytesMax)
	case len(name) > NameBytesMax:
		return fmt.Errorf("the object's name has %d bytes; want at most %d", len(name), NameBytesMax)
	case !utf8.ValidString(name):
		return fmt.Errorf("the object's name %q is not UTF-8", name)
	}
	return nil
}

// CheckIdentifier says what is wrong with the name of a class or method: a letter and up to 63 letters, digits, - or _.
func CheckIdentifier(s string) error {
	ok := s != "" && len(s) <= IdentifierBytesMax && isLetter(s[0])
	for i := 0; ok && i < len(s); i++ {
		ok = isLetter(s[i]) || '0' <= s[i] && s[i] <= '9' || s[i] == '-' || s[i] == '_'
	}
	if !ok {
		return fmt.Errorf("%q is no identifier; want a letter and up to %d letters, digits, - or _", s, IdentifierBytesMax-1)
	}
	return nil
}

// CheckClass is [CheckIdentifier] for a class, which cannot be one of the words that begin the gateway's own paths.
func CheckClass(s string) error {
	if reserved[s] {
		return fmt.Errorf("%q cannot be a class: the gateway uses /%s itself", s, s)
	}
	return CheckIdentifier(s)
}

func isLetter(b byte) bool { return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' }

const hexDigits = "0123456789ABCDEF"

// mustEscape tells the bytes that cannot stand in a subject's token as they are: what NATS gives a meaning, the escape
// itself, and whatever is not printable ASCII (ADR-6).
func mustEscape(b byte) bool {
	return b <= ' ' || b >= 0x7f || b == '.' || b == '*' || b == '>' || b == '%'
}

// Escape makes one subject token of an object's name: percent and two upper-case hex digits for what must be escaped,
// and nothing else, so that every name has exactly one spelling. It works byte by byte: the escape of a prefix is a
// prefix of the escape.
func Escape(name string) string {
	n := 0
	for i := range len(name) {
		if mustEscape(name[i]) {
			n++
		}
	}
	if n == 0 {
		return name
	}
	var b strings.Builder
	b.Grow(len(name) + 2*n)
	for i := range len(name) {
		c := name[i]
		if mustEscape(c) {
			b.WriteByte('%')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Unescape is the name that a token spells. A token that is not what [Escape] would have written is refused, and so is
// one whose name is not legal.
func Unescape(token string) (string, error) {
	name := token
	if strings.IndexByte(token, '%') >= 0 {
		raw := make([]byte, 0, len(token))
		for i := 0; i < len(token); i++ {
			c := token[i]
			if c == '%' {
				if i+2 >= len(token) || unhex(token[i+1]) < 0 || unhex(token[i+2]) < 0 {
					return "", fmt.Errorf("name token %q: %% at byte %d is not followed by two upper-case hex digits", token, i)
				}
				c = byte(unhex(token[i+1])<<4 | unhex(token[i+2]))
				i += 2
			}
			raw = append(raw, c)
		}
		name = string(raw)
	}
	if err := CheckName(name); err != nil {
		return "", err
	}
	if want := Escape(name); want != token {
		return "", fmt.Errorf("name token %q is not the spelling of its name; want %q", token, want)
	}
	return name, nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
