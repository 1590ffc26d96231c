package servers_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func publish(t *testing.T, url, queue string) {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	channel, err := conn.Channel()
	require.NoError(t, err)
	_, err = channel.QueueDeclare(queue, true, false, false, false, nil)
	require.NoError(t, err)
	require.NoError(t, channel.Confirm(false))
	confirm, err := channel.PublishWithDeferredConfirmWithContext(t.Context(), "", queue, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte("kept")})
	require.NoError(t, err)
	ok, err := confirm.WaitContext(t.Context())
	require.NoError(t, err)
	require.True(t, ok)
}

func TestRabbitMQLife(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	server := servers.StartRabbitMQ(t, servers.RabbitMQConfig{Conf: "channel_max = 77"})
	where, err := url.Parse(server.URL())
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(server.Port()), where.Port())
	queue := servers.Unique(t)
	publish(t, server.URL(), queue)

	limit, err := server.Ctl(ctx, "eval", "application:get_env(rabbit, channel_max).")
	require.NoError(t, err)
	assert.Equal(t, "{ok,77}", limit, "Conf is read")
	_, err = server.Ctl(ctx, "no_such_command")
	require.ErrorContains(t, err, "no_such_command")

	require.NoError(t, server.SetAlarm(ctx, servers.MemoryAlarm))
	alarms, err := server.Ctl(ctx, "eval", "rabbit_alarm:get_alarms().")
	require.NoError(t, err)
	assert.Contains(t, alarms, "memory")
	require.NoError(t, server.ClearAlarm(ctx, servers.MemoryAlarm))
	alarms, err = server.Ctl(ctx, "eval", "rabbit_alarm:get_alarms().")
	require.NoError(t, err)
	assert.Equal(t, "[]", alarms)

	require.NoError(t, server.Pause())
	require.NoError(t, server.Resume())
	require.NoError(t, server.Kill())
	assert.False(t, server.Running())
	require.NoError(t, server.Start(ctx))
	require.NoError(t, server.Stop())
	require.NoError(t, server.Start(ctx))
	waiting, err := server.Ctl(ctx, "list_queues", "--no-table-headers", "name", "messages")
	require.NoError(t, err)
	assert.Equal(t, []string{queue, "1"}, strings.Fields(waiting), "the message outlived both")

	require.NoError(t, server.Close())
	assert.NoDirExists(t, server.Dir())
}

func TestSharedRabbitMQ(t *testing.T) {
	t.Setenv(servers.EnvAMQPURL, "")
	publish(t, shared.AMQP(t), servers.Unique(t))
	assert.Equal(t, shared.AMQP(t), shared.RabbitMQ(t).URL(), "the same server each time")
}

func TestUnique(t *testing.T) {
	name := servers.Unique(t)
	assert.Regexp(t, `^TestUnique-[a-z0-9]{12}$`, name)
	assert.NotEqual(t, name, servers.Unique(t))
	t.Run("with spaces/and more "+strings.Repeat("long ", 50), func(t *testing.T) {
		assert.Regexp(t, `^[A-Za-z0-9-]{80}$`, servers.Unique(t))
	})
}
