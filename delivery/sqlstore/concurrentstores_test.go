package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
)

// onTwo runs a test on two stores that share a database, each with connections
// of its own, as in two processes.
func onTwo(t *testing.T, test func(t *testing.T, stores [2]*sqlstore.Store)) {
	t.Run("SQLite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "barid.db")
		var stores [2]*sqlstore.Store
		for i := range stores {
			db := connect(t, "sqlite", sqlstore.SQLiteDSN(path))
			stores[i] = open(t, db, sqlstore.Config{})
		}
		test(t, stores)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		config := sqlstore.Config{TablePrefix: unique(t)}
		test(t, [2]*sqlstore.Store{open(t, connectPostgres(t), config), open(t, connectPostgres(t), config)})
	})
}

// atOnce has several goroutines use each store at once.
func atOnce(stores [2]*sqlstore.Store, do func(worker int, store *sqlstore.Store)) {
	const each = 3
	var group sync.WaitGroup
	start := make(chan struct{})
	for worker := range each * len(stores) {
		group.Go(func() {
			<-start
			do(worker, stores[worker%len(stores)])
		})
	}
	close(start)
	group.Wait()
}

func TestAnAbsentKeyIsClaimedByOne(t *testing.T) {
	onTwo(t, func(t *testing.T, stores [2]*sqlstore.Store) {
		const keys = 40
		var won [keys]atomic.Int32
		atOnce(stores, func(worker int, store *sqlstore.Store) {
			token := fmt.Sprint("token ", worker)
			for i := range keys {
				answer, err := store.Keys().Claim(context.Background(), fmt.Sprint("key ", i), token, 0, time.Hour)
				switch {
				case err != nil:
					t.Errorf("claim of key %d: %v", i, err)
				case answer.State == idempotency.Claimed && answer.Holder == token:
					won[i].Add(1)
				case answer.State != idempotency.Busy || answer.Holder == token:
					t.Errorf("claim of key %d: %+v", i, answer)
				}
			}
		})
		for i := range won {
			require.EqualValues(t, 1, won[i].Load(), "key %d", i)
		}
	})
}

func TestALetterIsClaimedByOne(t *testing.T) {
	onTwo(t, func(t *testing.T, stores [2]*sqlstore.Store) {
		const count = 60
		ids := make([]string, count)
		entries := make([]dlq.Entry, count)
		for i := range ids {
			ids[i] = fmt.Sprintf("%02d", i)
			entries[i] = deadEntry(ids[i], i)
		}
		// Every worker puts every entry, each in another order: no entry is there twice.
		atOnce(stores, func(worker int, store *sqlstore.Store) {
			mine := slices.Concat(entries[worker*7:], entries[:worker*7])
			for part := range slices.Chunk(mine, 10) {
				if err := store.DeadLetters().Put(context.Background(), part...); err != nil {
					t.Errorf("put: %v", err)
				}
			}
		})
		require.Equal(t, ids, entryIDs(t, stores[0].DeadLetters()))

		var won, removed [count]atomic.Int32
		atOnce(stores, func(worker int, store *sqlstore.Store) {
			letters, token := store.DeadLetters(), fmt.Sprint("token ", worker)
			got, errs := letters.Claim(context.Background(), dlq.Claim{Token: token, Now: firstDeadAt, Lease: lease}, ids...)
			var mine []string
			for i := range ids {
				switch {
				case len(errs) == 0 || errs[i] == nil:
					won[i].Add(1)
					mine = append(mine, ids[i])
					if got[i].ID != ids[i] {
						t.Errorf("claim of %s returned %q", ids[i], got[i].ID)
					}
				case !errors.Is(errs[i], dlq.ErrClaimed) && !errors.Is(errs[i], dlq.ErrNotFound): // the winner may have removed it
					t.Errorf("claim of %s: %v", ids[i], errs[i])
				}
			}
			// A worker removes only what it has claimed.
			errs = letters.Remove(context.Background(), token, ids...)
			for i := range ids {
				if len(errs) == 0 || errs[i] == nil {
					removed[i].Add(1)
				} else if slices.Contains(mine, ids[i]) {
					t.Errorf("removal of %s: %v", ids[i], errs[i])
				}
			}
		})
		for i := range ids {
			require.EqualValues(t, 1, won[i].Load(), ids[i])
			require.EqualValues(t, 1, removed[i].Load(), ids[i])
		}
		require.Empty(t, entryIDs(t, stores[1].DeadLetters()))
	})
}

func TestAJobIsSavedByOne(t *testing.T) {
	onTwo(t, func(t *testing.T, stores [2]*sqlstore.Store) {
		const jobs = 20
		var created [jobs]atomic.Int32
		atOnce(stores, func(_ int, store *sqlstore.Store) {
			for i := range jobs {
				switch err := store.DeadLetters().SaveJob(context.Background(), dlq.Job{ID: fmt.Sprint(i), Status: dlq.JobRunning}); {
				case err == nil:
					created[i].Add(1)
				case !errors.Is(err, dlq.ErrJobChanged):
					t.Errorf("job %d: %v", i, err)
				}
			}
		})
		for i := range created {
			require.EqualValues(t, 1, created[i].Load(), "job %d", i)
		}
	})
}
