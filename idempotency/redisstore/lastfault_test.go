package redisstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

// steps are what a store can be asked for.
func steps(store *redisstore.Store) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"claim":    func(ctx context.Context) error { _, err := store.Claim(ctx, "key", "token", 0, long); return err },
		"renew":    func(ctx context.Context) error { return store.Renew(ctx, "key", "token", long) },
		"complete": func(ctx context.Context) error { _, err := store.Complete(ctx, "key", "token", long); return err },
		"schedule": func(ctx context.Context) error { return store.Schedule(ctx, "key", "token", 1, long) },
		"release":  func(ctx context.Context) error { return store.Release(ctx, "key", "token") },
		"ping":     store.Ping,
		"check":    store.Check,
	}
}

// endEach takes each step with a context that ends meanwhile. The first of them may end
// before the step has come far.
func endEach(t *testing.T, store *redisstore.Store, expected func(err error) bool) {
	t.Helper()
	for name, step := range steps(store) {
		var err error
		for timeout := 5 * time.Millisecond; timeout < 5*time.Second && !expected(err); timeout *= 2 {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			err = step(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.NotErrorIs(t, err, idempotency.ErrUnavailable, name)
		}
		require.True(t, expected(err), "%s: %v", name, err)
	}
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
func isBare(err error) bool    { return err == context.DeadlineExceeded } //nolint:errorlint // no other in its chain

// slow lets commands wait.
type slow struct{ gate atomic.Pointer[chan struct{}] }

// stop has commands wait until reopen is called.
func (s *slow) stop() (reopen func()) {
	gate := make(chan struct{})
	s.gate.Store(&gate)
	return func() {
		s.gate.Store(nil)
		close(gate)
	}
}

func (*slow) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *slow) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, command redis.Cmder) error {
		s.wait(ctx)
		return next(ctx, command)
	}
}

func (s *slow) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		s.wait(ctx)
		return next(ctx, commands)
	}
}

func (s *slow) wait(ctx context.Context) {
	if gate := s.gate.Load(); gate != nil {
		select {
		case <-*gate:
		case <-ctx.Done():
		}
	}
}

func TestEndedCallsTellThatRedisIsAway(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	client, err := redisstore.NewClient(server.URL())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	s := new(slow)
	client.AddHook(s)
	store := open(t, client, redisstore.Config{Timeout: 10 * time.Second})
	claimed := func() bool {
		_, err := store.Claim(context.Background(), "key", "token", 0, long)
		return err == nil
	}
	require.Eventually(t, claimed, patience, 10*time.Millisecond)

	require.NoError(t, server.Kill())
	for name, step := range steps(store) {
		require.ErrorIs(t, step(t.Context()), syscall.ECONNREFUSED, name)
	}
	reopen := s.stop()
	endEach(t, store, isRefused)
	reopen()

	require.NoError(t, server.Start(t.Context()))
	require.Eventually(t, claimed, patience, 10*time.Millisecond)
	reopen = s.stop()
	defer reopen()
	endEach(t, store, isBare)
}

// The store's own timeout does not look like the end of a context.
func TestEndedCallsTellThatRedisHangs(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	store := open(t, connect(t, server.URL()), redisstore.Config{Timeout: time.Second})
	require.Eventually(t, func() bool {
		_, err := store.Claim(context.Background(), "key", "token", 0, long)
		return err == nil
	}, patience, 10*time.Millisecond)
	require.NoError(t, server.Pause())
	_, err := store.Claim(t.Context(), "key", "token", 0, long)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	endEach(t, store, func(err error) bool { return err != nil && !isBare(err) })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err = store.Claim(ctx, "key", "token", 0, long)
	require.ErrorIs(t, err, context.Canceled)
	require.NotEqual(t, context.Canceled, err)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, server.Resume())
}
