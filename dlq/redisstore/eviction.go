package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
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
	node := "Redis"
	if e.Node != "" {
		node += " at " + e.Node
	}
	if e.Policy == "" {
		return fmt.Sprintf("dlq/redisstore: %s does not tell its maxmemory-policy: %v; allow CONFIG GET or INFO, or set Config.AllowEviction to accept that dead letters get lost",
			node, e.Err)
	}
	return fmt.Sprintf("dlq/redisstore: %s has maxmemory-policy %s and may evict dead letters, want noeviction; or set Config.AllowEviction to accept that they get lost",
		node, e.Policy)
}

// Is makes errors.Is(e, ErrUnavailable) true.
func (e *EvictionError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap returns Err.
func (e *EvictionError) Unwrap() error { return e.Err }

// Check asks every master for its maxmemory-policy. It returns nil when none
// can evict entries, or else an error that matches ErrUnavailable: an
// *EvictionError, or what kept it from asking. Policies that begin with
// "volatile-" are as good as noeviction, because they evict only keys that
// expire, which entries do not.
//
// Put does the same until it has succeeded once; a policy that is changed after
// that, or a master that joins a cluster, is not noticed, so that a host may want
// to Check now and then. Where CONFIG is forbidden, as managed servers do, INFO
// is asked; where that is forbidden too, the policy counts as bad. With
// AllowEviction it is Ping.
func (s *Store) Check(ctx context.Context) error {
	if s.Err() == nil && s.config.AllowEviction {
		return s.Ping(ctx)
	}
	err := s.ask(ctx, "check", checkMaster)
	if err == nil {
		s.checked.Store(true)
	}
	return err
}

// Ping returns nil when every master answered before ctx's end.
func (s *Store) Ping(ctx context.Context) error {
	return s.ask(ctx, "ping", func(ctx context.Context, master redis.Cmdable, _ string) error {
		return master.Ping(ctx).Err()
	})
}

// ensureChecked is Check for the first use.
func (s *Store) ensureChecked(ctx context.Context) error {
	if s.checked.Load() || s.config.AllowEviction {
		return nil
	}
	return s.Check(ctx)
}

// ask asks each master.
func (s *Store) ask(ctx context.Context, op string, question func(ctx context.Context, master redis.Cmdable, node string) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	_, err := exchange(ctx, s, op, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, s.masters(ctx, question)
	})
	return err
}

// masters calls question for every server that takes writes, and may do so for
// several at once.
func (s *Store) masters(ctx context.Context, question func(ctx context.Context, master redis.Cmdable, node string) error) error {
	each := func(ctx context.Context, master *redis.Client) error {
		return question(ctx, master, master.Options().Addr)
	}
	switch client := s.client.(type) {
	case interface {
		ForEachMaster(ctx context.Context, fn func(ctx context.Context, client *redis.Client) error) error
	}:
		return client.ForEachMaster(ctx, each)
	case interface {
		ForEachShard(ctx context.Context, fn func(ctx context.Context, client *redis.Client) error) error
	}:
		return client.ForEachShard(ctx, each)
	case *redis.Client:
		return each(ctx, client)
	}
	return question(ctx, s.client, "")
}

func checkMaster(ctx context.Context, master redis.Cmdable, node string) error {
	policy, err := evictionPolicy(ctx, master)
	switch {
	case policy == "noeviction" || strings.HasPrefix(policy, "volatile-"):
		return nil
	case err != nil && !refused(err) && !errors.Is(err, errNoPolicy):
		return err
	}
	return &EvictionError{Node: node, Policy: policy, Err: err}
}

// evictionPolicy asks CONFIG and, where that is refused, INFO.
func evictionPolicy(ctx context.Context, master redis.Cmdable) (string, error) {
	settings, err := master.ConfigGet(ctx, "maxmemory-policy").Result()
	if policy := settings["maxmemory-policy"]; err == nil && policy != "" {
		return policy, nil
	}
	if err != nil && !refused(err) {
		return "", err
	}
	info, infoErr := master.Info(ctx, "memory").Result()
	if infoErr != nil && !refused(infoErr) {
		return "", infoErr
	}
	if infoErr != nil {
		return "", errors.Join(err, infoErr)
	}
	for line := range strings.Lines(info) {
		if policy, found := strings.CutPrefix(line, "maxmemory_policy:"); found {
			return strings.TrimSpace(policy), nil
		}
	}
	return "", errors.Join(err, errNoPolicy)
}

var errNoPolicy = errors.New("INFO memory has no maxmemory_policy")

// refused tells that a server has the command forbidden, or renamed, from that
// it can't be asked, or answers nothing at all for now.
func refused(err error) bool {
	return redis.IsPermissionError(err) || redis.HasErrorPrefix(err, "unknown command")
}
