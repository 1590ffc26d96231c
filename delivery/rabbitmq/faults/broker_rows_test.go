package faults

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func brokerRows() []row {
	return []row{
		{
			number: 1, fault: "broker killed", how: "SIGKILL, start again", promise: "no loss, second copies <= W + U",
			run: func(r *rowTest) { brokerDown(r, r.broker.Kill) },
		},
		{
			number: 2, fault: "broker restarted", how: "SIGTERM, start again", promise: "no loss, second copies <= W + U",
			run: func(r *rowTest) { brokerDown(r, r.broker.Stop) },
		},
		{
			number: 3, fault: "broker hangs", how: "SIGSTOP 10 s, SIGCONT",
			promise: "outcome unknown at the deadline, nothing accepted meanwhile", run: brokerHangs,
		},
		{
			number: 4, fault: "connections closed by the admin", how: "rabbitmqctl close_all_connections, twice",
			promise: "reconnects", quick: true, run: connectionsClosed,
		},
		{
			number: 5, fault: "channel exception", how: "publish to an exchange that is missing",
			promise: "that call is unroutable, the others go through; a declaring transport mends it", quick: true, run: channelException,
		},
		{
			number: 6, fault: "memory alarm", how: "rabbit_alarm:set_alarm",
			promise: "blocked at the deadline, consumers go on", quick: true,
			run: func(r *rowTest) { alarm(r, servers.MemoryAlarm) },
		},
		{
			number: 7, fault: "disk alarm", how: "rabbit_alarm:set_alarm",
			promise: "blocked at the deadline, consumers go on",
			run:     func(r *rowTest) { alarm(r, servers.DiskAlarm) },
		},
	}
}

func brokerDown(r *rowTest, down func() error) {
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	p.awaitMore(500)
	require.NoError(r, down())
	r.atEnd(func() { assert.NoError(r, r.broker.Start(context.Background())) })
	r.wait(time.Second)
	require.NoError(r, r.broker.Start(r.ctx))
	p.awaitMore(500)
	p.finish()
	p.checkCopies(1)
}

func brokerHangs(r *rowTest) {
	p := r.pipeline(pipelineConfig{timeout: 2 * time.Second})
	p.startTraffic()
	p.awaitMore(500)
	require.NoError(r, r.broker.Pause())
	r.atEnd(func() { assert.NoError(r, r.broker.Resume()) })
	r.wait(time.Second) // until all of it hangs
	begin := time.Now()
	r.wait(9 * time.Second)
	assert.False(r, p.acceptedSince(begin), "accepted by a broker that hangs")
	assert.Positive(r, p.refusedAs("unknown"))
	require.NoError(r, r.broker.Resume())
	p.awaitMore(500)
	p.finish()
	r.note("%d outcomes unknown", p.refusedAs("unknown"))
	p.checkCopies(1)
}

func connectionsClosed(r *rowTest) {
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	for range 2 {
		p.awaitMore(300)
		r.ctl("close_all_connections", "fault")
	}
	p.awaitMore(300)
	p.finish()
	assert.GreaterOrEqual(r, p.disconnects("publish"), 2)
	p.checkCopies(2)
}

// channelException deletes the exchange of delays of one second. Publishing to it ends
// a channel, with everything that is in flight there.
func channelException(r *rowTest) {
	p := r.pipeline(pipelineConfig{})
	passive := p.transportConfig
	passive.Passive = true
	other := p.open(passive)
	r.atEnd(func() { p.mustEnd("Transport.Close", other.Close) })
	p.publishThrough(other)
	p.startTraffic()
	p.awaitMore(300)
	delayed := func(name string) []error {
		message := p.messages(name, 1)[0]
		message.NotBefore = time.Now().Add(1900 * time.Millisecond)
		return p.tryPublish(10*time.Second, message)
	}
	p.raw(func(channel *amqp.Channel) {
		require.NoError(r, channel.ExchangeDelete("barid.delay.0", false, false))
	})
	for range 3 {
		require.ErrorIs(r, delayed("missing")[0], delivery.ErrUnroutable)
		p.awaitMore(200)
	}
	assert.Positive(r, p.log.count("exchanges missing"))
	assert.Equal(r, 3, p.refusedAs("unroutable"), "others were refused: %v", p.refused())
	// A transport that may declare makes the exchange again.
	p.publishThrough(p.transport)
	require.NoError(r, delayed("mended")[0])
	p.awaitMore(200)
	p.finish()
}

func alarm(r *rowTest, kind servers.Alarm) {
	p := r.pipeline(pipelineConfig{timeout: time.Second})
	p.startTraffic()
	p.awaitMore(200)
	p.consumer.Pause() // so that there is something to go on with
	effects := p.effects.Load()
	p.eventually(func() bool { return p.accepted.Load() > effects+300 }, "no backlog")
	require.NoError(r, r.broker.SetAlarm(r.ctx, kind))
	r.atEnd(func() { assert.NoError(r, r.broker.ClearAlarm(context.Background(), kind)) })
	p.eventually(func() bool { return p.refusedAs("blocked") > 50 }, "publishers are not told that the broker is blocked")
	begin := time.Now()
	p.consumer.Resume()
	p.eventually(func() bool { return p.effects.Load() > effects+200 }, "consumers don't go on")
	p.eventually(func() bool { return p.refusedAs("blocked") > 100 }, "publishers are no longer told that the broker is blocked")
	assert.False(r, p.acceptedSince(begin), "accepted by a broker that is blocked")
	require.NoError(r, p.transport.Ping(r.ctx))
	require.NoError(r, r.broker.ClearAlarm(r.ctx, kind))
	p.awaitMore(300)
	p.finish()
	r.note("%d messages blocked", p.refusedAs("blocked"))
}
