package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/idempotency/redisstore/eviction"
)

// EvictionError says that Redis may evict entries, or will not tell. It matches
// ErrUnavailable.
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
		return fmt.Sprintf("dlq/redisstore: %v; allow CONFIG GET or INFO, or set Config.AllowEviction to accept that dead letters get lost", found)
	}
	return fmt.Sprintf("dlq/redisstore: %v and may evict dead letters, want noeviction; or set Config.AllowEviction to accept that they get lost", found)
}

// Is makes errors.Is(e, ErrUnavailable) true.
func (e *EvictionError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns Err.
func (e *EvictionError) Unwrap() error { return e.Err }

// Check asks every master for its maxmemory-policy, and reads and writes a key under
// the prefix that is not there, as a user may be allowed to ask but not to have keys.
// It returns nil when no master can evict entries and that went well, or else an error that matches ErrUnavailable: an
// *EvictionError, or what kept it from asking. Policies that begin with
// "volatile-" are as good as noeviction, because they evict only keys that
// expire, which entries do not.
//
// Put asks for the policy, too, until it has succeeded once; a policy that is changed after
// that, or a master that joins a cluster, is not noticed, so that a host may want
// to Check now and then. Where CONFIG is forbidden, as managed servers do, INFO
// is asked; where that is forbidden too, the policy counts as bad. With
// AllowEviction, Check asks for no policy.
func (s *Store) Check(ctx context.Context) error {
	if s.Err() != nil || !s.config.AllowEviction {
		if err := s.ask(ctx, "check", s.checkPolicy); err != nil {
			return err
		}
	} else if err := s.Ping(ctx); err != nil {
		return err
	}
	return s.ask(ctx, "check", s.tryKey)
}

// tryKey asks for a key that is not there, as one that reads and as one that writes.
func (s *Store) tryKey(ctx context.Context) error {
	key := s.keys.entry("")
	if err := s.client.HGet(ctx, key, "none").Err(); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	return s.client.HDel(ctx, key, "none").Err()
}

// Ping returns nil when every master answered before ctx's end.
func (s *Store) Ping(ctx context.Context) error {
	return s.ask(ctx, "ping", func(ctx context.Context) error {
		return eviction.EachMaster(ctx, s.client, func(ctx context.Context, master redis.Cmdable, _ string) error {
			return master.Ping(ctx).Err()
		})
	})
}

// ensureChecked checks the policy before the first use.
func (s *Store) ensureChecked(ctx context.Context) error {
	if s.checked.Load() || s.config.AllowEviction {
		return nil
	}
	return s.ask(ctx, "check", s.checkPolicy)
}

// ask is one exchange that has no answer but its error.
func (s *Store) ask(ctx context.Context, op string, question func(ctx context.Context) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	_, err := exchange(ctx, s, op, func(ctx context.Context) (struct{}, error) { return struct{}{}, question(ctx) })
	return err
}

// checkPolicy asks every master.
func (s *Store) checkPolicy(ctx context.Context) error {
	err := eviction.Check(ctx, s.client, keepsEntries)
	if found, ok := errors.AsType[*eviction.Error](err); ok {
		return (*EvictionError)(found)
	}
	if err == nil {
		s.checked.Store(true)
	}
	return err
}

// keepsEntries says whether a policy leaves keys alone that do not expire.
func keepsEntries(policy string) bool {
	return policy == "noeviction" || strings.HasPrefix(policy, "volatile-")
}
