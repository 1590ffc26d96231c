package redisstate

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// startCluster starts two masters with half of the slots each.
func startCluster(t *testing.T) []*redis.Client {
	const slots = 16384
	nodes := make([]*redis.Client, 2)
	for i := range nodes {
		server := servers.StartRedis(t, servers.RedisConfig{Cluster: true})
		nodes[i] = connect(t, server.URL())
		first, last := i*slots/len(nodes), (i+1)*slots/len(nodes)-1
		require.NoError(t, nodes[i].ClusterAddSlotsRange(t.Context(), first, last).Err())
		require.NoError(t, nodes[i].Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		if i > 0 {
			require.NoError(t, nodes[0].Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", server.Port(), server.BusPort()).Err())
		}
	}
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

// A breaker is one key, so breakers spread over a cluster.
func TestCluster(t *testing.T) {
	const n = 40
	nodes := startCluster(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{nodes[0].Options().Addr}, ContextTimeoutEnabled: true, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	var fleets [2]*Fleet
	var breakers [2][]*breaker.Breaker
	for i := range fleets {
		fleets[i] = New(client, Config{Timeout: patience})
		for k := range n {
			b := breaker.New(breaker.Config{Name: strconv.Itoa(k), SampleSize: 1})
			t.Cleanup(func() { b.ForceClosed(0) })
			breakers[i] = append(breakers[i], b)
		}
		require.NoError(t, fleets[i].Share(breakers[i]...))
	}
	for _, b := range breakers[0] {
		permit, err := b.Allow()
		require.NoError(t, err)
		permit.Done(breaker.Failure)
	}
	require.NoError(t, fleets[0].Sync(t.Context()))
	// One node alone forgets the script.
	require.NoError(t, nodes[1].ScriptFlush(t.Context()).Err())
	require.NoError(t, fleets[1].Sync(t.Context()))
	for k, b := range breakers[1] {
		require.Equal(t, breaker.Open, b.State(), k)
	}
	for _, node := range nodes {
		assert.Greater(t, node.DBSize(t.Context()).Val(), int64(5))
	}
	require.NoError(t, fleets[1].ForceClosed(t.Context(), "7", Force{}))
	require.NoError(t, fleets[0].Sync(t.Context()))
	assert.Equal(t, breaker.Closed, breakers[0][7].State())
}
