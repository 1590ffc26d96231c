package faults

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // the driver sqlite

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// database is where records and keys are: a SQLite file, or tables of a
// PostgreSQL.
type database struct {
	Driver, DSN, Prefix string
}

// sqlite is a SQLite file in a folder of the row.
func (r *rowTest) sqlite() database { return sqliteIn(r.TempDir()) }

func sqliteIn(dir string) database {
	return database{Driver: "sqlite", DSN: sqlstore.SQLiteDSN(filepath.Join(dir, "barid.db")), Prefix: "barid_"}
}

// postgres is tables in a PostgreSQL that only the row uses.
func (r *rowTest) postgres(server *servers.Postgres) database {
	name := servers.Unique(r.T)
	return database{Driver: "pgx", DSN: server.URL(), Prefix: "f" + name[strings.LastIndexByte(name, '-')+1:] + "_"}
}

// databaseStore is a message store in an open database.
type databaseStore struct {
	*sqlstore.Store
	db *sql.DB
}

func (d database) open(ctx context.Context, logger *slog.Logger) (*databaseStore, error) {
	db, err := sql.Open(d.Driver, d.DSN)
	if err != nil {
		return nil, err
	}
	store, err := sqlstore.Open(ctx, db, sqlstore.Config{TablePrefix: d.Prefix, Logger: logger})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &databaseStore{Store: store, db: db}, nil
}

func (s *databaseStore) Close() error { return errors.Join(s.Store.Close(), s.db.Close()) }

// openStore opens the database until the row's end.
func (r *rowTest) openStore(d database) *databaseStore {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	opened, err := d.open(ctx, nil)
	require.NoError(r, err)
	r.atEnd(func() { assert.NoError(r, opened.Close()) })
	return opened
}

// advanceTimes makes the times in a column so much earlier, as if all clocks had jumped
// ahead, or so much time had passed. It returns how many there were.
func (r *rowTest) advanceTimes(s *databaseStore, d database, table, column string, by time.Duration) int64 {
	r.Helper()
	// A time that is years away stands for something else, such as a lease that records share.
	statement := fmt.Sprintf("UPDATE %[1]s SET %[2]s = %[2]s - %[3]d WHERE %[2]s < %[4]d",
		d.Prefix+table, column, by.Microseconds(), time.Now().AddDate(1, 0, 0).UnixMicro())
	var moved int64
	var err error
	r.eventually(func() bool { // also when PostgreSQL ends it in favour of an update of the pipeline's
		var result sql.Result
		if result, err = s.db.ExecContext(r.ctx, statement); err == nil {
			moved, err = result.RowsAffected()
		}
		return err == nil
	}, "times can't be changed")
	require.NoError(r, err)
	return moved
}

// allDelivered waits until every record is delivered, and there are so many at least.
func (r *rowTest) allDelivered(store delivery.Store, atLeast int) {
	r.Helper()
	var stats delivery.RecordStats
	var err error
	defer func() {
		if r.Failed() {
			r.Logf("the records: %+v, %v", stats, err)
		}
	}()
	r.eventually(func() bool {
		stats, err = store.Stats(r.ctx, "")
		return err == nil && stats.Total >= atLeast && stats.Of(delivery.StatusDelivered) == stats.Total
	}, "records that are not delivered")
}
