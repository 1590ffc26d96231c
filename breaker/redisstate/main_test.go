package redisstate

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// shared is the Redis of the tests that do it no harm.
var shared servers.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Main(m)) }

// patience is for what happens soon, on a slow machine.
const patience = time.Minute

// connect returns a client of url, closed at the test's end.
func connect(tb testing.TB, url string) *redis.Client {
	options, err := redis.ParseURL(url)
	require.NoError(tb, err)
	options.ContextTimeoutEnabled = true
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = patience, patience, patience, patience
	options.MaxRetries = 1
	options.DialerRetries = 1
	client := redis.NewClient(options)
	tb.Cleanup(func() { assert.NoError(tb, client.Close()) })
	return client
}

// instance stands for a process of its own.
type instance struct {
	*breaker.Breaker
	fleet *Fleet
}

// instances makes n of them that share one breaker, named a, b and so on. They
// are quick, so that tests are.
func instances(tb testing.TB, client redis.UniversalClient, n int, config breaker.Config) []*instance {
	config.Name = servers.Unique(tb)
	if config.SampleSize == 0 {
		config.SampleSize = 1
	}
	if config.OpenFor == 0 {
		config.OpenFor = time.Hour
	}
	made := make([]*instance, n)
	for i := range made {
		made[i] = join(tb, client, string(rune('a'+i)), config)
	}
	return made
}

func join(tb testing.TB, client redis.UniversalClient, name string, config breaker.Config) *instance {
	i := &instance{
		Breaker: breaker.New(config),
		fleet:   New(client, Config{Instance: name, Every: 20 * time.Millisecond, Timeout: patience, Lease: time.Hour}),
	}
	require.NoError(tb, i.fleet.Share(i.Breaker))
	tb.Cleanup(func() { i.ForceClosed(0) }) // no timer stays behind
	return i
}

// syncAll has instances read and write, one after the other.
func syncAll(tb require.TestingT, all ...*instance) {
	for _, i := range all {
		require.NoError(tb, i.fleet.Sync(context.Background()))
	}
}

// run has instances share until the test ends, or until stop.
func run(tb testing.TB, all ...*instance) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, len(all))
	for _, i := range all {
		go func() { ended <- i.fleet.Run(ctx) }()
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range all {
			assert.NoError(tb, <-ended)
		}
	}
	tb.Cleanup(stop)
	return stop
}

func (i *instance) call(tb require.TestingT, outcome breaker.Outcome) {
	permit, err := i.Allow()
	require.NoError(tb, err)
	permit.Done(outcome)
}

func (i *instance) refuses(tb require.TestingT) *breaker.OpenError {
	_, err := i.Allow()
	var refusal *breaker.OpenError
	require.ErrorAs(tb, err, &refusal)
	return refusal
}

// wants has a call refused, for want of a probe.
func (i *instance) wants(tb require.TestingT) { require.False(tb, i.refuses(tb).Forced) }

func (i *instance) record(tb require.TestingT) record {
	r, err := i.fleet.do(context.Background(), command{key: i.fleet.key(i.Name()), op: opRead})
	require.NoError(tb, err)
	return r
}

func (i *instance) view(tb require.TestingT) View {
	view, err := i.fleet.View(context.Background(), i.Name())
	require.NoError(tb, err)
	return view
}

func requireState(tb testing.TB, want breaker.State, all ...*instance) {
	tb.Helper()
	for n, i := range all {
		require.Equal(tb, want, i.State(), fmt.Sprint("instance ", n))
	}
}

// reaches waits for a state.
func reaches(tb testing.TB, want breaker.State, all ...*instance) {
	tb.Helper()
	for n, i := range all {
		require.Eventually(tb, func() bool { return i.State() == want }, patience, time.Millisecond, "instance %d", n)
	}
}

// halfOpen makes instances half-open, all with the fleet's knowledge.
func halfOpen(tb testing.TB, all ...*instance) {
	require.NoError(tb, all[0].fleet.ForceOpen(tb.Context(), all[0].Name(), Force{}))
	syncAll(tb, all...)
	require.NoError(tb, all[0].fleet.Release(tb.Context(), all[0].Name(), ""))
	syncAll(tb, all...)
	reaches(tb, breaker.HalfOpen, all...)
}

// endLease does what time does to a lease whose instance is gone.
func (i *instance) endLease(tb testing.TB) {
	require.NoError(tb, i.fleet.client.HSet(tb.Context(), i.fleet.key(i.Name()), "lease_until", "1").Err())
}

// minutes is what is left of an open or forced state.
func minutes(i *instance) int {
	return int(time.Until(i.Status().Until).Round(time.Minute) / time.Minute)
}
