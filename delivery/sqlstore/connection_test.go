package sqlstore

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"
)

// Statements are closed before their connection. They are not closed after it,
// because the driver would crash.
func TestConnectionEnds(t *testing.T) {
	for name, end := range map[string]func(*connection){
		"released":             (*connection).release,
		"discarded":            (*connection).discard,
		"closed and released":  func(c *connection) { _ = c.Close(); c.release() },
		"closed and discarded": func(c *connection) { _ = c.Close(); c.discard() },
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			db, err := sql.Open("sqlite", SQLiteDSN(t.TempDir()+"/messages.db"))
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			c, err := connect(ctx, db, true)
			require.NoError(t, err)
			_, err = c.ExecContext(ctx, "CREATE TABLE t (n INTEGER)")
			require.NoError(t, err)
			_, err = c.ExecContext(ctx, "BEGIN")
			require.NoError(t, err)
			end(c)
			require.Zero(t, db.Stats().InUse)
		})
	}
}
