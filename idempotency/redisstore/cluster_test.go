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
	"github.com/esh3artech/barid/idempotency/idempotencytest"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

// startCluster starts two masters with half of the slots each.
func startCluster(t *testing.T) []*redis.Client {
	const slots = 16384
	nodes := make([]*redis.Client, 2)
	addrs := make([]*servers.Redis, len(nodes))
	for i := range nodes {
		addrs[i] = servers.StartRedis(t, servers.RedisConfig{Cluster: true})
		nodes[i] = connect(t, addrs[i].URL())
		first, last := i*slots/len(nodes), (i+1)*slots/len(nodes)-1
		require.NoError(t, nodes[i].ClusterAddSlotsRange(t.Context(), first, last).Err())
		require.NoError(t, nodes[i].Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
	}
	require.NoError(t, nodes[0].Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", addrs[1].Port(), addrs[1].BusPort()).Err())
	for _, node := range nodes {
		require.EventuallyWithT(t, func(t *assert.CollectT) {
			info, err := node.ClusterInfo(context.Background()).Result()
			assert.NoError(t, err)
			assert.Contains(t, info, "cluster_state:ok")
			shards, err := node.ClusterShards(context.Background()).Result()
			assert.NoError(t, err)
			assert.Len(t, shards, len(nodes))
		}, patience, 20*time.Millisecond)
	}
	return nodes
}

func TestStoreOnACluster(t *testing.T) {
	nodes := startCluster(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 []string{nodes[0].Options().Addr},
		DialTimeout:           patience,
		ReadTimeout:           patience,
		WriteTimeout:          patience,
		ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })

	t.Run("is a store", func(t *testing.T) {
		idempotencytest.TestStore(t, func(t *testing.T) idempotencytest.Harness {
			return idempotencytest.Harness{Store: open(t, client, redisstore.Config{}), Short: 200 * time.Millisecond}
		})
	})
	t.Run("spreads keys", func(t *testing.T) {
		for _, node := range nodes {
			require.NoError(t, node.FlushAll(t.Context()).Err())
			require.NoError(t, node.ScriptFlush(t.Context()).Err())
		}
		store := open(t, client, redisstore.Config{})
		claimAll(t, store, "key", 300)
		for _, node := range nodes {
			assert.Greater(t, node.DBSize(t.Context()).Val(), int64(50))
		}
		// One node alone forgets the scripts.
		require.NoError(t, nodes[1].ScriptFlush(t.Context()).Err())
		claimAll(t, store, "other", 300)
	})
	t.Run("asks every master", func(t *testing.T) {
		store := open(t, client, redisstore.Config{})
		require.NoError(t, nodes[1].ConfigSet(t.Context(), "maxmemory-policy", "allkeys-random").Err())
		_, err := store.Claim(t.Context(), "key", "token", 0, long)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		var eviction *redisstore.EvictionError
		require.ErrorAs(t, err, &eviction)
		assert.Equal(t, nodes[1].Options().Addr, eviction.Node)
		require.NoError(t, nodes[1].ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
		require.NoError(t, store.Ping(t.Context()))
		requireClaimed(t, store, "key", "token")
	})
}
