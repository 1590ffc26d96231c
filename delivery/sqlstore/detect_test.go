package sqlstore_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/sqlstore"
)

// A file that can't be opened is told of once, though it is asked two questions.
func TestDetectionSaysAFailureOnce(t *testing.T) {
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(filepath.Join(t.TempDir(), "missing", "x.db")))
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	_, err = sqlstore.Open(t.Context(), db, sqlstore.Config{})
	require.Error(t, err)
	assert.Equal(t, 1, strings.Count(err.Error(), "unable to open"), "%v", err)
}
