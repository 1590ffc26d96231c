package faults

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

func queueRows() []row {
	return []row{
		{
			number: 32, fault: "queue full", how: "x-max-length 200, reject-publish",
			promise: "an error to the publisher, nothing dropped", quick: true, run: queueFull,
		},
		{
			number: 33, fault: "unroutable", how: "binding removed",
			promise: "unroutable despite the ack; the other priorities go on", quick: true, run: unroutable,
		},
		{
			number: 34, fault: "queue deleted under the consumer", how: "queue.delete of an empty one",
			promise: "declared again, subscribed again, logged", quick: true, run: queueDeleted,
		},
		{
			number: 35, fault: "permissions revoked", how: "set_permissions, close_all_connections",
			promise: "permanent error, no hot loop, recovers when they are back", run: permissionsRevoked,
		},
		{
			number: 36, fault: "vhost deleted, bad password", how: "delete_vhost, change_password",
			promise: "permanent error, no hot loop, recovers when it is back", run: vhostDeleted,
		},
		{
			number: 37, fault: "dead-letter store missing, full", how: "store fails for 4 s; then takes 20 of 60",
			promise: "not acked, tried again at growing intervals", run: lettersMissing,
		},
		{
			number: 38, fault: "consumer_timeout", how: "consumer_timeout 4 s, handlers of 9 s on one priority",
			promise: "redelivered and recognised, other priorities unharmed", run: consumerTimeout,
		},
		{
			number: 40, fault: "channel limit", how: "channel_max 3",
			promise: "a clear error in bounded time", quick: true, run: channelLimit,
		},
		{
			number: 43, fault: "retry confirmed, ack lost", how: "connection reset before the ack of every failed attempt is sent",
			promise: "the old copy is stale: one chain of retries", quick: true, run: forkedRetry,
		},
	}
}

func queueFull(r *rig) {
	const room = 200
	p := r.pipeline(setup{timeout: 2 * time.Second, transport: func(c *rabbitmq.Config) {
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
	p.traffic()
	p.flows(300)
	p.consumer.Pause()
	p.eventually(func() bool { return p.refusedAs("refused") > 500 }, "publishers are not told that the queue is full")
	p.consumer.Resume()
	p.flows(500)
	p.finish()
	r.note("%d messages refused", p.refusedAs("refused"))
	assert.Zero(r, p.disconnects(""), "connections lost")
}

func unroutable(r *rig) {
	p := r.pipeline(setup{})
	p.traffic()
	p.flows(300)
	bind := func(do func(*amqp.Channel, string) error) {
		p.raw(func(channel *amqp.Channel) { require.NoError(r, do(channel, p.config.Name)) })
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
	bind(func(channel *amqp.Channel, name string) error {
		return channel.QueueBind(name+".normal", "normal", name, false, nil)
	})
	p.flows(500)
	p.finish()
	r.note("%d messages unroutable", p.refusedAs("unroutable"))
	assert.Zero(r, p.disconnects(""), "connections lost")
}

func queueDeleted(r *rig) {
	p := r.pipeline(setup{})
	p.traffic()
	p.flows(300)
	for range 2 {
		p.stop()
		p.drain() // deleting a queue with messages would be the admin's loss
		p.raw(func(channel *amqp.Channel) {
			_, err := channel.QueueDelete(p.config.Name+".normal", false, false, false)
			require.NoError(r, err)
		})
		p.traffic()
		p.flows(300)
	}
	p.finish()
	assert.GreaterOrEqual(r, p.log.count("rabbitmq_disconnected", "consume "+p.config.Name+".normal"), 2, "not logged")
	r.note("%d messages unroutable meanwhile", p.refusedAs("unroutable"))
}

// calm checks that so many seconds of a permanent fault cost few tries.
func (p *pipeline) calm(begin time.Time) {
	p.Helper()
	tries := len(p.log.since(begin, "rabbitmq_connect_failed")) + len(p.log.since(begin, "rabbitmq_disconnected"))
	// Each of the connections (lanes and the consumer's, which has a channel for
	// each priority) tries about once in MaxReconnectDelay.
	seconds := time.Since(begin).Seconds()
	most := int(seconds+2) * (lanes + 5) * 2
	assert.LessOrEqual(p, tries, most, "a hot loop")
	p.note("%d tries to connect in %.0f s", tries, seconds)
}

func permissionsRevoked(r *rig) {
	permit := func(pattern string) {
		_, err := r.broker.Ctl(context.WithoutCancel(r.ctx), "set_permissions", "guest", pattern, pattern, pattern)
		assert.NoError(r, err)
	}
	p := r.pipeline(setup{})
	p.traffic()
	p.flows(300)
	begin := time.Now()
	permit("^$")
	r.later(func() { permit(".*") })
	r.ctl("close_all_connections", "fault")
	p.holdUp(5 * time.Second)
	p.calm(begin)
	_, err := rabbitmq.Open(r.ctx, p.config)
	var reply *amqp.Error
	require.ErrorAs(r, err, &reply)
	assert.Equal(r, amqp.AccessRefused, reply.Code)
	permit(".*")
	p.flows(500)
	p.finish()
}

func vhostDeleted(r *rig) {
	const user, vhost = "fault36", "fault36"
	create := func() {
		r.ctl("add_vhost", vhost)
		r.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
	}
	r.ctl("add_user", user, "first")
	r.later(func() {
		for _, args := range [][]string{{"delete_vhost", vhost}, {"delete_user", user}} {
			_, err := r.broker.Ctl(context.Background(), args...)
			assert.NoError(r, err)
		}
	})
	create()
	access, err := url.Parse(r.broker.URL())
	require.NoError(r, err)
	access.User, access.Path = url.UserPassword(user, "first"), "/"+vhost
	p := r.pipeline(setup{amqp: access.String()})
	p.traffic()
	p.flows(300)

	permanent := func() {
		p.Helper()
		_, err := rabbitmq.Open(r.ctx, p.config)
		var fault *rabbitmq.ConnectError
		require.ErrorAs(r, err, &fault)
		assert.True(r, fault.Permanent, "not permanent: %v", err)
		assert.NotContains(r, err.Error(), "first", "the password is shown")
	}
	begin := time.Now()
	r.ctl("change_password", user, "second")
	r.ctl("close_all_connections", "--vhost", vhost, "fault")
	p.holdUp(4 * time.Second)
	p.calm(begin)
	permanent()
	r.ctl("change_password", user, "first")
	p.flows(300)

	p.stop()
	p.drain() // deleting a vhost with messages would be the admin's loss
	begin = time.Now()
	r.ctl("delete_vhost", vhost)
	p.traffic()
	p.holdUp(4 * time.Second)
	p.calm(begin)
	permanent()
	create()
	p.flows(500)
	p.finish()
}

func lettersMissing(r *rig) {
	const poisoned, room = 30, 20
	var acked sync.Map
	memory := dlq.NewMemory(dlq.MemoryConfig{MaxEntries: room})
	p := r.pipeline(setup{
		letters: memory,
		handler: func(_ context.Context, m delivery.Message) error {
			if strings.Contains(m.ID, "poison") {
				return retry.Permanent(errPoison)
			}
			return nil
		},
		onAck: func(id string, _ delivery.Incoming) bool {
			if strings.Contains(id, "poison") {
				acked.Store(id, true)
			}
			return true
		},
	})
	ackedNow := func() (n int) {
		acked.Range(func(any, any) bool { n++; return true })
		return n
	}
	p.traffic()
	p.flows(300)
	p.letters.down.Store(true)
	p.publish(p.messages("poison-a", poisoned)...)
	p.eventually(func() bool { return p.letters.tries.Load() >= poisoned }, "nobody tries to store")
	begin, tries := time.Now(), p.letters.tries.Load()
	r.wait(4 * time.Second)
	assert.Zero(r, ackedNow(), "acked without a home")
	// Each waits 100 ms, then twice as long each time.
	assert.Less(r, p.letters.tries.Load()-tries, int64(poisoned*8), "a hot loop")
	r.note("%d tries to store %d letters in %.0f s", p.letters.tries.Load(), poisoned, time.Since(begin).Seconds())
	p.flows(200) // others are not held up
	p.letters.down.Store(false)
	// Now there is room for some of them.
	p.publish(p.messages("poison-b", poisoned)...)
	p.eventually(func() bool { return ackedNow() >= room }, "what has room is not settled")
	r.wait(2 * time.Second)
	assert.Equal(r, room, ackedNow(), "acked without a home")
	for made := 0; made < 2*poisoned; {
		letters := p.deadLetters()
		p.bookLetters()
		var ids []string
		for _, letter := range letters {
			ids = append(ids, letter.ID)
		}
		made += len(ids)
		_, err := p.manager.Delete(r.ctx, ids...)
		require.NoError(r, err)
		r.wait(50 * time.Millisecond)
	}
	p.flows(200)
	p.finish()
	assert.Equal(r, 2*poisoned, ackedNow())
	assert.Equal(r, 2*poisoned, r.ledger.Report().DeadLetters)
}

// consumerTimeout makes the broker lose patience with handlers of one priority.
func consumerTimeout(r *rig) {
	r.setBroker("consumer_timeout", "4000", "1800000")
	r.setBroker("channel_tick_interval", "1000", "60000")
	p := r.pipeline(setup{handler: func(ctx context.Context, m delivery.Message) error {
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
	p.traffic()
	p.flows(300)
	slow := p.messages("slow", 4)
	for i := range slow {
		slow[i].Priority = delivery.Urgent
	}
	p.publish(slow...)
	p.eventually(func() bool {
		return p.log.count("rabbitmq_disconnected", "consume "+p.config.Name+".urgent") > 0
	}, "the broker does not lose patience")
	p.flows(500)
	p.finish()
	for _, other := range []string{"high", "normal", "low"} {
		assert.Zero(r, p.log.count("rabbitmq_disconnected", "consume "+p.config.Name+"."+other), "the consumer of %s was harmed", other)
	}
	r.note("%d timeouts", p.log.count("rabbitmq_disconnected", "consume "+p.config.Name+".urgent"))
}

func channelLimit(r *rig) {
	p := r.pipeline(setup{noConsumer: true})
	r.setBroker("channel_max", "3", "2047")
	p.publish(p.messages("before", 50)...)
	// New connections get the limit, which a subscription does not fit in.
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	_, err := p.transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.Error(r, err)
	assert.Contains(r, strings.ToLower(err.Error()), "channel", "the error does not tell: %v", err)
	require.NoError(r, ctx.Err(), "not told before the caller's deadline, so that Consumer.Run would try for ever: %v", err)
	_, err = r.broker.Ctl(r.ctx, "eval", "application:set_env(rabbit, channel_max, 2047).")
	require.NoError(r, err)
	p.consume()
	p.traffic()
	p.flows(300)
	p.finish()
}

// forkedRetry loses the ack of each copy whose attempt failed, after its retry
// was confirmed.
func forkedRetry(r *rig) {
	// Fewer than workers: what waits for a reset leaves some to the others.
	const failing = concurrency - 4
	var lost sync.Map
	var count atomic.Int64
	resets := []chan struct{}{make(chan struct{}), make(chan struct{})}
	n := r.network(r.broker.URL())
	p := r.pipeline(setup{
		amqp: n.url,
		handler: func(ctx context.Context, m delivery.Message) error {
			attempt, _ := delivery.AttemptFrom(ctx)
			if !strings.Contains(m.ID, "failing") {
				return nil
			}
			if attempt.Number > 1 { // not while the acks of the attempt before are being lost
				select {
				case <-resets[attempt.Number-2]:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if attempt.Number < 3 {
				return errPoison
			}
			return nil
		},
		onAck: func(id string, in delivery.Incoming) bool {
			envelope, err := in.Envelope()
			if err != nil || !strings.Contains(id, "failing") || envelope.Attempt == 2 {
				return true
			}
			_, again := lost.LoadOrStore(fmt.Sprint(id, envelope.Attempt), true)
			if !again {
				count.Add(1)
			}
			return again
		},
	})
	p.traffic()
	p.flows(200)
	messages := p.messages("failing", failing)
	p.publish(messages...)
	for i, reset := range resets {
		p.eventually(func() bool { return count.Load() >= int64(i+1)*failing }, "no retries")
		n.down()
		n.up()
		close(reset)
	}
	p.flows(300)
	p.finish()
	for _, m := range messages {
		assert.Equal(r, []int{1, 2, 3}, p.attemptsOf(m.ID), "the chain of %s", m.ID)
	}
	assert.Positive(r, p.answered(metrics.IdempotencyStale), "no old copy was recognised as stale")
	r.note("%d acks lost, %d old copies stale, %d done before", count.Load(),
		p.answered(metrics.IdempotencyStale), p.answered(metrics.IdempotencyDuplicate))
}
