package sqlstore

import (
	"net/url"
	"strings"
)

// SQLiteDSN is the data source name with which modernc.org/sqlite, or
// github.com/ncruces/go-sqlite3/driver, opens the file as a Store needs it. It has a
// write-ahead log, so that readers and the writer don't wait for each other. It
// syncs at every commit, so that acknowledged records survive a power cut. It waits
// up to 10 s for the transactions of other processes.
func SQLiteDSN(path string) string {
	pragmas := []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)"}
	switch {
	case strings.HasPrefix(path, "//"):
		path = "/" + strings.TrimLeft(path, "/") // otherwise the first part would be a host
	case path == ":memory:":
		path = "./" + path // otherwise it would not be a file
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?_txlock=immediate&_pragma=" + strings.Join(pragmas, "&_pragma=")
}
