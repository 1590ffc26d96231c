package redisstore_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/dlqtest"
	"github.com/esh3artech/barid/dlq/redisstore"
)

// TestCluster runs on a cluster of one node, which refuses what is not in one
// slot as a larger one does.
func TestCluster(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{Cluster: true})
	node := connect(t, server.URL())
	require.NoError(t, node.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		info, err := node.ClusterInfo(context.Background()).Result()
		assert.NoError(t, err)
		assert.Contains(t, info, "cluster_state:ok")
	}, patience, 20*time.Millisecond)
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 []string{server.Addr()},
		DialTimeout:           patience,
		ReadTimeout:           patience,
		WriteTimeout:          patience,
		ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })

	dlqtest.TestStore(t, func(t *testing.T) dlq.Store {
		prefix := servers.Unique(t)
		t.Cleanup(func() { audit(t, node, prefix) })
		return open(t, client, redisstore.Config{Prefix: prefix})
	})
	dlqtest.TestJobStore(t, func(t *testing.T) dlq.JobStore { return open(t, client, redisstore.Config{}) })
	t.Run("checks", func(t *testing.T) {
		store := open(t, client, redisstore.Config{})
		require.NoError(t, store.Check(t.Context()))
		require.NoError(t, store.Ping(t.Context()))
		require.NoError(t, node.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-random").Err())
		var eviction *redisstore.EvictionError
		require.ErrorAs(t, open(t, client, redisstore.Config{}).Put(t.Context(), entry("a", 0)), &eviction)
		require.Equal(t, "allkeys-random", eviction.Policy)
		require.Contains(t, eviction.Node, strconv.Itoa(server.Port()))
	})
}
