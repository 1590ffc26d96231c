package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/retry"
)

func TestClassicTopology(t *testing.T) {
	topology := Classic("orders", Version{Major: 3, Minor: 10, Patch: 8})
	require.NoError(t, topology.validate())
	text := topology.String()
	for _, line := range []string{
		"exchange orders direct\n",
		"exchange orders.dlx direct\n",
		"queue orders.high x-dead-letter-exchange=orders.dlx x-dead-letter-routing-key=failed x-max-priority=10\n",
		"queue orders.normal x-dead-letter-exchange=orders.dlx x-dead-letter-routing-key=failed x-max-priority=5\n",
		"queue orders.low x-dead-letter-exchange=orders.dlx x-dead-letter-routing-key=failed x-max-priority=1\n",
		"queue orders.dlq x-message-ttl=86400000\n",
		`binding orders.dlx -> orders.dlq key="failed"` + "\n",
		`binding orders -> orders.high key="high"` + "\n",
	} {
		assert.Contains(t, text, line)
	}
	assert.NotContains(t, text, "urgent")
	assert.Equal(t, 1, strings.Count(text, "binding barid.classic.due -> orders.high"))
	assert.Equal(t, "orders.dlq", topology.DeadLetterQueue)
	for _, exchange := range Quorum("orders", Version{}).Delays {
		assert.NotContains(t, topology.Delays, exchange, "there, messages are of another class")
	}

	type row struct {
		queue            string
		message, delayed uint8
	}
	newer := Classic("orders", Version{Major: 4, Minor: 3})
	for i, want := range []row{
		{"orders.high", 10, 10}, {"orders.high", 5, 5}, {"orders.normal", 5, 5}, {"orders.low", 1, 5},
	} {
		level := topology.Levels[i]
		assert.Equal(t, delivery.Priorities()[i], level.Priority)
		assert.Equal(t, want, row{level.Queue, level.MessagePriority, level.DelayedPriority})
		assert.Equal(t, level, newer.Levels[i])
	}
	assert.Equal(t, 1, strings.Count(newer.String(), "x-delivery-limit=-1"), "no classic queue has a delivery limit")
}

// What comes out of the ladder goes in front of what is less urgent, as what was
// not delayed does.
func TestClassicPriorityOutlivesTheLadder(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	c.Topology = Classic
	transport := open(t, c)
	ctx := context.Background()
	for _, priority := range delivery.Priorities() {
		e := message(priority.String())
		e.Priority = priority
		// More than a second, lest a slow machine find it too short for the ladder.
		require.Nil(t, transport.SendAfter(ctx, 1500*time.Millisecond, []delivery.Envelope{e}))
	}
	backlog := make([]delivery.Envelope, 5)
	for i := range backlog {
		backlog[i] = message(fmt.Sprint(i))
		backlog[i].Priority = delivery.High
	}
	require.Nil(t, sendWithin(t, transport, time.Minute, backlog...))
	require.Eventually(t, func() bool {
		depths, err := transport.Depth(ctx)
		return err == nil && depths[delivery.Urgent].Messages == 0 && depths[delivery.High].Messages == 7 &&
			depths[delivery.Normal].Messages == 1 && depths[delivery.Low].Messages == 1
	}, time.Minute, 10*time.Millisecond)
	raw(t, c.URL, func(channel *amqp.Channel) {
		for _, level := range transport.Topology().Levels {
			d, ok, err := channel.Get(level.Queue, false)
			require.NoError(t, err)
			require.True(t, ok)
			assert.Equal(t, level.DelayedPriority, d.Priority)
			if level.Priority != delivery.High { // has other messages before it
				assert.Equal(t, level.Priority.String(), d.MessageId)
			}
		}
	})
	subscription := subscribe(t, transport, 100)
	priorities := map[string]delivery.Priority{}
	for _, in := range receive(t, subscription, 9) {
		e, err := in.Envelope()
		require.NoError(t, err)
		priorities[e.ID] = in.Priority()
		require.NoError(t, in.Ack())
	}
	for _, priority := range delivery.Priorities() {
		assert.Equal(t, priority, priorities[priority.String()])
	}
}

// What is due does not wait in the ladder behind later messages, whatever the
// priorities of both.
func TestClassicPrioritiesDoNotHoldUpTheLadder(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	c.Topology = Classic
	transport := open(t, c)
	subscription := subscribe(t, transport, 200)
	// Both wait in the level of 8 s, and the later ones are there when the first are due.
	const each, delay, apart = 20, 8500 * time.Millisecond, 6 * time.Second
	first, later := make([]delivery.Envelope, each), make([]delivery.Envelope, each)
	for i := range each {
		first[i], later[i] = message(fmt.Sprint("first-", i)), message(fmt.Sprint("later-", i))
		first[i].Priority, later[i].Priority = delivery.Low, delivery.Urgent
	}
	require.Nil(t, transport.SendAfter(t.Context(), delay, first))
	retry.Wait(t.Context().Done(), apart)
	require.Nil(t, transport.SendAfter(t.Context(), delay, later))
	for _, in := range receive(t, subscription, each) {
		e, err := in.Envelope()
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(e.ID, "first-"), "%s came first", e.ID)
		require.NoError(t, in.Ack())
	}
	// They have not come together with the later ones, which still wait.
	soon, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := subscription.Receive(soon)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestClassicTopologyMismatch(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		queue     string
		change    func(amqp.Table)
		declare   func(*Topology)
		argument  string
		complaint string
	}{
		"another priority":   {"high", func(a amqp.Table) { a["x-max-priority"] = int64(9) }, nil, "x-max-priority", "exists with another"},
		"no priority":        {"low", func(a amqp.Table) { delete(a, "x-max-priority") }, nil, "x-max-priority", "exists with another"},
		"another TTL":        {"dlq", func(a amqp.Table) { a["x-message-ttl"] = int64(1) }, nil, "x-message-ttl", "exists with another"},
		"other dead letters": {"normal", func(a amqp.Table) { a["x-dead-letter-exchange"] = "elsewhere" }, nil, "x-dead-letter-exchange", "exists with another"},
		"impossible": {"normal", nil, func(topology *Topology) {
			for i, q := range topology.Queues {
				if strings.HasSuffix(q.Name, ".normal") {
					topology.Queues[i].Arguments["x-queue-type"] = "quorum"
				}
			}
		}, "x-max-priority", "can't have"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config(t, shared.AMQP(t))
			c.Topology = func(name string, server Version) Topology {
				topology := Classic(name, server)
				if test.declare != nil {
					test.declare(&topology)
				}
				return topology
			}
			queue := c.Name + "." + test.queue
			if test.change != nil {
				raw(t, c.URL, func(channel *amqp.Channel) {
					for _, q := range Classic(c.Name, Version{}).Queues {
						if q.Name == queue {
							test.change(q.Arguments)
							_, err := channel.QueueDeclare(queue, true, false, false, false, q.Arguments)
							require.NoError(t, err)
							publish(t, channel, Route{Key: queue}, amqp.Publishing{Body: []byte("kept"), DeliveryMode: amqp.Persistent})
						}
					}
				})
			}
			_, err := Open(context.Background(), c)
			var fault *TopologyError
			require.ErrorAs(t, err, &fault)
			assert.Equal(t, "queue", fault.Kind)
			assert.Equal(t, queue, fault.Name)
			assert.Equal(t, test.argument, fault.Argument)
			require.ErrorContains(t, err, test.complaint)
			if test.change == nil || test.argument == "x-message-ttl" {
				return
			}
			raw(t, c.URL, func(channel *amqp.Channel) {
				state, err := channel.QueueDeclarePassive(queue, true, false, false, false, nil)
				require.NoError(t, err, "nothing is deleted")
				assert.Equal(t, 1, state.Messages)
			})
		})
	}
}

func TestClassicPassive(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	c.Topology = Classic
	passive := c
	passive.Passive = true
	_, err := Open(context.Background(), passive)
	var fault *TopologyError
	require.ErrorAs(t, err, &fault)
	open(t, c)
	require.Nil(t, sendWithin(t, open(t, passive), time.Minute, message("1")))
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(c.Name+".high", false, false, false)
		require.NoError(t, err)
	})
	_, err = Open(context.Background(), passive)
	require.ErrorAs(t, err, &fault)
	assert.Equal(t, c.Name+".high", fault.Name)
	assert.Empty(t, fault.Argument)
}
