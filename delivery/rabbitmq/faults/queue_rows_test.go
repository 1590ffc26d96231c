package faults

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/retry"
)

func queueRows() []row {
	return []row{
		{
			number: 32, fault: "queue full", how: "x-max-length 200, reject-publish",
			promise: "an error to the publisher, nothing dropped", quick: true, run: queueFull,
		},
		{
			number: 33, fault: "unroutable", how: "binding removed, publisher may not declare; then one that may",
			promise: "unroutable despite the ack, the other priorities go on; then declared again at once", quick: true, run: unroutable,
		},
		{
			number: 34, fault: "queue deleted under the consumer", how: "queue.delete of an empty one",
			promise: "declared again, subscribed again, logged, nothing unroutable", quick: true, run: queueDeleted,
		},
		{
			number: 34, fault: "queue deleted under a lone publisher", how: "the same, and nobody consumes",
			promise: "declared again by the message that misses it, which gets through", quick: true, run: queueDeletedUnderPublisher,
		},
		{
			number: 34, fault: "dead-letter queue deleted", how: "the same",
			promise: "declared again by the letter that misses it, consumers go on", quick: true, run: deadLetterQueueDeleted,
		},
		{
			number: 34, fault: "delay queues deleted", how: "the same, levels 0 and 1 of the ladder",
			promise: "declared again by the retry that misses them, consumers go on", quick: true, run: delayQueuesDeleted,
		},
		{
			number: 38, fault: "consumer_timeout", how: "consumer_timeout 4 s, handlers of 9 s on one priority",
			promise: "redelivered and recognised, other priorities unharmed", run: consumerTimeout,
		},
		{
			number: 40, fault: "channel limit", how: "channel_max 3",
			promise: "a clear error in bounded time", quick: true, run: channelLimit,
		},
	}
}

func queueFull(r *rowTest) {
	const room = 200
	p := r.pipeline(pipelineConfig{timeout: 2 * time.Second, transport: func(c *rabbitmq.Config) {
		c.Topology = func(name string, server rabbitmq.Version) rabbitmq.Topology {
			topology := rabbitmq.Quorum(name, server)
			for i, queue := range topology.Queues {
				if slices.ContainsFunc(topology.Levels, func(l rabbitmq.Level) bool { return l.Queue == queue.Name }) {
					topology.Queues[i].Arguments["x-max-length"] = int64(room)
					topology.Queues[i].Arguments["x-overflow"] = "reject-publish"
				}
			}
			return topology
		}
	}})
	p.startTraffic()
	p.awaitMore(300)
	p.consumer.Pause()
	p.eventually(func() bool { return p.refusedAs("refused") > 500 }, "publishers are not told that the queue is full")
	p.consumer.Resume()
	p.awaitMore(500)
	p.finish()
	r.note("%d messages refused", p.refusedAs("refused"))
	assert.Zero(r, p.disconnects(""), "connections lost")
}

func unroutable(r *rowTest) {
	p := r.pipeline(pipelineConfig{})
	passive := p.transportConfig
	passive.Passive = true
	other := p.open(passive)
	r.atEnd(func() { p.mustEnd("Transport.Close", other.Close) })
	p.publishThrough(other)
	p.startTraffic()
	p.awaitMore(300)
	bind := func(do func(*amqp.Channel, string) error) {
		p.raw(func(channel *amqp.Channel) { require.NoError(r, do(channel, p.transportConfig.Name)) })
	}
	bind(func(channel *amqp.Channel, name string) error {
		return channel.QueueUnbind(name+".normal", "normal", name, nil)
	})
	p.eventually(func() bool { return p.refusedAs("unroutable") > 50 }, "publishers are not told that nobody gets it")
	high := p.messages("high", 50)
	for i := range high {
		high[i].Priority = delivery.High
	}
	assert.Empty(r, p.publishOnce(high...), "another priority is harmed")
	p.publishThrough(p.transport)
	p.awaitMore(500)
	p.finish()
	r.note("%d messages unroutable", p.refusedAs("unroutable"))
	assert.Zero(r, p.disconnects(""), "connections lost")
}

func queueDeleted(r *rowTest) {
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	p.awaitMore(300)
	for range 2 {
		p.stopTraffic()
		p.drain() // deleting a queue with messages would be the admin's loss
		p.raw(func(channel *amqp.Channel) {
			_, err := channel.QueueDelete(p.transportConfig.Name+".normal", false, false, false)
			require.NoError(r, err)
		})
		p.startTraffic()
		p.awaitMore(300)
	}
	p.finish()
	assert.GreaterOrEqual(r, p.log.count("broker channel lost", "consume "+p.transportConfig.Name+".normal"), 2, "not logged")
	assert.Zero(r, p.refusedAs("unroutable"), "messages unroutable meanwhile")
}

// deleteQueues deletes queues that are empty: to delete messages would be the admin's
// loss.
func (p *pipeline) deleteQueues(names ...string) {
	p.Helper()
	p.raw(func(channel *amqp.Channel) {
		for _, name := range names {
			_, err := channel.QueueDelete(p.transportConfig.Name+"."+name, false, false, false)
			require.NoError(p, err)
		}
	})
}

func queueDeletedUnderPublisher(r *rowTest) {
	p := r.pipeline(pipelineConfig{noConsumer: true})
	p.deleteQueues("normal", "urgent")
	p.startTraffic()
	p.eventually(func() bool { return p.accepted.Load() >= 500 }, "messages are not accepted")
	assert.Zero(r, p.refusedAs("unroutable"))
	p.startConsumer()
	p.awaitMore(500)
	p.finish()
}

func deadLetterQueueDeleted(r *rowTest) {
	p := r.pipeline(pipelineConfig{noConsumer: true, handler: func(_ context.Context, m delivery.Message) error {
		if strings.Contains(m.ID, "bad") {
			return retry.Permanent(errors.New("never"))
		}
		return nil
	}})
	p.config.consumer = func(c *delivery.ConsumerConfig) { c.DeadLetters = p.transport }
	p.startConsumer()
	p.startTraffic()
	p.awaitMore(300)
	p.deleteQueues("dlq")
	p.publish(p.messages("bad", 2*prefetch)...)
	p.awaitMore(500)
	collector, err := rabbitmq.NewCollector(p.transport, p.manager, rabbitmq.CollectorConfig{})
	require.NoError(r, err)
	ctx, cancel := context.WithCancel(r.ctx)
	collected := make(chan error, 1)
	go func() { collected <- collector.Run(ctx) }()
	r.atEnd(func() {
		cancel()
		p.mustEnd("Collector.Run", func() error { return <-collected })
	})
	p.finish()
}

func delayQueuesDeleted(r *rowTest) {
	p := r.pipeline(pipelineConfig{
		handler: func(ctx context.Context, m delivery.Message) error {
			if attempt, _ := delivery.AttemptFrom(ctx); strings.Contains(m.ID, "late") && attempt.Number <= 2 {
				return errors.New("later")
			}
			return nil
		},
		consumer: func(c *delivery.ConsumerConfig) { c.Retry = retry.Exponential{Base: time.Second, MaxRetries: 3} },
	})
	p.startTraffic()
	p.awaitMore(300)
	p.deleteQueues("delay.0", "delay.1")
	p.publish(p.messages("late", 2*prefetch)...)
	p.awaitMore(500)
	p.finish()
}

// consumerTimeout has handlers of one priority exceed consumer_timeout.
func consumerTimeout(r *rowTest) {
	r.setBroker("consumer_timeout", "4000", "1800000")
	r.setBroker("channel_tick_interval", "1000", "60000")
	p := r.pipeline(pipelineConfig{handler: func(ctx context.Context, m delivery.Message) error {
		if !strings.Contains(m.ID, "slow") {
			return nil
		}
		select {
		case <-time.After(9 * time.Second):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	p.startTraffic()
	p.awaitMore(300)
	slow := p.messages("slow", 4)
	for i := range slow {
		slow[i].Priority = delivery.Urgent
	}
	p.publish(slow...)
	p.eventually(func() bool {
		return p.log.count("broker channel lost", "consume "+p.transportConfig.Name+".urgent") > 0
	}, "the broker does not close the channel")
	p.awaitMore(500)
	p.finish()
	for _, other := range []string{"high", "normal", "low"} {
		assert.Zero(r, p.log.count("broker channel lost", "consume "+p.transportConfig.Name+"."+other), "the consumer of %s was harmed", other)
	}
	r.note("%d timeouts", p.log.count("broker channel lost", "consume "+p.transportConfig.Name+".urgent"))
}

func channelLimit(r *rowTest) {
	p := r.pipeline(pipelineConfig{noConsumer: true})
	r.setBroker("channel_max", "3", "2047")
	p.publish(p.messages("before", 50)...)
	// New connections get the limit, which is too low for a subscription.
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	_, err := p.transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.Error(r, err)
	assert.Contains(r, strings.ToLower(err.Error()), "channel", "the error does not say why: %v", err)
	require.NoError(r, ctx.Err(), "not told before the caller's deadline, so that Consumer.Run would try for ever: %v", err)
	_, err = r.broker.Ctl(r.ctx, "eval", "application:set_env(rabbit, channel_max, 2047).")
	require.NoError(r, err)
	p.startConsumer()
	p.startTraffic()
	p.awaitMore(300)
	p.finish()
}
