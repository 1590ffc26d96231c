package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// migrator brings the schema up to date.
type migrator struct {
	db         *sql.DB
	dialect    *dialect
	prefix     string
	timeout    time.Duration // for reading the version; migrations may take longer
	migrations []Migration
}

// migrate brings the schema up to date, or checks it only, as the config says.
func migrate(ctx context.Context, db *sql.DB, d *dialect, config Config) error {
	migrations, err := Migrations(d.kind, config.TablePrefix)
	if err != nil {
		return err
	}
	m := &migrator{db: db, dialect: d, prefix: config.TablePrefix, timeout: config.Timeout, migrations: migrations}
	if config.Migrate == MigrateCheck {
		return m.check(ctx)
	}
	return m.run(ctx)
}

func (m *migrator) known() int64 { return m.migrations[len(m.migrations)-1].Version }

// version is the schema's version, 0 when there is none.
func (m *migrator) version(ctx context.Context) (int64, error) {
	table := m.prefix + "migrations"
	find := "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?1"
	if m.dialect.kind == PostgreSQL {
		find = "SELECT COUNT(to_regclass($1::text))"
	}
	var found, version sql.NullInt64
	if err := m.db.QueryRowContext(ctx, find, table).Scan(&found); err != nil || found.Int64 == 0 {
		return 0, asDatabaseError(ctx, "looking for the schema", err)
	}
	err := m.db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM "+table).Scan(&version)
	return version.Int64, asDatabaseError(ctx, "asking for the schema's version", err)
}

// check returns what is wrong with the schema's version.
func (m *migrator) check(ctx context.Context) error {
	var have int64
	err := withTimeout(ctx, m.timeout, "looking for the schema", func(ctx context.Context) (err error) {
		have, err = m.version(ctx)
		return err
	})
	switch {
	case err != nil:
		return err
	case have > m.known():
		return &MigrationNewerError{Prefix: m.prefix, Have: have, Known: m.known()}
	case have < m.known():
		return &MigrationMissingError{Prefix: m.prefix, Have: have, Want: m.known()}
	}
	return nil
}

// run migrates a schema that lacks steps. Others may do so at the same time.
// SQLite has no lock that spans transactions, so another process may be faster
// in the middle. So after a failure the version is checked again, unless the
// database refuses writes.
func (m *migrator) run(ctx context.Context) error {
	var last error
	for n := range maxTries {
		if err := m.check(ctx); !errors.Is(err, ErrMigrationMissing) {
			return err
		}
		last = asDatabaseError(ctx, "migrating", m.up(ctx))
		switch causeOf(last) {
		case readOnly, diskFull, denied:
			return last
		default:
		}
		if last != nil {
			pause := time.NewTimer(time.Duration(n) * 50 * time.Millisecond)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return ctx.Err()
			}
		}
	}
	if err := m.check(ctx); !errors.Is(err, ErrMigrationMissing) {
		return err
	}
	return last
}

func (m *migrator) up(ctx context.Context) error {
	steps := make([]*goose.Migration, len(m.migrations))
	for i, migration := range m.migrations {
		steps[i] = goose.NewGoMigration(migration.Version, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			for _, statement := range migration.statements {
				if _, err := tx.ExecContext(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		}}, nil)
	}
	options := []goose.ProviderOption{
		goose.WithGoMigrations(steps...), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()),
	}
	kind := database.DialectSQLite3
	if m.dialect.kind == PostgreSQL {
		kind = database.DialectPostgres
		options = append(options, goose.WithSessionLocker(advisoryLock(m.prefix)))
	}
	store, err := database.NewStore(kind, m.prefix+"migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectCustom, m.db, nil, append(options, goose.WithStore(store))...)
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// advisoryLock is a lock of PostgreSQL. It makes the stores with this prefix
// migrate one after another.
type advisoryLock string

func (l advisoryLock) key() int64 {
	hash := fnv.New64a()
	fmt.Fprintf(hash, "barid migrations %s", string(l))
	return int64(hash.Sum64()) //nolint:gosec // any number does
}

// SessionLock waits for the lock.
func (l advisoryLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", l.key())
	return err
}

// SessionUnlock releases the lock.
func (l advisoryLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock($1)", l.key())
	return err
}
