package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/retry/lastfault"
)

// What can go wrong beside package dlq's errors, to be matched with errors.Is.
var (
	// ErrConfig: a configuration can't be used; the text names every field.
	ErrConfig = errors.New("dlq/redisstore: invalid config")
	// ErrUnavailable: Redis is down, too slow, or refuses. An *UnavailableError
	// tells more. Redis may have done what it was asked for all the same.
	ErrUnavailable = errors.New("dlq/redisstore: Redis is unavailable")
	// ErrDamaged: what Redis holds for an entry or a job is none, or one of a
	// newer release. The text names the id. It can be deleted like any other.
	ErrDamaged = errors.New("dlq/redisstore: entry can't be read")
)

// UnavailableError says that Redis did not do what it was asked for, or that
// its answer did not arrive. It matches ErrUnavailable.
type UnavailableError struct {
	// Op is what the store did, for instance "put".
	Op string
	// Err is the reason. It never matches a context's error, because the caller's
	// context has not ended.
	Err error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("dlq/redisstore: %s: Redis is unavailable: %v", e.Op, e.Err)
}

// Is makes errors.Is(e, ErrUnavailable) true.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns Err.
func (e *UnavailableError) Unwrap() error { return e.Err }

// errTimeout is the reason when Config.Timeout is over.
var errTimeout = errors.New("no answer within Config.Timeout")

// unavailable returns ctx's error, together with the last fault, if ctx's end is the
// reason of a failure, and otherwise an *UnavailableError. An *EvictionError stays as
// it is.
func (s *Store) unavailable(ctx context.Context, op string, reason error) error {
	var eviction *EvictionError
	switch {
	case reason == nil || errors.As(reason, &eviction):
		return reason
	case lastfault.EndedBy(ctx, reason) != nil:
		return lastfault.With(ctx, reason, s.lastFault.Err())
	}
	return &UnavailableError{Op: op, Err: reason}
}

// outOfMemory reports whether Redis refused for lack of memory. Within a script
// Redis 6 says so in words of its own.
func outOfMemory(err error) bool {
	return err != nil && (redis.IsOOMError(err) || strings.Contains(err.Error(), "-OOM command not allowed"))
}
