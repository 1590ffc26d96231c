package sqlstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/sqlstore"
)

// Any path that the system takes is opened, and is that file and no other.
func TestSQLiteDSNOpensAnyPath(t *testing.T) {
	names := []string{
		"x.db", "a b.db", "100%.db", "%41.db", "a?b=c.db", "a#b.db", "a&_pragma=x.db", "a+b;c.db", "ä\xff\n.db", ":memory:", "file:x.db", "a:b.db",
	}
	for prefix, dir := range map[string]string{"": t.TempDir(), "./": t.TempDir(), "/": t.TempDir(), "//": t.TempDir(), "///": t.TempDir()} {
		for _, name := range names {
			path := prefix + name
			if strings.HasPrefix(prefix, "/") {
				path = prefix[1:] + filepath.Join(dir, name) // so many slashes ahead
			} else {
				t.Chdir(dir)
			}
			open(t, connect(t, "sqlite", sqlstore.SQLiteDSN(path)), sqlstore.Config{})
			_, err := os.Stat(filepath.Join(dir, name))
			require.NoError(t, err, path)
		}
	}
}
