package sqlstore_test

import (
	"testing"

	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/dlqtest"
)

func TestDeadLetters(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		dlqtest.TestStore(t, func(t *testing.T) dlq.Store { return openSQLiteStore(t).DeadLetters() })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		dlqtest.TestStore(t, func(t *testing.T) dlq.Store { return openPostgresStore(t).DeadLetters() })
	})
}

func TestJobs(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		dlqtest.TestJobStore(t, func(t *testing.T) dlq.JobStore { return openSQLiteStore(t).DeadLetters() })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		dlqtest.TestJobStore(t, func(t *testing.T) dlq.JobStore { return openPostgresStore(t).DeadLetters() })
	})
}

func openSQLiteStore(tb testing.TB) *sqlstore.Store {
	tb.Helper()
	return open(tb, connectSQLite(tb), sqlstore.Config{})
}

func openPostgresStore(tb testing.TB) *sqlstore.Store {
	tb.Helper()
	return open(tb, connectPostgres(tb), sqlstore.Config{TablePrefix: unique(tb)})
}
