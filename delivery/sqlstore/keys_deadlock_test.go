package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/idempotency"
)

// separateDatabase is a new database of the shared server, for numbers that the
// server keeps by database.
type separateDatabase struct{ name, url string }

func newSeparateDatabase(t *testing.T) separateDatabase {
	t.Helper()
	d := separateDatabase{name: unique(t) + "deadlocks"}
	admin := connectPostgres(t)
	_, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+d.name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.ExecContext(context.Background(), "DROP DATABASE "+d.name+" WITH (FORCE)")
		assert.NoError(t, err)
	})
	location, err := url.Parse(shared.PostgresURL(t))
	require.NoError(t, err)
	location.Path = "/" + d.name
	d.url = location.String()
	return d
}

// deadlocks is how many deadlocks there were, once all connections are closed:
// the server counts those of a connection when it ends, at the latest.
func (d separateDatabase) deadlocks(t *testing.T) (n int) {
	t.Helper()
	db := connectPostgres(t)
	require.Eventually(t, func() bool {
		var left int
		err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = $1", d.name).Scan(&left)
		return assert.NoError(t, err) && left == 0
	}, eventuallyTimeout, 10*time.Millisecond)
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT deadlocks FROM pg_stat_database WHERE datname = $1", d.name).Scan(&n))
	return n
}

// Many goroutines claim and complete keys that are absent or have expired, each
// in an order of its own, and many in one transaction: there is no deadlock.
func TestKeysAreClaimedCrosswise(t *testing.T) {
	const keys, rounds = 60, 5
	database := newSeparateDatabase(t)
	var databases [4]*sql.DB
	var stores [4]*sqlstore.Store
	for i := range stores {
		databases[i] = connect(t, "pgx", database.url)
		stores[i] = open(t, databases[i], sqlstore.Config{})
		stores[i].DeleteExpiredAlways()
	}
	// concurrently has each store use each key, all at once.
	concurrently := func(do func(keys *sqlstore.Keys, key int, token string)) {
		var group sync.WaitGroup
		start := make(chan struct{})
		for s, store := range stores {
			for i := range keys {
				key := (i*[]int{1, 7, 11, 59}[s] + s*17) % keys
				group.Go(func() {
					<-start
					do(store.Keys(), key, fmt.Sprint(s, "-", i))
				})
			}
		}
		close(start)
		group.Wait()
	}
	for round := range rounds {
		var won [keys]atomic.Int32
		concurrently(func(all *sqlstore.Keys, key int, token string) {
			answer, err := all.Claim(context.Background(), fmt.Sprint(round, "-", key), token, 0, time.Hour)
			if assert.NoError(t, err) && answer.State == idempotency.Claimed {
				won[key].Add(1)
			}
		})
		for key := range won {
			require.EqualValues(t, 1, won[key].Load(), "round %d, key %d", round, key)
		}
		// Keys that expire at once are deleted while others claim them again, or
		// complete or release those that are not there any more.
		concurrently(func(all *sqlstore.Keys, key int, token string) {
			name := fmt.Sprint("brief ", key)
			if _, err := all.Claim(context.Background(), name, token, 0, time.Microsecond); err != nil {
				t.Errorf("claim: %v", err)
			}
			if _, err := all.Complete(context.Background(), name, token, time.Millisecond); err != nil {
				assert.ErrorIs(t, err, idempotency.ErrLost)
			}
			if err := all.Release(context.Background(), name, token); err != nil {
				assert.ErrorIs(t, err, idempotency.ErrLost)
			}
		})
	}
	for i := range stores {
		require.NoError(t, stores[i].Close())
		require.NoError(t, databases[i].Close())
	}
	require.Zero(t, database.deadlocks(t))
}
