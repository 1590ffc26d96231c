package redisstore_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

func TestConfigFaultsAreAllTold(t *testing.T) {
	store := redisstore.New(nil, redisstore.Config{Prefix: "{" + strings.Repeat("x", 256), Timeout: time.Microsecond})
	err := store.Err()
	require.ErrorIs(t, err, redisstore.ErrConfig)
	for _, part := range []string{
		"Prefix is", "want no braces", "Prefix has 257 bytes, want at most 256", "Timeout is 1µs, want at least 1ms", "client is nil",
	} {
		require.ErrorContains(t, err, part)
	}
}

func TestBracesOfAPrefix(t *testing.T) {
	client := connect(t, shared.RedisURL(t))
	for _, prefix := range []string{"plain", "tenant:{dlq}", "{dlq}:tenant", "{dlq}"} {
		require.NoError(t, redisstore.New(client, redisstore.Config{Prefix: prefix}).Err(), prefix)
	}
	for _, prefix := range []string{"{", "}", "{}", "a{}b", "}{", "{a", "a}", "{{a}}", "{a}{b}", "{a}b}"} {
		require.ErrorIs(t, redisstore.New(client, redisstore.Config{Prefix: prefix}).Err(), redisstore.ErrConfig, prefix)
	}
}

func TestStoresThatDoNotWork(t *testing.T) {
	var noClient *redis.Client
	for name, store := range map[string]*redisstore.Store{
		"no client":  redisstore.New(nil, redisstore.Config{}),
		"nil client": redisstore.New(noClient, redisstore.Config{}),
		"nil":        nil,
		"zero":       {},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, store.Err(), redisstore.ErrConfig)
			for i, err := range everyMethod(store, unbounded) {
				require.ErrorIs(t, err, redisstore.ErrConfig, i)
			}
			require.ErrorIs(t, dlq.NewManager(store, nil, dlq.Config{}).Err(), redisstore.ErrConfig)
		})
	}
}

func TestNilContext(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	store := redisstore.New(client, redisstore.Config{})
	require.NoError(t, store.Err())
	for i, err := range everyMethod(store, func() (context.Context, context.CancelFunc) { return nil, func() {} }) {
		require.ErrorIs(t, err, dlq.ErrInvalid, i)
	}
}

// everyMethod calls each with a context of its own, and returns its error.
func everyMethod(store *redisstore.Store, newContext func() (context.Context, context.CancelFunc)) []error {
	claim := dlq.Claim{Token: "token", Now: start, Lease: lease}
	first := func(errs []error) error { return errs[0] }
	var errs []error
	for _, method := range []func(ctx context.Context) error{
		func(ctx context.Context) error { return store.Put(ctx, entry("id", 0)) },
		func(ctx context.Context) error { _, errs := store.Get(ctx, "id"); return first(errs) },
		func(ctx context.Context) error { _, errs := store.Get(ctx, "id", "another"); return errs[1] },
		func(ctx context.Context) error { _, err := store.List(ctx, dlq.Query{}); return err },
		func(ctx context.Context) error {
			_, err := store.List(ctx, dlq.Query{Filter: dlq.Filter{Source: "source", Reason: delivery.ReasonExpired}})
			return err
		},
		func(ctx context.Context) error { _, err := store.Count(ctx, dlq.Filter{}); return err },
		func(ctx context.Context) error {
			_, err := store.Count(ctx, dlq.Filter{Source: "source", Reason: delivery.ReasonExpired})
			return err
		},
		func(ctx context.Context) error { _, err := store.Stats(ctx, 1); return err },
		func(ctx context.Context) error { _, errs := store.Claim(ctx, claim, "id"); return first(errs) },
		func(ctx context.Context) error { return first(store.Release(ctx, "token", "id")) },
		func(ctx context.Context) error { return first(store.Remove(ctx, "token", "id")) },
		func(ctx context.Context) error { return first(store.Delete(ctx, start, "id")) },
		func(ctx context.Context) error { _, err := store.Purge(ctx, start.Add(time.Hour), start); return err },
		func(ctx context.Context) error { return store.SaveJob(ctx, dlq.Job{ID: "id"}) },
		func(ctx context.Context) error { _, err := store.Job(ctx, "id"); return err },
		func(ctx context.Context) error { _, err := store.Jobs(ctx); return err },
		func(ctx context.Context) error { return store.DeleteJobs(ctx, "id") },
		func(ctx context.Context) error { return store.Check(ctx) },
		func(ctx context.Context) error { return store.Ping(ctx) },
	} {
		ctx, cancel := newContext()
		errs = append(errs, method(ctx))
		cancel()
	}
	return errs
}

func unbounded() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}
