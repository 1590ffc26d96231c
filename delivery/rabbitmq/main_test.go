package rabbitmq

import (
	"context"
	"log/slog"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

var shared servers.Shared

func TestMain(m *testing.M) { goleak.VerifyTestMain(shared.Main(m)) }

// open opens a transport on the broker, which closes with the test.
func open(tb testing.TB, config Config) *Transport {
	tb.Helper()
	if config.MaxReconnectDelay == 0 {
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

func TestTransport(t *testing.T) {
	deliverytest.TestTransport(t, func(tb testing.TB) deliverytest.Harness { return harness(tb, Quorum) })
}

func TestTransportOnClassicQueues(t *testing.T) {
	deliverytest.TestTransport(t, func(tb testing.TB) deliverytest.Harness {
		h := harness(tb, Classic)
		h.QueueOf = func(priority delivery.Priority) delivery.Priority {
			if priority == delivery.High {
				return delivery.Urgent
			}
			return priority
		}
		return h
	})
}

func harness(tb testing.TB, topology func(string, Version) Topology) deliverytest.Harness {
	url, name := shared.AMQP(tb), servers.Unique(tb)
	if part := path.Base(tb.Name()); !strings.Contains(part, "Delay") && part != "LeavesNoGoroutines" {
		topology = withoutLadder(topology)
	}
	return deliverytest.Harness{
		// The accuracy is a few milliseconds; the rest is for a busy machine.
		DelayAccuracy: 30 * time.Second,
		Open: func(tb testing.TB) delivery.Transport {
			n := newNetwork(tb, url)
			return &distant{network: n, Transport: open(tb, Config{
				URL: n.url, Name: name, Topology: topology, MaxReconnectDelay: 100 * time.Millisecond,
			})}
		},
		Kill: func(tb testing.TB, transport delivery.Transport) {
			transport.(*distant).network.close() // so that closing settles nothing
			require.NoError(tb, transport.Close())
		},
		Cut: func(_ testing.TB, transport delivery.Transport) { transport.(*distant).network.cut() },
		SendRaw: func(tb testing.TB, priority delivery.Priority, body []byte) {
			raw(tb, url, func(channel *amqp.Channel) {
				for _, level := range topology(name, Version{}).Levels {
					if level.Priority == priority {
						publish(tb, channel, level.Route, amqp.Publishing{Body: body, Priority: level.MessagePriority})
					}
				}
			})
		},
	}
}

// withoutLadder is a topology without its delay ladder, whose twenty queues are
// most of what takes time to declare. For tests that delay nothing.
func withoutLadder(topology func(string, Version) Topology) func(string, Version) Topology {
	return func(name string, server Version) Topology {
		t := topology(name, server)
		ladder := func(part string) bool { return strings.HasPrefix(part, name+".delay.") || part == name+".due" }
		t.Exchanges = slices.DeleteFunc(t.Exchanges, func(e Exchange) bool { return ladder(e.Name) })
		t.Queues = slices.DeleteFunc(t.Queues, func(q Queue) bool { return ladder(q.Name) })
		t.Bindings = slices.DeleteFunc(t.Bindings, func(b Binding) bool { return ladder(b.Source) })
		t.Delays = nil
		return t
	}
}

// distant is a transport behind a network of its own.
type distant struct {
	*Transport
	network *network
}

func (d *distant) Close() error {
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
