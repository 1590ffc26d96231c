package sqlstore_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

func openSQLite(tb testing.TB) *sql.DB {
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(filepath.Join(tb.TempDir(), "barid.db")))
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

func openPostgres(tb testing.TB) *sql.DB {
	db, err := sql.Open("pgx", os.Getenv("BARID_TEST_POSTGRES_URL"))
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close()) })
	return db
}

func prefix(tb testing.TB) string { return "t" + servers.Unique(tb)[len(servers.Unique(tb))-12:] + "_" }

func open(tb testing.TB, db *sql.DB, config sqlstore.Config) *sqlstore.Store {
	store, err := sqlstore.Open(tb.Context(), db, config)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, store.Close()) })
	return store
}

func onBoth[TB interface {
	testing.TB
	Run(string, func(TB)) bool
}](tb TB, test func(TB, *sqlstore.Store)) {
	tb.Run("SQLite", func(tb TB) { test(tb, open(tb, openSQLite(tb), sqlstore.Config{})) })
	tb.Run("PostgreSQL", func(tb TB) { test(tb, open(tb, openPostgres(tb), sqlstore.Config{TablePrefix: prefix(tb)})) })
}
