package rabbitmq

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestQuorumTopology(t *testing.T) {
	topology := Quorum("orders", Version{Major: 3, Minor: 10, Patch: 8})
	require.NoError(t, topology.validate())
	text := topology.String()
	for _, line := range []string{
		"exchange orders direct\n",
		"exchange barid.due topic alternate-exchange=barid.unroutable\n",
		"exchange barid.unroutable topic alternate-exchange=barid.lost\n",
		`binding barid.unroutable -> orders.unroutable key="` + strings.Repeat("*.", 20) + `orders.#"` + "\n",
		"queue orders.urgent x-dead-letter-exchange=orders.dlx x-dead-letter-routing-key=failed x-queue-type=quorum\n",
		"queue orders.dlq x-queue-type=quorum\n",
		"queue barid.delay.19 x-dead-letter-exchange=barid.delay.18 x-dead-letter-strategy=at-least-once x-message-ttl=524288000 x-overflow=reject-publish x-queue-type=quorum\n",
		"queue barid.delay.0 x-dead-letter-exchange=barid.due",
		`binding orders -> orders.low key="low"` + "\n",
		`binding orders.dlx -> orders.dlq key="failed"` + "\n",
		`binding barid.delay.18 -> barid.delay.17 key="*.0.#"` + "\n",
		`binding barid.delay.18 -> barid.delay.18 key="*.1.#"` + "\n",
	} {
		assert.Contains(t, text, line)
	}
	assert.NotContains(t, text, deliveryLimit)
	assert.Len(t, topology.Delays, 20)
	assert.Equal(t, time.Duration(1<<20-1)*time.Second, topology.longestDelay())

	newer := Quorum("orders", Version{Major: 4})
	assert.Equal(t, 6, strings.Count(newer.String(), "x-delivery-limit=-1"))
	for _, queue := range newer.Queues {
		assert.LessOrEqual(t, len(queue.Name), maxShortBytes)
	}
	long := Quorum(strings.Repeat("n", maxNameBytes), Version{})
	for _, exchange := range long.Exchanges {
		assert.LessOrEqual(t, len(exchange.Name), maxShortBytes)
	}
}
