package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/perdure/perdure/engine"
)

// await runs a read of standard input and returns with it or with ctx, so that Ctrl-C is not lost on a program that
// waits for a person. A read cannot be ended; the process is about to.
func await[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("nothing more is read: %w", context.Cause(ctx))
	}
}

// argument is the JSON of a call; - reads it from standard input.
func (a *app) argument(ctx context.Context, s string) ([]byte, error) {
	if s != "-" {
		return []byte(s), nil
	}
	body, err := await(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(a.in, engine.BodyBytesMax+1)) })
	if err != nil {
		return nil, fmt.Errorf("read the argument from standard input: %w", err)
	}
	return body, nil
}
