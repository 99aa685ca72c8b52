package wire

import (
	"net/http"
	"strings"
)

// perConnection are headers that concern one connection and not the message (RFC 9110, 7.6.1).
var perConnection = []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te",
	"Trailer", "Transfer-Encoding", "Upgrade"}

// EndToEnd is a copy of an HTTP message's headers without the headers that concern one connection, those that Connection names included.
func EndToEnd(h http.Header) http.Header {
	out := h.Clone()
	if out == nil {
		out = http.Header{}
	}
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range perConnection {
		out.Del(name)
	}
	return out
}
