package sqlstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

var shared servers.Shared

func TestMain(m *testing.M) {
	if path := os.Getenv(killedVariable); path != "" {
		saveUntilKilled(path)
	}
	goleak.VerifyTestMain(shared.Main(m))
}

func connectSQLite(tb testing.TB) *sql.DB {
	tb.Helper()
	return connect(tb, "sqlite", sqlstore.SQLiteDSN(filepath.Join(tb.TempDir(), "barid.db")))
}

func connectPostgres(tb testing.TB) *sql.DB {
	tb.Helper()
	return connect(tb, "pgx", shared.PostgresURL(tb))
}

func connect(tb testing.TB, driver, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open(driver, dsn)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

// unique is a table prefix that no other test has.
func unique(tb testing.TB) string {
	name := servers.Unique(tb)
	return "t" + strings.ToLower(name[len(name)-12:]) + "_"
}

func open(tb testing.TB, db *sql.DB, config sqlstore.Config) *sqlstore.Store {
	tb.Helper()
	store, err := sqlstore.Open(tb.Context(), db, config)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, store.Close()) })
	return store
}

func openSQLite(tb testing.TB) delivery.Store {
	tb.Helper()
	return open(tb, connectSQLite(tb), sqlstore.Config{})
}

func openPostgres(tb testing.TB) delivery.Store {
	tb.Helper()
	if !strings.Contains(tb.Name(), "/LeavesNoGoroutines") {
		servers.Parallel(tb)
	}
	return open(tb, connectPostgres(tb), sqlstore.Config{TablePrefix: unique(tb)})
}

func TestSQLiteStore(t *testing.T)   { deliverytest.TestStore(t, openSQLite) }
func TestPostgresStore(t *testing.T) { deliverytest.TestStore(t, openPostgres) }

// onEachStore runs a test or a benchmark on a store of each kind.
func onEachStore[TB interface {
	testing.TB
	Run(name string, run func(TB)) bool
}](tb TB, test func(TB, *sqlstore.Store)) {
	tb.Run("SQLite", func(tb TB) { test(tb, open(tb, connectSQLite(tb), sqlstore.Config{})) })
	tb.Run("PostgreSQL", func(tb TB) { test(tb, open(tb, connectPostgres(tb), sqlstore.Config{TablePrefix: unique(tb)})) })
}
