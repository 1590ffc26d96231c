package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/esh3artech/barid/retry"
	"github.com/esh3artech/barid/retry/lastfault"
)

// migrator brings the schema up to date.
type migrator struct {
	db         *sql.DB
	dialect    *dialect
	prefix     string
	timeout    time.Duration // for a question; migrations may take longer
	migrations []Migration
	fault      error // of the last try, nil before it
}

// migrate brings the schema up to date, or checks it only, as the config says.
// It returns how the names of the tables begin.
func migrate(ctx context.Context, db *sql.DB, d *dialect, config Config) (tables string, err error) {
	migrations, err := Migrations(d.kind, config.TablePrefix)
	if err != nil {
		return "", err
	}
	m := &migrator{db: db, dialect: d, prefix: config.TablePrefix, timeout: config.Timeout, migrations: migrations}
	if config.Migrate == MigrateAuto {
		if err := m.run(ctx); err != nil {
			return "", err
		}
	}
	return m.check(ctx)
}

func (m *migrator) known() int64 { return m.migrations[len(m.migrations)-1].Version }

// place is where the tables are, or will be.
type place struct {
	schema  string // PostgreSQL's, quoted, or empty
	version int64  // 0 when there are no tables
}

func (p place) tables(prefix string) string {
	if p.schema == "" {
		return prefix
	}
	return p.schema + "." + prefix
}

// find looks for the tables.
func (m *migrator) find(ctx context.Context, q querier) (place, error) {
	if m.dialect.kind == PostgreSQL {
		return m.findPostgreSQL(ctx, q)
	}
	var p place
	var found int
	const text = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?1"
	err := query(ctx, q, func(answer scanner) error { return answer.Scan(&found) }, text, m.prefix+"migrations")
	if err == nil && found > 0 {
		p.version, err = m.version(ctx, q, p)
	}
	return p, err
}

// findPostgreSQL looks for the tables in all schemas of the search path, and
// nobody looks there again: a schema that appears ahead of theirs later, of the
// role's name for instance, would hide them, or get the next migration.
func (m *migrator) findPostgreSQL(ctx context.Context, q querier) (place, error) {
	var creates sql.NullString
	err := query(ctx, q, func(answer scanner) error { return answer.Scan(&creates) }, "SELECT quote_ident(current_schema()::text)")
	if err != nil {
		return place{}, err
	}
	var found []string
	err = query(ctx, q, func(answer scanner) error {
		var schema string
		err := answer.Scan(&schema)
		found = append(found, schema)
		return err
	}, `SELECT quote_ident(n.nspname::text) FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, n)
		JOIN pg_catalog.pg_namespace AS n ON n.nspname = s.name JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid
		WHERE c.relname = $1::text AND c.relkind IN ('r', 'p') ORDER BY s.n`, m.prefix+"migrations")
	switch {
	case err != nil:
		return place{}, err
	case len(found) > 1:
		return place{}, fmt.Errorf("%w: the tables %s* are in several schemas of the search path (%s): "+
			"set search_path to the one that is meant, or give the others another TablePrefix", ErrConfig, m.prefix, strings.Join(found, ", "))
	case len(found) == 1:
		p := place{schema: found[0]}
		p.version, err = m.version(ctx, q, p)
		return p, err
	case !creates.Valid:
		return place{}, fmt.Errorf("%w: the search path has no schema that exists and that the user may use: set search_path", ErrConfig)
	}
	return place{schema: creates.String}, nil
}

func (m *migrator) version(ctx context.Context, q querier, p place) (int64, error) {
	var version sql.NullInt64
	err := query(ctx, q, func(answer scanner) error { return answer.Scan(&version) },
		"SELECT MAX(version_id) FROM "+p.tables(m.prefix)+"migrations")
	return version.Int64, err
}

// check returns what is wrong with the schema's version, or else how the names
// of the tables begin.
func (m *migrator) check(ctx context.Context) (tables string, err error) {
	const doing = "looking for the schema"
	var p place
	err = withTimeout(ctx, m.timeout, doing, func(ctx context.Context) (err error) {
		p, err = m.find(ctx, m.db)
		return m.wrap(ctx, doing, err)
	})
	switch {
	case err != nil:
		return "", err
	case p.version > m.known():
		return "", &MigrationNewerError{Prefix: m.prefix, Have: p.version, Known: m.known()}
	case p.version < m.known():
		return "", &MigrationMissingError{Prefix: m.prefix, Have: p.version, Want: m.known()}
	}
	return p.tables(m.prefix), nil
}

func (m *migrator) wrap(ctx context.Context, doing string, err error) error {
	if errors.Is(err, ErrConfig) {
		return err
	}
	return asDatabaseError(ctx, doing, err, m.fault)
}

// run migrates a schema that lacks steps, in one transaction, for which others
// that want the same wait. What may be otherwise at the next try is tried again.
func (m *migrator) run(ctx context.Context) error {
	for n := 1; ; n++ {
		if _, err := m.check(ctx); !errors.Is(err, ErrMigrationMissing) {
			return err
		}
		fault := m.up(ctx)
		err := m.wrap(ctx, "migrating", fault)
		switch causeOf(fault) {
		case transient, locked, connectionLost:
		default:
			return err
		}
		if n == maxTries || lastfault.Ended(ctx) != nil {
			return err
		}
		m.fault = fault
		if !retry.Wait(ctx.Done(), time.Duration(n)*50*time.Millisecond) {
			return withFault(ctx, "migrating", ctx.Err(), fault)
		}
	}
}

func (m *migrator) up(ctx context.Context) error {
	conn, err := connect(ctx, m.db, false)
	if err != nil {
		return err
	}
	err = conn.transaction(ctx, m.dialect.begin(m.timeout), func(q querier) error { return m.upIn(ctx, q) })
	if err != nil && (ctx.Err() != nil || mayBeBroken(err)) {
		conn.discard()
	} else {
		conn.release()
	}
	return err
}

// tableLockWait is how long a migration waits for the lock of a table: all who
// use the table wait behind it.
const tableLockWait = 2 * time.Second

// upIn migrates in a transaction. The lock is the transaction's and not the
// session's, which a pooler may have given to another client meanwhile.
func (m *migrator) upIn(ctx context.Context, q querier) error {
	if m.dialect.kind == PostgreSQL {
		if _, err := q.ExecContext(ctx, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", m.lockKey())); err != nil {
			return err
		}
		if _, err := q.ExecContext(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", tableLockWait.Milliseconds())); err != nil {
			return err
		}
	}
	p, err := m.find(ctx, q)
	if err == nil && p.schema != "" {
		_, err = q.ExecContext(ctx, "SET LOCAL search_path = "+p.schema)
	}
	for _, migration := range m.migrations {
		if err != nil {
			return err
		}
		if migration.Version > p.version {
			_, err = q.ExecContext(ctx, migration.SQL)
		}
	}
	return err
}

// lockKey is the key of PostgreSQL's lock that makes the stores with this prefix
// migrate one after another.
func (m *migrator) lockKey() int64 {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "barid migrations %s", m.prefix)
	return int64(hash.Sum64()) //nolint:gosec // any number does
}
