package sqlstore_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// onEachDatabase runs a test on a database of each kind.
func onEachDatabase(t *testing.T, test func(t *testing.T, db *sql.DB, dialect sqlstore.Dialect)) {
	t.Run("SQLite", func(t *testing.T) { test(t, connectSQLite(t), sqlstore.SQLite) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, connectPostgres(t), sqlstore.PostgreSQL) })
}

func TestMissingMigrations(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db *sql.DB, dialect sqlstore.Dialect) {
		config := sqlstore.Config{TablePrefix: unique(t), Migrate: sqlstore.MigrateCheck}
		_, err := sqlstore.Open(t.Context(), db, config)
		require.ErrorIs(t, err, sqlstore.ErrMigrationMissing)
		var missing *sqlstore.MigrationMissingError
		require.ErrorAs(t, err, &missing)
		assert.Zero(t, missing.Have)
		assert.Positive(t, missing.Want)
		assert.Contains(t, err.Error(), config.TablePrefix)
		assert.Contains(t, err.Error(), "MigrateAuto", "what to do")

		migrations, err := sqlstore.Migrations(dialect, config.TablePrefix)
		require.NoError(t, err)
		assert.Equal(t, missing.Want, migrations[len(migrations)-1].Version)
		for _, migration := range migrations {
			_, err := db.ExecContext(t.Context(), migration.SQL)
			require.NoError(t, err, migration.Name)
		}
		store := open(t, db, config)
		require.Empty(t, store.Save(t.Context(), pending("x")))
		config.Migrate = sqlstore.MigrateAuto
		_, errs := open(t, db, config).Get(t.Context(), "x")
		require.Empty(t, errs, "nothing is left to migrate")
	})
}

func TestNewerSchema(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db *sql.DB, _ sqlstore.Dialect) {
		config := sqlstore.Config{TablePrefix: unique(t)}
		open(t, db, config)
		_, err := db.ExecContext(t.Context(), "INSERT INTO "+config.TablePrefix+"migrations (version_id, is_applied) VALUES (999, TRUE)")
		require.NoError(t, err)
		for _, config.Migrate = range []sqlstore.Migrate{sqlstore.MigrateAuto, sqlstore.MigrateCheck} {
			_, err = sqlstore.Open(t.Context(), db, config)
			require.ErrorIs(t, err, sqlstore.ErrMigrationNewer)
			var newer *sqlstore.MigrationNewerError
			require.ErrorAs(t, err, &newer)
			assert.EqualValues(t, 999, newer.Have)
			assert.Positive(t, newer.Known)
			assert.Contains(t, err.Error(), "update this program", "what to do")
		}
	})
}

func TestMigratingAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "barid.db")
	for name, another := range map[string]func(testing.TB) *sql.DB{
		"SQLite":     func(tb testing.TB) *sql.DB { return connect(tb, "sqlite", sqlstore.SQLiteDSN(path)) },
		"PostgreSQL": connectPostgres,
	} {
		t.Run(name, func(t *testing.T) {
			config := sqlstore.Config{TablePrefix: unique(t)}
			var all sync.WaitGroup
			for range 8 {
				db := another(t)
				all.Go(func() {
					store, err := sqlstore.Open(t.Context(), db, config)
					if assert.NoError(t, err) {
						assert.NoError(t, store.Ping(t.Context()))
						assert.NoError(t, store.Close())
					}
				})
			}
			all.Wait()
		})
	}
}

func TestPrefixesAreApart(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db *sql.DB, _ sqlstore.Dialect) {
		one := open(t, db, sqlstore.Config{TablePrefix: unique(t)})
		other := open(t, db, sqlstore.Config{TablePrefix: unique(t)})
		require.Empty(t, one.Save(t.Context(), pending("x")))
		_, errs := other.Get(t.Context(), "x")
		require.ErrorIs(t, errs[0], delivery.ErrNotFound)
	})
	longest := strings.Repeat("p", 32)
	open(t, connectPostgres(t), sqlstore.Config{TablePrefix: longest})
	for _, prefix := range []string{longest + "p", "1a", "A_", "a-", `a"; DROP TABLE x; --`, "ä_", "a\n"} {
		_, err := sqlstore.Migrations(sqlstore.SQLite, prefix)
		require.ErrorIs(t, err, sqlstore.ErrConfig, prefix)
		_, err = sqlstore.Open(t.Context(), connectSQLite(t), sqlstore.Config{TablePrefix: prefix})
		require.ErrorIs(t, err, sqlstore.ErrConfig, prefix)
	}
	_, err := sqlstore.Migrations(sqlstore.Detect, "")
	require.ErrorIs(t, err, sqlstore.ErrConfig)
}
