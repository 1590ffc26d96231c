package servers_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

const (
	// patience is for an answer that will come, on a slow machine.
	patience = time.Minute
	// silence is for one that will not.
	silence = 300 * time.Millisecond
)

// say sends one inline command and returns the first line of the answer.
func say(addr, command string, wait time.Duration) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, wait)
	if err != nil {
		return "", err
	}
	defer conn.Close() //nolint:errcheck // the answer is all that counts
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}

// needServers skips what starts servers by itself, as Start would.
func needServers(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real servers")
	}
}

func requireAnswer(t *testing.T, want, addr, command string) {
	t.Helper()
	got, err := say(addr, command, patience)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestRedisLife(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := servers.StartRedis(t, servers.RedisConfig{AppendOnly: true, Args: []string{"--maxmemory", "64mb"}})
	assert.Equal(t, "redis://"+server.Addr()+"/0", server.URL())
	assert.Equal(t, "127.0.0.1:"+strconv.Itoa(server.Port()), server.Addr())
	requireAnswer(t, "+PONG", server.Addr(), "PING")
	requireAnswer(t, "+OK", server.Addr(), "SET kept 1")
	first := server.PID()

	require.NoError(t, server.Start(ctx), "one that runs is left alone")
	assert.Equal(t, first, server.PID())

	require.NoError(t, server.Kill())
	assert.False(t, server.Running())
	require.NoError(t, server.Kill(), "killed twice")
	_, err := say(server.Addr(), "PING", patience)
	require.Error(t, err)
	require.ErrorIs(t, server.Pause(), servers.ErrNotRunning)

	require.NoError(t, server.Start(ctx))
	assert.NotEqual(t, first, server.PID())
	requireAnswer(t, "$1", server.Addr(), "GET kept")

	require.NoError(t, server.Pause())
	_, err = say(server.Addr(), "PING", silence)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout(), "a paused server takes the connection and says nothing")
	require.NoError(t, server.Resume())
	requireAnswer(t, "+PONG", server.Addr(), "PING")

	require.NoError(t, server.Pause())
	require.NoError(t, server.Stop(), "also when paused")
	require.NoError(t, server.Stop(), "stopped twice")
	require.NoError(t, server.Start(ctx))
	requireAnswer(t, "$1", server.Addr(), "GET kept")
	assert.Contains(t, server.LogTail(), "Ready to accept connections")

	require.NoError(t, server.Close())
	require.NoError(t, server.Close(), "closed twice")
	require.ErrorIs(t, server.Start(ctx), servers.ErrClosed)
	assert.NoDirExists(t, server.Dir())
}

func TestRedisSeveralAtOnce(t *testing.T) {
	ports := map[int]bool{}
	for range 5 {
		server := servers.StartRedis(t, servers.RedisConfig{})
		ports[server.Port()] = true
	}
	assert.Len(t, ports, 5)
}

func TestRedisKeepsANamedFolder(t *testing.T) {
	needServers(t)
	dir := t.TempDir()
	config := servers.RedisConfig{Dir: dir, AppendOnly: true}
	first, err := servers.NewRedis(t.Context(), config)
	require.NoError(t, err)
	requireAnswer(t, "+OK", first.Addr(), "SET kept 1")
	require.NoError(t, first.Close())
	second := servers.StartRedis(t, config)
	requireAnswer(t, "$1", second.Addr(), "GET kept")
	assert.DirExists(t, dir)
}

func TestRedisThatWantsAPassword(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{Args: []string{"--requirepass", "secret"}})
	line, err := say(server.Addr(), "PING", patience)
	require.NoError(t, err)
	assert.Contains(t, line, "NOAUTH")
}

func TestRedisThatCanNotStart(t *testing.T) {
	needServers(t)
	_, err := servers.NewRedis(t.Context(), servers.RedisConfig{Args: []string{"--no-such-option", "1"}})
	require.ErrorIs(t, err, servers.ErrNotReady)
	assert.Contains(t, err.Error(), "no-such-option", "the log's end is in the error")
	_, err = servers.NewRedis(t.Context(), servers.RedisConfig{Dir: t.TempDir() + "/missing"})
	require.ErrorIs(t, err, os.ErrNotExist)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = servers.NewRedis(ctx, servers.RedisConfig{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestMissingServersTellWhatToDo(t *testing.T) {
	t.Setenv(servers.EnvRedisServer, "/nowhere/redis-server")
	t.Setenv(servers.EnvRabbitMQServer, "/nowhere/rabbitmq-server")
	_, err := servers.NewRedis(t.Context(), servers.RedisConfig{})
	require.ErrorIs(t, err, servers.ErrMissing)
	for _, want := range []string{"apt-get install redis-server", servers.EnvRedisServer, servers.EnvRedisURL} {
		assert.Contains(t, err.Error(), want)
	}
	_, err = servers.NewRabbitMQ(t.Context(), servers.RabbitMQConfig{})
	require.ErrorIs(t, err, servers.ErrMissing)
	for _, want := range []string{"apt-get install rabbitmq-server", servers.EnvRabbitMQServer, servers.EnvAMQPURL} {
		assert.Contains(t, err.Error(), want)
	}
}

func TestServersOfTheEnvironment(t *testing.T) {
	needServers(t)
	t.Setenv(servers.EnvAMQPURL, "amqp://elsewhere/")
	t.Setenv(servers.EnvRedisURL, "redis://elsewhere/")
	var own servers.Shared
	assert.Equal(t, "amqp://elsewhere/", own.AMQP(t))
	assert.Equal(t, "redis://elsewhere/", own.RedisURL(t))
	require.NoError(t, own.Close(), "nothing was started")
}

func TestSharedRedis(t *testing.T) {
	var own servers.Shared
	server := own.Redis(t)
	assert.Same(t, server, own.Redis(t))
	t.Setenv(servers.EnvRedisURL, "")
	assert.Equal(t, server.URL(), own.RedisURL(t))
	assert.Equal(t, 3, own.Main(runner(3)).Run())
	assert.False(t, server.Running(), "Main closes it")
}

type runner int

func (r runner) Run() int { return int(r) }
