package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore/eviction"
	"github.com/esh3artech/barid/retry/lastfault"
)

// keepsKeys is the one policy under which keys live until they expire.
const keepsKeys = "noeviction"

// EvictionError says that Redis may evict keys, or will not tell.
type EvictionError struct {
	// Node is the address of the server; empty when the client does not tell.
	Node string
	// Policy is its maxmemory-policy; empty when it could not be learned.
	Policy string
	// Err is why it could not be learned.
	Err error
}

func (e *EvictionError) Error() string {
	found := (*eviction.Error)(e)
	if e.Policy == "" {
		return fmt.Sprintf("redisstore: %v; allow CONFIG GET or INFO, or set Config.AllowEviction to accept duplicates", found)
	}
	return fmt.Sprintf("redisstore: %v and may evict keys, want %s; set Config.AllowEviction to accept duplicates", found, keepsKeys)
}

// Unwrap returns Err.
func (e *EvictionError) Unwrap() error { return e.Err }

// Check asks every master for its maxmemory-policy, and claims and releases a key of
// its own under the prefix, as a user may be allowed to ask but not to have keys. It
// returns nil when no master evicts keys and that went well, and otherwise an error
// that matches idempotency.ErrUnavailable: an *EvictionError, or what kept it from
// asking. The first step of a Store asks for the policy, too, until that has succeeded
// once. Masters that join a cluster after that are not asked, so a host may want to
// Check now and then. Where CONFIG is forbidden, as on managed servers, INFO is asked;
// where that is forbidden too, the policy counts as bad. With AllowEviction, Check asks
// for no policy.
func (s *Store) Check(ctx context.Context) error {
	if s.Err() != nil || !s.config.AllowEviction {
		if err := s.ask(ctx, "check", s.checkPolicy); err != nil {
			return err
		}
	} else if err := s.Ping(ctx); err != nil {
		return err
	}
	return s.tryKey(ctx)
}

// tryKey takes a key that nobody else has.
func (s *Store) tryKey(ctx context.Context) error {
	name := "check:" + uuid.NewString()
	if _, err := s.Claim(ctx, name, name, 0, 10*time.Second); err != nil {
		return err
	}
	return s.Release(ctx, name, name)
}

// Ping returns nil when every master answered before ctx's end.
func (s *Store) Ping(ctx context.Context) error {
	return s.ask(ctx, "ping", func(ctx context.Context) error {
		return eviction.EachMaster(ctx, s.client, func(ctx context.Context, master redis.Cmdable, _ string) error {
			return master.Ping(ctx).Err()
		})
	})
}

// ask asks for no longer than ctx lasts, whatever the client does.
func (s *Store) ask(ctx context.Context, op string, question func(ctx context.Context) error) error {
	if err := s.usable(ctx, op, "any key", "any token", 1); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, s.config.Timeout)
	answered := make(chan error, 1)
	go func() {
		defer cancel()
		err := question(bounded)
		s.lastFault.Note(ctx, err)
		answered <- err
	}()
	select {
	case err := <-answered:
		return idempotency.Unavailable(ctx, op, lastfault.With(ctx, err, s.lastFault.Err()))
	case <-ctx.Done():
		return lastfault.With(ctx, ctx.Err(), s.lastFault.Err())
	}
}

// ensureChecked checks the policy before the first use.
func (s *Store) ensureChecked(ctx context.Context) error {
	if s.checked.Load() || s.config.AllowEviction {
		return nil
	}
	select {
	case s.checking <- struct{}{}:
		defer func() { <-s.checking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.checked.Load() {
		return nil
	}
	return s.checkPolicy(ctx)
}

// checkPolicy asks every master.
func (s *Store) checkPolicy(ctx context.Context) error {
	err := eviction.Check(ctx, s.client, func(policy string) bool { return policy == keepsKeys })
	if found, ok := errors.AsType[*eviction.Error](err); ok {
		return (*EvictionError)(found)
	}
	if err == nil {
		s.checked.Store(true)
	}
	return err
}
