package redisstore_test

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq/redisstore"
)

// endEach calls every method with contexts that end meanwhile, longer and longer ones,
// because a call whose context ends before it has come far asks for nothing.
func endEach(t *testing.T, store *redisstore.Store, expected func(err error) bool) {
	t.Helper()
	var errs []error
	for timeout := 5 * time.Millisecond; timeout < 2*time.Second; timeout *= 2 {
		errs = everyMethod(store, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), timeout)
		})
		for i, err := range errs {
			require.ErrorIs(t, err, context.DeadlineExceeded, i)
			require.NotErrorIs(t, err, redisstore.ErrUnavailable, i)
		}
		if !slices.ContainsFunc(errs, func(err error) bool { return !expected(err) }) {
			return
		}
	}
	require.Fail(t, "not what was expected", "%v", errs)
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
func isBare(err error) bool    { return err == context.DeadlineExceeded } //nolint:errorlint // no other in its chain

func TestEndedCallsTellThatRedisIsAway(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	// A client whose pool has met as many failures as it has places goes on failing for
	// a while, at once.
	store := open(t, connect(t, server.URL()+"?pool_size=1000"), redisstore.Config{})
	answers := func() bool { return store.Check(t.Context()) == nil }
	require.True(t, answers())

	require.NoError(t, server.Kill())
	for i, err := range everyMethod(store, unbounded) {
		require.ErrorIs(t, err, syscall.ECONNREFUSED, i)
	}
	require.NoError(t, server.Start(t.Context()))
	require.NoError(t, server.Pause())
	endEach(t, store, isRefused)

	require.NoError(t, server.Resume())
	require.Eventually(t, answers, patience, 10*time.Millisecond)
	require.NoError(t, server.Pause())
	defer func() { require.NoError(t, server.Resume()) }()
	endEach(t, store, isBare)
}

// The store's own timeout does not look like the end of a context.
func TestEndedCallsTellThatRedisHangs(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	store := open(t, connect(t, server.URL()), redisstore.Config{Timeout: 500 * time.Millisecond})
	require.Eventually(t, func() bool { return store.Check(t.Context()) == nil }, patience, 10*time.Millisecond)
	require.NoError(t, server.Pause())
	require.ErrorIs(t, store.Ping(t.Context()), redisstore.ErrUnavailable)
	for i, err := range everyMethod(store, func() (context.Context, context.CancelFunc) {
		ctx, cancel := unbounded()
		time.AfterFunc(100*time.Millisecond, cancel)
		return ctx, cancel
	}) {
		require.ErrorIs(t, err, context.Canceled, i)
		require.Regexp(t, "context canceled: .*(no answer within Config.Timeout|i/o timeout)", err.Error(), i)
		require.NotErrorIs(t, err, context.DeadlineExceeded, i)
		require.NotErrorIs(t, err, redisstore.ErrUnavailable, i)
	}
	require.NoError(t, server.Resume())
}
