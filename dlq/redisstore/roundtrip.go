package redisstore

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/retry/lastfault"
)

// How much one round trip carries at most. Redis serves nobody else while a
// script runs, and a client's timeouts are for a whole round trip. A larger
// entry is carried alone.
const (
	tripEntries = 256
	tripBytes   = 4 << 20
)

// roundTrips cuts all into what one round trip each carries.
func roundTrips[T any](all []T, size func(*T) int) [][]T {
	var batches [][]T
	first, bytes := 0, 0
	for i := range all {
		n := size(&all[i])
		if i > first && (i-first == tripEntries || bytes+n > tripBytes) {
			batches = append(batches, all[first:i])
			first, bytes = i, 0
		}
		bytes += n
	}
	if first < len(all) {
		batches = append(batches, all[first:])
	}
	return batches
}

// runScript runs a script on entries. It returns nil for a script that answers
// no list of numbers.
func (s *Store) runScript(ctx context.Context, op string, script *redis.Script, ids []string, arguments ...any) ([]int64, error) {
	names := s.keys.with(ids)
	return exchange(ctx, s, op, func(ctx context.Context) ([]int64, error) {
		command := script.Run(ctx, s.client, names, arguments...)
		if err := command.Err(); err != nil {
			return nil, err
		}
		numbers, _ := command.Int64Slice()
		return numbers, nil
	})
}

// exchange does one round trip. It returns when ctx ends or Config.Timeout is
// over, whatever the client does. So do may still run when the caller has its
// slices back, and must not use them.
func exchange[T any](ctx context.Context, s *Store, op string, do func(ctx context.Context) (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, s.unavailable(ctx, op, err)
	}
	bounded, cancel := context.WithTimeout(ctx, s.config.Timeout)
	answered := make(chan answer, 1)
	go func() {
		defer cancel()
		value, err := do(bounded)
		err = lastfault.Reason(ctx, err, errTimeout)
		s.lastFault.Note(ctx, err)
		answered <- answer{value: value, err: err}
	}()
	select {
	case got := <-answered:
		return got.value, s.unavailable(ctx, op, got.err)
	case <-bounded.Done():
	}
	select {
	case got := <-answered: // both at once: the answer tells more
		return got.value, s.unavailable(ctx, op, got.err)
	default:
	}
	reason := lastfault.Reason(ctx, bounded.Err(), errTimeout)
	s.lastFault.Note(ctx, reason)
	return none, s.unavailable(ctx, op, reason)
}

// errorOf returns the error that stands for a script's answer for one entry.
func errorOf(op string, answer int64) error {
	switch answer {
	case answerDone:
		return nil
	case answerMissing:
		return dlq.ErrNotFound
	case answerClaimed:
		return dlq.ErrClaimed
	case answerLost:
		return dlq.ErrClaimLost
	case answerReplaced:
		return dlq.ErrReplaced
	}
	return unexpected(op)
}

func unexpected(op string) error {
	return &UnavailableError{Op: op, Err: errors.New("it answers something unexpected")}
}

func unixMicro(t time.Time) string { return strconv.FormatInt(t.UnixMicro(), 10) }
