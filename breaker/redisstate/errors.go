package redisstate

import (
	"context"
	"errors"
	"fmt"
)

// What can go wrong, to be matched with errors.Is.
var (
	// ErrConfig: the Fleet, a breaker or an argument can't be used; the text
	// names every fault.
	ErrConfig = errors.New("redisstate: invalid config")
	// ErrUnavailable: Redis did not answer in time, or answered with an error.
	// What was asked may have been done all the same; asking again is safe.
	ErrUnavailable = errors.New("redisstate: Redis is unavailable")
	// ErrRunning: Run is under way already.
	ErrRunning = errors.New("redisstate: running already")
)

// unavailable is ctx's error, bare, if the caller's context has ended, and an
// ErrUnavailable otherwise.
func unavailable(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// Config.Timeout, which no caller has set by a context.
		return fmt.Errorf("%w: no answer in time", ErrUnavailable)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
