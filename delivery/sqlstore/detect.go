package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// SQLiteDSN is the data source name with which modernc.org/sqlite opens the file
// as a Store needs it: with a write-ahead log, so that readers and the writer
// don't wait for each other; synced at every commit, so that what was
// acknowledged survives a power cut; waiting up to 10 s for other processes'
// transactions.
func SQLiteDSN(path string) string {
	pragmas := []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)"}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_txlock=immediate&_pragma=" + strings.Join(pragmas, "&_pragma=")
}

const useSQLiteDSN = "open the file with SQLiteDSN, or set it in the data source name"

func examineSQLite(ctx context.Context, db *sql.DB, config Config) (*dialect, error) {
	var journal string
	var patience, synchronous int
	for _, ask := range []struct {
		pragma string
		into   any
	}{{"journal_mode", &journal}, {"busy_timeout", &patience}, {"synchronous", &synchronous}} {
		if err := db.QueryRowContext(ctx, "PRAGMA "+ask.pragma).Scan(ask.into); err != nil {
			return nil, failed(ctx, "asking for "+ask.pragma, err)
		}
	}
	var faults []error
	if !strings.EqualFold(journal, "wal") {
		faults = append(faults, fmt.Errorf("%w: SQLite's journal_mode is %s, want wal, which a database in memory can't have: %s",
			ErrConfig, journal, useSQLiteDSN))
	}
	if patience <= 0 {
		faults = append(faults, fmt.Errorf("%w: SQLite's busy_timeout is %d, want some seconds in milliseconds: %s",
			ErrConfig, patience, useSQLiteDSN))
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

// oldestPostgreSQL is the first with plan_cache_mode.
const oldestPostgreSQL = 120000

func examinePostgreSQL(ctx context.Context, db *sql.DB) (*dialect, error) {
	var version int
	err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::bigint").Scan(&version)
	if err != nil {
		return nil, failed(ctx, "asking for the server's version", err)
	}
	if version < oldestPostgreSQL {
		return nil, fmt.Errorf("%w: the server is PostgreSQL %d, want 12 or later", ErrConfig, version/10000)
	}
	d := postgreSQL()
	var n int
	if err := db.QueryRowContext(ctx, "SELECT cardinality($1::bytea[])", [][]byte{{0}}).Scan(&n); err != nil {
		if ctx.Err() != nil {
			return nil, failed(ctx, "trying an array", err)
		}
		d.literals = true
	}
	return d, nil
}
