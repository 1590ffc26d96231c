package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/dlq/redisstore"
)

// durable is a Redis that loses nothing when it is killed.
func durable(t *testing.T) *servers.Redis {
	return servers.StartRedis(t, servers.RedisConfig{AppendOnly: true, Args: []string{"--appendfsync", "always"}})
}

func TestRedisKilledAndStarted(t *testing.T) {
	server := durable(t)
	store := open(t, connect(t, "redis://:s3cret@"+server.Addr()), redisstore.Config{})
	plain := open(t, connect(t, server.URL()), redisstore.Config{})
	require.NoError(t, plain.Put(t.Context(), entry("before", 0)))

	require.NoError(t, server.Kill())
	for _, store := range []*redisstore.Store{store, plain} {
		for i, err := range everyMethod(store, unbounded) {
			require.ErrorIs(t, err, redisstore.ErrUnavailable, i)
			require.NotErrorIs(t, err, context.DeadlineExceeded, i)
			require.NotContains(t, err.Error(), "s3cret", i)
			var unavailable *redisstore.UnavailableError
			require.ErrorAs(t, err, &unavailable, i)
			require.NotEmpty(t, unavailable.Op)
		}
	}
	// Many ids have the error each.
	require.Len(t, plain.Delete(t.Context(), start, make([]string, 600)...), 600)

	require.NoError(t, server.Start(t.Context()))
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.NoError(t, plain.Check(context.Background()))
	}, patience, 10*time.Millisecond)
	requireKept(t, plain, "before")
}

func TestRedisPaused(t *testing.T) {
	server := servers.StartRedis(t, servers.RedisConfig{})
	// A client as hosts bring it: its own deadlines come much later.
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	prefix := servers.Unique(t)
	patient := open(t, client, redisstore.Config{Prefix: prefix})
	prompt := open(t, client, redisstore.Config{Prefix: prefix, Timeout: 50 * time.Millisecond})
	heeding := open(t, connect(t, server.URL()), redisstore.Config{Prefix: prefix})
	for _, store := range []*redisstore.Store{patient, heeding} {
		require.NoError(t, store.Put(t.Context(), entry("id", 0)))
	}
	require.NoError(t, server.Pause())
	for _, store := range []*redisstore.Store{patient, heeding} {
		for i, err := range everyMethod(store, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 20*time.Millisecond)
		}) {
			require.Equal(t, context.DeadlineExceeded, err, i)
		}
		for i, err := range everyMethod(store, func() (context.Context, context.CancelFunc) {
			ctx, cancel := unbounded()
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		}) {
			require.Equal(t, context.Canceled, err, i)
		}
	}
	for i, err := range everyMethod(prompt, unbounded) {
		require.ErrorIs(t, err, redisstore.ErrUnavailable, i)
		require.NotErrorIs(t, err, context.DeadlineExceeded, i)
		require.ErrorContains(t, err, "Config.Timeout", i)
	}

	require.NoError(t, server.Resume())
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.NoError(t, patient.Ping(context.Background()))
	}, patience, 10*time.Millisecond)
	audit(t, client, prefix)
}

// What a caller whose context has ended gave is the caller's again, though it is
// still on its way.
func TestEntriesOnTheirWayAreTheStoresOwn(t *testing.T) {
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	client := redis.NewClient(&redis.Options{
		Addr: shared.Redis(t).Addr(), WriteTimeout: patience, ReadTimeout: patience,
		Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			return &gatedConn{Conn: conn, gate: g}, err
		},
	})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	store := open(t, client, redisstore.Config{})
	require.NoError(t, store.Put(t.Context(), entry("warm", 0)))
	mine := entry("mine", 1)
	mine.Envelope.Body = bytes.Repeat([]byte("x"), 1<<20)
	want := bytes.Clone(mine.Envelope.Body)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	g.shut.Store(true)
	go func() { ended <- store.Put(ctx, mine) }()
	<-g.reached
	cancel()
	require.Equal(t, context.Canceled, <-ended)
	for i := range mine.Envelope.Body {
		mine.Envelope.Body[i] = '!'
	}
	close(g.opened)
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		got, errs := store.Get(context.Background(), "mine")
		assert.NoError(t, errors.Join(errs...))
		assert.True(t, bytes.Equal(want, got[0].Envelope.Body))
	}, patience, 10*time.Millisecond)
}

// gate stops the first write after it was shut.
type gate struct {
	shut            atomic.Bool
	reached, opened chan struct{}
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Write(data []byte) (int, error) {
	if c.gate.shut.CompareAndSwap(true, false) {
		close(c.gate.reached)
		<-c.gate.opened
	}
	return c.Conn.Write(data)
}

// Redis is killed at any moment of what several do at once. Whatever was
// confirmed is there, whatever was not is there as a whole or not at all.
func TestRedisKilledAtAnyMoment(t *testing.T) {
	server := durable(t)
	client := connect(t, server.URL())
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	require.NoError(t, store.Check(t.Context()))

	const workers, rounds = 4, 5
	var mu sync.Mutex
	confirmed := map[string]bool{} // absent: unknown
	for round := range rounds {
		stop := make(chan struct{})
		var puts atomic.Int32
		var group sync.WaitGroup
		for w := range workers {
			group.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					churn(store, fmt.Sprintf("%d-%d-%d", round, w, n), func(id string, there, known bool) {
						mu.Lock()
						defer mu.Unlock()
						if known {
							confirmed[id] = there
						} else {
							delete(confirmed, id)
						}
					})
					puts.Add(1)
				}
			})
		}
		require.Eventually(t, func() bool { return puts.Load() > 30 }, patience, time.Millisecond)
		require.NoError(t, server.Kill())
		close(stop)
		group.Wait()
		require.NoError(t, server.Start(t.Context()))
		require.Eventually(t, func() bool { return store.Ping(context.Background()) == nil }, patience, 10*time.Millisecond)

		there := map[string]bool{}
		for _, id := range audit(t, client, prefix) {
			there[id] = true
		}
		for id, want := range confirmed {
			require.Equal(t, want, there[id], "entry %s", id)
		}
	}
}

// churn puts two entries, and claims and removes or deletes the second.
func churn(store dlq.Store, name string, tell func(id string, there, known bool)) {
	ctx := context.Background()
	stays, goes := entry(name+"-stays", 0), entry(name+"-goes", 0)
	err := store.Put(ctx, stays, goes)
	tell(stays.ID, true, err == nil)
	tell(goes.ID, true, err == nil)
	if err != nil {
		return
	}
	_, errs := store.Claim(ctx, dlq.Claim{Token: name, Now: start, Lease: lease}, goes.ID)
	if err = errors.Join(errs...); err == nil {
		err = errors.Join(store.Remove(ctx, name, goes.ID)...)
		tell(goes.ID, false, err == nil || errors.Is(err, dlq.ErrNotFound))
	}
}

// A command is executed, its answer gets lost, the client sends it again.
func TestLostAnswers(t *testing.T) {
	proxy := startProxy(t, shared.Redis(t).Addr())
	client := connect(t, "redis://"+proxy.listener.Addr().String())
	prefix := servers.Unique(t)
	store := open(t, client, redisstore.Config{Prefix: prefix})
	ctx := t.Context()
	// Each once, so that it is not the answer that a script is missing which
	// gets lost.
	require.NoError(t, store.Put(ctx, entry("warm", 0)))
	requireClaimed(t, store, "warm", "warm")
	require.NoError(t, store.Release(ctx, "warm", "warm")[0])
	requireClaimed(t, store, "warm", "warm")
	require.NoError(t, store.Remove(ctx, "warm", "warm")[0])
	require.NoError(t, store.Put(ctx, entry("warm", 0)))
	require.NoError(t, store.Delete(ctx, start, "warm")[0])
	require.NoError(t, store.Put(ctx, entry("warm", 0)))
	lose := func(step func()) {
		t.Helper()
		proxy.cut.Store(true)
		step()
		require.False(t, proxy.cut.Load(), "the answer should have been lost")
	}
	lose(func() { require.NoError(t, store.Put(ctx, entry("a", 0), entry("b", 1))) })
	requireKept(t, store, "warm", "a", "b")
	// The claim recognises its own token, and a put that is repeated does not
	// undo a claim.
	lose(func() { requireClaimed(t, store, "token", "a", "b") })
	_, errs := store.Claim(ctx, dlq.Claim{Token: "other", Now: start, Lease: lease}, "a")
	require.ErrorIs(t, errs[0], dlq.ErrClaimed)
	// What is done twice was done: not found, rather than anything else.
	lose(func() { require.ErrorIs(t, store.Remove(ctx, "token", "a")[0], dlq.ErrNotFound) })
	lose(func() { require.ErrorIs(t, store.Release(ctx, "token", "b")[0], dlq.ErrClaimLost) })
	lose(func() { require.ErrorIs(t, store.Delete(ctx, start, "b")[0], dlq.ErrNotFound) })
	requireAudit(t, client, prefix, "warm")
	stats := dlq.Stats{}
	lose(func() {
		var err error
		stats, err = store.Stats(ctx, 1)
		require.NoError(t, err)
	})
	require.Equal(t, 1, stats.Total)
}

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
	var running sync.WaitGroup
	running.Go(func() { p.accept(&running) })
	tb.Cleanup(func() {
		assert.NoError(tb, listener.Close())
		running.Wait()
	})
	return p
}

func (p *proxy) accept(running *sync.WaitGroup) {
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
		running.Go(func() { pass(client, server, func() bool { return false }) })
		running.Go(func() { pass(server, client, func() bool { return p.cut.CompareAndSwap(true, false) }) })
	}
}

func pass(from, to net.Conn, lose func() bool) {
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
