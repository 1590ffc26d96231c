package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"

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
