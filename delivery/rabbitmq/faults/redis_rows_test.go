package faults

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
	"github.com/esh3artech/barid/idempotency/redisstore"
	"github.com/esh3artech/barid/metrics"
)

func redisRows() []row {
	return []row{
		{
			number: 15, fault: "Redis killed", how: "SIGKILL for 3 s, start again (append-only file)",
			promise: "nothing acked meanwhile, no attempt counted, recovers by itself", quick: true, run: redisKilled,
		},
		{
			number: 16, fault: "Redis slow", how: "CLIENT PAUSE 3 s, SIGSTOP 5 s",
			promise: "times out, pauses, no attempt counted, recovers by itself", run: redisSlow,
		},
		{
			number: 17, fault: "Redis reply lost", how: "proxy discards answers and cuts, 8 times",
			promise: "own token recognised: no key is busy", quick: true, run: replyLost,
		},
		{
			number: 18, fault: "Redis failover", how: "replica cut off for 1 s, primary killed, replica promoted",
			promise: "duplicates <= writes that the failover lost", run: redisFailover,
		},
		{
			number: 19, fault: "Redis out of memory, evicting", how: "maxmemory 1mb; maxmemory-policy allkeys-lru",
			promise: "paused while full; refused at the start when keys may be evicted", run: redisFull,
		},
		{
			number: 20, fault: "SCRIPT FLUSH, FLUSHALL", how: "redis-cli, and 200 messages published once more after each",
			promise: "scripts reloaded; what is forgotten may come twice, nothing is lost", quick: true, run: redisFlushed,
		},
		{
			number: 21, fault: "clock jumps", how: "every expiry in Redis 16 s nearer, as its clock jumping over a lease does it, three times",
			promise: "duplicates at most of what ran at the moment", bound: 3 * concurrency, quick: true, run: clockJumps,
		},
	}
}

// ownRedis starts a Redis that keeps its data when it is killed.
func (r *rowTest) ownRedis(args ...string) *servers.Redis {
	r.Helper()
	server, err := servers.NewRedis(r.ctx, servers.RedisConfig{AppendOnly: true, Args: args})
	require.NoError(r, err)
	r.atEnd(func() { assert.NoError(r, server.Close()) })
	return server
}

// redisCommand runs a command on a Redis.
func (r *rowTest) redisCommand(addr string, args ...any) any {
	r.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close() //nolint:errcheck // the answer is all that counts
	reply, err := client.Do(r.ctx, args...).Result()
	require.NoError(r, err, "redis: %v", args)
	return reply
}

func redisKilled(r *rowTest) {
	server := r.ownRedis()
	p := r.pipeline(pipelineConfig{redis: server.URL()})
	p.startTraffic()
	p.awaitMore(300)
	require.NoError(r, server.Kill())
	p.awaitNoAcks(3 * time.Second)
	assert.Positive(r, p.keyAnswers(metrics.IdempotencyDown))
	require.NoError(r, server.Start(r.ctx))
	p.awaitMore(500)
	p.finish()
	assert.Zero(r, p.attemptsCounted(), "attempts counted")
	// A hot loop would ask for every message in hand, again and again.
	r.note("asked %d times in vain while it was down", p.keyAnswers(metrics.IdempotencyDown))
}

func redisSlow(r *rowTest) {
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	p.awaitMore(300)
	r.redisCommand(r.redis.Addr(), "CLIENT", "PAUSE", 3000, "ALL")
	p.awaitMore(300)
	require.NoError(r, r.redis.Pause())
	r.atEnd(func() { assert.NoError(r, r.redis.Resume()) })
	p.awaitNoAcks(4 * time.Second)
	require.NoError(r, r.redis.Resume())
	p.awaitMore(300)
	p.finish()
	assert.Positive(r, p.keyAnswers(metrics.IdempotencyDown))
	assert.Zero(r, p.attemptsCounted(), "attempts counted")
}

func replyLost(r *rowTest) {
	n := r.network(r.redis.URL())
	p := r.pipeline(pipelineConfig{redis: n.url})
	p.startTraffic()
	for range 8 {
		p.awaitMore(100)
		// Answers vanish at once, and the connections with them a little later.
		n.add("timeout", "downstream", 1, attributes{"timeout": 300})
		r.wait(400 * time.Millisecond)
		n.restore()
	}
	p.awaitMore(300)
	p.finish()
	assert.Zero(r, p.keyAnswers(metrics.IdempotencyBusy), "keys that look busy though nobody holds them")
	assert.Zero(r, p.attemptsCounted(), "attempts counted")
}

// redisFailover loses the last writes of a primary, on purpose: messages whose
// mark is lost and that are published once more come twice, and no others.
func redisFailover(r *rowTest) {
	primary, replica := r.ownRedis(), r.ownRedis()
	replication := r.network("tcp://" + primary.Addr())
	n := r.network(primary.URL())
	p := r.pipeline(pipelineConfig{redis: n.url})
	host, port, err := net.SplitHostPort(replication.proxy.Listen)
	require.NoError(r, err)
	r.redisCommand(replica.Addr(), "REPLICAOF", host, port)
	p.eventually(func() bool { return r.synced(replica.Addr()) }, "the replica does not follow")
	p.startTraffic()
	p.awaitMore(300)
	p.stopTraffic()
	p.drain()
	replication.stall()
	before := p.keys.completed.Load()
	late := p.messages("late", 200)
	p.publish(late...)
	p.drain()
	// When the primary is killed, more messages are in hand.
	p.startTraffic()
	p.awaitMore(100)
	require.NoError(r, primary.Kill())
	lost := int(p.keys.completed.Load() - before)
	r.redisCommand(replica.Addr(), "REPLICAOF", "NO", "ONE")
	n.redirect(replica.Addr())
	p.publish(late...)
	p.awaitMore(300)
	p.finish()
	r.bound = lost
	assert.Positive(r, r.ledger.Report().Duplicates, "no write was lost, so nothing is shown")
	r.note("the failover lost %d marks", lost)
}

// synced says whether a replica follows its primary.
func (r *rowTest) synced(addr string) bool {
	role, _ := r.redisCommand(addr, "ROLE").([]any)
	return len(role) > 3 && role[3] == "connected"
}

func redisFull(r *rowTest) {
	server := r.ownRedis()
	p := r.pipeline(pipelineConfig{redis: server.URL()})
	p.startTraffic()
	p.awaitMore(300)
	r.redisCommand(server.Addr(), "CONFIG", "SET", "maxmemory", "1mb")
	p.awaitNoAcks(2 * time.Second)
	assert.Positive(r, p.keyAnswers(metrics.IdempotencyDown))
	r.redisCommand(server.Addr(), "CONFIG", "SET", "maxmemory", "0")
	p.awaitMore(500)
	p.finish()
	assert.Zero(r, p.attemptsCounted(), "attempts counted")

	r.redisCommand(server.Addr(), "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	store := redisstore.New(p.client, redisstore.Config{})
	consumer, err := delivery.NewConsumer(p.transport, p.handle, delivery.ConsumerConfig{Idempotency: store, DeadLetters: p.manager})
	require.NoError(r, err)
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	var eviction *redisstore.EvictionError
	require.ErrorAs(r, consumer.Run(ctx), &eviction)
	assert.Equal(r, "allkeys-lru", eviction.Policy)
	require.NoError(r, store.Close())
}

func redisFlushed(r *rowTest) {
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	p.awaitMore(300)
	again := p.messages("again", 200)
	p.publish(again...)
	p.awaitMore(200)
	r.redisCommand(r.redis.Addr(), "SCRIPT", "FLUSH", "SYNC")
	p.publish(again...)
	p.awaitMore(300)
	p.stopTraffic()
	p.drain()
	assert.Zero(r, r.ledger.Report().Duplicates, "after SCRIPT FLUSH")
	p.startTraffic()
	p.awaitMore(100)
	r.redisCommand(r.redis.Addr(), "FLUSHALL", "SYNC")
	p.publish(again...)
	p.awaitMore(300)
	p.finish()
	r.bound = len(again) + concurrency
	assert.Zero(r, p.attemptsCounted(), "attempts counted")
}

// clockJumps moves all expiries, which has the same effect as a jump of Redis's clock.
func clockJumps(r *rowTest) {
	var slow atomic.Int64
	p := r.pipeline(pipelineConfig{handler: func(ctx context.Context, _ delivery.Message) error {
		if slow.Add(1)%50 != 0 {
			return nil
		}
		select { // some run while it happens
		case <-time.After(time.Second):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}})
	jump := redis.NewScript(`
		local moved = 0
		for _, key in ipairs(redis.call('KEYS', ARGV[2] .. '*')) do
			local left = redis.call('PTTL', key)
			if left > 0 then
				redis.call('PEXPIRE', key, math.max(1, left - ARGV[1]))
				moved = moved + 1
			end
		end
		return moved`)
	p.startTraffic()
	for range 3 {
		p.awaitMore(300)
		moved, err := jump.Run(r.ctx, p.client, []string{}, 16_000, p.transportConfig.Name).Int()
		require.NoError(r, err)
		assert.Positive(r, moved)
	}
	p.awaitMore(300)
	p.finish()
	assert.Zero(r, p.attemptsCounted(), "attempts counted")
}
