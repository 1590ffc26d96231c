package rabbitmq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// connect returns Connections to the broker by way of a network.
func connect(tb testing.TB, n *network) *Connections {
	tb.Helper()
	connections, err := NewConnections(ConnectionsConfig{
		URL: n.url, Name: "test", MaxReconnectDelay: time.Second, Logger: testLogger(tb),
	})
	require.NoError(tb, err)
	return connections
}

// overConnections is a config for a transport with a number, over Connections.
func overConnections(tb testing.TB, connections *Connections, number int) Config {
	tb.Helper()
	return Config{Connections: connections, Name: fmt.Sprint(servers.Unique(tb), "-", number), Topology: withoutLadder(Quorum)}
}

// All transports of a process do with three connections, and each does what it does
// over connections of its own.
func TestNamesShareConnections(t *testing.T) {
	t.Parallel()
	const names = 20
	n := newNetwork(t, shared.AMQP(t))
	connections := connect(t, n)
	begin := time.Now()
	var transports []*Transport
	var subscriptions []delivery.Subscription
	for i := range names {
		c := overConnections(t, connections, i)
		c.Topology = Quorum
		transport := open(t, c)
		transports = append(transports, transport)
	}
	t.Log(names, "names opened in", time.Since(begin))
	for _, transport := range transports {
		subscriptions = append(subscriptions, subscribe(t, transport, 10))
	}
	work := func(text string) {
		errs := make([]error, names)
		var all sync.WaitGroup
		for i, transport := range transports {
			all.Go(func() { errs[i] = workOnce(t, transport, subscriptions[i], fmt.Sprint(text, i)) })
		}
		all.Wait()
		require.NoError(t, errors.Join(errs...))
	}
	work("before")
	assert.Equal(t, 3, n.connected())
	n.cut()
	work("after")
	assert.Equal(t, 6, n.connected(), "one that is lost is made again once for all")
	for _, transport := range transports {
		require.NoError(t, transport.Close())
	}
	require.Eventually(t, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.conns) == 0
	}, time.Minute, time.Millisecond, "the last one closes the connections")
}

// workOnce sends and receives a message, and asks for the depths. A message whose ack was
// lost with its connection comes again.
func workOnce(t *testing.T, transport *Transport, subscription delivery.Subscription, id string) error {
	if errs := sendWithin(t, transport, time.Minute, message(id)); errs != nil {
		return errs[0]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := transport.Depth(ctx); err != nil {
		return err
	}
	for {
		incomings, err := subscription.Receive(ctx)
		if err != nil {
			return err
		}
		for _, in := range incomings {
			e, err := in.Envelope()
			if err != nil {
				return err
			}
			if err := in.Ack(); err != nil || e.ID == id {
				return err
			}
		}
	}
}

// holding is a transport that others are not to disturb: it has a message in hand.
func holding(t *testing.T, connections *Connections) (*Transport, delivery.Subscription, delivery.Incoming) {
	t.Helper()
	transport := open(t, overConnections(t, connections, 0))
	subscription := subscribe(t, transport, 10)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("in hand")))
	return transport, subscription, receive(t, subscription, 1)[0]
}

// A transport that is closed, or whose caller goes away, takes nothing from another.
func TestCloseLeavesSharedConnections(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, shared.AMQP(t))
	connections := connect(t, n)
	stays, subscription, inHand := holding(t, connections)
	for i := range 3 {
		goes := open(t, overConnections(t, connections, 1))
		if i > 0 {
			_, err := goes.Subscribe(context.Background(), delivery.SubscribeConfig{})
			require.NoError(t, err)
		}
		require.Nil(t, sendWithin(t, goes, time.Minute, message(fmt.Sprint(i))))
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := goes.Subscribe(ended, delivery.SubscribeConfig{})
		require.ErrorIs(t, err, context.Canceled)
		_, err = goes.Depth(ended)
		require.ErrorIs(t, err, context.Canceled)
		require.NoError(t, goes.Close())
	}
	require.NoError(t, inHand.Ack())
	require.Nil(t, sendWithin(t, stays, time.Minute, message("after")))
	receive(t, subscription, 1)
	assert.Equal(t, 3, n.connected())
}

// What the broker refuses to one transport does not disturb another.
func TestRefusalsStayApart(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, shared.AMQP(t))
	connections := connect(t, n)
	_, _, inHand := holding(t, connections)
	c := overConnections(t, connections, 1)
	c.Passive = true
	_, err := Open(context.Background(), c)
	var fault *TopologyError
	require.ErrorAs(t, err, &fault)
	require.NoError(t, inHand.Ack())
	assert.Equal(t, 3, n.connected())
}

// A queue that does not answer holds up its own transport, which moves to another
// connection.
func TestUnansweredQueueStaysApart(t *testing.T) {
	t.Parallel()
	const consumeOK = 60<<16 + 21
	var losing atomic.Bool
	n := newLossyNetwork(t, shared.AMQP(t), func(frame []byte) bool {
		const method = 1
		return losing.Load() && frame[0] == method && binary.BigEndian.Uint32(frame[7:]) == consumeOK
	})
	connections, err := NewConnections(ConnectionsConfig{
		URL: n.url, DialTimeout: 3 * time.Second, MaxReconnectDelay: 100 * time.Millisecond, Logger: testLogger(t),
	})
	require.NoError(t, err)
	stays, subscription, inHand := holding(t, connections)
	other := open(t, overConnections(t, connections, 1))
	losing.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err = other.Subscribe(ctx, delivery.SubscribeConfig{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, 3, n.connected(), "a caller that has gone is no reason")
	subscribed := make(chan error, 1)
	go func() {
		_, err := other.Subscribe(context.Background(), delivery.SubscribeConfig{})
		subscribed <- err
	}()
	require.Eventually(t, func() bool { return n.connected() > 3 }, time.Minute, time.Millisecond)
	losing.Store(false)
	require.NoError(t, <-subscribed)
	require.NoError(t, inHand.Ack())
	require.Nil(t, sendWithin(t, stays, time.Minute, message("after")))
	receive(t, subscription, 1)
}

// A caller of Open that goes away ends nothing that others use.
func TestOpenThatEndsLeavesSharedConnections(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, shared.AMQP(t))
	connections := connect(t, n)
	stays, _, inHand := holding(t, connections)
	resume := n.stall()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, err := Open(ctx, overConnections(t, connections, 1))
	resume()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, stays.Ping(context.Background()))
	require.NoError(t, inHand.Ack())
	assert.Equal(t, 3, n.connected())
}

// A publishing connection that gives no channel, as one that the broker blocks, is left
// to those who use it, and so is one that closes none.
func TestUnansweredPublisherStaysApart(t *testing.T) {
	t.Parallel()
	const openOK, closeOK = 20<<16 + 11, 20<<16 + 41
	var losing atomic.Uint32
	n := newLossyNetwork(t, shared.AMQP(t), func(frame []byte) bool {
		const method = 1
		return frame[0] == method && losing.Load() != 0 && binary.BigEndian.Uint32(frame[7:]) == losing.Load()
	})
	connections, err := NewConnections(ConnectionsConfig{
		URL: n.url, DialTimeout: time.Second, MaxReconnectDelay: 100 * time.Millisecond, Logger: testLogger(t),
	})
	require.NoError(t, err)
	stays, goes := open(t, overConnections(t, connections, 0)), open(t, overConnections(t, connections, 1))
	for _, transport := range []*Transport{stays, goes} {
		require.Nil(t, sendWithin(t, transport, time.Minute, message("before")))
	}
	conn := stays.publishConns.all[0].channel.Load().conn
	losing.Store(openOK)
	another := &channelOffer{conn: goes.publishConns.all[0], transport: goes, window: 1}
	_, _, err = another.open(t.Context(), conn)
	require.ErrorIs(t, err, errUnanswered)
	losing.Store(closeOK)
	require.NoError(t, goes.Close())
	losing.Store(0)
	require.Nil(t, sendWithin(t, stays, time.Minute, message("after")))
	assert.False(t, conn.amqp.IsClosed())
	moved := open(t, overConnections(t, connections, 2))
	require.Nil(t, sendWithin(t, moved, time.Minute, message("after")))
	assert.NotSame(t, conn, moved.publishConns.all[0].channel.Load().conn)
}

// A caller of Subscribe that goes away does not wait for what it has opened to be closed.
func TestSubscribeThatEndsDoesNotWait(t *testing.T) {
	t.Parallel()
	const consumeOK = 60<<16 + 21
	var subscribing, dead, lost atomic.Bool
	n := newLossyNetwork(t, shared.AMQP(t), func(frame []byte) bool {
		const method = 1
		if dead.Load() {
			lost.Store(true)
			return true
		}
		if subscribing.Load() && frame[0] == method && binary.BigEndian.Uint32(frame[7:]) == consumeOK {
			dead.Store(true) // after this one
		}
		return false
	})
	connections := connect(t, n)
	stays := open(t, overConnections(t, connections, 0))
	subscribe(t, stays, 10)
	other := open(t, overConnections(t, connections, 1))
	awaitConns(t, other)
	subscribing.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	subscribed := make(chan error, 1)
	go func() {
		_, err := other.Subscribe(ctx, delivery.SubscribeConfig{})
		subscribed <- err
	}()
	require.Eventually(t, lost.Load, time.Minute, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-subscribed, context.Canceled)
	connections.consume.mu.Lock()
	defer connections.consume.mu.Unlock()
	assert.NotNil(t, connections.consume.conn, "it was no reason to leave the connection")
	subscribing.Store(false)
	dead.Store(false)
}

// A node that is silent for as long as callers wait is not the first one for ever.
func TestSilentNodeIsNotTriedForEver(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close() //nolint:errcheck // the test is over
	n := newNetwork(t, shared.AMQP(t))
	connections, err := NewConnections(ConnectionsConfig{
		URL: "amqp://" + silent.Addr().String(), Nodes: []string{n.listener.Addr().String()}, DialTimeout: time.Hour,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = Open(ctx, overConnections(t, connections, 0))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	var fault *ConnectError
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, silent.Addr().String(), fault.Address)
	open(t, overConnections(t, connections, 0))
}

// The end of a caller says nothing of the broker.
func TestJoinThatEndsIsNoFault(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close() //nolint:errcheck // the test is over
	failed := make(chan struct{}, 1)
	connections, err := NewConnections(ConnectionsConfig{
		URL:    "amqp://" + silent.Addr().String(),
		Logger: slog.New(slog.NewTextHandler(signalWriter{text: "broker connect failed", seen: failed}, nil)),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, joinErr := connections.control.joinOnce(ctx)
	require.NotNil(t, joinErr)
	assert.Nil(t, connections.dialer.fault.Load())
	assert.Empty(t, failed)
}

// Where a connection has no channel left, another one is made, at first and after an
// outage.
func TestFullConnectionIsLeftToOthers(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, shared.AMQP(t))
	connections, err := NewConnections(ConnectionsConfig{URL: n.url + "?channel_max=8", MaxReconnectDelay: 100 * time.Millisecond})
	require.NoError(t, err)
	transports, subscriptions := make([]*Transport, 9), make([]delivery.Subscription, 9)
	for i := range transports {
		transports[i] = open(t, overConnections(t, connections, i))
		subscriptions[i] = subscribe(t, transports[i], 10)
		require.NoError(t, workOnce(t, transports[i], subscriptions[i], "before"))
	}
	n.cut()
	for i := range transports {
		require.NoError(t, workOnce(t, transports[i], subscriptions[i], "after"))
	}
}

// A channel for single messages, too, is had over another connection.
func TestFullConnectionHasNoChannelForOne(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, shared.AMQP(t))
	connections, err := NewConnections(ConnectionsConfig{URL: n.url + "?channel_max=8", MaxReconnectDelay: 100 * time.Millisecond})
	require.NoError(t, err)
	var last *Transport
	for i := range 8 {
		last = open(t, overConnections(t, connections, i))
		awaitConns(t, last)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = last.publishConns.await(ctx, &last.closing, true)
	require.NoError(t, err)
}

// What a queue answers after its caller has gone is given back.
func TestLateAnswerIsDiscarded(t *testing.T) {
	conn := &connection{home: &sharedConn{}, users: 2}
	ctx, cancel := context.WithCancel(context.Background())
	answer, discarded := make(chan int), make(chan int)
	cancel()
	_, err := askFor(ctx, conn, time.Minute, func() (int, error) { return <-answer, nil }, func(n int) { discarded <- n })
	require.ErrorIs(t, err, errUnanswered)
	require.ErrorIs(t, err, context.Canceled)
	answer <- 7
	assert.Equal(t, 7, <-discarded)
}

// Those who want a connection at the same time share one try, which goes on for as
// long as one of them waits.
func TestJoinersShareATry(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	defer silent.Close() //nolint:errcheck // the test is over
	connections, err := NewConnections(ConnectionsConfig{URL: "amqp://" + silent.Addr().String()})
	require.NoError(t, err)
	join := func(ctx context.Context) <-chan error {
		joined := make(chan error, 1)
		go func() {
			_, err := connections.control.join(ctx, newReconnectDelay(time.Hour), true)
			joined <- err
		}()
		return joined
	}
	waiting := func() int {
		connections.control.mu.Lock()
		defer connections.control.mu.Unlock()
		if connections.control.try == nil {
			return 0
		}
		return connections.control.try.waiting
	}
	first, endFirst := context.WithCancel(context.Background())
	second, endSecond := context.WithCancel(context.Background())
	firstJoined, secondJoined := join(first), join(second)
	require.Eventually(t, func() bool { return waiting() == 2 }, time.Minute, time.Millisecond)
	conn := <-accepted
	defer conn.Close() //nolint:errcheck // the test is over
	endFirst()
	require.ErrorIs(t, <-firstJoined, context.Canceled)
	assert.Equal(t, 1, waiting())
	endSecond()
	err = <-secondJoined
	require.ErrorIs(t, err, context.Canceled)
	var fault *ConnectError
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, silent.Addr().String(), fault.Address)
	assert.Zero(t, waiting())
	assert.Empty(t, accepted, "one try")
}

// The nodes of a cluster are tried in turn.
func TestNodesAreTriedInTurn(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := closed.Addr().String()
	require.NoError(t, closed.Close())
	first, second := newNetwork(t, shared.AMQP(t)), newNetwork(t, shared.AMQP(t))
	c := light(t, "amqp://guest:guest@"+refused+"/")
	c.Nodes = []string{first.listener.Addr().String(), second.listener.Addr().String()}
	transport := open(t, c)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
	assert.Equal(t, 2, first.connected())
	assert.Zero(t, second.connected(), "the one that answered last is tried first")
	first.close()
	require.Nil(t, sendWithin(t, transport, time.Minute, message("2")))
	assert.Positive(t, second.connected())
	second.close()
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err = Open(ctx, c)
	var fault *ConnectError
	require.ErrorAs(t, err, &fault)
	assert.Contains(t, append(c.Nodes, refused), fault.Address)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestWithAddress(t *testing.T) {
	for url, want := range map[string]string{
		"amqp://localhost":                           "amqp://node:1",
		"amqp://localhost:5672/vhost":                "amqp://node:1/vhost",
		"amqps://user:p%40ss@[::1]:5671?heartbeat=5": "amqps://user:p%40ss@node:1?heartbeat=5",
		"amqp://user@host/?auth_mechanism=plain":     "amqp://user@node:1/?auth_mechanism=plain",
	} {
		assert.Equal(t, want, withAddress(url, "node:1"), url)
	}
}
