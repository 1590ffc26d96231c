package eviction_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency/redisstore/eviction"
)

// wrapped is a client that hides what kind it is.
type wrapped struct{ redis.UniversalClient }

func TestEachMaster(t *testing.T) {
	first, second := servers.StartRedis(t, servers.RedisConfig{}), servers.StartRedis(t, servers.RedisConfig{Cluster: true})
	client, node := connect(t, first.URL()), connect(t, second.URL())
	ring := redis.NewRing(&redis.RingOptions{
		Addrs: map[string]string{"one": first.Addr(), "two": second.Addr()}, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
	t.Cleanup(func() { assert.NoError(t, ring.Close()) })
	require.NoError(t, node.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		info, err := node.ClusterInfo(context.Background()).Result()
		assert.NoError(t, err)
		assert.Contains(t, info, "cluster_state:ok")
	}, patience, 20*time.Millisecond)
	cluster := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{second.Addr()}, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
	t.Cleanup(func() { assert.NoError(t, cluster.Close()) })

	for name, test := range map[string]struct {
		client redis.UniversalClient
		ports  []int
	}{
		"one server":     {client, []int{first.Port()}},
		"ring":           {ring, []int{first.Port(), second.Port()}},
		"cluster":        {cluster, []int{second.Port()}},
		"unknown client": {wrapped{client}, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			errNo := errors.New("no")
			var mu sync.Mutex
			var asked []int
			for _, want := range []error{nil, errNo} {
				asked = nil
				err := eviction.EachMaster(t.Context(), test.client, func(ctx context.Context, master redis.Cmdable, node string) error {
					mu.Lock()
					defer mu.Unlock()
					_, port, _ := strings.Cut(node, ":") // a node of a cluster may not know its host
					number, _ := strconv.Atoi(port)
					asked = append(asked, number)
					assert.NoError(t, master.Ping(ctx).Err())
					return want
				})
				require.Equal(t, want, err)
				assert.ElementsMatch(t, test.ports, asked, "all are asked, whatever the others say")
			}
			require.NoError(t, eviction.Check(t.Context(), test.client, keepsAll))
		})
	}

	// One of several masters is enough.
	require.NoError(t, node.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-random").Err())
	var found *eviction.Error
	require.ErrorAs(t, eviction.Check(t.Context(), ring, keepsAll), &found)
	assert.Equal(t, eviction.Error{Node: second.Addr(), Policy: "allkeys-random"}, *found)
}
