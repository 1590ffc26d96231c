package rabbitmq

import (
	"context"
	"math/bits"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func TestDelaysPassInTheBroker(t *testing.T) {
	t.Parallel()
	transport := open(t, config(t, shared.AMQP(t)))
	subscription := subscribe(t, transport, 100)
	delays := map[string]time.Duration{
		"0.2": 200 * time.Millisecond, "1": time.Second, "3.4": 3400 * time.Millisecond, "5": 5 * time.Second,
	}
	sent := make(map[string]time.Time)
	for id, delay := range delays {
		sent[id] = time.Now()
		require.Nil(t, transport.SendAfter(context.Background(), delay, []delivery.Envelope{message(id)}))
	}
	for range delays {
		in := receive(t, subscription, 1)[0]
		e, err := in.Envelope()
		require.NoError(t, err)
		took := time.Since(sent[e.ID])
		t.Log(e.ID, took)
		assert.GreaterOrEqual(t, took, delays[e.ID])
		assert.Less(t, took, delays[e.ID]+time.Minute, "held up by something")
		assert.Equal(t, message(e.ID), *e)
		require.NoError(t, in.Ack())
	}
}

func TestDelaysHaveALimit(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	require.Nil(t, transport.SendAfter(context.Background(), 1000*time.Hour, []delivery.Envelope{message("1")}))
	raw(t, c.URL, func(channel *amqp.Channel) {
		d, ok, err := channel.Get(c.Name+".delay.19", true)
		require.NoError(t, err)
		require.True(t, ok)
		assert.Equal(t, strings.Repeat("1.", 20)+"normal", d.RoutingKey)
	})
	c.Name = servers.Unique(t)
	c.Topology = func(name string, server Version) Topology {
		topology := Quorum(name, server)
		topology.Delays, topology.DeadLetter = nil, Route{}
		return topology
	}
	bare := open(t, c)
	require.ErrorIs(t, bare.SendAfter(context.Background(), time.Minute, []delivery.Envelope{message("1")})[0], delivery.ErrUnsupported)
	assert.Nil(t, bare.SendAfter(context.Background(), 990*time.Millisecond, []delivery.Envelope{message("2")}))
	require.ErrorIs(t, bare.DeadLetter(context.Background(), delivery.DeadLetter{}), delivery.ErrUnsupported)
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
		delay := time.Duration(rapid.Int64Range(0, int64(topology.longestDelay())).Draw(t, "delay"))
		at, inLadder := topology.delayed(delay, &level.shards()[0])
		require.Equal(t, delay+ladderSlack >= time.Second, inLadder)
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
		require.Equal(t, min(delay+ladderSlack, topology.longestDelay()).Truncate(time.Second), held)
		require.Equal(t, bits.Len64(uint64(held/time.Second)), hops, "it begins at the highest digit")
	})
}
