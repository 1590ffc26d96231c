package servers_test

import (
	"context"
	"database/sql"
	"os"
	"strconv"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// ask runs one statement and returns what it answers, if anything.
func ask(url, statement string, wait time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	db, err := sql.Open("pgx", url)
	if err != nil {
		return "", err
	}
	defer db.Close() //nolint:errcheck // the answer is all that counts
	var answer string
	err = db.QueryRowContext(ctx, statement).Scan(&answer)
	return answer, err
}

func requireRow(t *testing.T, want, url, statement string) {
	t.Helper()
	got, err := ask(url, statement, patience)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestPostgresLife(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := servers.StartPostgres(t, servers.PostgresConfig{Args: []string{"-c", "max_connections=7"}})
	assert.Equal(t, "postgres://postgres@"+server.Addr()+"/postgres?sslmode=disable", server.URL())
	assert.Equal(t, "127.0.0.1:"+strconv.Itoa(server.Port()), server.Addr())
	requireRow(t, "7", server.URL(), "SHOW max_connections")
	requireRow(t, "on", server.URL(), "SHOW fsync")
	_, err := ask(server.URL(), "CREATE TABLE kept AS SELECT 'yes'::text AS answer", patience)
	require.ErrorIs(t, err, sql.ErrNoRows)
	first := server.PID()

	require.NoError(t, server.Start(ctx), "one that runs is left alone")
	assert.Equal(t, first, server.PID())

	client, err := sql.Open("pgx", server.URL())
	require.NoError(t, err)
	defer client.Close() //nolint:errcheck // its connection is broken anyway
	require.NoError(t, client.PingContext(ctx), "a client that stays")
	require.NoError(t, server.Kill())
	assert.False(t, server.Running())
	require.NoError(t, server.Kill(), "killed twice")
	_, err = ask(server.URL(), "SELECT '1'", patience)
	require.Error(t, err)
	require.ErrorIs(t, server.Pause(), servers.ErrNotRunning)

	require.NoError(t, server.Start(ctx))
	assert.NotEqual(t, first, server.PID())
	requireRow(t, "yes", server.URL(), "SELECT answer FROM kept")

	require.NoError(t, server.Pause())
	_, err = ask(server.URL(), "SELECT '1'", silence)
	require.ErrorIs(t, err, context.DeadlineExceeded, "a paused server takes the connection and says nothing")
	require.NoError(t, server.Resume())
	requireRow(t, "1", server.URL(), "SELECT '1'")

	// The connection that was killed may be found broken first.
	require.Eventually(t, func() bool { return client.PingContext(ctx) == nil }, patience, 10*time.Millisecond,
		"a client that stays, which does not keep the server from stopping")
	require.NoError(t, server.Pause())
	require.NoError(t, server.Stop(), "also when paused")
	require.NoError(t, server.Stop(), "stopped twice")
	require.NoError(t, server.Start(ctx))
	requireRow(t, "yes", server.URL(), "SELECT answer FROM kept")
	assert.Contains(t, server.LogTail(), "ready to accept connections")

	require.NoError(t, server.Close())
	require.NoError(t, server.Close(), "closed twice")
	require.ErrorIs(t, server.Start(ctx), servers.ErrClosed)
	assert.NoDirExists(t, server.Dir())
}

func TestPostgresKeepsANamedFolder(t *testing.T) {
	t.Parallel()
	needServers(t)
	dir, err := os.MkdirTemp("", "barid-kept-") // what t.TempDir makes is closed to other users
	require.NoError(t, err)
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	config := servers.PostgresConfig{Dir: dir, NoSync: true}
	first, err := servers.NewPostgres(t.Context(), config)
	require.NoError(t, err)
	requireRow(t, "off", first.URL(), "SHOW fsync")
	_, err = ask(first.URL(), "CREATE TABLE kept AS SELECT 'yes'::text AS answer", patience)
	require.ErrorIs(t, err, sql.ErrNoRows)
	require.NoError(t, first.Stop())
	require.NoError(t, first.Close())
	second := servers.StartPostgres(t, config)
	requireRow(t, "yes", second.URL(), "SELECT answer FROM kept")
	assert.DirExists(t, dir)
}

func TestPostgresThatCanNotStart(t *testing.T) {
	needServers(t)
	_, err := servers.NewPostgres(t.Context(), servers.PostgresConfig{Args: []string{"-c", "no_such_option=1"}})
	require.ErrorIs(t, err, servers.ErrNotReady)
	assert.Contains(t, err.Error(), "no_such_option", "the log's end is in the error")
	_, err = servers.NewPostgres(t.Context(), servers.PostgresConfig{Dir: t.TempDir() + "/missing"})
	require.ErrorIs(t, err, os.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = servers.NewPostgres(ctx, servers.PostgresConfig{})
	require.ErrorIs(t, err, context.Canceled)
	t.Setenv(servers.EnvPostgresServer, "/nowhere/postgres")
	_, err = servers.NewPostgres(t.Context(), servers.PostgresConfig{})
	require.ErrorIs(t, err, servers.ErrMissing)
	for _, want := range []string{"apt-get install postgresql", servers.EnvPostgresServer, servers.EnvPostgresURL} {
		assert.Contains(t, err.Error(), want)
	}
}

func TestSharedPostgres(t *testing.T) {
	needServers(t)
	var own servers.Shared
	t.Setenv(servers.EnvPostgresURL, "postgres://elsewhere/")
	assert.Equal(t, "postgres://elsewhere/", own.PostgresURL(t))
	t.Setenv(servers.EnvPostgresURL, "")
	server := own.Postgres(t)
	assert.Same(t, server, own.Postgres(t))
	assert.Equal(t, server.URL(), own.PostgresURL(t))
	assert.Equal(t, 3, own.Main(runner(3)).Run())
	assert.False(t, server.Running(), "Main closes it")
}
