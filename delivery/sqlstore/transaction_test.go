package sqlstore_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// scriptedDriver is pgx, whose answers a test may replace: a statement is
// executed, and then returns the error that answer returns for it, unless that
// is nil.
type scriptedDriver struct {
	dsn string

	mu     sync.Mutex
	answer func(statement string) error
}

func (d *scriptedDriver) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

func (d *scriptedDriver) Connect(context.Context) (driver.Conn, error) {
	conn, err := d.Driver().Open(d.dsn)
	if err != nil {
		return nil, err
	}
	return scriptedConn{plainConn{conn}, d}, nil
}

func (d *scriptedDriver) answers(answer func(statement string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = answer
}

func (d *scriptedDriver) to(statement string) error {
	d.mu.Lock()
	answer := d.answer
	d.mu.Unlock()
	if answer == nil {
		return nil
	}
	return answer(statement)
}

type scriptedConn struct {
	plainConn
	scriptedDriver *scriptedDriver
}

func (c scriptedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.plainConn.ExecContext(ctx, query, args)
	return result, errors.Join(err, c.scriptedDriver.to(query))
}

func (c scriptedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.plainConn.QueryContext(ctx, query, args)
	if answer := c.scriptedDriver.to(query); err == nil && answer != nil {
		return nil, errors.Join(answer, rows.Close())
	}
	return rows, err
}

func openScripted(t *testing.T) (*sqlstore.Store, *scriptedDriver) {
	t.Helper()
	d := &scriptedDriver{dsn: shared.PostgresURL(t)}
	db := sql.OpenDB(d)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return open(t, db, sqlstore.Config{TablePrefix: unique(t), InFlight: 1}), d
}

// saveTogether has n callers save a record each in one batch.
func saveTogether(t *testing.T, store *sqlstore.Store, name string, n int) []error {
	t.Helper()
	release := store.Hold()
	all := make([]error, n)
	var callers sync.WaitGroup
	for i := range all {
		callers.Go(func() { all[i] = errors.Join(store.Save(context.Background(), pending(fmt.Sprint(name, i)))...) })
	}
	require.Eventually(t, func() bool { return store.Waiting() == n }, eventuallyTimeout, time.Millisecond)
	release()
	callers.Wait()
	return all
}

// When the answer to a commit is lost, its outcome is unknown. The calls are
// not executed again, or their callers would be told that their own records
// exist.
func TestCommitWithoutAnswer(t *testing.T) {
	store, server := openScripted(t)
	for name, lost := range map[string]error{
		"bad connection": driver.ErrBadConn, "end of file": io.ErrUnexpectedEOF, "odd": errors.New("odd"), "resolution unknown": stateError("08007"),
	} {
		var commits int
		server.answers(func(statement string) error {
			if statement != "COMMIT" {
				return nil
			}
			if commits++; commits == 2 { // the first is that of the transaction which the callers wait for
				return lost
			}
			return nil
		})
		for _, err := range saveTogether(t, store, name, 3) {
			require.ErrorIs(t, err, delivery.ErrStoreDown, name)
			require.ErrorIs(t, err, lost, name)
			require.NotErrorIs(t, err, delivery.ErrExists, name)
		}
		server.answers(nil)
		assert.Equal(t, 2, commits, name)
		for i := range 3 {
			require.ErrorIs(t, store.Save(t.Context(), pending(fmt.Sprint(name, i)))[0], delivery.ErrExists, name)
		}
	}
}

// When the database fails for reasons of its own, the calls of a batch are not
// tried one by one.
func TestFailureOfAllIsNotTriedForEach(t *testing.T) {
	store, server := openScripted(t)
	for name, states := range map[string][]error{
		"cancelled":           {stateError("57014")},
		"refused, cancelled":  {stateError("23514"), stateError("57014")},
		"refused, full":       {stateError("P0001"), stateError("53100")},
		"transaction timeout": {stateError("25P04")},
		"not allowed":         {stateError("42501")},
	} {
		tried := 0
		server.answers(func(statement string) error {
			if !strings.HasPrefix(statement, "INSERT") {
				return nil
			}
			if tried++; tried <= len(states) {
				return states[tried-1]
			}
			return errors.New("asked again")
		})
		for _, err := range saveTogether(t, store, name, 5) {
			require.ErrorIs(t, err, delivery.ErrStoreDown, name)
			require.ErrorIs(t, err, states[len(states)-1], name)
		}
		server.answers(nil)
		assert.Equal(t, len(states), tried, name)
		require.Empty(t, store.Save(t.Context(), pending(name+" afterwards")))
		_, errs := store.Get(t.Context(), name+"0")
		require.ErrorIs(t, errs[0], delivery.ErrNotFound, name)
	}
}

// When a server gives a statement up after its statement_timeout, the calls
// fail, and the store goes on.
func TestStatementTimeout(t *testing.T) {
	db := connectPostgres(t)
	config := sqlstore.Config{TablePrefix: unique(t)}
	open(t, db, config)
	_, err := db.ExecContext(t.Context(), fmt.Sprintf(`
		CREATE FUNCTION %[1]sslow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END';
		CREATE TRIGGER %[1]sslow BEFORE INSERT ON %[1]smessages FOR EACH ROW WHEN (NEW.id = 'x') EXECUTE FUNCTION %[1]sslow()`, config.TablePrefix))
	require.NoError(t, err)
	impatient := connect(t, "pgx", shared.PostgresURL(t)+"&statement_timeout=100ms")
	config.Migrate = sqlstore.MigrateCheck
	var store *sqlstore.Store
	require.Eventually(t, func() bool {
		var err error
		store, err = sqlstore.Open(t.Context(), impatient, config)
		return err == nil
	}, eventuallyTimeout, time.Millisecond)
	t.Cleanup(func() { assert.NoError(t, store.Close()) })
	errs := store.Save(t.Context(), pending("x"))
	require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
	require.Contains(t, errs[0].Error(), "57014")
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "LOCK TABLE "+config.TablePrefix+"messages")
	require.NoError(t, err)
	_, errs = store.Get(t.Context(), "x")
	require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
	require.NoError(t, tx.Rollback())
	require.Eventually(t, func() bool { return goesOn(store) }, eventuallyTimeout, time.Millisecond)
}
