package redisstore_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/idempotency/redisstore"
)

// shared is the Redis of the tests that do it no harm.
var shared servers.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Main(m)) }

// connect returns a client of url, closed at the test's end.
func connect(tb testing.TB, url string) *redis.Client {
	client := redis.NewClient(patientOptions(tb, url))
	tb.Cleanup(func() { assert.NoError(tb, client.Close()) })
	return client
}

// patientOptions is Options for a machine that may be slow.
func patientOptions(tb testing.TB, url string) *redis.Options {
	options, err := redisstore.Options(url)
	require.NoError(tb, err)
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = patience, patience, patience, patience
	return options
}

// open returns a store on client with keys of its own, closed at the test's end.
func open(tb testing.TB, client redis.UniversalClient, config redisstore.Config) *redisstore.Store {
	if config.Prefix == "" {
		config.Prefix = servers.Unique(tb) + ":"
	}
	if config.Timeout == 0 {
		config.Timeout = patience
	}
	store := redisstore.New(client, config)
	require.NoError(tb, store.Err())
	tb.Cleanup(func() { assert.NoError(tb, store.Close()) })
	return store
}

// long is a lease that does not end within a test.
const long = 10 * time.Minute

func requireClaimed(tb testing.TB, store idempotency.Store, key, token string) {
	tb.Helper()
	requireAnswer(tb, store, key, token, idempotency.Answer{State: idempotency.Claimed, Holder: token})
}

func requireAnswer(tb testing.TB, store idempotency.Store, key, token string, want idempotency.Answer) {
	tb.Helper()
	got, err := store.Claim(tb.Context(), key, token, 0, long)
	require.NoError(tb, err)
	require.Equal(tb, want, got)
}

// trips counts the pipelines of steps that a client sends. They wait until gate
// is closed, if there is one.
type trips struct {
	count atomic.Int64
	gate  atomic.Pointer[chan struct{}]
}

func (*trips) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		switch commands[0].Name() {
		case "evalsha", "eval", "set":
			c.count.Add(1)
			if gate := c.gate.Load(); gate != nil {
				<-*gate
			}
		}
		return next(ctx, commands)
	}
}

// aged makes a server look as if it were older than Redis 7.0, which does not
// take a SET with NX and GET, while old is set.
type aged struct {
	old atomic.Bool
	// refused counts such commands.
	refused atomic.Int64
}

func (*aged) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*aged) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (a *aged) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		var known []redis.Cmder
		for _, command := range commands {
			if a.old.Load() && command.Name() == "set" {
				a.refused.Add(1)
				command.SetErr(reply("ERR syntax error"))
				continue
			}
			known = append(known, command)
		}
		if len(known) == 0 {
			return commands[0].Err()
		}
		return next(ctx, known)
	}
}

// reply is an error that a server answers with.
type reply string

func (e reply) Error() string { return string(e) }
func (reply) RedisError()     {}

// proxy stands between a client and a server and can lose an answer.
type proxy struct {
	listener net.Listener
	target   string
	// cut makes the next bytes from the server vanish, with their connection.
	cut atomic.Bool
}

func startProxy(tb testing.TB, target string) *proxy {
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	p := &proxy{listener: listener, target: target}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		p.accept()
	}()
	tb.Cleanup(func() {
		assert.NoError(tb, listener.Close())
		<-accepting
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		go p.pass(client, server, func() bool { return false })
		go p.pass(server, client, func() bool { return p.cut.CompareAndSwap(true, false) })
	}
}

func (p *proxy) pass(from, to net.Conn, lose func() bool) {
	defer from.Close() //nolint:errcheck // one of the two may be closed already
	defer to.Close()   //nolint:errcheck // the same
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || lose() {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
