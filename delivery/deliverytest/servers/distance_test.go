package servers_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// distance is that of these tests.
const distance = 20 * time.Millisecond

// listen is a server on which serve handles each connection, and closes it.
func listen(t *testing.T, serve func(conn net.Conn)) (location string) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, listener.Close()) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // both sides may close
				serve(conn)
			}()
		}
	}()
	return "redis://" + listener.Addr().String() + "/0"
}

func dialURL(t *testing.T, location string) net.Conn {
	t.Helper()
	parsed, err := url.Parse(location)
	require.NoError(t, err)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", parsed.Host)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() }) //nolint:errcheck // may be closed already
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

func TestFarCarriesEverythingLateAndInOrder(t *testing.T) {
	far := servers.Far(t, listen(t, func(conn net.Conn) { io.Copy(conn, conn) }), distance) //nolint:errcheck // until the client has closed
	for range 3 {
		conn := dialURL(t, far)
		var sent bytes.Buffer
		for i := range 100_000 {
			fmt.Fprintf(&sent, "line %d\n", i)
		}
		begin := time.Now()
		go conn.Write(sent.Bytes()) //nolint:errcheck // then the answer is too short
		answer := make([]byte, sent.Len())
		_, err := io.ReadFull(conn, answer)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(begin), 2*distance)
		assert.True(t, bytes.Equal(sent.Bytes(), answer), "the same in the same order")
	}
}

// A relay ends at once, whatever is still on its way.
func TestFarEndsWithTheTest(t *testing.T) {
	reached := make(chan struct{}, 1)
	location := listen(t, func(conn net.Conn) {
		reached <- struct{}{}
		io.Copy(io.Discard, conn) //nolint:errcheck // until the relay has closed
	})
	t.Run("far", func(t *testing.T) {
		conn := dialURL(t, servers.Far(t, location, time.Hour))
		_, err := io.WriteString(conn, "on its way")
		require.NoError(t, err)
		<-reached
	})
}

// What a server says before it leaves arrives, and so does what a client says
// before it does.
func TestFarLastWords(t *testing.T) {
	heard := make(chan string, 1)
	far := servers.Far(t, listen(t, func(conn net.Conn) {
		io.WriteString(conn, "last words")              //nolint:errcheck // then the client reads nothing
		words, _ := io.ReadAll(io.LimitReader(conn, 3)) // cut short when it fails
		heard <- string(words)
	}), distance)
	conn := dialURL(t, far)
	_, err := io.WriteString(conn, "bye")
	require.NoError(t, err)
	words, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "last words", string(words))
	assert.Equal(t, "bye", <-heard)

	conn = dialURL(t, far)
	_, err = io.WriteString(conn, "bye")
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	assert.Equal(t, "bye", <-heard)
}

func TestFarServerThatIsDown(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	conn := dialURL(t, servers.Far(t, "amqp://"+listener.Addr().String()+"/", distance))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestFarURLs(t *testing.T) {
	for location, ok := range map[string]bool{
		"amqp://guest:guest@127.0.0.1/vhost":                       true,
		"redis://127.0.0.1:7000/0?protocol=2":                      true,
		"postgres://postgres@127.0.0.1/postgres?sslmode=disable":   true,
		"postgresql://postgres@127.0.0.1/postgres?sslmode=disable": true,
		"http://127.0.0.1/":                                        false,
		"redis:///0":                                               false,
		"redis://:secret@[/":                                       false,
	} {
		t.Run(location, func(t *testing.T) {
			tb := &recorder{TB: t}
			far := tb.run(func() string { return servers.Far(tb, location, distance) })
			if !ok {
				assert.Contains(t, tb.failure, "far server")
				assert.NotContains(t, tb.failure, "secret")
				return
			}
			require.Empty(t, tb.failure)
			want, err := url.Parse(location)
			require.NoError(t, err)
			got, err := url.Parse(far)
			require.NoError(t, err)
			assert.NotEqual(t, want.Host, got.Host)
			got.Host = want.Host
			assert.Equal(t, want, got)
		})
	}
}

func TestDistance(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "0": 0, "50ms": 50 * time.Millisecond, "-1s": -1, "50": -1, "far": -1} {
		t.Run(value, func(t *testing.T) {
			t.Setenv(servers.EnvDistance, value)
			tb := &recorder{TB: t}
			var got time.Duration
			tb.run(func() string { got = servers.Distance(tb); return "" })
			if want < 0 {
				assert.Contains(t, tb.failure, servers.EnvDistance)
				return
			}
			assert.Empty(t, tb.failure)
			assert.Equal(t, want, got)
		})
	}
}

func TestSharedServersAtADistance(t *testing.T) {
	needServers(t)
	var own servers.Shared
	server := own.Redis(t)
	t.Setenv(servers.EnvRedisURL, "")
	t.Setenv(servers.EnvDistance, distance.String())
	far := own.RedisURL(t)
	assert.NotEqual(t, server.URL(), far)
	assert.Equal(t, far, own.RedisURL(t), "the same relay each time")
	addr := strings.TrimSuffix(strings.TrimPrefix(far, "redis://"), "/0")
	begin := time.Now()
	requireAnswer(t, "+PONG", addr, "PING")
	assert.GreaterOrEqual(t, time.Since(begin), 2*distance)

	t.Setenv(servers.EnvRedisURL, server.URL())
	assert.Equal(t, far, own.RedisURL(t), "a server of the environment is as far")
	require.NoError(t, own.Close())
	_, err := say(addr, "PING", patience)
	require.Error(t, err, "Close ends the relay, too")
}

// recorder is a test that keeps its failure.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatal(args ...any) {
	r.failure = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }

// run calls what may fail the test.
func (r *recorder) run(call func() string) (result string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		result = call()
	}()
	<-done
	return result
}
