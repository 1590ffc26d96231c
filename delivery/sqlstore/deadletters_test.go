package sqlstore_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/dlqtest"
)

func TestDeadLetters(t *testing.T) {
	servers.Parallel(t)
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		dlqtest.TestStore(t, func(t *testing.T) dlq.Store { return openSQLiteStore(t).DeadLetters() })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		dlqtest.TestStore(t, func(t *testing.T) dlq.Store {
			servers.Parallel(t)
			return openPostgresStore(t).DeadLetters()
		})
	})
}

func TestJobs(t *testing.T) {
	servers.Parallel(t)
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		dlqtest.TestJobStore(t, func(t *testing.T) dlq.JobStore { return openSQLiteStore(t).DeadLetters() })
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		dlqtest.TestJobStore(t, func(t *testing.T) dlq.JobStore {
			servers.Parallel(t)
			return openPostgresStore(t).DeadLetters()
		})
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

// firstDeadAt is the DeadAt of the first entry.
var firstDeadAt = time.Date(2026, time.March, 4, 5, 6, 7, 123456000, time.UTC)

const lease = time.Minute

// deadEntry is an entry whose DeadAt is so many seconds after the first.
func deadEntry(id string, second int) dlq.Entry {
	at := firstDeadAt.Add(time.Duration(second) * time.Second)
	text := "connection refused"
	return dlq.Entry{
		ID: id,
		Envelope: delivery.Envelope{
			Message: delivery.Message{ID: "of " + id, Recipient: "someone", Type: "sms", Body: []byte("body of " + id), CreatedAt: at},
			Attempt: 3,
			History: []delivery.Failure{{At: at, Attempt: 2, Error: text}},
		},
		Reason: delivery.ReasonExhausted, Error: text, Fingerprint: dlq.Fingerprint(text), Source: "sms-consumer",
		FirstFailedAt: at, DeadAt: at,
	}
}

// entryIDs are the IDs of all entries, oldest first.
func entryIDs(t require.TestingT, store dlq.Store) []string {
	var ids []string
	query := dlq.Query{Order: dlq.OldestFirst, Limit: dlq.MaxLimit}
	for {
		page, err := store.List(context.Background(), query)
		require.NoError(t, err)
		for i := range page.Entries {
			ids = append(ids, page.Entries[i].ID)
		}
		if page.Next == "" {
			return ids
		}
		query.Cursor = page.Next
	}
}

// Fields that are too long for an index are found, listed in pages, and counted
// by their whole texts.
func TestLongFields(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		letters := store.DeadLetters()
		long := func(end string) string { return strings.Repeat("long ", 1000) + end }
		var ids []string
		for _, end := range []string{"a", "b", "c"} {
			e := deadEntry(long(end), 0)
			e.Envelope.Recipient, e.Envelope.Type, e.Source, e.Fingerprint = long("r"+end), long("t"+end), long("s"+end), long("f"+end)
			e.Reason = delivery.Reason(long("reason"))
			require.NoError(t, letters.Put(t.Context(), e))
			for _, filter := range []dlq.Filter{
				{Recipient: e.Envelope.Recipient}, {Type: e.Envelope.Type}, {Source: e.Source}, {Fingerprint: e.Fingerprint},
				{Reason: e.Reason, Type: e.Envelope.Type},
			} {
				page, err := letters.List(t.Context(), dlq.Query{Filter: filter})
				require.NoError(t, err)
				require.Equal(t, []dlq.Entry{e}, page.Entries)
			}
			ids = append(ids, e.ID)
		}
		query := dlq.Query{Limit: 1}
		var walked []string
		for range ids {
			page, err := letters.List(t.Context(), query)
			require.NoError(t, err)
			walked = append(walked, page.Entries[0].ID)
			query.Cursor = page.Next
		}
		require.Empty(t, query.Cursor)
		slices.Sort(walked)
		require.Equal(t, ids, walked)

		stats, err := letters.Stats(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, map[delivery.Reason]int{delivery.Reason(long("reason")): 3}, stats.ByReason)
		require.Equal(t, map[string]int{long("ta"): 1, long("tb"): 1, long("tc"): 1}, stats.ByType)
		require.Equal(t, []dlq.FingerprintCount{
			{Fingerprint: long("fa"), Count: 1, Example: "connection refused"},
			{Fingerprint: long("fb"), Count: 1, Example: "connection refused"},
			{Fingerprint: long("fc"), Count: 1, Example: "connection refused"},
		}, stats.Fingerprints)

		_, errs := letters.Claim(t.Context(), dlq.Claim{Token: long("token"), Now: firstDeadAt, Lease: lease}, ids...)
		require.NoError(t, errors.Join(errs...))
		require.NoError(t, errors.Join(letters.Remove(t.Context(), long("token"), ids...)...))
		require.Empty(t, entryIDs(t, letters))
	})
}

// Entries have more bytes together than a transaction takes, and are more than
// Purge deletes at a time.
func TestManyLetters(t *testing.T) {
	onEachStore(t, func(t *testing.T, store *sqlstore.Store) {
		t.Parallel()
		letters := store.DeadLetters()
		large := make([]dlq.Entry, 5)
		for i := range large {
			large[i] = deadEntry(fmt.Sprint("large ", i), i)
			large[i].Envelope.Body = make([]byte, 5<<20)
		}
		require.NoError(t, letters.Put(t.Context(), large...))
		require.Len(t, entryIDs(t, letters), len(large))
		const many = 2500
		small := make([]dlq.Entry, many)
		for i := range small {
			small[i] = deadEntry(fmt.Sprintf("small %04d", i), 10+i/3)
		}
		require.NoError(t, letters.Put(t.Context(), small...))
		_, errs := letters.Claim(t.Context(), dlq.Claim{Token: "token", Now: firstDeadAt, Lease: lease}, "small 0001", "small 2001")
		require.NoError(t, errors.Join(errs...))
		n, err := letters.Purge(t.Context(), firstDeadAt.Add(time.Hour), firstDeadAt)
		require.NoError(t, err)
		require.Equal(t, len(large)+many-2, n)
		require.Equal(t, []string{"small 0001", "small 2001"}, entryIDs(t, letters))
	})
}

// An error for a row that can't be read names the entry, does not repeat its
// content, and the entry can be deleted.
func TestDamagedLetters(t *testing.T) {
	db := connectSQLite(t)
	store := open(t, db, sqlstore.Config{})
	letters := store.DeadLetters()
	require.NoError(t, letters.Put(t.Context(), deadEntry("good", 0), deadEntry("bad", 1), deadEntry("half", 2)))
	damage := func(statement string, args ...any) {
		_, err := db.ExecContext(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	damage("UPDATE barid_dead_letter_contents SET entry = ? WHERE id = ?", []byte("s3cret"), []byte("bad"))
	damage("DELETE FROM barid_dead_letter_contents WHERE id = ?", []byte("half"))

	got, errs := letters.Get(t.Context(), "good", "bad", "half")
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], sqlstore.ErrDamaged)
	require.ErrorContains(t, errs[1], "bad")
	require.NotContains(t, errs[1].Error(), "s3cret")
	require.ErrorIs(t, errs[2], dlq.ErrNotFound)
	require.Zero(t, got[1])
	_, errs = letters.Claim(t.Context(), dlq.Claim{Token: "token", Now: firstDeadAt, Lease: lease}, "good", "bad", "half")
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], sqlstore.ErrDamaged)
	require.ErrorIs(t, errs[2], sqlstore.ErrDamaged)
	_, err := letters.List(t.Context(), dlq.Query{})
	require.ErrorIs(t, err, sqlstore.ErrDamaged)
	require.NoError(t, errors.Join(letters.Delete(t.Context(), firstDeadAt.Add(lease), "bad")...))
	_, err = letters.List(t.Context(), dlq.Query{})
	require.ErrorIs(t, err, sqlstore.ErrDamaged)
	require.NoError(t, errors.Join(letters.Delete(t.Context(), firstDeadAt.Add(lease), "half")...))
	require.Equal(t, []string{"good"}, entryIDs(t, letters))

	for _, id := range []string{"good", "bad"} {
		require.NoError(t, letters.SaveJob(t.Context(), dlq.Job{ID: id, Status: dlq.JobRunning}))
	}
	damage("UPDATE barid_jobs SET job = ? WHERE id = ?", []byte(`{"id":"good","status":"running"}`), []byte("bad"))
	_, err = letters.Job(t.Context(), "good")
	require.NoError(t, err)
	_, err = letters.Job(t.Context(), "bad")
	require.ErrorIs(t, err, sqlstore.ErrDamaged)
	_, err = letters.Jobs(t.Context())
	require.ErrorIs(t, err, sqlstore.ErrDamaged)
	require.ErrorContains(t, err, "bad")
	require.NoError(t, letters.DeleteJobs(t.Context(), "bad"))
	jobs, err := letters.Jobs(t.Context())
	require.NoError(t, err)
	require.Len(t, jobs, 1)
}

// everyMethod calls each method, and returns their errors.
func everyMethod(ctx context.Context, letters *sqlstore.DeadLetters) []error {
	var all []error
	one := func(errs []error) {
		all = append(all, errs...)
	}
	all = append(all, letters.Put(ctx, deadEntry("id", 0)), letters.Ping(ctx))
	_, errs := letters.Get(ctx, "id")
	one(errs)
	_, errs = letters.Claim(ctx, dlq.Claim{Token: "token", Now: firstDeadAt, Lease: lease}, "id")
	one(errs)
	one(letters.Release(ctx, "token", "id"))
	one(letters.Remove(ctx, "token", "id"))
	one(letters.Delete(ctx, firstDeadAt, "id"))
	_, err := letters.List(ctx, dlq.Query{})
	all = append(all, err)
	_, err = letters.Count(ctx, dlq.Filter{})
	all = append(all, err)
	_, err = letters.Stats(ctx, 3)
	all = append(all, err)
	_, err = letters.Purge(ctx, firstDeadAt, firstDeadAt)
	all = append(all, err, letters.SaveJob(ctx, dlq.Job{ID: "id", Status: dlq.JobRunning}), letters.DeleteJobs(ctx, "id"))
	_, err = letters.Job(ctx, "id")
	all = append(all, err)
	_, err = letters.Jobs(ctx)
	return append(all, err)
}

const methods = 15

func TestLettersOfNoStore(t *testing.T) {
	for _, letters := range []*sqlstore.DeadLetters{nil, {}, new(sqlstore.Store).DeadLetters()} {
		errs := everyMethod(t.Context(), letters)
		require.Len(t, errs, methods)
		for i, err := range errs {
			require.ErrorIs(t, err, sqlstore.ErrConfig, i)
		}
	}
}

func TestLettersOfAClosedStore(t *testing.T) {
	store := openSQLiteStore(t)
	letters := store.DeadLetters()
	require.NoError(t, store.Close())
	errs := everyMethod(t.Context(), letters)
	require.Len(t, errs, methods)
	for i, err := range errs {
		require.ErrorIs(t, err, delivery.ErrClosed, i)
		require.ErrorIs(t, err, delivery.ErrStoreDown, i)
	}
}

func TestInvalidLetters(t *testing.T) {
	letters := openSQLiteStore(t).DeadLetters()
	never := deadEntry("never", 0)
	never.Envelope.ExpiresAt = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) // more digits than JSON has
	require.ErrorIs(t, letters.Put(t.Context(), deadEntry("good", 0), never), dlq.ErrInvalid)
	require.Empty(t, entryIDs(t, letters))
	require.ErrorIs(t, letters.SaveJob(t.Context(), dlq.Job{ID: "id", Status: dlq.JobRunning, CreatedAt: never.Envelope.ExpiresAt}), dlq.ErrInvalid)
}

// When the disk is full, and nothing was put, the error is dlq.ErrFull.
func TestLettersOnAFullDisk(t *testing.T) {
	dsn := sqlstore.SQLiteDSN(filepath.Join(t.TempDir(), "barid.db"))
	db := connect(t, "sqlite", dsn+"&_pragma=max_page_count(200)")
	letters := open(t, db, sqlstore.Config{}).DeadLetters()
	require.NoError(t, letters.Put(t.Context(), deadEntry("small", 0)))
	large := deadEntry("large", 1)
	large.Envelope.Body = make([]byte, 1<<20)
	err := letters.Put(t.Context(), large)
	require.ErrorIs(t, err, dlq.ErrFull)
	require.ErrorIs(t, err, sqlstore.ErrDiskFull)
	require.ErrorIs(t, err, delivery.ErrStoreDown)

	// It is not dlq.ErrFull when some entries were put.
	first := deadEntry("first", 2)
	large.Envelope.Body = make([]byte, 17<<20)
	err = letters.Put(t.Context(), first, large)
	require.NotErrorIs(t, err, dlq.ErrFull)
	require.ErrorIs(t, err, sqlstore.ErrDiskFull)
	require.Equal(t, []string{"small", "first"}, entryIDs(t, letters))
}

func TestLettersReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "barid.db")
	writable := connect(t, "sqlite", sqlstore.SQLiteDSN(path))
	require.NoError(t, open(t, writable, sqlstore.Config{}).DeadLetters().Put(t.Context(), deadEntry("id", 0)))
	db := connect(t, "sqlite", sqlstore.SQLiteDSN(path)+"&_pragma=query_only(1)")
	letters := open(t, db, sqlstore.Config{Migrate: sqlstore.MigrateCheck}).DeadLetters()
	require.Equal(t, []string{"id"}, entryIDs(t, letters))
	for _, err := range []error{letters.Put(t.Context(), deadEntry("other", 0)), letters.Delete(t.Context(), firstDeadAt, "id")[0]} {
		require.ErrorIs(t, err, sqlstore.ErrReadOnly)
		require.ErrorIs(t, err, delivery.ErrStoreDown)
	}
}
