package sqlstore_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
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

// Stores migrate at once through a pooler that gives each transaction another
// connection. Nothing stays locked.
func TestMigratingThroughPgBouncer(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t, servers.PostgresConfig{NoSync: true})
	pooler := servers.StartPgBouncer(t, servers.PgBouncerConfig{PostgresPort: server.Port(), Connections: 4})
	busy, quiet := context.WithCancel(t.Context())
	var others, stores sync.WaitGroup
	for range 6 { // others take the connections in between
		db := connect(t, "pgx", pooler.URL())
		others.Go(func() {
			for busy.Err() == nil {
				_, _ = db.ExecContext(busy, "SELECT pg_sleep(0.003)")
			}
		})
	}
	for range 6 {
		db := connect(t, "pgx", pooler.URL())
		stores.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), eventuallyTimeout)
			defer cancel()
			store, err := sqlstore.Open(ctx, db, sqlstore.Config{})
			if assert.NoError(t, err) {
				assert.Empty(t, store.Save(ctx, pending(delivery.NewID())))
				assert.NoError(t, store.Close())
			}
		})
	}
	stores.Wait()
	quiet()
	others.Wait()
	var locks int
	direct := connect(t, "pgx", server.URL())
	require.NoError(t, direct.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'").Scan(&locks))
	require.Zero(t, locks)
}

// A migration that somebody else keeps back fails, and says by what.
func TestMigrationThatIsLocked(t *testing.T) {
	t.Parallel()
	prefix := unique(t)
	db := connectPostgres(t)
	migrations, err := sqlstore.Migrations(sqlstore.PostgreSQL, prefix)
	require.NoError(t, err)
	for _, migration := range migrations[:1] {
		_, err := db.ExecContext(t.Context(), migration.SQL)
		require.NoError(t, err)
	}
	lock(t, "LOCK TABLE "+prefix+"migrations IN SHARE MODE")
	_, err = sqlstore.Open(t.Context(), db, sqlstore.Config{TablePrefix: prefix})
	require.ErrorIs(t, err, sqlstore.ErrLocked)
	var tables int
	err = db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_tables WHERE tablename = $1", prefix+"keys").Scan(&tables)
	require.NoError(t, err)
	require.Zero(t, tables, "nothing is half done")
}

// A schema that comes to stand ahead of that of the tables changes nothing, for
// stores that are open and for those that migrate.
func TestSchemaAheadInTheSearchPath(t *testing.T) {
	place := newSeparateDatabase(t)
	db := connect(t, "pgx", place.url)
	migrations, err := sqlstore.Migrations(sqlstore.PostgreSQL, "")
	require.NoError(t, err)
	for _, migration := range migrations[:2] { // as an older release has left it
		_, err := db.ExecContext(t.Context(), migration.SQL)
		require.NoError(t, err)
	}
	_, err = db.ExecContext(t.Context(), `INSERT INTO barid_messages (id, created_at) VALUES ('old', 1);
		INSERT INTO barid_progress (id, status, updated_at, created_at, due_at) VALUES ('old', 'pending', 1, 1, 1);
		CREATE SCHEMA postgres`) // of the user's name: the default is "$user", public
	require.NoError(t, err)
	store := open(t, connect(t, "pgx", place.url), sqlstore.Config{Queue: "queue"})
	_, errs := store.Get(t.Context(), "old")
	require.Empty(t, errs)
	var tables int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'postgres'").Scan(&tables))
	require.Zero(t, tables)

	_, err = db.ExecContext(t.Context(), `CREATE TABLE postgres.barid_progress (id bytea)`)
	require.NoError(t, err)
	require.Empty(t, store.Save(t.Context(), pending("new")))
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, store.In(tx).Save(t.Context(), pending("in")))
	require.NoError(t, tx.Commit())
	_, errs = open(t, db, sqlstore.Config{}).Get(t.Context(), "new", "in")
	require.Empty(t, errs)

	_, err = db.ExecContext(t.Context(), `CREATE TABLE postgres.barid_migrations (version_id bigint)`)
	require.NoError(t, err)
	_, err = sqlstore.Open(t.Context(), db, sqlstore.Config{})
	require.ErrorIs(t, err, sqlstore.ErrConfig, "which of the two is not known")
	require.ErrorContains(t, err, "postgres, public")
}

// What no later try can change is returned by the first.
func TestPermanentFailureToOpen(t *testing.T) {
	place := newSeparateDatabase(t)
	db := connect(t, "pgx", place.url)
	name := strings.TrimSuffix(unique(t), "_")
	_, err := db.ExecContext(t.Context(), "CREATE ROLE "+name+" LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := db.ExecContext(context.Background(), "DROP ROLE "+name)
		assert.NoError(t, err)
	})
	migrating := func(url string) (tried int, err error) {
		server := &scriptedDriver{dsn: url, answer: func(statement string) error {
			if strings.Contains(statement, "pg_advisory") {
				tried++
			}
			return nil
		}}
		db := sql.OpenDB(server)
		defer func() { require.NoError(t, db.Close()) }()
		_, err = sqlstore.Open(t.Context(), db, sqlstore.Config{})
		return tried, err
	}
	tried, err := migrating(strings.Replace(place.url, "postgres@", name+"@", 1))
	require.ErrorIs(t, err, sqlstore.ErrDenied)
	require.ErrorIs(t, err, delivery.ErrStoreDown)
	require.Equal(t, 1, tried)
	tried, err = migrating(place.url + "&search_path=nowhere")
	require.ErrorIs(t, err, sqlstore.ErrConfig)
	require.ErrorContains(t, err, "search_path")
	require.Zero(t, tried)
	_, err = migrating(strings.Replace(place.url, "/"+place.name, "/nowhere", 1))
	require.ErrorIs(t, err, sqlstore.ErrDenied)
	require.Equal(t, 1, strings.Count(err.Error(), "nowhere\" does not exist"), err.Error())
}
