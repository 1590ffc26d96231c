package sqlstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

func TestSmoke(t *testing.T) {
	onBoth(t, func(t *testing.T, store *sqlstore.Store) {
		ctx := t.Context()
		require.NoError(t, store.Ping(ctx))
		fill(t, store, 2500, time.Now())
		r := delivery.Record{Message: delivery.Message{ID: "\x00\xff", Recipient: "\x00\xfe", Headers: map[string]string{"\xff": "\x00"}, Body: []byte{0}},
			Progress: delivery.Progress{Status: delivery.StatusFailed, History: []delivery.Failure{{At: time.Now(), Error: "\xff\x00"}}}}
		require.Empty(t, store.Save(ctx, r))
		require.ErrorIs(t, store.Save(ctx, r)[0], delivery.ErrExists)
		got, errs := store.Get(ctx, "x", r.ID)
		require.ErrorIs(t, errs[0], delivery.ErrNotFound)
		require.NoError(t, errs[1])
		require.Equal(t, r.Message, got[1].Message)
		page, err := store.List(ctx, delivery.RecordQuery{})
		require.NoError(t, err)
		require.Len(t, page.Records, 100)
		stats, err := store.Stats(ctx)
		require.NoError(t, err)
		require.Equal(t, 2501, stats.Total)
		n, err := store.Purge(ctx, time.Now(), 10)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, err = store.NextDue(ctx, delivery.StatusRetrying)
		require.NoError(t, err)
		_, err = store.Renew(ctx, "a", time.Now())
		require.NoError(t, err)
	})
}
