package idempotency_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/idempotency"
)

func TestGuardRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		ctx, claim := mustClaim(t, guard, 0)
		time.Sleep(time.Hour)
		require.NoError(t, ctx.Err())
		assert.InDelta(t, 180, store.count("renew"), 1, "every third of a minute")
		require.Same(t, idempotency.ErrBusy, claimError(t, guard, 0))

		require.NoError(t, claim.Complete(t.Context()))
		settled := store.count("renew")
		time.Sleep(time.Hour)
		assert.Equal(t, settled, store.count("renew"), "nothing is left after settling")
	})
}

func TestGuardStopsRenewingWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		parent, cancel := context.WithCancel(t.Context())
		ctx, claim, err := guard.Claim(parent, key, 0)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		cancel()
		require.ErrorIs(t, ctx.Err(), context.Canceled)
		renewed := store.count("renew")
		time.Sleep(59 * time.Second)
		assert.Equal(t, renewed, store.count("renew"))
		time.Sleep(time.Second)
		_, other := mustClaim(t, guard, 0)

		require.ErrorIs(t, claim.Complete(t.Context()), idempotency.ErrLost)
		require.NoError(t, other.Complete(t.Context()))
		require.NoError(t, claim.Complete(t.Context()), "done is done")
	})
}

func TestGuardTellsLostLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		var logs bytes.Buffer
		guard := idempotency.NewGuard(store, idempotency.GuardConfig{Logger: slog.New(slog.NewTextHandler(&logs, nil))})
		ctx, claim := mustClaim(t, guard, 0)
		// An operator deletes the key, and another takes it.
		require.NoError(t, store.Memory.Release(t.Context(), key.String(), claim.Token()))
		_, err := store.Memory.Claim(t.Context(), key.String(), "other", 0, time.Hour)
		require.NoError(t, err)

		<-ctx.Done()
		require.ErrorIs(t, ctx.Err(), context.Canceled)
		require.Equal(t, idempotency.ErrLost, context.Cause(ctx))
		require.ErrorIs(t, claim.Complete(t.Context()), idempotency.ErrLost)
		require.ErrorIs(t, claim.Schedule(t.Context(), 1, 0), idempotency.ErrLost)
		require.ErrorIs(t, claim.Release(t.Context()), idempotency.ErrLost)
		synctest.Wait()
		assert.Contains(t, logs.String(), "lease lost")
		assert.Contains(t, logs.String(), "scope=orders")
		assert.NotContains(t, strings.ReplaceAll(logs.String(), claim.Token(), ""), "42")
		renewed := store.count("renew")
		time.Sleep(time.Hour)
		assert.Equal(t, renewed, store.count("renew"))
	})
}

// The store is away from the first renewal on: tries go on until the lease ends
// here, and then the work is told.
func TestGuardOutlivesOutagesShorterThanItsLease(t *testing.T) {
	for _, test := range []struct {
		name string
		fail func(store *faulty, on bool)
	}{
		{"refused", func(store *faulty, on bool) {
			var err error
			if on {
				err = errDown
			}
			store.set(store.before, "renew", err)
		}},
		{"hanging", func(store *faulty, on bool) {
			store.hang("renew", 0)
			if on {
				store.hang("renew", time.Hour)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFaulty()
				guard := newGuard(t, store)
				start := time.Now()
				ctx, claim := mustClaim(t, guard, 0)
				test.fail(store, true)
				time.Sleep(48 * time.Second)
				require.NoError(t, ctx.Err())
				test.fail(store, false)
				time.Sleep(time.Minute)
				require.NoError(t, ctx.Err(), "renewed within the lease")
				assert.Less(t, store.count("renew"), 20, "no hot loop")

				test.fail(store, true)
				<-ctx.Done()
				require.Equal(t, idempotency.ErrLost, context.Cause(ctx))
				lasted := time.Since(start)
				assert.Greater(t, lasted, 140*time.Second)
				assert.LessOrEqual(t, lasted, 170*time.Second)

				// Nobody took it: it is late, and counts.
				time.Sleep(time.Minute)
				require.NoError(t, claim.Complete(t.Context()))
				require.ErrorIs(t, claimError(t, guard, 0), idempotency.ErrDuplicate)
			})
		})
	}
}

func TestGuardLogsLateCompletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		guard := idempotency.NewGuard(newFaulty(), idempotency.GuardConfig{Logger: slog.New(slog.NewTextHandler(&logs, nil))})
		parent, cancel := context.WithCancel(t.Context())
		_, claim, err := guard.Claim(parent, key, 0)
		require.NoError(t, err)
		cancel()
		time.Sleep(2 * time.Minute)
		require.NoError(t, claim.Complete(t.Context()))
		assert.Contains(t, logs.String(), "completed late")
	})
}

// A renewal that comes between a settling step and its answer finds the lease
// gone. That must not look like a loss.
func TestGuardSettlesDuringRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty()
		guard := newGuard(t, store)
		ctx, claim := mustClaim(t, guard, 0)
		store.hang("renew", 5*time.Second)
		time.Sleep(22 * time.Second) // the renewal is on its way
		require.NoError(t, claim.Complete(t.Context()))
		time.Sleep(time.Minute)
		assert.Equal(t, idempotency.ErrSettled, context.Cause(ctx))
		assert.Equal(t, 1, store.count("renew"))
	})
}
