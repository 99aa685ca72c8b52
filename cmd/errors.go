package cmd

import (
	"cmp"
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

// advise adds advice to an error. What is nearer to the fault knows better: advice that is there already stays.
func advise(err error, format string, args ...any) error {
	if _, has := errors.AsType[*advised](err); err == nil || has {
		return err
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
	case wrong:
		return exitUsage
	case interrupted(ctx, err):
		return exitInterrupted
	case ok:
		return cmp.Or(exitCodes[e.Code], exitFailed)
	case isTimeout(err), errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrNoResponders):
		return exitUnavailable
	}
	return exitFailed
}

// interrupted tells whether a command ended because of a signal. A call that was waiting says only that it has no answer.
func interrupted(ctx context.Context, err error) bool {
	_, waited := errors.AsType[*engine.Error](err)
	return ctx.Err() != nil && (waited || errors.Is(err, context.Canceled))
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout)
}

// tell prints an error: what, why, and what to do; with --json as problem+json.
func (a *app) tell(ctx context.Context, err error) {
	if a.json {
		enc := json.NewEncoder(a.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(engine.ProblemOf(asProblem(err)))
		return
	}
	what, why := explain(err)
	if interrupted(ctx, err) {
		what, why = "interrupted", err.Error()
	}
	fmt.Fprintf(a.err, "perdure: %s\n", printable(what))
	for _, line := range []string{why, adviceFor(err)} {
		if line != "" {
			fmt.Fprintf(a.err, "  %s\n", printable(line))
		}
	}
}

// asProblem is err with the code that its exit code stands for.
func asProblem(err error) *engine.Error {
	if e, ok := errors.AsType[*engine.Error](err); ok {
		return e
	}
	code := engine.Internal
	switch exitCode(context.Background(), err) {
	case exitUsage:
		code = engine.Invalid
	case exitUnavailable:
		code = engine.Unavailable
	}
	return engine.Errorf(code, "%s", err.Error())
}

// explain says of an error what failed, and why if that can be told apart.
func explain(err error) (what, why string) {
	if u, ok := errors.AsType[*usageError](err); ok {
		return "wrong usage of " + u.command, u.Error()
	}
	if e, ok := errors.AsType[*engine.Error](err); ok {
		if e.Object != "" {
			return e.Object + ": " + string(e.Code), e.Detail
		}
		return string(e.Code), e.Detail
	}
	what = err.Error()
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		if head, ok := strings.CutSuffix(what, ": "+inner.Error()); ok {
			return head, inner.Error()
		}
	}
	return what, ""
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
	case !ok:
		return ""
	case e.Code == engine.NotFound && !e.Remote:
		return "see what is served: perdure classes"
	case e.Code == engine.Unavailable:
		return "see whether a worker runs: perdure status"
	case e.Overloaded() && e.RetryAfter > 0:
		return fmt.Sprintf("try again in %v", e.RetryAfter)
	case e.Code == engine.Internal && e.RequestID != "":
		return "the worker's log has the reason under request " + e.RequestID
	}
	return ""
}
