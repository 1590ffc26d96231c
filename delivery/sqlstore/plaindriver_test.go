package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// plainDriver is pgx without its own extensions: it takes no slices.
type plainDriver struct{ dsn string }

func (d plainDriver) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

func (d plainDriver) Connect(context.Context) (driver.Conn, error) {
	conn, err := d.Driver().Open(d.dsn)
	if err != nil {
		return nil, err
	}
	return plainConn{conn}, nil
}

type plainConn struct{ driver.Conn }

func (c plainConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c plainConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c plainConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

// The store works with a driver that takes no slices.
func TestPlainDriverStore(t *testing.T) {
	deliverytest.TestStore(t, func(tb testing.TB) delivery.Store {
		db := sql.OpenDB(plainDriver{shared.PostgresURL(tb)})
		tb.Cleanup(func() { require.NoError(tb, db.Close()) })
		_, err := db.ExecContext(tb.Context(), "SELECT cardinality($1::bytea[])", [][]byte{{1}})
		require.Error(tb, err)
		return open(tb, db, sqlstore.Config{TablePrefix: unique(tb)})
	})
}

// The store reads what it has written whatever the output of byte strings is
// set to, and with every way in which pgx asks, in the host's transaction, too.
func TestByteaOutputEscape(t *testing.T) {
	for _, mode := range []string{"cache_statement", "exec", "simple_protocol"} {
		t.Run(mode, func(t *testing.T) {
			db := connect(t, "pgx", shared.PostgresURL(t)+"&bytea_output=escape&default_query_exec_mode="+mode)
			store := open(t, db, sqlstore.Config{TablePrefix: unique(t)})
			ids := []string{"a", "\x00\xff\\", "\\x61"}
			records := make([]delivery.Record, len(ids))
			for i, id := range ids {
				records[i] = pending(id)
				records[i].Body = []byte(id)
			}
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			require.Empty(t, store.In(tx).Save(t.Context(), records[:2]...))
			require.NoError(t, tx.Commit())
			errs := store.Save(t.Context(), records...)
			require.ErrorIs(t, errs[0], delivery.ErrExists)
			require.ErrorIs(t, errs[1], delivery.ErrExists)
			require.NoError(t, errs[2])
			found, errs := store.Get(t.Context(), ids...)
			require.Empty(t, errs)
			for i, id := range ids {
				require.Equal(t, id, found[i].ID)
				require.Equal(t, id, string(found[i].Body))
			}
			_, errs = store.Update(t.Context(), delivered(ids[1]))
			require.Empty(t, errs)
			_, err = store.Keys().Claim(t.Context(), ids[1], "mine", 0, time.Minute)
			require.NoError(t, err)
			require.NoError(t, store.DeadLetters().Put(t.Context(), deadEntry(ids[1], 0)))
			_, errs = store.DeadLetters().Get(t.Context(), ids[1])
			require.NoError(t, errs[0])
		})
	}
}
