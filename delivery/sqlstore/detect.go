package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

const useSQLiteDSN = "open the file with SQLiteDSN, or set it in the data source name"

// checkSQLite checks the connection's settings.
func checkSQLite(ctx context.Context, db *sql.DB, config Config) (*dialect, error) {
	var journal string
	var busyTimeout, synchronous int
	for _, ask := range []struct {
		pragma string
		into   any
	}{{"journal_mode", &journal}, {"busy_timeout", &busyTimeout}, {"synchronous", &synchronous}} {
		if err := db.QueryRowContext(ctx, "PRAGMA "+ask.pragma).Scan(ask.into); err != nil {
			return nil, asDatabaseError(ctx, "asking for "+ask.pragma, err, nil)
		}
	}
	var faults []error
	if !strings.EqualFold(journal, "wal") {
		faults = append(faults, fmt.Errorf("%w: SQLite's journal_mode is %s, want wal, which a database in memory can't have: %s",
			ErrConfig, journal, useSQLiteDSN))
	}
	if busyTimeout <= 0 {
		faults = append(faults, fmt.Errorf("%w: SQLite's busy_timeout is %d, want some seconds in milliseconds: %s",
			ErrConfig, busyTimeout, useSQLiteDSN))
	}
	if open := db.Stats().MaxOpenConnections; open == 1 {
		faults = append(faults, fmt.Errorf("%w: the database has MaxOpenConns 1, want at least 2, of which the store's writer keeps one", ErrConfig))
	}
	if synchronous < 2 {
		config.Logger.Warn("sqlstore: SQLite does not sync every commit, so that a power cut may lose acknowledged records",
			"synchronous", synchronous, "want", "FULL")
	}
	return sqlite(), errors.Join(faults...)
}

// oldestPostgreSQL is the first version with plan_cache_mode.
const oldestPostgreSQL = 120000

// checkPostgreSQL checks the server's version, and whether the driver takes
// slices.
func checkPostgreSQL(ctx context.Context, db *sql.DB) (*dialect, error) {
	var version int
	err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::bigint").Scan(&version)
	if err != nil {
		return nil, asDatabaseError(ctx, "asking for the server's version", err, nil)
	}
	if version < oldestPostgreSQL {
		return nil, fmt.Errorf("%w: the server is PostgreSQL %d, want 12 or later", ErrConfig, version/10000)
	}
	d := postgreSQL()
	if err := pingOnce(ctx, db, d); err != nil {
		return nil, asDatabaseError(ctx, "asking whether the server takes writes", err, nil)
	}
	var n int
	if err := db.QueryRowContext(ctx, "SELECT cardinality($1::bytea[])", [][]byte{{0}}).Scan(&n); err != nil {
		if ctx.Err() != nil {
			return nil, asDatabaseError(ctx, "trying an array", err, nil)
		}
		d.arraysAsText = true
	}
	return d, nil
}

// pingOnce pings by a connection that is not kept if it can't be used.
func pingOnce(ctx context.Context, db *sql.DB, d *dialect) error {
	conn, err := connect(ctx, db, false)
	if err != nil {
		return err
	}
	if err := d.ping(ctx, conn); err != nil {
		conn.discard()
		return err
	}
	conn.release()
	return nil
}

// detectDialect asks the server what it is, unless the config says so, and
// checks that it can be used.
func detectDialect(ctx context.Context, db *sql.DB, config Config) (*dialect, error) {
	kind := config.Dialect
	if kind == Detect {
		// PostgreSQL is asked first: a server writes statements that fail into its
		// log, and SQLite has no log.
		var version string
		postgres := db.QueryRowContext(ctx, "SELECT version()").Scan(&version)
		if postgres == nil {
			kind = PostgreSQL
		} else if cause := causeOf(postgres); cause == connectionLost || cause == denied {
			return nil, asDatabaseError(ctx, "asking what the server is", postgres, nil)
		} else if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&version); err == nil {
			kind = SQLite
		} else {
			if err.Error() != postgres.Error() { // a database that can't be opened says the same twice
				err = errors.Join(postgres, err)
			}
			return nil, asDatabaseError(ctx, "asking what the server is", err, nil)
		}
		if kind == PostgreSQL && !strings.Contains(version, "PostgreSQL") {
			return nil, fmt.Errorf("%w: the server is %.60q, want SQLite or PostgreSQL", ErrConfig, version)
		}
	}
	if kind == SQLite {
		return checkSQLite(ctx, db, config)
	}
	return checkPostgreSQL(ctx, db)
}
