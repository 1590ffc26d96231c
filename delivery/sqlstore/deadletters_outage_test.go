package sqlstore_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/delivery/sqlstore"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
)

func TestDeadLettersWithoutPostgres(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t, servers.PostgresConfig{NoSync: true})
	db := connect(t, "pgx", server.URL())
	store := open(t, db, sqlstore.Config{})
	require.NoError(t, store.DeadLetters().Put(t.Context(), deadEntry("before", 0)))

	require.NoError(t, server.Kill())
	errs := everyMethod(t.Context(), store.DeadLetters())
	require.Len(t, errs, methods)
	for i, err := range errs {
		require.ErrorIs(t, err, delivery.ErrStoreDown, i)
		require.NotErrorIs(t, err, dlq.ErrFull, i)
		var failure *sqlstore.DatabaseError
		require.ErrorAs(t, err, &failure, i)
		require.NotEmpty(t, failure.Doing)
	}
	// Each of many IDs has the error.
	require.Len(t, store.DeadLetters().Delete(t.Context(), firstDeadAt, make([]string, 600)...), 600)
	_, err := store.Keys().Claim(t.Context(), "key", "token", 0, time.Minute)
	require.ErrorIs(t, err, idempotency.ErrUnavailable)
	require.ErrorIs(t, err, delivery.ErrStoreDown)

	require.Eventually(t, func() bool { return server.Start(t.Context()) == nil }, eventuallyTimeout, 10*time.Millisecond)
	require.Eventually(t, func() bool { return store.Ping(context.Background()) == nil }, eventuallyTimeout, 10*time.Millisecond)
	require.Equal(t, []string{"before"}, entryIDs(t, store.DeadLetters()))
}

// PostgreSQL is stopped or killed while several goroutines write. Whatever was
// acknowledged is there afterwards.
func TestDeadLettersWhilePostgresRestarts(t *testing.T) {
	t.Parallel()
	server := servers.StartPostgres(t, servers.PostgresConfig{NoSync: true})
	db := connect(t, "pgx", server.URL())
	store := open(t, db, sqlstore.Config{})
	var known acknowledged
	for round, end := range []func() error{server.Stop, server.Kill, server.Kill, server.Stop} {
		const workers = 8
		stop := make(chan struct{})
		var done atomic.Int32
		var group sync.WaitGroup
		for w := range workers {
			group.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					putAndComplete(store, fmt.Sprintf("%d-%d-%d", round, w, n), known.tell)
					done.Add(1)
				}
			})
		}
		require.Eventually(t, func() bool { return done.Load() > 50 }, eventuallyTimeout, time.Millisecond)
		require.NoError(t, end())
		// Some processes of a server that was killed may live for a moment.
		require.Eventually(t, func() bool { return server.Start(t.Context()) == nil }, eventuallyTimeout, 10*time.Millisecond)
		// The workers go on without any help.
		seen := done.Load()
		require.Eventually(t, func() bool { return done.Load() > seen+50 }, eventuallyTimeout, time.Millisecond)
		close(stop)
		group.Wait()
		require.Eventually(t, func() bool { return store.Ping(context.Background()) == nil }, eventuallyTimeout, 10*time.Millisecond)
		known.check(t, store)
	}
}

const putUntilKilledVariable = "BARID_TEST_SQLSTORE_PUT"

// TestPutUntilKilled is the other process of TestDeadLettersOfAKilledProcess:
// it writes until it is killed.
func TestPutUntilKilled(t *testing.T) {
	path := os.Getenv(putUntilKilledVariable)
	if path == "" {
		return
	}
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
	require.NoError(t, err)
	store := open(t, db, sqlstore.Config{})
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for n := 0; ; n++ {
				putAndComplete(store, fmt.Sprintf("%d-%d-%d", os.Getpid(), w, n), func(what, id string) {
					fmt.Printf("%s: %s\n", what, id)
				})
			}
		})
	}
	group.Wait()
}

// A process that is killed between any two steps has lost nothing that was
// acknowledged.
func TestDeadLettersOfAKilledProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "barid.db")
	var known acknowledged
	for round := range 3 {
		process := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPutUntilKilled$") //nolint:gosec // this program
		process.Env = append(os.Environ(), putUntilKilledVariable+"="+path)
		output, err := process.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, process.Start())
		lines := bufio.NewScanner(output)
		for n := 0; lines.Scan(); n++ {
			if what, id, found := strings.Cut(lines.Text(), ": "); found {
				known.tell(what, id)
			}
			if n == 300+round*37 {
				require.NoError(t, process.Process.Kill())
			}
		}
		require.Error(t, process.Wait())

		db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(path))
		require.NoError(t, err)
		store, err := sqlstore.Open(t.Context(), db, sqlstore.Config{})
		require.NoError(t, err)
		known.check(t, store)
		require.NoError(t, store.Close())
		require.NoError(t, db.Close())
	}
}
