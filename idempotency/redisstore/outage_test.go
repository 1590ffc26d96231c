package redisstore_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

// patience is for what happens soon, on a slow machine.
const patience = time.Minute

func TestStoreRecoversAfterRedisWasKilled(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{AppendOnly: true, Args: []string{"--appendfsync", "always"}})
	store := open(t, connect(t, server.URL()), redisstore.Config{})
	requireClaimed(t, store, "before", "token")

	require.NoError(t, server.Kill())
	for range 3 {
		_, err := store.Claim(t.Context(), "meanwhile", "token", 0, long)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, store.Renew(t.Context(), "before", "token", long), idempotency.ErrUnavailable)
		require.ErrorIs(t, store.Ping(t.Context()), idempotency.ErrUnavailable)
	}

	require.NoError(t, server.Start(t.Context()))
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.NoError(t, store.Renew(context.Background(), "before", "token", long))
	}, patience, 10*time.Millisecond)
	require.NoError(t, store.Ping(t.Context()))
	requireAnswer(t, store, "before", "other", idempotency.Answer{State: idempotency.Busy, Holder: "token"})
}

// A store that is made while Redis is away asks for the policy when it is back.
func TestPolicyIsAskedOnceRedisIsThere(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	require.NoError(t, server.Stop())
	store := open(t, connect(t, server.URL()), redisstore.Config{})
	require.ErrorIs(t, store.Check(t.Context()), idempotency.ErrUnavailable)
	_, err := store.Claim(t.Context(), "key", "token", 0, long)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	require.NoError(t, server.Start(t.Context()))
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.NoError(t, store.Check(context.Background()))
	}, patience, 10*time.Millisecond)
	requireClaimed(t, store, "key", "token")
}

func TestCallersDoNotWaitForARedisThatHangs(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	// A client as hosts bring it: its own deadlines come much later.
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), ReadTimeout: 20 * time.Second})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	quick, err := redisstore.NewClient(server.URL())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, quick.Close()) })
	patient, prompt := open(t, client, redisstore.Config{}), open(t, quick, redisstore.Config{})
	for _, store := range []*redisstore.Store{patient, prompt} {
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			_, err := store.Claim(context.Background(), "key", "token", 0, long)
			assert.NoError(t, err)
		}, patience, 10*time.Millisecond)
	}

	require.NoError(t, server.Pause())
	for name, store := range map[string]*redisstore.Store{"patient": patient, "prompt": prompt} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := store.Claim(ctx, name, "token", 0, long)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, idempotency.ErrUnavailable)
		require.ErrorIs(t, store.Ping(ctx), context.DeadlineExceeded)
		cancel()
	}
	// Without a deadline of the caller's the client's count.
	_, err = prompt.Claim(t.Context(), "prompt", "token", 0, long)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	require.NotErrorIs(t, err, context.DeadlineExceeded)

	require.NoError(t, server.Resume())
	for name, store := range map[string]*redisstore.Store{"patient": patient, "prompt": prompt} {
		// What was sent before the pause may have been done after it: the same
		// token recognises it.
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			answer, err := store.Claim(context.Background(), name, "token", 0, long)
			assert.NoError(t, err)
			assert.Equal(t, idempotency.Claimed, answer.State)
		}, patience, 10*time.Millisecond)
	}
}

// A command is executed, its answer gets lost, the client sends it again.
func TestStepsWhoseAnswersGetLostAreRepeated(t *testing.T) {
	proxy := startProxy(t, shared.Redis(t).Addr())
	store := open(t, connect(t, "redis://"+proxy.listener.Addr().String()), redisstore.Config{})
	ctx := t.Context()
	requireClaimed(t, store, "warm", "token")
	lose := func(step func()) {
		t.Helper()
		proxy.cut.Store(true)
		step()
		require.False(t, proxy.cut.Load(), "the answer should have been lost")
	}
	lose(func() { requireClaimed(t, store, "key", "token") })
	lose(func() { require.NoError(t, store.Renew(ctx, "key", "token", long)) })
	lose(func() { require.NoError(t, store.Schedule(ctx, "key", "token", 0, long)) })
	lose(func() { requireClaimed(t, store, "key", "token 2") })
	lose(func() {
		completion, err := store.Complete(ctx, "key", "token 2", long)
		require.NoError(t, err)
		require.Equal(t, idempotency.InTime, completion)
	})
	requireAnswer(t, store, "key", "token", idempotency.Answer{State: idempotency.Done, Holder: "token 2"})
	requireClaimed(t, store, "released", "token")
	lose(func() { require.NoError(t, store.Release(ctx, "released", "token")) })
	requireClaimed(t, store, "released", "token 2")
}

// The same where the client gives up: the guard, asked again, recognises the
// lease that its lost claim has left behind.
func TestGuardTakesOverTheLeaseOfALostAnswer(t *testing.T) {
	proxy := startProxy(t, shared.Redis(t).Addr())
	client := redis.NewClient(patientOptions(t, "redis://"+proxy.listener.Addr().String()+"?max_retries=-1"))
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	store := open(t, client, redisstore.Config{})
	requireClaimed(t, store, "warm", "token")
	guard := idempotency.NewGuard(store, idempotency.GuardConfig{})
	key := idempotency.FromID("scope", "id", 0)

	proxy.cut.Store(true)
	_, _, err := guard.Claim(t.Context(), key, 0)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	_, claim, err := guard.Claim(t.Context(), key, 0)
	require.NoError(t, err)

	_, _, err = guard.Claim(t.Context(), key, 0)
	require.ErrorIs(t, err, idempotency.ErrBusy)

	proxy.cut.Store(true)
	require.ErrorIs(t, claim.Complete(t.Context()), idempotency.ErrUnavailable)
	require.NoError(t, claim.Complete(t.Context()))
	_, _, err = guard.Claim(t.Context(), key, 0)
	require.ErrorIs(t, err, idempotency.ErrDuplicate)
}

func TestRedisOutOfMemoryIsUnavailable(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{Args: []string{"--maxmemory", "1"}})
	store := open(t, connect(t, server.URL()), redisstore.Config{})
	_, err := store.Claim(t.Context(), "key", "token", 0, long)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	assert.ErrorContains(t, err, "OOM")
}
