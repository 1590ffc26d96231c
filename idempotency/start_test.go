package idempotency_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency"
)

func TestGuardKeepsStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		dead, guard := newGuard(t, store), newGuard(t, store)
		start := func(guard *idempotency.Guard, attempt, n int) error {
			_, err := guard.Start(t.Context(), key, attempt, n)
			return err
		}
		require.NoError(t, start(dead, 0, 1))
		_, claim := mustClaim(t, guard, 0) // starts are no claims
		require.NoError(t, claim.Release(t.Context()))
		for range 2 {
			<-time.After(11 * time.Hour) // longer than any lease
			assert.Equal(t, idempotency.ErrBusy, start(guard, 0, 1))
		}
		require.NoError(t, start(guard, 0, 2))
		require.NoError(t, start(guard, 1, 1), "each attempt has its own")
		other := key
		other.Generation++
		_, err := guard.Start(t.Context(), other, 0, 1)
		require.NoError(t, err, "and each generation")

		third, err := guard.Start(t.Context(), key, 0, 3)
		require.NoError(t, err)
		require.NoError(t, third.Release(t.Context()))
		require.NoError(t, third.Release(t.Context()), "again")
		require.NoError(t, start(dead, 0, 3), "as if it had not been")

		<-time.After(24 * time.Hour) // the window
		require.NoError(t, start(guard, 0, 1))
	})
}

// A start whose answer got lost began nothing, so the next try of the same guard is no
// second one. To others it looks like any other.
func TestGuardStartsAgainAfterALostAnswer(t *testing.T) {
	store := newFaulty()
	guard, other := newGuard(t, store), newGuard(t, store)
	store.set(store.after, "claim", errDown)
	for range 3 {
		_, err := guard.Start(t.Context(), key, 0, 1)
		require.ErrorIs(t, err, idempotency.ErrUnavailable)
	}
	store.set(store.after, "claim", nil)
	_, err := other.Start(t.Context(), key, 0, 1)
	require.ErrorIs(t, err, idempotency.ErrBusy)
	start, err := guard.Start(t.Context(), key, 0, 1)
	require.NoError(t, err)
	_, err = guard.Start(t.Context(), key, 0, 1)
	require.ErrorIs(t, err, idempotency.ErrBusy, "this one has begun")
	require.NoError(t, start.Release(t.Context()))
	_, err = other.Start(t.Context(), key, 0, 1)
	require.NoError(t, err)
}

func TestGuardStartFails(t *testing.T) {
	store := newFaulty()
	guard := newGuard(t, store)
	_, err := guard.Start(t.Context(), key, 0, 0)
	require.ErrorIs(t, err, idempotency.ErrInvalid)
	_, err = (*idempotency.Guard)(nil).Start(t.Context(), key, 0, 1)
	require.ErrorIs(t, err, idempotency.ErrConfig)
	start, err := guard.Start(t.Context(), key, 0, 1)
	require.NoError(t, err)
	store.set(store.before, "claim", errDown)
	store.set(store.before, "release", errDown)
	_, err = guard.Start(t.Context(), key, 0, 2)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	require.ErrorIs(t, start.Release(t.Context()), idempotency.ErrUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store.set(store.before, "claim", context.Canceled)
	_, err = guard.Start(ctx, key, 0, 2)
	assert.Equal(t, context.Canceled, err)
}
