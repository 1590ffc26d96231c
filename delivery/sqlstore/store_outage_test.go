package sqlstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
)

// killedVariable is an environment variable. It makes the test program save
// into the file that it names, and print what was acknowledged, until it is
// killed.
const killedVariable = "BARID_TEST_SQLSTORE_SAVE"

func saveUntilKilled(path string) {
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
	if err == nil {
		var store *sqlstore.Store
		if store, err = sqlstore.Open(context.Background(), db, sqlstore.Config{}); err == nil {
			saveAndPrint(store)
		}
	}
	fmt.Println("failed", err)
	os.Exit(1)
}

func saveAndPrint(store *sqlstore.Store) {
	var out sync.Mutex
	say := func(what, id string, errs []error) {
		if len(errs) == 0 {
			out.Lock()
			defer out.Unlock()
			fmt.Println(what, id)
		}
	}
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for {
				r := pending(delivery.NewID())
				say("saved", r.ID, store.Save(context.Background(), r))
				_, errs := store.Update(context.Background(), delivered(r.ID))
				say("delivered", r.ID, errs)
			}
		})
	}
	callers.Wait()
}

func pending(id string) delivery.Record {
	now := time.Now()
	return delivery.Record{
		Message:  delivery.Message{ID: id, Recipient: "r", Body: make([]byte, 256), CreatedAt: now},
		Progress: delivery.Progress{Queue: "queue", Status: delivery.StatusPending, DueAt: now.Add(time.Minute), UpdatedAt: now},
	}
}

func delivered(id string) delivery.Update {
	return delivery.Update{ID: id, Status: delivery.StatusDelivered, At: time.Now()}
}

// Acknowledged records are there after the process was killed while it saved.
func TestKilledProcessLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "barid.db")
	program, err := os.Executable()
	require.NoError(t, err)
	process := exec.Command(program)
	process.Env = append(os.Environ(), killedVariable+"="+path)
	out, err := process.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, process.Start())
	told := map[string]string{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		what, id, found := strings.Cut(lines.Text(), " ")
		require.True(t, found)
		require.NotEqual(t, "failed", what, id)
		told[id] = what
		if len(told) == 300 {
			require.NoError(t, process.Process.Kill())
		}
	}
	require.Error(t, process.Wait())
	require.GreaterOrEqual(t, len(told), 300)

	store := open(t, connect(t, "sqlite", sqlstore.SQLiteDSN(path)), sqlstore.Config{Migrate: sqlstore.MigrateCheck})
	for id, what := range told {
		records, errs := store.Get(t.Context(), id)
		require.Empty(t, errs)
		if what == "delivered" {
			assert.Equal(t, delivery.StatusDelivered, records[0].Status)
		}
	}
}

// Calls fail while the server is down. When it is back, the store goes on
// without help, with all that it has acknowledged.
func TestPostgresGoesAndComesBack(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t, servers.PostgresConfig{})
	store := open(t, connect(t, "pgx", server.URL()), sqlstore.Config{})
	var mu sync.Mutex
	var kept []string
	save := func() error {
		r := pending(delivery.NewID())
		errs := store.Save(t.Context(), r)
		if len(errs) > 0 {
			return errs[0]
		}
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, r.ID)
		return nil
	}
	for name, end := range map[string]func() error{"Stop": server.Stop, "Kill": server.Kill} {
		stop := make(chan struct{})
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := save(); err != nil {
						assert.ErrorIs(t, err, delivery.ErrStoreDown, name)
					}
				}
			})
		}
		require.NoError(t, save())
		require.NoError(t, end())
		require.ErrorIs(t, save(), delivery.ErrStoreDown, name)
		_, errs := store.Get(t.Context(), "x")
		require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
		_, errs = store.Update(t.Context(), delivered("x"))
		require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
		_, err := store.Stats(t.Context(), "")
		require.ErrorIs(t, err, delivery.ErrStoreDown)
		require.ErrorIs(t, store.Ping(t.Context()), delivery.ErrStoreDown)
		require.NoError(t, server.Start(t.Context()))
		require.Eventually(t, func() bool { return save() == nil }, eventuallyTimeout, 10*time.Millisecond, name)
		require.NoError(t, store.Ping(t.Context()))
		close(stop)
		callers.Wait()
	}
	_, errs := store.Get(t.Context(), kept...)
	require.Empty(t, errs, "what was acknowledged is there")
}

// goesOn returns whether the store saves a new record. A record that was saved
// without an answer would exist the next time.
func goesOn(store *sqlstore.Store) bool {
	return store.Save(context.Background(), pending(delivery.NewID())) == nil
}

// Calls to a server that does not answer fail after the timeout.
func TestPostgresThatDoesNotAnswer(t *testing.T) {
	server := servers.StartPostgres(t, servers.PostgresConfig{NoSync: true})
	// The short timeout is for the calls that can't be answered. A busy machine may
	// need longer for others.

	require.Empty(t, open(t, connect(t, "pgx", server.URL()), sqlstore.Config{}).Save(t.Context(), pending("before")))
	db := connect(t, "pgx", server.URL())
	var store *sqlstore.Store
	require.Eventually(t, func() bool {
		var err error
		store, err = sqlstore.Open(t.Context(), db, sqlstore.Config{Timeout: 300 * time.Millisecond})
		return err == nil
	}, eventuallyTimeout, time.Millisecond)
	t.Cleanup(func() { assert.NoError(t, store.Close()) })
	require.NoError(t, server.Pause())
	errs := store.Save(t.Context(), pending("while"))
	require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
	require.NotErrorIs(t, errs[0], context.DeadlineExceeded, "the caller's ctx has no end")
	_, errs = store.Get(t.Context(), "before")
	require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
	require.NotErrorIs(t, errs[0], context.DeadlineExceeded)
	for name, read := range map[string]func(context.Context) error{
		"Ping":  store.Ping,
		"List":  func(ctx context.Context) error { _, err := store.List(ctx, delivery.RecordQuery{}); return err },
		"Stats": func(ctx context.Context) error { _, err := store.Stats(ctx, ""); return err },
		"NextDue": func(ctx context.Context) error {
			_, err := store.NextDue(ctx, "queue", delivery.StatusPending)
			return err
		},
		"dead letters": func(ctx context.Context) error { _, err := store.DeadLetters().List(ctx, dlq.Query{}); return err },
		"jobs":         func(ctx context.Context) error { _, err := store.DeadLetters().Jobs(ctx); return err },
	} {
		err := read(t.Context())
		require.ErrorIs(t, err, delivery.ErrStoreDown, name)
		require.NotErrorIs(t, err, context.DeadlineExceeded, name)
	}
	_, err := sqlstore.Open(t.Context(), db, sqlstore.Config{Timeout: 300 * time.Millisecond})
	require.ErrorIs(t, err, delivery.ErrStoreDown)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.Contains(t, err.Error(), "no answer within 300ms")
	ended, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.ErrorIs(t, store.Ping(ended), context.DeadlineExceeded, "the caller's own end")
	require.NoError(t, server.Resume())
	require.Eventually(t, func() bool { return goesOn(store) }, eventuallyTimeout, 10*time.Millisecond)
}

func TestReadOnlyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "barid.db")
	db := connect(t, "sqlite", sqlstore.SQLiteDSN(path)+"&_pragma=query_only(ON)")
	_, err := sqlstore.Open(t.Context(), db, sqlstore.Config{})
	require.ErrorIs(t, err, sqlstore.ErrReadOnly, "the schema is missing and can't be made")
	require.Empty(t, open(t, connect(t, "sqlite", sqlstore.SQLiteDSN(path)), sqlstore.Config{}).Save(t.Context(), pending("kept")))
	store := open(t, db, sqlstore.Config{})
	errs := store.Save(t.Context(), pending("new"))
	require.ErrorIs(t, errs[0], sqlstore.ErrReadOnly)
	require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
	require.NotErrorIs(t, errs[0], sqlstore.ErrDiskFull)
	var failed *sqlstore.DatabaseError
	require.ErrorAs(t, errs[0], &failed)
	var code interface{ Code() int }
	require.ErrorAs(t, errs[0], &code, "the driver's error is in the chain")
	_, err = store.Claim(t.Context(), delivery.Claim{Queue: "queue", Status: delivery.StatusPending, Token: "me", Now: time.Now(), Lease: time.Second, Limit: 1})
	require.ErrorIs(t, err, sqlstore.ErrReadOnly)
	_, errs = store.Get(t.Context(), "kept")
	require.Empty(t, errs, "reading goes on")
}

func TestFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "barid.db")
	store := open(t, connect(t, "sqlite", sqlstore.SQLiteDSN(path)+"&_pragma=max_page_count(100)"), sqlstore.Config{})
	require.Empty(t, store.Save(t.Context(), pending("small")))
	large := pending("large")
	large.Body = make([]byte, 1<<20)
	errs := store.Save(t.Context(), large)
	require.ErrorIs(t, errs[0], sqlstore.ErrDiskFull)
	require.ErrorIs(t, errs[0], delivery.ErrStoreDown)
	_, errs = store.Get(t.Context(), "small", "large")
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], delivery.ErrNotFound, "nothing of it is there")
	_, errs = store.Update(t.Context(), delivered("small"))
	require.Empty(t, errs, "what has room goes on")
}

// A record that the database refuses fails alone, and those of other callers
// are saved.
func TestRefusedRecordFailsAlone(t *testing.T) {
	for name, test := range map[string]struct {
		connect func(testing.TB) *sql.DB
		refuse  string
	}{
		"SQLite": {connectSQLite, `CREATE TRIGGER %smessages_refuse BEFORE INSERT ON %[1]smessages
			WHEN NEW.id = CAST('poison' AS BLOB) BEGIN SELECT RAISE(ABORT, 'poison'); END`},
		"PostgreSQL": {connectPostgres, `ALTER TABLE %smessages ADD CHECK (id <> 'poison')`},
	} {
		t.Run(name, func(t *testing.T) {
			db, prefix := test.connect(t), unique(t)
			store := open(t, db, sqlstore.Config{TablePrefix: prefix})
			_, err := db.ExecContext(t.Context(), fmt.Sprintf(test.refuse, prefix))
			require.NoError(t, err)
			var callers sync.WaitGroup
			for n := range 30 {
				callers.Go(func() { assert.Empty(t, store.Save(t.Context(), pending(fmt.Sprint(n)))) })
				if n%10 == 0 {
					callers.Go(func() {
						errs := store.Save(t.Context(), pending("poison"))
						if assert.Len(t, errs, 1) {
							assert.ErrorIs(t, errs[0], delivery.ErrStoreDown)
						}
					})
				}
			}
			callers.Wait()
		})
	}
}

// A caller whose context ends gets its error, and the store goes on.
func TestCancelledWhileWaiting(t *testing.T) {
	for name, test := range map[string]struct {
		connect func(testing.TB) *sql.DB
		lock    string
	}{
		"SQLite":     {connectSQLite, `DELETE FROM %smessages WHERE id = ''`},
		"PostgreSQL": {connectPostgres, `LOCK TABLE %smessages IN EXCLUSIVE MODE`},
	} {
		t.Run(name, func(t *testing.T) {
			db, prefix := test.connect(t), unique(t)
			store := open(t, db, sqlstore.Config{TablePrefix: prefix})
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(t.Context(), fmt.Sprintf(test.lock, prefix))
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			for n := range 10 {
				callers.Go(func() {
					errs := store.Save(ctx, pending(fmt.Sprint("given up ", n)))
					if assert.Len(t, errs, 1) {
						assert.ErrorIs(t, errs[0], context.Canceled)
					}
				})
			}
			require.Eventually(t, func() bool { return ctx.Err() == nil && db.Stats().InUse > 1 }, eventuallyTimeout, time.Millisecond)
			cancel()
			callers.Wait()
			require.NoError(t, tx.Rollback())
			require.Empty(t, store.Save(t.Context(), pending("goes on")))
			assert.Equal(t, context.Canceled, store.Save(ctx, pending("x"))[0])
			_, errs := store.Update(ctx, delivered("x"))
			assert.Equal(t, context.Canceled, errs[0])
			_, errs = store.Get(ctx, "x")
			assert.Equal(t, context.Canceled, errs[0])
			_, err = store.List(ctx, delivery.RecordQuery{})
			assert.ErrorIs(t, err, context.Canceled)
		})
	}
}

// A standby answers and takes no writes. Nothing keeps a connection to it, so
// that after a switchover the next one may lead to the server that does.
func TestStandby(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t, servers.PostgresConfig{NoSync: true})
	db := connect(t, "pgx", server.URL())
	store := open(t, db, sqlstore.Config{})
	require.Empty(t, store.Save(t.Context(), pending("before")))
	require.NoError(t, server.Stop())
	signal := filepath.Join(server.Dir(), "postgres", "standby.signal")
	require.NoError(t, os.WriteFile(signal, nil, 0o600))
	require.NoError(t, server.Start(t.Context()))

	claim := delivery.Claim{Queue: "queue", Status: delivery.StatusPending, Token: "me", Now: time.Now(), Lease: time.Second, Limit: 1}
	for name, call := range map[string]func() error{
		"open": func() error { _, err := sqlstore.Open(t.Context(), db, sqlstore.Config{}); return err },
		"ping": func() error { return store.Ping(t.Context()) },
		"save": func() error { return errors.Join(store.Save(t.Context(), pending("while"))...) },
		"claim": func() error {
			_, err := store.Claim(t.Context(), claim)
			return err
		},
	} {
		// Connections from before the restart may fail first.
		require.Eventually(t, func() bool { return errors.Is(call(), sqlstore.ErrReadOnly) }, eventuallyTimeout, time.Millisecond, name)
		err := call()
		require.ErrorIs(t, err, sqlstore.ErrReadOnly, name)
		require.ErrorIs(t, err, delivery.ErrStoreDown, name)
	}
	assert.Equal(t, 0, db.Stats().Idle, "of what was seen to be a standby, no connection is kept")
	_, errs := store.Get(t.Context(), "before")
	require.Empty(t, errs, "reading goes on")

	_, err := db.ExecContext(t.Context(), "SELECT pg_promote()")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return goesOn(store) && store.Ping(t.Context()) == nil }, eventuallyTimeout, 10*time.Millisecond)
	open(t, db, sqlstore.Config{})
}
