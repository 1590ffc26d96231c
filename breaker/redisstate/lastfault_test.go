package redisstate

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// questions are what a fleet asks Redis.
func questions(fleet *Fleet) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"force open":   func(ctx context.Context) error { return fleet.ForceOpen(ctx, "name", Force{}) },
		"force closed": func(ctx context.Context) error { return fleet.ForceClosed(ctx, "name", Force{}) },
		"release":      func(ctx context.Context) error { return fleet.Release(ctx, "name", "") },
		"view":         func(ctx context.Context) error { _, err := fleet.View(ctx, "name"); return err },
		"sync":         fleet.Sync,
		"sync while another one goes on": func(ctx context.Context) error {
			fleet.syncing <- struct{}{}
			defer func() { <-fleet.syncing }()
			return fleet.Sync(ctx)
		},
		"sync while the client is busy": func(ctx context.Context) error {
			fleet.sending <- struct{}{}
			defer func() { <-fleet.sending }()
			return fleet.Sync(ctx)
		},
	}
}

// endEach asks each with contexts that end meanwhile, longer and longer ones, because
// a call whose context ends before it has come far asks for nothing.
func endEach(t *testing.T, fleet *Fleet, expected func(err error) bool) {
	t.Helper()
	for name, ask := range questions(fleet) {
		var err error
		for timeout := 5 * time.Millisecond; timeout < 5*time.Second && !expected(err); timeout *= 2 {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			err = ask(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			require.NotErrorIs(t, err, ErrUnavailable, name)
		}
		require.True(t, expected(err), "%s: %v", name, err)
	}
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
func isBare(err error) bool    { return err == context.DeadlineExceeded } //nolint:errorlint // no other in its chain

// startFleet has one breaker and has asked Redis once.
func startFleet(t *testing.T, server *servers.Redis, timeout time.Duration) *Fleet {
	fleet := New(connect(t, server.URL()), Config{Timeout: timeout, Lease: time.Hour})
	require.NoError(t, fleet.Share(breaker.New(breaker.Config{Name: "shared"})))
	require.Eventually(t, func() bool { return fleet.Sync(t.Context()) == nil }, patience, 10*time.Millisecond)
	return fleet
}

func TestEndedCallsTellThatRedisIsAway(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	fleet := startFleet(t, server, patience)

	require.NoError(t, server.Kill())
	for _, name := range []string{"view", "sync"} {
		require.ErrorIs(t, questions(fleet)[name](t.Context()), syscall.ECONNREFUSED, name)
		require.NoError(t, server.Start(t.Context()))
		require.NoError(t, server.Pause())
		endEach(t, fleet, isRefused)

		require.NoError(t, server.Resume())
		require.Eventually(t, func() bool { return questions(fleet)[name](t.Context()) == nil }, patience, 10*time.Millisecond)
		require.NoError(t, server.Pause())
		endEach(t, fleet, isBare)
		require.NoError(t, server.Kill())
	}
}

// Config.Timeout does not look like the end of a context.
func TestEndedCallsTellThatRedisHangs(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	fleet := startFleet(t, server, 500*time.Millisecond)
	require.NoError(t, server.Pause())
	_, err := fleet.View(t.Context(), "name")
	require.ErrorIs(t, err, ErrUnavailable)
	for name, ask := range questions(fleet) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		err = ask(ctx)
		cancel()
		require.ErrorIs(t, err, context.Canceled, name)
		require.Regexp(t, "context canceled: .*(no answer in time|i/o timeout)", err.Error(), name)
		require.NotErrorIs(t, err, context.DeadlineExceeded, name)
		require.NotErrorIs(t, err, ErrUnavailable, name)
	}
	require.NoError(t, server.Resume())
}
