package jetstream

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Codes of the JetStream API that are about the servers and not about the question.
const (
	codeNoPeers         = 10005 // fewer servers are there than a stream has replicas
	codeNotLeader       = 10009
	codeNotEnabled      = 10039 // the account has no JetStream
	codeNotClustered    = 10074
	statusNotYet        = 503
	statusTooManyAtOnce = 429
)

// Passing tells whether an error may go away by itself: the servers are not there, or are not yet as many or as far as they
// have to be. Another one stays until somebody does something.
func Passing(err error) bool {
	if code, errCode := apiCodes(err); errCode != 0 {
		return errCode == codeNoPeers || errCode == codeNotLeader || errCode != codeNotEnabled && (code == statusNotYet || code == statusTooManyAtOnce)
	}
	if errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	_, network := errors.AsType[*net.OpError](err)
	if _, unresolved := errors.AsType[*net.DNSError](err); network || unresolved {
		return true
	}
	for _, passing := range []error{nats.ErrNoServers, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrConnectionClosed, nats.ErrDisconnected,
		nats.ErrStaleConnection, nats.ErrNoInfoReceived, io.EOF, jetstream.ErrNoStreamResponse, context.DeadlineExceeded} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// NotClustered tells whether replicas were asked of a server that has no others.
func NotClustered(err error) bool {
	_, errCode := apiCodes(err)
	return errCode == codeNotClustered
}

// apiCodes are the codes of the server's refusal, from either of the types that tell of one; 0 without.
func apiCodes(err error) (code, errCode int) {
	if e, ok := errors.AsType[*APIError](err); ok {
		return e.Code, e.ErrCode
	}
	if e, ok := errors.AsType[jetstream.JetStreamError](err); ok && e.APIError() != nil {
		return e.APIError().Code, int(e.APIError().ErrorCode)
	}
	return 0, 0
}

// Denied is the permission that the server refused on one of the session's connections, nil if none: whoever asks without
// permission only waits in vain.
func (s *Session) Denied() error {
	for _, nc := range []*nats.Conn{s.main, s.meta, s.read} {
		if err := nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
			return err
		}
	}
	return nil
}
