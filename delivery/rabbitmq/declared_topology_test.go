package rabbitmq

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

func TestTopologyMismatch(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDeclare(c.Name+".high", true, false, false, false, amqp.Table{
			"x-dead-letter-exchange": c.Name + ".dlx", "x-dead-letter-routing-key": "failed",
		})
		require.NoError(t, err)
	})
	_, err := Open(context.Background(), c)
	var fault *TopologyError
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, "queue", fault.Kind)
	assert.Equal(t, c.Name+".high", fault.Name)
	assert.Equal(t, "x-queue-type", fault.Argument)
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDeclarePassive(c.Name+".high", true, false, false, false, nil)
		require.NoError(t, err, "nothing is deleted")
	})
	c.Topology = func(string, Version) Topology { return Topology{} }
	_, err = Open(context.Background(), c)
	require.ErrorIs(t, err, ErrConfig)
}

func TestPassive(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	passive := c
	passive.Passive = true
	_, err := Open(context.Background(), passive)
	var fault *TopologyError
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, "exchange", fault.Kind)
	assert.Equal(t, c.Name, fault.Name)
	open(t, c)
	transport := open(t, passive)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))

	// An exchange that is gone fails its messages, and no others.
	remove := func() {
		raw(t, c.URL, func(channel *amqp.Channel) { require.NoError(t, channel.ExchangeDelete(c.Name, false, false)) })
	}
	remove()
	var others sync.WaitGroup
	for i := range 10 {
		others.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			assert.NoError(t, transport.DeadLetter(ctx, delivery.DeadLetter{ID: fmt.Sprint(i), Envelope: message("letter")}))
		})
	}
	require.ErrorIs(t, sendWithin(t, transport, time.Minute, message("2"))[0], delivery.ErrUnroutable)
	others.Wait()
	// A queue that is missing fails a new subscription.
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(c.Name+".low", false, false, false)
		require.NoError(t, err)
	})
	_, err = transport.Subscribe(context.Background(), delivery.SubscribeConfig{})
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, c.Name+".low", fault.Name)
	_, err = transport.Depth(context.Background())
	require.ErrorAs(t, err, &fault)
	// Somebody makes it again.
	open(t, c)
	require.Eventually(t, func() bool { return sendWithin(t, transport, time.Minute, message("3")) == nil }, 2*time.Minute, 50*time.Millisecond)
}

func TestMissingExchangeIsDeclaredAgain(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
	raw(t, c.URL, func(channel *amqp.Channel) { require.NoError(t, channel.ExchangeDelete(c.Name, false, false)) })
	require.Nil(t, sendWithin(t, transport, time.Minute, message("2")))
}

// Far from the broker, a round trip costs what a hundred declarations cost near it.
func TestTopologyTakesFewRoundTrips(t *testing.T) {
	t.Parallel()
	const most = 15
	for name, change := range map[string]func(*Config){
		"quorum":  func(*Config) {},
		"classic": func(c *Config) { c.Topology = Classic },
		"shards":  func(c *Config) { c.Shards = 8 },
		"passive": func(c *Config) { c.Passive = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			c.PublishConnections = 1
			declared := c
			change(&declared)
			declared.Passive = false
			open(t, declared)
			n := newCountingNetwork(t, c.URL)
			change(&c)
			c.URL = n.url
			transport := open(t, c)
			t.Log("round trips:", n.allRounds(0))
			assert.LessOrEqual(t, n.allRounds(0), most)
			awaitConns(t, transport)
			before := n.connected()
			n.cut()
			require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
			t.Log("round trips of the recovery, with one for the message:", n.allRounds(before))
			assert.LessOrEqual(t, n.allRounds(before), most)
		})
	}
}

// What the broker answers by ending the connection is found out one by one.
func TestExchangeOfAnUnknownKind(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	topology := c.Topology
	c.Topology = func(name string, server Version) Topology {
		t := topology(name, server)
		t.Exchanges[1].Kind = "x-unknown"
		return t
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err := Open(ctx, c)
	var fault *TopologyError
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, "exchange", fault.Kind)
	assert.Equal(t, c.Name+".dlx", fault.Name)
}
