package dlq_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/dlq"
)

func TestResolveForgivesWhatIsGone(t *testing.T) {
	store := dlq.NewMemory(dlq.MemoryConfig{})
	manager := dlq.NewManager(store, nil, dlq.Config{})
	ctx := context.Background()
	all, ids := letters(3)
	require.NoError(t, manager.DeadLetter(ctx, all...))

	require.NoError(t, manager.Resolve(ctx))
	require.NoError(t, manager.Resolve(ctx, ids[0], "unknown", ids[0]))
	require.NoError(t, manager.Resolve(ctx, ids[0]))
	left, err := store.Count(ctx, dlq.Filter{})
	require.NoError(t, err)
	require.Equal(t, 2, left)

	// What is being requeued stays, and is told of.
	_, errs := store.Claim(ctx, dlq.Claim{Token: "somebody", Now: time.Now(), Lease: time.Minute}, ids[1])
	require.Nil(t, errs)
	err = manager.Resolve(ctx, "unknown", ids[1], ids[2])
	require.ErrorIs(t, err, dlq.ErrClaimed)
	require.NotErrorIs(t, err, dlq.ErrNotFound)
	var failed *delivery.ResultsError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, []delivery.Result{{ID: "unknown"}, {ID: ids[1], Err: dlq.ErrClaimed}, {ID: ids[2]}}, failed.Results)
	left, err = store.Count(ctx, dlq.Filter{})
	require.NoError(t, err)
	require.Equal(t, 1, left)

	require.ErrorIs(t, (*dlq.Manager)(nil).Resolve(ctx, "x"), dlq.ErrConfig)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, manager.Resolve(ended, ids[1]), context.Canceled)
}
