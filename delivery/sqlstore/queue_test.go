package sqlstore_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// Records from before there were queues belong to the one that Config.Queue
// names. Nobody guesses.
func TestRecordsWithoutAQueue(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db *sql.DB, dialect sqlstore.Dialect) {
		const old = 2500
		config := sqlstore.Config{TablePrefix: unique(t)}
		fillOldSchema(t, db, dialect, config.TablePrefix, old)
		for range 2 {
			_, err := sqlstore.Open(t.Context(), db, config)
			require.ErrorIs(t, err, sqlstore.ErrConfig)
			require.ErrorContains(t, err, "Queue is empty")
			require.ErrorContains(t, err, config.TablePrefix+"progress")
		}

		config.Queue = "sms"
		store := open(t, db, config)
		claim := delivery.Claim{Queue: "mail", Status: delivery.StatusPending, Token: "me", Now: time.Now(), Lease: time.Minute, Limit: old}
		claimed, err := store.Claim(t.Context(), claim)
		require.NoError(t, err)
		require.Empty(t, claimed)
		stats, err := store.Stats(t.Context(), "sms")
		require.NoError(t, err)
		require.Equal(t, old, stats.Total)
		claim.Queue = "sms"
		claimed, err = store.Claim(t.Context(), claim)
		require.NoError(t, err)
		require.Len(t, claimed, old)
		require.Equal(t, "sms", claimed[0].Queue)

		// Once is enough, and what belongs to a queue stays there.
		config.Queue = "mail"
		stats, err = open(t, db, config).Stats(t.Context(), "mail")
		require.NoError(t, err)
		require.Zero(t, stats.Total)
		config.Queue = ""
		open(t, db, config)
	})
}

// fillOldSchema makes the schema as it was before records had a queue, with so
// many records that are due.
func fillOldSchema(t *testing.T, db *sql.DB, dialect sqlstore.Dialect, prefix string, records int) {
	t.Helper()
	migrations, err := sqlstore.Migrations(dialect, prefix)
	require.NoError(t, err)
	for _, migration := range migrations {
		if migration.Name == "queues" {
			break
		}
		_, err := db.ExecContext(t.Context(), migration.SQL)
		require.NoError(t, err, migration.Name)
	}
	numbers := fmt.Sprintf("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) ", records)
	id := "CAST('m' || i AS BLOB)"
	if dialect == sqlstore.PostgreSQL {
		id = "convert_to('m' || i, 'UTF8')"
	}
	for _, text := range []string{
		// MigrateAuto begins with a version 0.
		"INSERT INTO " + prefix + "migrations (version_id, is_applied) VALUES (0, TRUE)",
		"INSERT INTO " + prefix + "messages (id, created_at) " + numbers + "SELECT " + id + ", i FROM n",
		"INSERT INTO " + prefix + "progress (id, status, created_at, updated_at, due_at) " + numbers + "SELECT " + id + ", 'pending', i, i, i FROM n",
	} {
		_, err := db.ExecContext(t.Context(), text)
		require.NoError(t, err)
	}
}

// Open looks for records without a queue each time, and reads none of the others.
func TestLookingForNoQueueUsesTheIndex(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		fillEnded(t, store, 20_000)
		for range 2 {
			plan, err := store.ExplainAdoption(t.Context())
			require.NoError(t, err)
			require.Contains(t, plan, store.Prefix()+"progress_queueless")
			require.NoError(t, store.Analyze(t.Context())) // before, and after that
		}
	})
}
