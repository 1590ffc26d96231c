package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/esh3artech/barid/idempotency"
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
	node := "Redis"
	if e.Node != "" {
		node += " at " + e.Node
	}
	const remedy = "; set Config.AllowEviction to accept duplicates"
	if e.Policy == "" {
		return fmt.Sprintf("redisstore: %s does not tell its maxmemory-policy, want %s: %v; allow CONFIG GET or INFO, or else%s",
			node, keepsKeys, e.Err, remedy[1:])
	}
	return fmt.Sprintf("redisstore: %s has maxmemory-policy %s and may evict keys, want %s%s", node, e.Policy, keepsKeys, remedy)
}

// Unwrap returns Err.
func (e *EvictionError) Unwrap() error { return e.Err }

// Check asks every master for its maxmemory-policy. It returns nil when none
// evicts keys, or else an error that matches idempotency.ErrUnavailable: an
// *EvictionError, or what kept it from asking. The first step of a Store does
// the same, until it has succeeded once; masters that join a cluster after that
// are not asked, so that a host may want to Check now and then. Where CONFIG is
// forbidden, as managed servers do, INFO is asked; where that is forbidden too,
// the policy counts as bad. With AllowEviction it is Ping.
func (s *Store) Check(ctx context.Context) error {
	if s.Err() == nil && s.config.AllowEviction {
		return s.Ping(ctx)
	}
	err := s.ask(ctx, "check", s.checkMaster)
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

// ask has each master asked, for no longer than ctx lasts whatever the client
// does.
func (s *Store) ask(ctx context.Context, op string, question func(ctx context.Context, master redis.Cmdable, node string) error) error {
	if err := s.usable(ctx, op, "any key", "any token", 1); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, s.config.Timeout)
	answered := make(chan error, 1)
	go func() {
		defer cancel()
		answered <- s.masters(bounded, question)
	}()
	select {
	case err := <-answered:
		return idempotency.Unavailable(ctx, op, err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ensureChecked is Check for the first use.
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
	err := s.masters(ctx, s.checkMaster)
	if err == nil {
		s.checked.Store(true)
	}
	return err
}

// masters asks every server that takes writes.
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

func (s *Store) checkMaster(ctx context.Context, master redis.Cmdable, node string) error {
	policy, err := evictionPolicy(ctx, master)
	switch {
	case policy == keepsKeys:
		return nil
	case err != nil && !isReply(err):
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
	if err != nil && !isReply(err) {
		return "", err
	}
	info, infoErr := master.Info(ctx, "memory").Result()
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

// isReply tells what a server said from what kept it from being asked.
func isReply(err error) bool {
	_, ok := errors.AsType[redis.Error](err)
	return ok || errors.Is(err, errNoPolicy)
}
