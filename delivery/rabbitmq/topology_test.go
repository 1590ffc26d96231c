package rabbitmq

import (
	"errors"
	"math/bits"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
)

func TestQuorumTopology(t *testing.T) {
	topology := Quorum("orders", Version{Major: 3, Minor: 10, Patch: 8})
	require.NoError(t, topology.validate())
	text := topology.String()
	for _, line := range []string{
		"exchange orders direct\n",
		"exchange orders.due topic alternate-exchange=orders.unroutable\n",
		"queue orders.urgent x-dead-letter-exchange=orders.dlx x-dead-letter-routing-key=failed x-queue-type=quorum\n",
		"queue orders.dlq x-queue-type=quorum\n",
		"queue orders.delay.19 x-dead-letter-exchange=orders.delay.18 x-dead-letter-strategy=at-least-once x-message-ttl=524288000 x-overflow=reject-publish x-queue-type=quorum\n",
		"queue orders.delay.0 x-dead-letter-exchange=orders.due",
		`binding orders -> orders.low key="low"` + "\n",
		`binding orders.dlx -> orders.dlq key="failed"` + "\n",
		`binding orders.delay.18 -> orders.delay.17 key="*.0.#"` + "\n",
		`binding orders.delay.18 -> orders.delay.18 key="*.1.#"` + "\n",
	} {
		assert.Contains(t, text, line)
	}
	assert.NotContains(t, text, deliveryLimit)
	assert.Len(t, topology.Delays, 20)
	assert.Equal(t, time.Duration(1<<20-1)*time.Second, topology.longest())

	newer := Quorum("orders", Version{Major: 4})
	assert.Equal(t, 6, strings.Count(newer.String(), "x-delivery-limit=-1"))
	for _, queue := range newer.Queues {
		assert.LessOrEqual(t, len(queue.Name), maxShortBytes)
	}
	long := Quorum(strings.Repeat("n", MaxNameBytes), Version{})
	for _, exchange := range long.Exchanges {
		assert.LessOrEqual(t, len(exchange.Name), maxShortBytes)
	}
}

// route is what topic exchanges do with a routing key: which queue of the ladder
// takes it, and which exchange is next.
func route(topology Topology, exchange, key string) (queue, next string) {
	for _, b := range topology.Bindings {
		if b.Source != exchange || !matches(strings.Split(b.Key, "."), strings.Split(key, ".")) {
			continue
		}
		if b.ToExchange {
			next = b.Destination
		} else {
			queue = b.Destination
		}
	}
	return queue, next
}

func matches(pattern, words []string) bool {
	switch {
	case len(pattern) == 0:
		return len(words) == 0
	case pattern[0] == "#":
		return true // ours end with it
	case len(words) == 0 || pattern[0] != "*" && pattern[0] != words[0]:
		return false
	}
	return matches(pattern[1:], words[1:])
}

func TestLadderHoldsForTheWholeDelay(t *testing.T) {
	topology := Quorum("q", Version{})
	rapid.Check(t, func(t *rapid.T) {
		level := topology.Levels[rapid.IntRange(0, 3).Draw(t, "level")]
		delay := time.Duration(rapid.Int64Range(0, int64(topology.longest())).Draw(t, "delay"))
		at, inLadder := topology.delayed(delay, &level.shards()[0])
		require.Equal(t, delay+slack >= time.Second, inLadder)
		var held time.Duration
		exchange, hops := at.Exchange, 0
		for exchange != "q" && exchange != "q.due" {
			hops++
			queue, next := route(topology, exchange, at.Key)
			require.NotEqual(t, queue == "", next == "", "held here or passed on, never both")
			if queue == "" {
				exchange = next
				continue
			}
			for _, q := range topology.Queues {
				if q.Name == queue {
					held += time.Duration(q.Arguments["x-message-ttl"].(int64)) * time.Millisecond
					exchange = q.Arguments["x-dead-letter-exchange"].(string)
				}
			}
		}
		queue, _ := route(topology, exchange, at.Key)
		require.Equal(t, level.Queue, queue)
		require.Equal(t, min(delay+slack, topology.longest()).Truncate(time.Second), held)
		require.Equal(t, bits.Len64(uint64(held/time.Second)), hops, "it begins at the highest digit")
	})
}

func TestTopologyFaults(t *testing.T) {
	for want, change := range map[string]func(*Topology){
		"0 levels for the priority urgent": func(t *Topology) { t.Levels = t.Levels[1:] },
		"2 levels for the priority low":    func(t *Topology) { t.Levels = append(t.Levels, t.Levels[3]) },
		"Levels[0].Queue is empty":         func(t *Topology) { t.Levels[0].Queue = "" },
		"Levels[0].Address":                func(t *Topology) { t.Levels[0].Address = strings.Repeat("a", 216) },
		"Delays has 23 levels":             func(t *Topology) { t.Delays = make([]string, 23) },
	} {
		t.Run(want, func(t *testing.T) {
			topology := Quorum("q", Version{})
			change(&topology)
			err := topology.validate()
			require.ErrorIs(t, err, ErrConfig)
			assert.ErrorContains(t, err, want)
		})
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]Version{
		"3.10.8":     {3, 10, 8},
		"4.1.0-rc.1": {4, 1, 0},
		"4.0":        {4, 0, 0},
		"4":          {4, 0, 0},
		"":           {},
		"nonsense":   {},
		"3.x.1":      {3, 0, 0},
	} {
		assert.Equal(t, want, parseVersion(text), text)
	}
}

func TestTopologyErrorNamesTheArgument(t *testing.T) {
	mismatch := &amqp.Error{Code: 406, Server: true, Reason: "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' " +
		"in vhost '/': received 'quorum' but current is 'classic'"}
	fault := newTopologyError("queue", "q", mismatch)
	assert.Equal(t, "x-queue-type", fault.Argument)
	require.ErrorContains(t, fault, `queue "q" exists with another x-queue-type`)
	assert.Empty(t, newTopologyError("queue", "q", errors.New("gone")).Argument)

	// A queue of an older broker keeps its missing limit, any other limit is a
	// difference.
	queue := Quorum("q", Version{Major: 4}).Queues[0]
	limit := func(current string) *TopologyError {
		return newTopologyError("queue", "q", &amqp.Error{Code: 406, Server: true, Reason: "PRECONDITION_FAILED - inequivalent arg " +
			"'x-delivery-limit' for queue 'q' in vhost '/': received the value '-1' of type 'long' but current is " + current})
	}
	assert.True(t, queue.leaveLimit(limit("none")))
	assert.False(t, queue.leaveLimit(limit("the value '5' of type 'long'")))
	assert.False(t, queue.leaveLimit(fault))
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
