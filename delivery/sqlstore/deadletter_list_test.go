package sqlstore_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

// Every filter finds its entries by an index. SQLite uses the index that it is
// told to use, which has the entries in the order of the list.
func TestListsOfLettersUseIndexes(t *testing.T) {
	const count = 5000
	entries := make([]dlq.Entry, count)
	for i := range entries {
		entries[i] = deadEntry(fmt.Sprintf("%05d", i), i)
		e := &entries[i]
		e.Envelope.Recipient, e.Fingerprint, e.Source = fmt.Sprint("r", i%1000), fmt.Sprint("f", i%500), fmt.Sprint("s", i%500)
		e.Envelope.Type, e.Reason = fmt.Sprint("t", i%500), delivery.Reason(fmt.Sprint("r", i%500))
	}
	queries := []struct {
		index  string
		filter dlq.Filter
	}{
		{"dead", dlq.Filter{}},
		{"dead", dlq.Filter{Since: entries[100].DeadAt, Until: entries[200].DeadAt}},
		{"recipient", dlq.Filter{Recipient: "r7"}},
		{"fingerprint", dlq.Filter{Fingerprint: "f7"}},
		{"source", dlq.Filter{Source: "s7"}},
		{"type", dlq.Filter{Type: "t7"}},
		{"reason", dlq.Filter{Reason: "r7"}},
		{"recipient", dlq.Filter{Recipient: "r7", Type: "t7", Reason: "r7"}},
		{"type", dlq.Filter{Type: "t7", Reason: "r7", Until: entries[2000].DeadAt}},
	}
	check := func(t *testing.T, db *sql.DB, store *sqlstore.Store, explain, sorts string, index func(name string) string) {
		letters := store.DeadLetters()
		for _, q := range queries {
			for _, order := range []dlq.Order{dlq.NewestFirst, dlq.OldestFirst} {
				query := dlq.Query{Filter: q.filter, Order: order}
				page, err := letters.List(t.Context(), query)
				require.NoError(t, err)
				require.NotEmpty(t, page.Entries)
				for _, cursor := range []string{"", page.Next} {
					query.Cursor = cursor
					text, args, err := letters.ListStatement(query)
					require.NoError(t, err)
					plan := rowsOf(t, db, explain+text, args...)
					require.Contains(t, plan, index(q.index), text)
					require.NotContains(t, plan, sorts, text)
				}
			}
		}
	}
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		db := connectSQLite(t)
		store := open(t, db, sqlstore.Config{})
		require.NoError(t, store.DeadLetters().Put(t.Context(), entries...))
		check(t, db, store, "EXPLAIN QUERY PLAN ", "TEMP B-TREE", func(name string) string {
			return "INDEX " + store.Prefix() + "dead_letters_" + name
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		db := connectPostgres(t)
		store := open(t, db, sqlstore.Config{TablePrefix: unique(t)})
		require.NoError(t, store.DeadLetters().Put(t.Context(), entries...))
		_, err := db.ExecContext(t.Context(), "ANALYZE "+store.Prefix()+"dead_letters")
		require.NoError(t, err)
		check(t, db, store, "EXPLAIN ", "Seq Scan", func(string) string { return "Index" })
	})
}

// rowsOf is the last column of an answer, row by row.
func rowsOf(t *testing.T, db *sql.DB, text string, args ...any) string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), text, args...)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	columns, err := rows.Columns()
	require.NoError(t, err)
	var all strings.Builder
	for rows.Next() {
		values := make([]any, len(columns))
		var last string
		for i := range values {
			values[i] = new(any)
		}
		values[len(values)-1] = &last
		require.NoError(t, rows.Scan(values...))
		all.WriteString(last + "\n")
	}
	require.NoError(t, rows.Err())
	return all.String()
}
