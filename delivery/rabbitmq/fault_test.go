package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// TestFaults does things to a broker of its own that others would feel.
func TestFaults(t *testing.T) {
	t.Parallel()
	broker := servers.StartRabbitMQ(t, servers.RabbitMQConfig{})
	for _, test := range []struct {
		name string
		run  func(*testing.T, *servers.RabbitMQ)
	}{
		{"Killed", brokerKilled},
		{"Hangs", brokerHangs},
		{"ConnectionsClosed", connectionsClosed},
		{"MemoryAlarm", memoryAlarm},
		{"BodyLimit", bodyLimit},
		{"Negotiated", negotiated},
		{"PermissionRevoked", permissionRevoked},
		{"ForbiddenExchange", forbiddenExchange},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, broker) })
	}
}

func brokerKilled(t *testing.T, broker *servers.RabbitMQ) {
	traffic := startTraffic(t, open(t, config(t, broker.URL())))
	traffic.awaitMore(500)
	require.NoError(t, broker.Kill())
	require.NoError(t, broker.Start(context.Background()))
	traffic.awaitMore(500)
	traffic.finish(1)
}

func connectionsClosed(t *testing.T, broker *servers.RabbitMQ) {
	traffic := startTraffic(t, open(t, light(t, broker.URL())))
	for range 2 {
		traffic.awaitMore(500)
		_, err := broker.Ctl(context.Background(), "close_all_connections", "test")
		require.NoError(t, err)
	}
	traffic.awaitMore(500)
	traffic.finish(2)
}

func brokerHangs(t *testing.T, broker *servers.RabbitMQ) {
	transport := open(t, light(t, broker.URL()))
	subscription, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{})
	require.NoError(t, err)
	require.NoError(t, broker.Pause())
	defer func() { assert.NoError(t, broker.Resume()) }()
	errs := sendUntil(t, transport, func() bool { return unconfirmedOf(transport) == 2 }, message("1"), message("2"))
	require.Len(t, errs, 2)
	for _, err := range errs {
		require.ErrorIs(t, err, delivery.ErrOutcomeUnknown)
		require.NotErrorIs(t, err, context.Canceled, "that would say that nothing was sent")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, transport.Ping(ctx), context.DeadlineExceeded)
	_, err = transport.Depth(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, broker.Resume())
	require.Nil(t, sendWithin(t, transport, time.Minute, message("3")))
	require.NoError(t, transport.Ping(context.Background()))
	// What was unknown had been stored, or not: here it was.
	got := map[string]bool{}
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for len(got) < 3 {
		incomings, err := subscription.Receive(ctx)
		require.NoError(t, err)
		for _, in := range incomings {
			e, err := in.Envelope()
			require.NoError(t, err)
			got[e.ID] = true
			require.NoError(t, in.Ack())
		}
	}
	require.NoError(t, subscription.Close())

	// Closing does not wait for a broker that hangs.
	closing := open(t, light(t, broker.URL()))
	_, err = closing.Subscribe(context.Background(), delivery.SubscribeConfig{})
	require.NoError(t, err)
	require.NoError(t, broker.Pause())
	closed := make(chan error)
	go func() { closed <- closing.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		require.Fail(t, "Close hangs")
	}
}

func memoryAlarm(t *testing.T, broker *servers.RabbitMQ) {
	ctx := context.Background()
	transport := open(t, light(t, broker.URL()))
	awaitConns(t, transport)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("before")))
	require.NoError(t, broker.SetAlarm(ctx, servers.MemoryAlarm))
	cleared := false
	defer func() {
		if !cleared {
			assert.NoError(t, broker.ClearAlarm(ctx, servers.MemoryAlarm))
		}
	}()
	// The broker tells a connection that it is blocked when it next publishes.
	for n := range transport.publishConns.all {
		errs := sendUntil(t, transport, func() bool { return blockedConns(transport) > n }, message("written"))
		require.ErrorIs(t, errs[0], delivery.ErrBlocked)
		require.ErrorIs(t, errs[0], delivery.ErrOutcomeUnknown)
	}
	errs := sendWithin(t, transport, 200*time.Millisecond, message("held"), message("held, too"))
	require.ErrorIs(t, errs[1], delivery.ErrBlocked)
	require.NotErrorIs(t, errs[1], delivery.ErrOutcomeUnknown)

	// Consumers go on, and so do questions.
	require.NoError(t, transport.Ping(ctx))
	subscription, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.NoError(t, err)
	incomings, err := subscription.Receive(ctx)
	require.NoError(t, err)
	require.NoError(t, incomings[0].Ack())

	waiting := make(chan []error)
	go func() { waiting <- sendWithin(t, transport, time.Minute, message("patient")) }()
	require.NoError(t, broker.ClearAlarm(ctx, servers.MemoryAlarm))
	cleared = true
	require.Nil(t, <-waiting)
}

func bodyLimit(t *testing.T, broker *servers.RabbitMQ) {
	ctx := context.Background()
	// From 4.0 on the broker reads the limit from where it keeps it since its start.
	limit := func(bytes string) {
		_, err := broker.Ctl(ctx, "eval", "application:set_env(rabbit, max_message_size, "+bytes+"), "+
			"persistent_term:put(max_message_size, "+bytes+").")
		require.NoError(t, err)
	}
	limit("100000")
	defer limit("16777216")
	transport := open(t, light(t, broker.URL()))
	large := message("large")
	large.Body = make([]byte, 100_001)
	errs := sendWithin(t, transport, time.Minute, message("1"), large, message("2"))
	require.Len(t, errs, 3)
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], delivery.ErrTooLarge)
	require.NoError(t, errs[2])
	// From now on it is known.
	require.ErrorIs(t, sendWithin(t, transport, time.Minute, large)[0], delivery.ErrTooLarge)
}

// negotiated has the broker, or the URL, allow less than is needed.
func negotiated(t *testing.T, broker *servers.RabbitMQ) {
	ctx := context.Background()
	transport := open(t, light(t, broker.URL()))
	frames := func(bytes string) {
		_, err := broker.Ctl(ctx, "eval", "application:set_env(rabbit, frame_max, "+bytes+").")
		require.NoError(t, err)
	}
	c := light(t, broker.URL()+"?channel_max=3")
	_, err := Open(ctx, c)
	require.ErrorIs(t, err, ErrConfig)
	require.ErrorContains(t, err, "channel_max of the broker or the URL is 3, want at least")
	defer frames("131072")
	if !transport.controlConn.conn.version.AtLeast(4, 1) { // which takes no less than 8192 itself
		frames("4096")
		_, err = transport.Subscribe(ctx, delivery.SubscribeConfig{})
		require.ErrorIs(t, err, ErrConfig)
		require.ErrorContains(t, err, "frame_max of the broker is 4096 bytes, want at least 8192")
	}

	// What fits in smaller frames goes on, over whichever connection.
	frames("16384")
	_, err = broker.Ctl(ctx, "close_all_connections", "test")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return transport.headers.Load() < 16384 }, time.Minute, time.Millisecond)
	large := message("large")
	large.Headers = map[string]string{"a": strings.Repeat("x", 20<<10)}
	errs := sendWithin(t, transport, time.Minute, message("1"), large, message("2"))
	require.NoError(t, errs[0])
	require.ErrorIs(t, errs[1], delivery.ErrTooLarge)
	require.NoError(t, errs[2])
}

func permissionRevoked(t *testing.T, broker *servers.RabbitMQ) {
	ctx := context.Background()
	permit := func(pattern string) {
		_, err := broker.Ctl(ctx, "set_permissions", "guest", pattern, pattern, pattern)
		require.NoError(t, err)
	}
	transport := open(t, light(t, broker.URL()))
	subscription, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.NoError(t, err)
	permit("^$")
	_, err = broker.Ctl(ctx, "close_all_connections", "test")
	require.NoError(t, err)
	errs := sendWithin(t, transport, time.Minute, message("1"))
	require.ErrorIs(t, errs[0], delivery.ErrRefused)
	var reply *amqp.Error
	require.ErrorAs(t, errs[0], &reply)
	require.Equal(t, amqp.AccessRefused, reply.Code)
	_, err = Open(ctx, config(t, broker.URL()))
	require.ErrorAs(t, err, &reply, "permanent, so Open fails at once")
	_, err = transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.ErrorAs(t, err, &reply)
	permit(".*")
	require.Eventually(t, func() bool { return sendWithin(t, transport, time.Second, message("2")) == nil }, time.Minute, 50*time.Millisecond)
	for {
		incomings, err := subscription.Receive(ctx)
		require.NoError(t, err)
		e, err := incomings[len(incomings)-1].Envelope()
		require.NoError(t, err)
		if e.ID == "2" {
			return
		}
	}
}

// forbiddenExchange publishes what is forbidden among what is not: only the former
// fails, with the broker's words.
func forbiddenExchange(t *testing.T, broker *servers.RabbitMQ) {
	ctx := context.Background()
	c := light(t, broker.URL())
	c.MaxReconnectDelay = time.Hour
	open(t, c)
	for _, args := range [][]string{
		{"add_user", "restricted", "secret"},
		{"set_permissions", "restricted", "^$", "^" + c.Name + "$", ".*"},
	} {
		_, err := broker.Ctl(ctx, args...)
		require.NoError(t, err)
	}
	c.URL = strings.Replace(broker.URL(), "guest:guest", "restricted:secret", 1)
	c.Passive, c.PublishConnections = true, 1
	transport := open(t, c)
	forbidden := func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return transport.DeadLetter(ctx, delivery.DeadLetter{ID: "1", Envelope: message("letter")})
	}
	var all sync.WaitGroup
	for sender := range 4 {
		all.Go(func() {
			for i := range 50 {
				batch := make([]delivery.Envelope, 10)
				for k := range batch {
					batch[k] = message(fmt.Sprint(sender, "-", i, "-", k))
				}
				assert.Nil(t, sendWithin(t, transport, time.Minute, batch...))
			}
		})
	}
	for range 20 {
		var reply *amqp.Error
		err := forbidden()
		require.ErrorAs(t, err, &reply)
		require.ErrorIs(t, err, delivery.ErrRefused)
		require.Equal(t, amqp.AccessRefused, reply.Code)
	}
	all.Wait()
	depths, err := transport.Depth(ctx)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, depths[delivery.Normal].Messages, int64(2000))
	// What is allowed again gets through.
	_, err = broker.Ctl(ctx, "set_permissions", "restricted", "^$", ".*", ".*")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return forbidden() == nil }, time.Minute, 50*time.Millisecond)
}

func TestNetworkStalls(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, shared.AMQP(t))
	c := light(t, network.url)
	c.Heartbeat, c.WriteTimeout = time.Second, time.Second
	transport := open(t, c)
	traffic := startTraffic(t, transport)
	traffic.awaitMore(200)
	resume := network.stall()
	// Messages that would fill every buffer on the way do not block a caller.
	large := message("large")
	large.Body = make([]byte, 4<<20)
	errs := sendWithin(t, transport, 3*time.Second, large, large, large, large, large, large)
	for _, err := range errs {
		require.Error(t, err)
		require.True(t, errors.Is(err, delivery.ErrOutcomeUnknown) || errors.Is(err, context.DeadlineExceeded), err)
	}
	resume()
	traffic.awaitMore(200)
	traffic.finish(1)
}
