package sqlstore_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

type storeCalls map[string]func(ctx context.Context) error

// writes are calls of a store, its keys and its dead letters that write.
func writes(store *sqlstore.Store) storeCalls {
	keys, letters := store.Keys(), store.DeadLetters()
	due := delivery.Claim{Queue: "queue", Status: delivery.StatusPending, Token: "me", Now: time.Now(), Lease: time.Second, Limit: 1}
	return storeCalls{
		"save": func(ctx context.Context) error { return errors.Join(store.Save(ctx, pending("id"))...) },
		"update": func(ctx context.Context) error {
			_, errs := store.Update(ctx, delivered("id"))
			return errors.Join(errs...)
		},
		"claim":         func(ctx context.Context) error { _, err := store.Claim(ctx, due); return err },
		"renew":         func(ctx context.Context) error { return store.Renew(ctx, "queue", "me", time.Now()) },
		"purge":         func(ctx context.Context) error { _, err := store.Purge(ctx, "queue", time.Now(), 10); return err },
		"keys.claim":    func(ctx context.Context) error { _, err := keys.Claim(ctx, "key", "me", 0, time.Minute); return err },
		"keys.renew":    func(ctx context.Context) error { return keys.Renew(ctx, "key", "me", time.Minute) },
		"keys.complete": func(ctx context.Context) error { _, err := keys.Complete(ctx, "key", "me", time.Minute); return err },
		"keys.schedule": func(ctx context.Context) error { return keys.Schedule(ctx, "key", "me", 1, time.Minute) },
		"keys.release":  func(ctx context.Context) error { return keys.Release(ctx, "key", "me") },
		"letters.put":   func(ctx context.Context) error { return letters.Put(ctx, deadEntry("id", 0)) },
		"letters.claim": func(ctx context.Context) error {
			_, errs := letters.Claim(ctx, dlq.Claim{Token: "me", Now: time.Now(), Lease: time.Minute}, "id")
			return errors.Join(errs...)
		},
		"letters.delete": func(ctx context.Context) error { return errors.Join(letters.Delete(ctx, time.Now(), "id")...) },
		"jobs.save": func(ctx context.Context) error {
			return letters.SaveJob(ctx, dlq.Job{ID: "id", Status: dlq.JobRunning})
		},
		"jobs.delete": func(ctx context.Context) error { return letters.DeleteJobs(ctx, "id") },
	}
}

// reads are those that read.
func reads(store *sqlstore.Store) storeCalls {
	letters := store.DeadLetters()
	return storeCalls{
		"get":   func(ctx context.Context) error { _, errs := store.Get(ctx, "id"); return errors.Join(errs...) },
		"list":  func(ctx context.Context) error { _, err := store.List(ctx, delivery.RecordQuery{}); return err },
		"stats": func(ctx context.Context) error { _, err := store.Stats(ctx, ""); return err },
		"nextDue": func(ctx context.Context) error {
			_, err := store.NextDue(ctx, "queue", delivery.StatusPending)
			return err
		},
		"ping":      store.Ping,
		"keys.ping": store.Keys().Ping,

		"letters.get":   func(ctx context.Context) error { _, errs := letters.Get(ctx, "id"); return errors.Join(errs...) },
		"letters.list":  func(ctx context.Context) error { _, err := letters.List(ctx, dlq.Query{}); return err },
		"letters.count": func(ctx context.Context) error { _, err := letters.Count(ctx, dlq.Filter{}); return err },
		"letters.stats": func(ctx context.Context) error { _, err := letters.Stats(ctx, 3); return err },
		"letters.purge": func(ctx context.Context) error { _, err := letters.Purge(ctx, time.Now(), time.Now()); return err },
		"letters.ping":  letters.Ping,
		"job":           func(ctx context.Context) error { _, err := letters.Job(ctx, "id"); return err },
		"jobs":          func(ctx context.Context) error { _, err := letters.Jobs(ctx); return err },
	}
}

// endEarly makes the call with longer and longer timeouts, until it ends with an error
// that tells the cause, as it does once it has come as far as to know it.
func (c storeCalls) endEarly(t *testing.T, name, cause string) (err error) {
	t.Helper()
	tells := func() bool { return err != nil && strings.Contains(err.Error(), cause) }
	for timeout := 5 * time.Millisecond; timeout < 10*time.Second && !tells(); timeout *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		err = c[name](ctx)
		cancel()
	}
	require.ErrorContains(t, err, cause, name)
	require.ErrorIs(t, err, delivery.ErrStoreDown, name)
	return err
}

// A caller whose ctx ends learns what the database is known to suffer from.
func TestEndedCallsTellWhatIsWrong(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t, servers.PostgresConfig{NoSync: true})
	db := connect(t, "pgx", server.URL())
	open(t, db, sqlstore.Config{})
	store := open(t, db, sqlstore.Config{Timeout: 2 * time.Second})

	require.NoError(t, server.Pause())
	require.ErrorIs(t, store.Ping(t.Context()), delivery.ErrStoreDown)
	for _, calls := range []storeCalls{writes(store), reads(store)} {
		for name := range calls {
			require.ErrorIs(t, calls.endEarly(t, name, "no answer within 2s"), context.DeadlineExceeded, name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	err := store.Save(ctx, pending("id"))[0]
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, context.DeadlineExceeded, "the store's own")

	require.NoError(t, server.Kill())
	const refused = "connection refused"
	require.Eventually(t, func() bool {
		err := store.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), refused)
	}, eventuallyTimeout, time.Millisecond)
	for _, calls := range []storeCalls{writes(store), reads(store)} {
		for name := range calls { // some fail at once
			require.Error(t, calls.endEarly(t, name, refused), name)
		}
	}

	require.Eventually(t, func() bool { return server.Start(t.Context()) == nil }, eventuallyTimeout, 10*time.Millisecond)
	require.Eventually(t, func() bool { return goesOn(store) }, eventuallyTimeout, 10*time.Millisecond)
	require.NoError(t, server.Pause())
	defer func() { require.NoError(t, server.Resume()) }()
	late, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Equal(t, context.DeadlineExceeded, store.Ping(late), "nothing is known any more")
}

// requireLocked has a call end while it waits for a lock.
func (c storeCalls) requireLocked(t *testing.T, name string) {
	t.Helper()
	err := c.endEarly(t, name, "lock")
	require.ErrorIs(t, err, sqlstore.ErrLocked, name)
	require.ErrorIs(t, err, context.DeadlineExceeded, name)
}

func TestEndedCallsTellOfLockedRows(t *testing.T) {
	t.Parallel()
	prefix := unique(t)
	store := open(t, connectPostgres(t), sqlstore.Config{TablePrefix: prefix, Timeout: longer})
	require.Empty(t, store.Save(t.Context(), pending("id")))
	_, err := store.Keys().Claim(t.Context(), "key", "me", 0, time.Minute)
	require.NoError(t, err)
	require.NoError(t, store.DeadLetters().Put(t.Context(), deadEntry("id", 0)))
	require.NoError(t, store.DeadLetters().SaveJob(t.Context(), dlq.Job{ID: "id", Status: dlq.JobRunning}))
	release := lock(t, "SELECT FROM "+prefix+"messages FOR UPDATE", "SELECT FROM "+prefix+"progress FOR UPDATE",
		"SELECT FROM "+prefix+"keys FOR UPDATE", "SELECT FROM "+prefix+"dead_letters FOR UPDATE", "SELECT FROM "+prefix+"jobs FOR UPDATE")
	calls := writes(store)
	for name := range calls {
		switch name {
		case "save", "claim", "renew", "purge": // they wait for no locked row that is there
			require.NotErrorIs(t, calls[name](t.Context()), sqlstore.ErrLocked, name)
		default:
			calls.requireLocked(t, name)
		}
	}
	release()
	lock(t, "DELETE FROM "+prefix+"messages")
	calls.requireLocked(t, "save")
}

// SQLite has one lock.
func TestEndedCallsTellOfALockedFile(t *testing.T) {
	dsn := sqlstore.SQLiteDSN(filepath.Join(t.TempDir(), "barid.db"))
	store := open(t, connect(t, "sqlite", strings.Replace(dsn, "10000", "20", 1)), sqlstore.Config{})
	other, err := connect(t, "sqlite", dsn).BeginTx(t.Context(), nil)
	require.NoError(t, err)
	calls := writes(store)
	for name := range calls {
		calls.requireLocked(t, name)
	}
	require.NoError(t, other.Rollback())
	require.Empty(t, store.Save(t.Context(), pending("id")))
}

// A letter that may be put all the same is not said to have found no room.
func TestEndedPutIsNotFull(t *testing.T) {
	dsn := sqlstore.SQLiteDSN(filepath.Join(t.TempDir(), "barid.db"))
	store := open(t, connect(t, "sqlite", dsn+"&_pragma=max_page_count(100)"), sqlstore.Config{})
	letter := deadEntry("id", 0)
	letter.Envelope.Body = make([]byte, 1<<20)
	require.ErrorIs(t, store.DeadLetters().Put(t.Context(), letter), dlq.ErrFull)
	release := store.Hold()
	defer release()
	err := writes(store).endEarly(t, "letters.put", "full")
	require.ErrorIs(t, err, sqlstore.ErrDiskFull)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, dlq.ErrFull)
}
