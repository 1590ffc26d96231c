package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/sqlstore"
)

// Two stores on one database that claim at once get different records.
func TestTwoStoresClaimApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "barid.db")
	for name, another := range map[string]func(testing.TB) *sql.DB{
		"SQLite":     func(tb testing.TB) *sql.DB { return connect(tb, "sqlite", sqlstore.SQLiteDSN(path)) },
		"PostgreSQL": connectPostgres,
	} {
		t.Run(name, func(t *testing.T) {
			config := sqlstore.Config{TablePrefix: unique(t)}
			stores := []*sqlstore.Store{open(t, another(t), config), open(t, another(t), config)}
			const stored = 1000
			now := time.Now()
			records := make([]delivery.Record, stored)
			for n := range records {
				records[n] = pending(fmt.Sprint(n))
				records[n].DueAt = now
			}
			require.Empty(t, stores[0].Save(t.Context(), records...))
			var mu sync.Mutex
			taken := map[string]string{}
			var claimers sync.WaitGroup
			for n := range 6 {
				token := fmt.Sprint("claimer ", n)
				claimers.Go(func() {
					for {
						got, err := stores[n%2].Claim(t.Context(), delivery.Claim{
							Queue: "queue", Status: delivery.StatusPending, Token: token, Now: now.Add(time.Second), Lease: time.Minute, Limit: 7,
						})
						if err != nil || len(got) == 0 {
							assert.NoError(t, err)
							return
						}
						mu.Lock()
						for _, r := range got {
							assert.Equal(t, token, r.ClaimedBy)
							assert.Empty(t, taken[r.ID], "taken twice")
							taken[r.ID] = token
						}
						mu.Unlock()
					}
				})
			}
			claimers.Wait()
			// Records that others had locked were left out, and are left to the next claim.
			rest, err := stores[0].Claim(t.Context(), delivery.Claim{
				Queue: "queue", Status: delivery.StatusPending, Token: "rest", Now: now.Add(time.Second), Lease: time.Minute, Limit: stored,
			})
			require.NoError(t, err)
			require.Len(t, taken, stored-len(rest))
		})
	}
}

func TestCloseCarriesOutWhatWasAsked(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db *sql.DB, _ sqlstore.Dialect) {
		ctx := t.Context()
		prefix := unique(t)
		store := open(t, db, sqlstore.Config{TablePrefix: prefix})
		var callers sync.WaitGroup
		saved := make([]error, 50)
		for n := range saved {
			callers.Go(func() {
				if errs := store.Save(ctx, pending(fmt.Sprint(n))); len(errs) > 0 {
					saved[n] = errs[0]
				}
			})
		}
		require.NoError(t, store.Close())
		callers.Wait()
		require.NoError(t, store.Close(), "closed twice")
		require.ErrorIs(t, store.Save(ctx, pending("x"))[0], delivery.ErrClosed)
		_, errs := store.Get(ctx, "x")
		require.ErrorIs(t, errs[0], delivery.ErrClosed)
		require.ErrorIs(t, store.Ping(ctx), delivery.ErrClosed)
		require.ErrorIs(t, store.Ping(ctx), delivery.ErrStoreDown)
		again := open(t, db, sqlstore.Config{TablePrefix: prefix})
		for n, err := range saved {
			_, errs := again.Get(ctx, fmt.Sprint(n))
			if err == nil {
				require.Empty(t, errs)
			} else {
				require.ErrorIs(t, err, delivery.ErrClosed)
				require.ErrorIs(t, errs[0], delivery.ErrNotFound)
			}
		}
	})
}

// A Store that is none of Open's says so.
func TestNoStore(t *testing.T) {
	for _, store := range []*sqlstore.Store{nil, {}} {
		for _, calls := range []storeCalls{writes(store), reads(store)} {
			for name, call := range calls {
				require.ErrorIs(t, call(t.Context()), sqlstore.ErrConfig, name)
			}
		}
		require.ErrorIs(t, store.In(new(sql.Tx)).Save(t.Context(), pending("id"))[0], sqlstore.ErrConfig)
		store.In(nil).Committed()
		store.Watch(func(time.Time) {})()
		require.NoError(t, store.Close())
	}
}

func TestFieldsThatAreTooLong(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		long := strings.Repeat("\xff", 1024)
		require.Empty(t, store.Save(t.Context(), pending("short")))
		for name, field := range map[string]func(*delivery.Record) *string{
			"ID":             func(r *delivery.Record) *string { return &r.ID },
			"Recipient":      func(r *delivery.Record) *string { return &r.Recipient },
			"IdempotencyKey": func(r *delivery.Record) *string { return &r.IdempotencyKey },
			"Type":           func(r *delivery.Record) *string { return &r.Type },
			"ClaimedBy":      func(r *delivery.Record) *string { return &r.ClaimedBy },
			"Queue":          func(r *delivery.Record) *string { return &r.Queue },
		} {
			fits, tooLong, longest := pending("fits "+name), pending("too long "+name), pending("longest "+name)
			*field(&fits), *field(&tooLong), *field(&longest) = long, long+"x", incompressible(1<<16)
			errs := store.Save(t.Context(), fits, tooLong, longest)
			require.Len(t, errs, 3, name)
			require.NoError(t, errs[0], name)
			for _, err := range errs[1:] {
				var tooLarge *delivery.TooLargeError
				require.ErrorAs(t, err, &tooLarge, name)
				require.Equal(t, name, tooLarge.Field)
				require.Equal(t, 1024, tooLarge.Limit, name)
				require.ErrorIs(t, err, delivery.ErrInvalid, name)
			}
		}
		update := delivered("short")
		update.ClaimedBy = long + "x"
		_, errs := store.Update(t.Context(), update, delivered("short"))
		require.ErrorIs(t, errs[0], delivery.ErrTooLarge)
		require.NoError(t, errs[1])
		_, err := store.Claim(t.Context(), delivery.Claim{
			Queue: "queue", Status: delivery.StatusPending, Token: long + "x", Now: time.Now(), Lease: time.Second, Limit: 1,
		})
		require.ErrorIs(t, err, delivery.ErrTooLarge)
	})
}

// incompressible is a text that PostgreSQL can't shorten for an index.
func incompressible(n int) string {
	random := rand.NewChaCha8([32]byte{})
	text := make([]byte, n)
	_, _ = random.Read(text)
	return string(text)
}

// A call may have more records than a transaction takes.
func TestLargeCalls(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db *sql.DB, _ sqlstore.Dialect) {
		ctx := t.Context()
		store := open(t, db, sqlstore.Config{TablePrefix: unique(t), MaxBatch: 7})
		var records []delivery.Record
		var updates []delivery.Update
		var ids []string
		for n := range 50 {
			records = append(records, pending(fmt.Sprint(n)))
			updates = append(updates, delivered(fmt.Sprint(n)))
			ids = append(ids, fmt.Sprint(n))
		}
		records[20].ID, updates[30].ID, ids[40] = "3", "nobody", "nobody"
		errs := store.Save(ctx, records...)
		require.Len(t, errs, 50)
		require.ErrorIs(t, errs[20], delivery.ErrExists)
		require.NoError(t, errs[49])
		progress, errs := store.Update(ctx, updates...)
		require.Len(t, errs, 50)
		require.ErrorIs(t, errs[20], delivery.ErrNotFound)
		require.ErrorIs(t, errs[30], delivery.ErrNotFound)
		require.Equal(t, delivery.StatusDelivered, progress[49].Status)
		got, errs := store.Get(ctx, ids...)
		require.Len(t, errs, 50)
		require.ErrorIs(t, errs[40], delivery.ErrNotFound)
		require.Equal(t, "49", got[49].ID)
		n, err := store.Purge(ctx, "queue", time.Now().Add(time.Hour), 2000)
		require.NoError(t, err)
		require.Equal(t, 48, n)
	})
}

func TestConfig(t *testing.T) {
	ctx := t.Context()
	db := connectSQLite(t)
	_, err := sqlstore.Open(ctx, nil, sqlstore.Config{})
	require.ErrorIs(t, err, sqlstore.ErrConfig)
	_, err = sqlstore.Open(ctx, db, sqlstore.Config{
		Dialect: 7, TablePrefix: "A", Migrate: 7, MaxBatch: 10_001, InFlight: 65, Timeout: time.Microsecond,
	})
	require.ErrorIs(t, err, sqlstore.ErrConfig)
	for _, field := range []string{"Dialect", "TablePrefix", "Migrate", "MaxBatch", "InFlight", "Timeout"} {
		assert.Contains(t, err.Error(), field)
	}
	assert.Equal(t, "Detect SQLite PostgreSQL Dialect(7)",
		fmt.Sprint(sqlstore.Detect, sqlstore.SQLite, sqlstore.PostgreSQL, sqlstore.Dialect(7)))

	_, err = sqlstore.Open(ctx, connect(t, "sqlite", ":memory:"), sqlstore.Config{})
	require.ErrorIs(t, err, sqlstore.ErrConfig)
	for _, want := range []string{"journal_mode", "busy_timeout", "SQLiteDSN"} {
		assert.Contains(t, err.Error(), want)
	}
	db.SetMaxOpenConns(1)
	_, err = sqlstore.Open(ctx, db, sqlstore.Config{})
	require.ErrorIs(t, err, sqlstore.ErrConfig)
	assert.Contains(t, err.Error(), "MaxOpenConns")

	nobody := connect(t, "pgx", "postgres://nobody@127.0.0.1:1/none?sslmode=disable")
	for _, dialect := range []sqlstore.Dialect{sqlstore.Detect, sqlstore.PostgreSQL} {
		_, err = sqlstore.Open(ctx, nobody, sqlstore.Config{Dialect: dialect})
		require.ErrorIs(t, err, delivery.ErrStoreDown)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = sqlstore.Open(ended, connectSQLite(t), sqlstore.Config{})
	require.ErrorIs(t, err, context.Canceled)
}
