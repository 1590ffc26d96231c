package faults

import (
	"context"
	"net/url"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/rabbitmq"
)

func accessRows() []row {
	return []row{
		{
			number: 35, fault: "permissions revoked", how: "set_permissions, close_all_connections",
			promise: "permanent error, logged once for each queue, recovers when they are back", run: permissionsRevoked,
		},
		{
			number: 36, fault: "vhost deleted, bad password", how: "delete_vhost, change_password",
			promise: "permanent error, logged once, recovers when it is back", run: vhostDeleted,
		},
		{
			number: 45, fault: "forbidden exchange", how: "messages for the delay ladder, by a user that may not write to it",
			promise: "they fail with the broker's words, all others go on", quick: true, run: forbiddenExchange,
		},
	}
}

// checkNoHotLoop checks that a permanent fault since begin has led to few lines in the
// log: each connection and each queue tries again about once in MaxReconnectDelay, and
// what it finds is logged at doubling intervals.
func (p *pipeline) checkNoHotLoop(begin time.Time) {
	p.Helper()
	lines := 0
	for _, event := range []string{"broker connect failed", "broker connection lost", "broker channel lost"} {
		lines += len(p.log.since(begin, event))
	}
	// The connections are lost once, and then there is one cause for each queue.
	assert.LessOrEqual(p, lines, 2*(publishConnections+5), "a hot loop")
	p.note("%d lines in %.0f s", lines, time.Since(begin).Seconds())
}

func permissionsRevoked(r *rowTest) {
	permit := func(pattern string) {
		_, err := r.broker.Ctl(context.WithoutCancel(r.ctx), "set_permissions", "guest", pattern, pattern, pattern)
		assert.NoError(r, err)
	}
	p := r.pipeline(pipelineConfig{})
	p.startTraffic()
	p.awaitMore(300)
	begin := time.Now()
	permit("^$")
	r.atEnd(func() { permit(".*") })
	r.ctl("close_all_connections", "fault")
	p.awaitNoAcks(5 * time.Second)
	p.checkNoHotLoop(begin)
	_, err := rabbitmq.Open(r.ctx, p.transportConfig)
	var reply *amqp.Error
	require.ErrorAs(r, err, &reply)
	assert.Equal(r, amqp.AccessRefused, reply.Code)
	permit(".*")
	p.awaitMore(500)
	p.finish()
}

func vhostDeleted(r *rowTest) {
	const user, vhost = "fault36", "fault36"
	create := func() {
		r.ctl("add_vhost", vhost)
		r.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
	}
	r.ctl("add_user", user, "first")
	r.atEnd(func() {
		for _, args := range [][]string{{"delete_vhost", vhost}, {"delete_user", user}} {
			_, err := r.broker.Ctl(context.Background(), args...)
			assert.NoError(r, err)
		}
	})
	create()
	access, err := url.Parse(r.broker.URL())
	require.NoError(r, err)
	access.User, access.Path = url.UserPassword(user, "first"), "/"+vhost
	p := r.pipeline(pipelineConfig{amqp: access.String()})
	p.startTraffic()
	p.awaitMore(300)

	permanent := func() {
		p.Helper()
		_, err := rabbitmq.Open(r.ctx, p.transportConfig)
		var fault *rabbitmq.ConnectError
		require.ErrorAs(r, err, &fault)
		assert.True(r, fault.Permanent, "not permanent: %v", err)
		assert.NotContains(r, err.Error(), "first", "the password is shown")
	}
	begin := time.Now()
	r.ctl("change_password", user, "second")
	r.ctl("close_all_connections", "--vhost", vhost, "fault")
	p.awaitNoAcks(4 * time.Second)
	p.checkNoHotLoop(begin)
	permanent()
	r.ctl("change_password", user, "first")
	p.awaitMore(300)

	p.stopTraffic()
	p.drain() // deleting a vhost with messages would be the admin's loss
	begin = time.Now()
	r.ctl("delete_vhost", vhost)
	p.startTraffic()
	p.awaitNoAcks(4 * time.Second)
	p.checkNoHotLoop(begin)
	permanent()
	create()
	p.awaitMore(500)
	p.finish()
}

// forbiddenExchange publishes what is forbidden beside what is not, over the same
// connections.
func forbiddenExchange(r *rowTest) {
	const user = "fault45"
	p := r.pipeline(pipelineConfig{})
	r.ctl("add_user", user, "secret")
	r.atEnd(func() {
		_, err := r.broker.Ctl(context.Background(), "delete_user", user)
		assert.NoError(r, err)
	})
	r.ctl("set_permissions", user, "^$", "^"+p.transportConfig.Name+"$", ".*")
	restricted := p.transportConfig
	access, err := url.Parse(restricted.URL)
	require.NoError(r, err)
	access.User = url.UserPassword(user, "secret")
	restricted.URL, restricted.Passive = access.String(), true
	other := p.open(restricted)
	r.atEnd(func() { p.mustEnd("Transport.Close", other.Close) })
	p.publishThrough(other)
	p.startTraffic()
	p.awaitMore(300)
	refused := 0
	for range 5 {
		for range 10 {
			message := p.messages("forbidden", 1)[0]
			message.NotBefore = time.Now().Add(time.Hour)
			err := p.tryPublish(p.timeout, message)[0]
			require.ErrorIs(r, err, delivery.ErrRefused)
			require.ErrorContains(r, err, "ACCESS_REFUSED")
			refused++
		}
		p.awaitMore(200)
	}
	assert.Equal(r, refused, p.refusedAs("refused"), "others were refused: %v", p.refused())
	p.finish()
	r.note("%d messages refused", refused)
}
