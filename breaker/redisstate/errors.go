package redisstate

import (
	"context"
	"errors"
	"fmt"

	"github.com/esh3artech/barid/retry/lastfault"
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

// errTimeout is the reason when Config.Timeout is over, which no caller has set by a
// context.
var errTimeout = errors.New("no answer in time")

// unavailable is ctx's error, together with the last fault, if ctx's end is the reason
// of a failure, and an ErrUnavailable otherwise.
func (f *Fleet) unavailable(ctx context.Context, reason error) error {
	switch {
	case reason == nil:
		return nil
	case lastfault.EndedBy(ctx, reason) != nil:
		return lastfault.With(ctx, reason, f.lastFault.Err())
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, reason)
}
