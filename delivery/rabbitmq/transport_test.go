package rabbitmq

import (
	"context"
	"path"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func TestZeroValuesDoNotPanic(t *testing.T) {
	for name, transport := range map[string]*Transport{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			batch := []delivery.Envelope{valid()}
			require.Nil(t, transport.Send(ctx, nil))
			require.ErrorIs(t, transport.Send(ctx, batch)[0], delivery.ErrClosed)
			require.ErrorIs(t, transport.SendAfter(ctx, time.Hour, batch)[0], delivery.ErrClosed)
			_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
			require.ErrorIs(t, err, delivery.ErrClosed)
			require.ErrorIs(t, transport.Ping(ctx), delivery.ErrClosed)
			_, err = transport.Depth(ctx)
			require.ErrorIs(t, err, delivery.ErrClosed)
			require.ErrorIs(t, transport.DeadLetter(ctx, delivery.DeadLetter{}), delivery.ErrClosed)
			assert.Empty(t, transport.Name())
			assert.Empty(t, transport.Topology().Queues)
			assert.NoError(t, transport.Close())
		})
	}
	for name, subscription := range map[string]*subscription{"nil": nil, "zero": {}} {
		t.Run(name+" subscription", func(t *testing.T) {
			_, err := subscription.Receive(context.Background())
			require.ErrorIs(t, err, delivery.ErrClosed)
			require.ErrorIs(t, subscription.Pause(context.Background()), delivery.ErrClosed)
			require.ErrorIs(t, subscription.Resume(context.Background()), delivery.ErrClosed)
			assert.NoError(t, subscription.Close())
		})
	}
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
		Patience:      30*time.Second + 1000*servers.Distance(tb), // so many round trips
		Open: func(tb testing.TB) delivery.Transport {
			n := newNetwork(tb, url)
			return &networkedTransport{network: n, Transport: open(tb, Config{
				URL: n.url, Name: name, Topology: topology, MaxReconnectDelay: 100 * time.Millisecond,
			})}
		},
		Kill: func(tb testing.TB, transport delivery.Transport) {
			transport.(*networkedTransport).network.close() // so that closing settles nothing
			require.NoError(tb, transport.Close())
		},
		Cut: func(_ testing.TB, transport delivery.Transport) { transport.(*networkedTransport).network.cut() },
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

func TestLevelOfAnUnknownPriorityIsNormal(t *testing.T) {
	transport := &Transport{}
	for _, level := range Quorum("q", Version{}).Levels {
		transport.levels[level.Priority-delivery.Low] = level
	}
	assert.Equal(t, "q.urgent", transport.level(delivery.Urgent).Queue)
	assert.Equal(t, "q.low", transport.level(delivery.Low).Queue)
	assert.Equal(t, "q.normal", transport.level(99).Queue)
}
