package rabbitmq

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// subscribe subscribes until the test's end.
func subscribe(t *testing.T, transport *Transport, prefetch int) delivery.Subscription {
	t.Helper()
	subscription, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{Prefetch: prefetch})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, subscription.Close()) })
	return subscription
}

// receive receives n incomings.
func receive(t *testing.T, subscription delivery.Subscription, n int) []delivery.Incoming {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all []delivery.Incoming
	for len(all) < n {
		incomings, err := subscription.Receive(ctx)
		require.NoError(t, err)
		all = append(all, incomings...)
	}
	require.Len(t, all, n)
	return all
}

func config(tb testing.TB, url string) Config {
	return Config{URL: url, Name: servers.Unique(tb), Window: 64}
}

// light is a config for tests that delay nothing.
func light(tb testing.TB, url string) Config {
	c := config(tb, url)
	c.Topology = withoutLadder(Quorum)
	return c
}

func sendWithin(t *testing.T, transport *Transport, timeout time.Duration, batch ...delivery.Envelope) []error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	sent := make(chan []error, 1)
	go func() { sent <- transport.Send(ctx, batch) }()
	select {
	case errs := <-sent:
		return errs
	case <-time.After(timeout + time.Minute):
		assert.Fail(t, "Send goes on after its deadline")
		return slices.Repeat([]error{context.DeadlineExceeded}, len(batch))
	}
}

// sendUntil is Send with a context that ends when something is the case.
func sendUntil(t *testing.T, transport *Transport, is func() bool, batch ...delivery.Envelope) []error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sent := make(chan []error, 1)
	go func() { sent <- transport.Send(ctx, batch) }()
	require.Eventually(t, is, time.Minute, time.Millisecond)
	cancel()
	return <-sent
}

// unconfirmedOf is how many messages a transport has sent that are not confirmed.
func unconfirmedOf(transport *Transport) (count int) {
	for _, conn := range transport.publishConns.all {
		if c := conn.channel.Load(); c != nil {
			count += len(c.window)
		}
	}
	return count
}

// blockedConns is how many publishing connections the broker blocks.
func blockedConns(transport *Transport) (count int) {
	for _, conn := range transport.publishConns.all {
		if c := conn.channel.Load(); c != nil && c.conn.blocked.Load() {
			count++
		}
	}
	return count
}

// awaitConns waits until all publishing connections are there.
func awaitConns(t *testing.T, transport *Transport) {
	t.Helper()
	for _, conn := range transport.publishConns.all {
		require.Eventually(t, func() bool { return conn.channel.Load() != nil }, time.Minute, time.Millisecond)
	}
}

func message(id string) delivery.Envelope {
	return delivery.Envelope{Message: delivery.Message{ID: id, Recipient: "you", Body: []byte("body of " + id)}}
}

// signalWriter tells when a text is written.
type signalWriter struct {
	text string
	seen chan struct{}
}

func (w signalWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		select {
		case w.seen <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

// open opens a transport on the broker, which closes with the test.
func open(tb testing.TB, config Config) *Transport {
	tb.Helper()
	if config.MaxReconnectDelay == 0 && config.Connections == nil {
		config.MaxReconnectDelay = time.Second
	}
	if config.Logger == nil {
		config.Logger = testLogger(tb)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	transport, err := Open(ctx, config)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, transport.Close()) })
	return transport
}

func testLogger(tb testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{tb}, nil))
}

type logWriter struct{ tb testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.tb.Logf("%s", p)
	return len(p), nil
}

// withoutLadder is a topology without its delay ladder, whose twenty queues are
// most of what takes time to declare. For tests that delay nothing.
func withoutLadder(topology func(string, Version) Topology) func(string, Version) Topology {
	return func(name string, server Version) Topology {
		t := topology(name, server)
		ladder := func(part string) bool { return strings.HasPrefix(part, "barid.") }
		t.Exchanges = slices.DeleteFunc(t.Exchanges, func(e Exchange) bool { return ladder(e.Name) })
		t.Queues = slices.DeleteFunc(t.Queues, func(q Queue) bool { return ladder(q.Name) })
		t.Bindings = slices.DeleteFunc(t.Bindings, func(b Binding) bool { return ladder(b.Source) })
		t.LostQueue = ""
		t.Delays = nil
		return t
	}
}

// withLadder is a topology whose delay ladder has another prefix than barid. For tests
// that look at what is in it, or break it.
func withLadder(topology func(string, Version) Topology, prefix string) func(string, Version) Topology {
	return func(name string, server Version) Topology {
		t := topology(name, server)
		own := func(part *string) {
			if rest, shared := strings.CutPrefix(*part, "barid."); shared {
				*part = prefix + rest
			}
		}
		ownIn := func(arguments map[string]any, key string) {
			if part, found := arguments[key].(string); found {
				own(&part)
				arguments[key] = part
			}
		}
		for i := range t.Exchanges {
			own(&t.Exchanges[i].Name)
			ownIn(t.Exchanges[i].Arguments, "alternate-exchange")
		}
		for i := range t.Queues {
			own(&t.Queues[i].Name)
			ownIn(t.Queues[i].Arguments, "x-dead-letter-exchange")
		}
		for i := range t.Bindings {
			own(&t.Bindings[i].Source)
			own(&t.Bindings[i].Destination)
		}
		for i := range t.Delays {
			own(&t.Delays[i])
		}
		own(&t.LostQueue)
		return t
	}
}

// networkedTransport is a transport with a network of its own.
type networkedTransport struct {
	*Transport
	network *network
}

func (d *networkedTransport) Close() error {
	defer d.network.close()
	return d.Transport.Close()
}

// raw runs f with a channel of the bare client.
func raw(tb testing.TB, url string, f func(*amqp.Channel)) {
	tb.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(tb, err)
	defer conn.Close() //nolint:errcheck // the test is over
	channel, err := conn.Channel()
	require.NoError(tb, err)
	f(channel)
}

// publish publishes what has to arrive in a queue.
func publish(tb testing.TB, channel *amqp.Channel, route Route, p amqp.Publishing) {
	tb.Helper()
	require.NoError(tb, channel.Confirm(false))
	returned := channel.NotifyReturn(make(chan amqp.Return, 1))
	confirm, err := channel.PublishWithDeferredConfirm(route.Exchange, route.Key, true, false, p)
	require.NoError(tb, err)
	require.True(tb, confirm.Wait())
	require.Empty(tb, returned)
}
