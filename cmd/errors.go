package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/engine"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitConflict    = 4
	exitUnavailable = 5
	exitInterrupted = 130
)

// usageError is a command that was written wrongly.
type usageError struct {
	error
	command string
}

func (e *usageError) Unwrap() error { return e.error }

func usage(c *cobra.Command, format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), c.CommandPath()}
}

// advised is an error with what to do about it.
type advised struct {
	error
	advice string
}

func (e *advised) Unwrap() error { return e.error }

func advise(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &advised{err, fmt.Sprintf(format, args...)}
}

var exitCodes = map[engine.Code]int{
	engine.NotFound: exitNotFound, engine.Conflict: exitConflict, engine.IDReused: exitConflict,
	engine.Unavailable: exitUnavailable, engine.UnknownOutcome: exitUnavailable, engine.Timeout: exitUnavailable, engine.Overloaded: exitUnavailable,
	engine.Invalid: exitUsage,
}

func exitCode(ctx context.Context, err error) int {
	e, ok := errors.AsType[*engine.Error](err)
	_, wrong := errors.AsType[*usageError](err)
	switch {
	case err == nil:
		return exitOK
	case wrong || isCobraUsage(err):
		return exitUsage
	case ok && exitCodes[e.Code] != 0:
		return exitCodes[e.Code]
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders):
		return exitUnavailable
	}
	return exitFailed
}

// isCobraUsage tells whether cobra made the error: an unknown command, a wrong number of arguments.
func isCobraUsage(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "unknown command") || strings.Contains(text, "arg(s), ")
}

// tell prints an error: what, why, and what to do; with --json as problem+json.
func (a *app) tell(_ context.Context, err error) {
	e, isProblem := errors.AsType[*engine.Error](err)
	if a.json {
		p := engine.ProblemOf(err)
		if !isProblem {
			p = engine.ProblemOf(engine.Errorf(engine.Internal, "%s", err.Error()))
		}
		enc := json.NewEncoder(a.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(p)
		return
	}
	what, why := err.Error(), ""
	if isProblem {
		what, why = string(e.Code), e.Detail
		if e.Object != "" {
			what = e.Object + ": " + what
		}
	}
	fmt.Fprintf(a.err, "perdure: %s\n", what)
	if why != "" {
		fmt.Fprintf(a.err, "  %s\n", why)
	}
	if advice := adviceFor(err); advice != "" {
		fmt.Fprintf(a.err, "  %s\n", advice)
	}
}

func adviceFor(err error) string {
	if a, ok := errors.AsType[*advised](err); ok {
		return a.advice
	}
	if u, ok := errors.AsType[*usageError](err); ok {
		return "see: " + u.command + " --help"
	}
	e, ok := errors.AsType[*engine.Error](err)
	switch {
	case !ok && isCobraUsage(err):
		return "see: perdure --help"
	case !ok:
		return ""
	case e.Code == engine.NotFound && !e.Remote:
		return "see what is served: perdure classes"
	case e.Code == engine.Unavailable:
		return "see whether a worker runs: perdure status"
	case e.Code == engine.UnknownOutcome && e.RequestID != "":
		return "repeat it with the same id: --id " + e.RequestID
	case e.Overloaded() && e.RetryAfter > 0:
		return fmt.Sprintf("try again in %v", e.RetryAfter)
	case e.Code == engine.Internal && e.RequestID != "":
		return "the worker's log has the reason under request " + e.RequestID
	}
	return ""
}
