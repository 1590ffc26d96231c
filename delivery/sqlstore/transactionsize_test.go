package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// sizeMeter is pgx, and remembers the largest transaction and the largest
// statement, by the bytes of their arguments.
type sizeMeter struct {
	dsn string

	mu                   sync.Mutex
	largest, ofStatement int
}

func (m *sizeMeter) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

func (m *sizeMeter) Connect(context.Context) (driver.Conn, error) {
	conn, err := m.Driver().Open(m.dsn)
	if err != nil {
		return nil, err
	}
	return &sizeMeterConn{Conn: conn, sizeMeter: m}, nil
}

func (m *sizeMeter) tell(transaction, statement int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.largest, m.ofStatement = max(m.largest, transaction), max(m.ofStatement, statement)
}

type sizeMeterConn struct {
	driver.Conn
	sizeMeter *sizeMeter
	bytes     int // of the transaction
}

func (c *sizeMeterConn) CheckNamedValue(value *driver.NamedValue) error {
	return c.Conn.(driver.NamedValueChecker).CheckNamedValue(value)
}

func (c *sizeMeterConn) count(query string, args []driver.NamedValue) {
	if strings.HasPrefix(query, "BEGIN") {
		c.bytes = 0
	}
	before := c.bytes
	for _, arg := range args {
		switch value := arg.Value.(type) {
		case [][]byte:
			for _, each := range value {
				c.bytes += len(each)
			}
		case []byte:
			c.bytes += len(value)
		}
	}
	c.sizeMeter.tell(c.bytes, c.bytes-before)
}

func (c *sizeMeterConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	c.count(query, args)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *sizeMeterConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	c.count(query, args)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

func (c *sizeMeterConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.bytes = 0
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

// However large the records are, and however they come, a transaction of the
// store has up to 16 MiB of them, or one record. The same holds for a statement
// of an outbox.
func TestTransactionsAreBoundedInBytes(t *testing.T) {
	const mib, alike = 1 << 20, 4
	measure := &sizeMeter{dsn: shared.PostgresURL(t)}
	db := sql.OpenDB(measure)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store := open(t, db, sqlstore.Config{TablePrefix: unique(t), InFlight: 1})
	large := func(id string, size int) delivery.Record {
		r := pending(id)
		r.Body = make([]byte, size)
		return r
	}
	var records []delivery.Record
	for i := range alike {
		records = append(records, large(fmt.Sprint("together ", i), 5*mib))
	}
	records = append(records, records[0], large("alone", 17*mib), delivery.Record{})
	errs := store.Save(t.Context(), records...)
	require.Len(t, errs, len(records))
	require.NoError(t, errors.Join(append(errs[:alike:alike], errs[alike+1])...))
	require.ErrorIs(t, errs[alike], delivery.ErrExists)
	require.ErrorIs(t, errs[alike+2], delivery.ErrInvalid)
	require.Less(t, measure.largest, 18*mib)

	measure.largest = 0
	release := store.Hold()
	saved := make(chan []error)
	for i := range alike {
		go func() { saved <- store.Save(context.Background(), large(fmt.Sprint("apart ", i), 5*mib)) }()
	}
	require.Eventually(t, func() bool { return store.Waiting() == alike }, eventuallyTimeout, time.Millisecond)
	release()
	for range alike {
		require.Empty(t, <-saved)
	}
	require.Less(t, measure.largest, 16*mib)
	require.Greater(t, measure.largest, 10*mib, "what comes at once goes together")

	measure.ofStatement = 0
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	for i := range records {
		records[i].ID = strings.ReplaceAll(records[i].ID, "together", "outbox")
	}
	records[alike+1].ID = "alone in the outbox"
	outbox := store.In(tx)
	errs = outbox.Save(t.Context(), records...)
	require.NoError(t, errors.Join(append(errs[:alike:alike], errs[alike+1])...))
	require.ErrorIs(t, errs[alike], delivery.ErrExists)
	require.ErrorIs(t, errs[alike+2], delivery.ErrInvalid)
	require.NoError(t, tx.Commit())
	require.Less(t, measure.ofStatement, 18*mib)
	for _, id := range []string{"together 3", "alone", "apart 3", "outbox 2", "alone in the outbox"} {
		got, errs := store.Get(t.Context(), id)
		require.Empty(t, errs)
		require.GreaterOrEqual(t, len(got[0].Body), 5*mib)
	}
}
