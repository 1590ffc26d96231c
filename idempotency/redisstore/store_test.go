package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
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

func TestStoreIsAStore(t *testing.T) {
	servers.Parallel(t)
	client := connect(t, shared.RedisURL(t))
	idempotencytest.TestStore(t, func(t *testing.T) idempotencytest.Harness {
		servers.Parallel(t)
		return idempotencytest.Harness{Store: open(t, client, redisstore.Config{})}
	})
}

// The same with RESP2, and batches and queue as small as they get.
func TestStoreIsAStoreWithSmallBatches(t *testing.T) {
	servers.Parallel(t)
	client := redis.NewClient(patientOptions(t, shared.RedisURL(t)+"?protocol=2"))
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	idempotencytest.TestStore(t, func(t *testing.T) idempotencytest.Harness {
		servers.Parallel(t)
		return idempotencytest.Harness{Store: open(t, client, redisstore.Config{MaxBatch: 1, MaxInFlight: 1, MaxQueue: 1})}
	})
}

// The same on a server that takes claims by script only.
func TestStoreIsAStoreOnOldServers(t *testing.T) {
	servers.Parallel(t)
	client := connect(t, shared.RedisURL(t))
	var server aged
	server.old.Store(true)
	client.AddHook(&server)
	var stores atomic.Int64
	t.Cleanup(func() { assert.GreaterOrEqual(t, server.refused.Load(), stores.Load()) })
	idempotencytest.TestStore(t, func(t *testing.T) idempotencytest.Harness {
		servers.Parallel(t)
		stores.Add(1)
		return idempotencytest.Harness{Store: open(t, client, redisstore.Config{})}
	})
}

// After a failover the primary may be an older server than the one before.
func TestClaimsGoByScriptOnceTheServerIsOlder(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	var server aged
	client.AddHook(&server)
	store := open(t, client, redisstore.Config{})
	claimAll(t, store, "before", 100)
	requireClaimed(t, store, "key", "token")
	require.Zero(t, server.refused.Load())

	server.old.Store(true)
	claimAll(t, store, "after", 100)
	refused := server.refused.Load()
	assert.Positive(t, refused)
	requireAnswer(t, store, "key", "other", idempotency.Answer{State: idempotency.Busy, Holder: "token"})
	claimAll(t, store, "later", 100)
	assert.Equal(t, refused, server.refused.Load(), "the store does not ask again")

	// Neither after that, nor when the scripts are gone.
	require.NoError(t, client.ScriptFlush(t.Context()).Err())
	server.old.Store(false)
	claimAll(t, store, "at last", 100)
	requireAnswer(t, store, "key", "other", idempotency.Answer{State: idempotency.Busy, Holder: "token"})
	requireClaimed(t, store, "key", "token")
}

// A claim that is made again lets the lease begin anew, which takes the script.
func TestAClaimAgainExtendsItsLease(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t) + ":"
	store := open(t, client, redisstore.Config{Prefix: prefix})
	for _, lease := range []time.Duration{long, 2 * long} {
		answer, err := store.Claim(t.Context(), "key", "token", 0, lease)
		require.NoError(t, err)
		require.Equal(t, idempotency.Claimed, answer.State)
		assert.InDelta(t, lease, client.PTTL(t.Context(), prefix+"key").Val(), float64(time.Minute))
	}
	// A claim that is refused leaves it as it is.
	_, err := store.Claim(t.Context(), "key", "other", 0, 4*long)
	require.NoError(t, err)
	assert.InDelta(t, 2*long, client.PTTL(t.Context(), prefix+"key").Val(), float64(time.Minute))
}

func TestKeysExpireInRedis(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t) + ":"
	store := open(t, client, redisstore.Config{Prefix: prefix})
	ttl := func() time.Duration {
		left, err := client.PTTL(t.Context(), prefix+"key").Result()
		require.NoError(t, err)
		return left
	}
	requireClaimed(t, store, "key", "token")
	assert.InDelta(t, long, ttl(), float64(time.Minute))
	require.NoError(t, store.Renew(t.Context(), "key", "token", 2*long))
	assert.InDelta(t, 2*long, ttl(), float64(time.Minute))
	require.NoError(t, store.Schedule(t.Context(), "key", "token", 1, 3*long))
	assert.InDelta(t, 3*long, ttl(), float64(time.Minute))
	_, err := store.Complete(t.Context(), "key", "token", 4*long)
	require.NoError(t, err)
	assert.InDelta(t, 4*long, ttl(), float64(time.Minute))
}

// The scripts vanish between any two steps.
func TestScriptsAreSentAgain(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	client := connect(t, server.URL())
	store := open(t, client, redisstore.Config{})
	flush := func() { require.NoError(t, client.ScriptFlush(t.Context()).Err()) }

	requireClaimed(t, store, "key", "token")
	flush()
	requireAnswer(t, store, "key", "other", idempotency.Answer{State: idempotency.Busy, Holder: "token"})
	flush()
	require.NoError(t, store.Renew(t.Context(), "key", "token", long))
	flush()
	require.NoError(t, store.Schedule(t.Context(), "key", "token", 1, long))
	flush()
	require.ErrorIs(t, store.Release(t.Context(), "key", "token"), idempotency.ErrLost)
	flush()
	_, err := store.Complete(t.Context(), "key", "token", long)
	require.NoError(t, err)

	// And in the middle of many.
	stop := make(chan struct{})
	var flushing sync.WaitGroup
	flushing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				assert.NoError(t, client.ScriptFlush(t.Context()).Err())
			}
		}
	})
	claimAll(t, store, "many", 500)
	close(stop)
	flushing.Wait()
}

// claimAll claims and completes n keys at once.
func claimAll(t *testing.T, store *redisstore.Store, name string, n int) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			key := fmt.Sprint(name, i)
			answer, err := store.Claim(t.Context(), key, "token", 0, long)
			if assert.NoError(t, err) {
				assert.Equal(t, idempotency.Claimed, answer.State)
			}
			completion, err := store.Complete(t.Context(), key, "token", long)
			if assert.NoError(t, err) {
				assert.Equal(t, idempotency.InTime, completion)
			}
		})
	}
	all.Wait()
}

func TestFlushedKeysAreForgotten(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	client := connect(t, server.URL())
	store := open(t, client, redisstore.Config{})
	for _, key := range []string{"renewed", "completed", "scheduled", "released"} {
		requireClaimed(t, store, key, "token")
	}
	require.NoError(t, client.FlushAll(t.Context()).Err())

	require.ErrorIs(t, store.Renew(t.Context(), "renewed", "token", long), idempotency.ErrLost)
	completion, err := store.Complete(t.Context(), "completed", "token", long)
	require.NoError(t, err)
	assert.Equal(t, idempotency.Late, completion)
	require.ErrorIs(t, store.Schedule(t.Context(), "scheduled", "token", 1, long), idempotency.ErrLost)
	require.NoError(t, store.Release(t.Context(), "released", "token"))
	requireClaimed(t, store, "renewed", "other")
}

func TestForeignValuesAreLeftAlone(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	prefix := servers.Unique(t) + ":"
	store := open(t, client, redisstore.Config{Prefix: prefix})
	ctx := t.Context()
	require.NoError(t, client.Set(ctx, prefix+"text", "x", long).Err())
	require.NoError(t, client.SAdd(ctx, prefix+"set", "x").Err())
	t.Cleanup(func() { client.Del(context.WithoutCancel(ctx), prefix+"set") })
	for _, key := range []string{"text", "set"} {
		_, err := store.Claim(ctx, key, "token", 0, long)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
		assert.NotContains(t, err.Error(), prefix)
	}
	assert.Equal(t, "x", client.Get(ctx, prefix+"text").Val())
}

func TestRoundTripsAreShared(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	var counter trips
	client.AddHook(&counter)
	store := open(t, client, redisstore.Config{})
	requireClaimed(t, store, "scripts are loaded", "token")

	const callers = 256
	counter.count.Store(0)
	// No answer comes before all have asked, so that a slow machine shares, too.
	gate := make(chan struct{})
	counter.gate.Store(&gate)
	var asked atomic.Int64
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			if asked.Add(1) == callers {
				close(gate)
			}
			answer, err := store.Claim(t.Context(), fmt.Sprint("key ", i), "token", 0, long)
			if assert.NoError(t, err) {
				assert.Equal(t, idempotency.Claimed, answer.State)
			}
		})
	}
	all.Wait()
	sent := counter.count.Load()
	t.Logf("%d callers shared %d round trips", callers, sent)
	assert.Less(t, sent, int64(callers/4))

	// Every key got its own answer.
	for i := range callers {
		requireAnswer(t, store, fmt.Sprint("key ", i), "other", idempotency.Answer{State: idempotency.Busy, Holder: "token"})
	}
}

func TestAContextEndsItsOwnCallOnly(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	store := open(t, client, redisstore.Config{})
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 0 {
				go cancel()
			}
			_, err := store.Claim(ctx, fmt.Sprint("key ", i), "token", 0, long)
			cancelled := i%2 == 0 && errors.Is(err, context.Canceled) && !errors.Is(err, idempotency.ErrUnavailable)
			assert.True(t, err == nil || cancelled, "error is %v", err)
		})
	}
	all.Wait()
}

func TestCloseEndsTheStore(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	store := open(t, client, redisstore.Config{})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if _, err := store.Claim(t.Context(), fmt.Sprint("key ", i), "token", 0, long); err != nil {
				assert.ErrorIs(t, err, idempotency.ErrClosed)
			}
		})
	}
	require.NoError(t, store.Close())
	require.NoError(t, store.Close())
	all.Wait()
	err := store.Renew(t.Context(), "key", "token", long)
	require.ErrorIs(t, err, idempotency.ErrClosed)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	assert.NoError(t, client.Ping(t.Context()).Err(), "the client is the host's")
}

func TestUnusableStoresFailEveryStep(t *testing.T) {
	var noClient *redis.Client
	for name, store := range map[string]*redisstore.Store{
		"nil":        nil,
		"zero":       {},
		"no client":  redisstore.New(nil, redisstore.Config{}),
		"nil client": redisstore.New(noClient, redisstore.Config{}),
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			require.ErrorIs(t, store.Err(), redisstore.ErrConfig)
			_, err := store.Claim(ctx, "key", "token", 0, long)
			require.ErrorIs(t, err, redisstore.ErrConfig)
			require.ErrorIs(t, err, idempotency.ErrUnavailable)
			_, err = store.Complete(ctx, "key", "token", long)
			require.ErrorIs(t, err, redisstore.ErrConfig)
			require.ErrorIs(t, store.Renew(ctx, "key", "token", long), redisstore.ErrConfig)
			require.ErrorIs(t, store.Schedule(ctx, "key", "token", 0, long), redisstore.ErrConfig)
			require.ErrorIs(t, store.Release(ctx, "key", "token"), redisstore.ErrConfig)
			require.ErrorIs(t, store.Ping(ctx), redisstore.ErrConfig)
			require.ErrorIs(t, store.Check(ctx), redisstore.ErrConfig)
			require.NoError(t, store.Close())
			require.ErrorIs(t, idempotency.NewGuard(store, idempotency.GuardConfig{}).Err(), redisstore.ErrConfig)
		})
	}
}

func TestConfigFaultsAreNamed(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	err := redisstore.New(client, redisstore.Config{
		MaxBatch: -1, MaxWait: time.Hour, MaxInFlight: -1, MaxQueue: -2, Timeout: -1,
	}).Err()
	require.ErrorIs(t, err, redisstore.ErrConfig)
	for _, fault := range []string{
		"MaxBatch is -1, want 1 to 10000", "MaxWait is 1h0m0s, want 0 to 1s", "MaxInFlight is -1, want at least 1",
		"MaxQueue is -2, want at least MaxBatch, which is -1", "Timeout is -1ns, want at least 1ms",
	} {
		require.ErrorContains(t, err, fault)
	}
	require.NoError(t, redisstore.New(client, redisstore.Config{MaxBatch: 10_000}).Err())

	_, err = redisstore.New(client, redisstore.Config{}).Claim(nil, "key", "token", 0, long) //nolint:staticcheck // nil is the case
	require.ErrorIs(t, err, idempotency.ErrInvalid)
}

func BenchmarkClaimComplete(b *testing.B) {
	for _, callers := range []int{1, 16, 100} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			b.ReportAllocs()
			client := connect(b, shared.RedisURL(b))
			var counter trips
			client.AddHook(&counter)
			store := open(b, client, redisstore.Config{})
			requireClaimed(b, store, "connects", "token")
			keys := make([]string, b.N)
			for i := range keys {
				keys[i] = fmt.Sprintf("7:compare:0:018f3c1e-0000-7000-8000-%012d", i)
			}
			counter.count.Store(0)
			var next atomic.Int64
			var all sync.WaitGroup
			before := serverTime(b, client)
			b.ResetTimer()
			for range callers {
				all.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						_, err := store.Claim(context.Background(), keys[i-1], "0123456789012345678901", 0, time.Minute)
						if assert.NoError(b, err) {
							_, err = store.Complete(context.Background(), keys[i-1], "0123456789012345678901", time.Minute)
							assert.NoError(b, err)
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(2*float64(b.N)/float64(counter.count.Load()), "commands/trip")
			b.ReportMetric(float64(serverTime(b, client)-before)/float64(b.N), "server-ns/op")
		})
	}
}

// serverTime is how much processor time a server has used.
func serverTime(tb testing.TB, client *redis.Client) (used time.Duration) {
	info, err := client.Info(context.Background(), "cpu").Result()
	require.NoError(tb, err)
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := time.ParseDuration(value + "s")
			require.NoError(tb, err)
			used += seconds
		}
	}
	return used
}
