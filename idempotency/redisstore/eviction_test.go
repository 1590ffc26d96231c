package redisstore_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

func TestEvictionIsRefused(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{Args: []string{"--maxmemory-policy", "volatile-ttl"}})
	client := connect(t, server.URL())
	store := open(t, client, redisstore.Config{})
	for range 2 {
		_, err := store.Claim(t.Context(), "key", "token", 0, long)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		var eviction *redisstore.EvictionError
		require.ErrorAs(t, err, &eviction)
		require.Equal(t, redisstore.EvictionError{Node: server.Addr(), Policy: "volatile-ttl"}, *eviction)
		require.ErrorContains(t, err, "maxmemory-policy volatile-ttl")
		require.ErrorContains(t, err, "AllowEviction")
		require.ErrorAs(t, store.Check(t.Context()), &eviction)
	}
	require.NoError(t, store.Ping(t.Context()))

	accepting := open(t, client, redisstore.Config{AllowEviction: true})
	require.NoError(t, accepting.Check(t.Context()))
	requireClaimed(t, accepting, "key", "token")

	// The administrator mends it: no restart needed.
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	requireClaimed(t, store, "key", "token 2")
	require.NoError(t, store.Check(t.Context()))
}

func TestPolicyOfServersThatHideTheirConfig(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	admin := connect(t, server.URL())
	limited := func(user string, rules ...any) *redisstore.Store {
		require.NoError(t, admin.Do(t.Context(), append([]any{"ACL", "SETUSER", user, "on", ">secret", "~*", "+@all"}, rules...)...).Err())
		return open(t, connect(t, "redis://"+user+":secret@"+server.Addr()), redisstore.Config{})
	}
	info := limited("info", "-config")
	require.NoError(t, info.Check(t.Context()))
	requireClaimed(t, info, "key", "token")

	silent := limited("silent", "-config", "-info")
	_, err := silent.Claim(t.Context(), "key", "token", 0, long)
	var eviction *redisstore.EvictionError
	require.ErrorAs(t, err, &eviction)
	assert.Empty(t, eviction.Policy)
	require.ErrorContains(t, err, "does not tell its maxmemory-policy")
	require.ErrorContains(t, err, "NOPERM")
	require.NotContains(t, err.Error(), "secret")

	// What can't be asked at all has no bad policy.
	stranger := open(t, connect(t, "redis://info:wrong-secret@"+server.Addr()), redisstore.Config{})
	_, err = stranger.Claim(t.Context(), "key", "token", 0, long)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	require.ErrorContains(t, err, "WRONGPASS")
	require.NotErrorAs(t, err, &eviction)
	require.NotContains(t, err.Error(), "secret")
}

// A user that may do everything, but with other keys, is found out before messages
// come.
func TestCheckTriesAKey(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	admin := connect(t, server.URL())
	for name, config := range map[string]redisstore.Config{"checked": {Prefix: "ours:"}, "allowed": {Prefix: "ours:", AllowEviction: true}} {
		t.Run(name, func(t *testing.T) {
			user := func(user, keys string) *redisstore.Store {
				require.NoError(t, admin.Do(t.Context(), "ACL", "SETUSER", user, "on", ">secret", keys, "+@all").Err())
				return open(t, connect(t, "redis://"+user+":secret@"+server.Addr()), config)
			}
			require.NoError(t, user("ours", "~ours:*").Check(t.Context()))
			stranger := user("other", "~other:*")
			require.NoError(t, stranger.Ping(t.Context()))
			err := stranger.Check(t.Context())
			require.ErrorIs(t, err, idempotency.ErrUnavailable)
			require.ErrorContains(t, err, "NOPERM")
		})
	}
	require.Empty(t, admin.Keys(t.Context(), "*").Val(), "it leaves nothing")
}

func TestCheckHonoursItsContext(t *testing.T) {
	store := open(t, connect(t, shared.RedisURL(t)), redisstore.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, store.Check(ctx), context.Canceled)
	require.ErrorIs(t, store.Ping(ctx), context.Canceled)
	require.NoError(t, store.Check(t.Context()))
}

// wrapped is a client that hides what kind it is.
type wrapped struct{ redis.UniversalClient }

func TestCheckOfOtherClients(t *testing.T) {
	server := shared.Redis(t)
	store := open(t, wrapped{connect(t, server.URL())}, redisstore.Config{})
	require.NoError(t, store.Check(t.Context()))
	requireClaimed(t, store, "key", "token")

	ring := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"one": server.Addr()}, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
	t.Cleanup(func() { assert.NoError(t, ring.Close()) })
	store = open(t, ring, redisstore.Config{})
	require.NoError(t, store.Check(t.Context()))
	requireClaimed(t, store, "key", "token")
}
