package rabbitmq

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// TestCloseKeepsAcks: what was acked before Close does not come again, however
// soon Close followed, and in whatever order it was acked. After a Pause some may,
// where the broker is slow all of a sudden.
func TestCloseKeepsAcks(t *testing.T) {
	const n = 300
	for name, most := range map[string]int64{"consuming": 0, "single active": 0, "paused": n / 4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			batch := make([]delivery.Envelope, n)
			for i := range batch {
				batch[i] = message("1")
			}
			c, prefetch := light(t, shared.AMQP(t)), n
			if name == "single active" {
				c.Shards, prefetch = 2, 2*n
			}
			transport := open(t, c)
			for range 4 {
				require.Nil(t, sendWithin(t, transport, 30*time.Second, batch...))
				subscription, err := transport.Subscribe(ctx, delivery.SubscribeConfig{Prefetch: prefetch})
				require.NoError(t, err)
				incomings := receive(t, subscription, n)
				if name == "paused" {
					require.NoError(t, subscription.(delivery.Pauser).Pause(ctx))
				}
				for i := range incomings {
					// The gaps make for single acks.
					require.NoError(t, incomings[(i*7+5)%n].Ack())
				}
				require.NoError(t, subscription.Close())
			}
			depths, err := transport.Depth(ctx)
			require.NoError(t, err)
			assert.LessOrEqual(t, depths[delivery.Normal].Messages, most)
		})
	}
}

// A queue that is there again before the consumer has learned that it was deleted has
// no consumer, and nobody tells. It gets one all the same, if a little later.
func TestStrandedConsumer(t *testing.T) {
	t.Parallel()
	const method, basicCancel = 1, 60<<16 + 30
	cancelled := make(chan struct{}, 1)
	network := newLossyNetwork(t, shared.AMQP(t), func(frame []byte) bool {
		if frame[0] != method || binary.BigEndian.Uint32(frame[7:]) != basicCancel {
			return false
		}
		cancelled <- struct{}{}
		return true
	})
	far, near := light(t, network.url), light(t, shared.AMQP(t))
	near.Name = far.Name
	transport := open(t, far)
	subscription := subscribe(t, transport, 10)
	raw(t, near.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(far.Name+".normal", false, false, false)
		require.NoError(t, err)
	})
	<-cancelled
	other := open(t, near) // declares the queue again
	require.Nil(t, sendWithin(t, other, time.Minute, message("1")))
	e, err := receive(t, subscription, 1)[0].Envelope()
	require.NoError(t, err)
	assert.Equal(t, "1", e.ID)
}

// A delivery that gets lost on the way, its tag with it, must not be acked with
// those after it.
func TestMissedDelivery(t *testing.T) {
	t.Parallel()
	const n, lost = 20, 8
	var (
		mu         sync.Mutex
		deliveries int
		losing     bool
	)
	network := newLossyNetwork(t, shared.AMQP(t), func(frame []byte) bool {
		const method, class = 1, 60 // basic
		mu.Lock()
		defer mu.Unlock()
		if frame[0] == method {
			const deliver = 60
			losing = false
			if binary.BigEndian.Uint16(frame[7:]) == class && binary.BigEndian.Uint16(frame[9:]) == deliver {
				deliveries++
				losing = deliveries == lost
			}
		}
		return losing && frame[0] != 8 // with the header and the body that follow; not heartbeats
	})
	c := light(t, network.url)
	missed := make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{text: "delivery missed", seen: missed}, nil))
	transport := open(t, c)
	batch := make([]delivery.Envelope, n)
	for i := range batch {
		batch[i] = message(fmt.Sprint(i))
	}
	require.Nil(t, sendWithin(t, transport, time.Minute, batch...))
	subscription := subscribe(t, transport, n)
	acked := map[string]bool{}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for len(acked) < n {
		incomings, err := subscription.Receive(ctx)
		require.NoError(t, err, "%d of %d came", len(acked), n)
		for _, in := range incomings {
			e, err := in.Envelope()
			require.NoError(t, err)
			if err := in.Ack(); err != nil {
				require.ErrorIs(t, err, delivery.ErrStale)
				continue
			}
			acked[e.ID] = true
		}
	}
	select {
	case <-missed:
	default:
		require.Fail(t, "no delivery was missed")
	}
	mu.Lock()
	defer mu.Unlock()
	assert.Greater(t, deliveries, n, "the lost one, at least, came again")
}
