package rabbitmq

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// TestCloseKeepsAcks: what was acked before Close does not come again, however
// soon Close followed, and in whatever order it was acked. After a Pause some may,
// where the broker is slow all of a sudden.
func TestCloseKeepsAcks(t *testing.T) {
	const n = 300
	for name, most := range map[string]int64{"consuming": 0, "paused": n / 4} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			batch := make([]delivery.Envelope, n)
			for i := range batch {
				batch[i] = message("1")
			}
			transport := open(t, config(t, shared.AMQP(t)))
			for range 4 {
				require.Nil(t, send(t, transport, 30*time.Second, batch...))
				subscription, err := transport.Subscribe(ctx, delivery.SubscribeConfig{Prefetch: n})
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
