package redisstore_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq/redisstore"
	idempotencystore "github.com/esh3artech/barid/idempotency/redisstore"
)

func TestEvictionIsRefused(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	client := connect(t, server.URL())
	policy := func(policy string) {
		require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())
	}
	store := open(t, client, redisstore.Config{})
	for _, bad := range []string{"allkeys-lru", "allkeys-lfu", "allkeys-random"} {
		policy(bad)
		var eviction *redisstore.EvictionError
		for _, err := range []error{store.Put(t.Context(), entry("a", 0)), store.Check(t.Context())} {
			require.ErrorIs(t, err, redisstore.ErrUnavailable)
			require.ErrorAs(t, err, &eviction)
			require.Equal(t, redisstore.EvictionError{Node: server.Addr(), Policy: bad}, *eviction)
			require.ErrorContains(t, err, "maxmemory-policy "+bad)
			require.ErrorContains(t, err, "AllowEviction")
		}
	}
	// What is there can be looked at and taken out all the same.
	requireKept(t, store)
	require.NoError(t, store.Ping(t.Context()))

	accepting := open(t, client, redisstore.Config{AllowEviction: true})
	require.NoError(t, accepting.Check(t.Context()))
	require.NoError(t, accepting.Put(t.Context(), entry("a", 0)))

	// Entries do not expire, so these do them no harm.
	for _, good := range []string{"noeviction", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"} {
		policy(good)
		require.NoError(t, open(t, client, redisstore.Config{}).Check(t.Context()), good)
	}
	// The administrator mends it: no restart needed.
	require.NoError(t, store.Put(t.Context(), entry("a", 0)))
	// Put asks no more, Check does.
	policy("allkeys-lru")
	require.NoError(t, store.Put(t.Context(), entry("b", 0)))
	require.Error(t, store.Check(t.Context()))
}

// One pattern of an ACL fits all that a host keeps in Redis, and a user that lacks the
// keys is found out before there are letters.
func TestCheckTriesAKey(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	admin := connect(t, server.URL())
	require.NoError(t, admin.Do(t.Context(), "ACL", "SETUSER", "tenant", "on", ">s3cret", "~tenant:*", "+@all").Err())
	user := connect(t, "redis://tenant:s3cret@"+server.Addr())

	keys := idempotencystore.New(user, idempotencystore.Config{Prefix: "tenant:"})
	t.Cleanup(func() { assert.NoError(t, keys.Close()) })
	require.NoError(t, keys.Check(t.Context()))
	letters := redisstore.New(user, redisstore.Config{Prefix: "tenant:{dlq}"})
	require.NoError(t, letters.Check(t.Context()))
	require.NoError(t, letters.Put(t.Context(), entry("a", 0)))
	requireKept(t, letters, "a")

	for _, config := range []redisstore.Config{{Prefix: "tenant:dlq"}, {Prefix: "tenant:dlq", AllowEviction: true}} {
		outside := redisstore.New(user, config) // {tenant:dlq}:index
		require.NoError(t, outside.Ping(t.Context()))
		err := outside.Check(t.Context())
		require.ErrorIs(t, err, redisstore.ErrUnavailable)
		require.True(t, redis.IsPermissionError(err))
	}
}

func TestPolicyOfServersThatHideTheirConfig(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	admin := connect(t, server.URL())
	limited := func(user string, rules ...any) *redisstore.Store {
		require.NoError(t, admin.Do(t.Context(), append([]any{"ACL", "SETUSER", user, "on", ">s3cret", "~*", "+@all"}, rules...)...).Err())
		return open(t, connect(t, "redis://"+user+":s3cret@"+server.Addr()), redisstore.Config{})
	}
	require.NoError(t, limited("info", "-config").Put(t.Context(), entry("a", 0)))

	var eviction *redisstore.EvictionError
	err := limited("silent", "-config", "-info").Put(t.Context(), entry("a", 0))
	require.ErrorAs(t, err, &eviction)
	require.Empty(t, eviction.Policy)
	require.ErrorContains(t, err, "does not tell its maxmemory-policy")
	require.ErrorContains(t, err, "NOPERM")
	require.True(t, redis.IsPermissionError(err))

	// What can't be asked at all has no bad policy, and its error no password.
	stranger := open(t, connect(t, "redis://info:wrong-s3cret@"+server.Addr()), redisstore.Config{})
	for _, err := range []error{stranger.Check(t.Context()), stranger.Put(t.Context(), entry("a", 0))} {
		require.ErrorIs(t, err, redisstore.ErrUnavailable)
		var other *redisstore.EvictionError
		require.NotErrorAs(t, err, &other)
		require.ErrorContains(t, err, "WRONGPASS")
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestCheckHonoursItsContext(t *testing.T) {
	store := open(t, connect(t, shared.RedisURL(t)), redisstore.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, context.Canceled, store.Check(ctx))
	require.Equal(t, context.Canceled, store.Ping(ctx))
	require.NoError(t, store.Check(t.Context()))
}

// What a limited user has to be allowed, as the package comment says.
func TestLimitedUser(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	admin := connect(t, server.URL())
	require.NoError(t, admin.Do(t.Context(), "ACL", "SETUSER", "barid", "on", ">s3cret", "~{dlq}:*",
		"+@hash", "+@sortedset", "+@scripting", "+@connection", "+del", "+info").Err())
	store := open(t, connect(t, "redis://barid:s3cret@"+server.Addr()), redisstore.Config{Prefix: "dlq"})
	for i, err := range everyMethod(store, unbounded) {
		if err != nil {
			require.NotErrorIs(t, err, redisstore.ErrUnavailable, i)
		}
	}
	require.NoError(t, store.Put(t.Context(), entry("a", 0)))
	requireAudit(t, admin, "dlq", "a")
}

// wrapped is a client that hides what kind it is.
type wrapped struct{ redis.UniversalClient }

func TestOtherClients(t *testing.T) {
	server := shared.Redis(t)
	ring := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"one": server.Addr()}, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
	t.Cleanup(func() { assert.NoError(t, ring.Close()) })
	for _, client := range []redis.UniversalClient{ring, wrapped{connect(t, server.URL())}} {
		store := open(t, client, redisstore.Config{})
		require.NoError(t, store.Check(t.Context()))
		require.NoError(t, store.Put(t.Context(), entry("a", 0)))
		requireKept(t, store, "a")
	}
}
