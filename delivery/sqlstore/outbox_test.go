package sqlstore_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

func TestOutboxIsTheHostsTransaction(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db *sql.DB, _ sqlstore.Dialect) {
		ctx := t.Context()
		prefix := unique(t)
		store := open(t, db, sqlstore.Config{TablePrefix: prefix})
		_, err := db.ExecContext(ctx, "CREATE TABLE "+prefix+"orders (id INTEGER)")
		require.NoError(t, err)
		due := make(chan time.Time, 1)
		defer store.Watch(func(at time.Time) {
			select {
			case due <- at:
			default:
			}
		})()
		orders := func() (n int) {
			require.NoError(t, db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+prefix+"orders").Scan(&n))
			return n
		}

		tx, err := db.BeginTx(ctx, nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(ctx, "INSERT INTO "+prefix+"orders VALUES (1)")
		require.NoError(t, err)
		require.Empty(t, store.In(tx).Save(ctx, pending("rolled back")))
		require.NoError(t, tx.Rollback())
		_, errs := store.Get(ctx, "rolled back")
		require.ErrorIs(t, errs[0], delivery.ErrNotFound)
		require.Zero(t, orders())

		require.Empty(t, store.Save(ctx, pending("there before")))
		<-due
		tx, err = db.BeginTx(ctx, nil)
		require.NoError(t, err)
		outbox := store.In(tx)
		record := pending("new")
		errs = outbox.Save(ctx, pending("there before"), record, record, delivery.Record{})
		require.Len(t, errs, 4)
		require.ErrorIs(t, errs[0], delivery.ErrExists)
		require.NoError(t, errs[1])
		require.ErrorIs(t, errs[2], delivery.ErrExists)
		require.ErrorIs(t, errs[3], delivery.ErrInvalid)
		require.Empty(t, outbox.Save(ctx))
		_, err = tx.ExecContext(ctx, "INSERT INTO "+prefix+"orders VALUES (2)")
		require.NoError(t, err, "the transaction goes on")
		require.NoError(t, tx.Commit())
		outbox.Committed()
		assert.True(t, record.DueAt.Truncate(time.Microsecond).Equal(<-due))
		_, errs = store.Get(ctx, "new")
		require.Empty(t, errs)
		require.Equal(t, 1, orders())

		errs = outbox.Save(ctx, pending("too late"))
		require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
		require.ErrorIs(t, errs[0], sql.ErrTxDone)
		require.ErrorIs(t, store.In(nil).Save(ctx, record)[0], sqlstore.ErrConfig)
		require.ErrorIs(t, sqlstore.Outbox{}.Save(ctx, record)[0], sqlstore.ErrConfig)
		sqlstore.Outbox{}.Committed()
	})
}
