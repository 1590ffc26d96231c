package rabbitmq

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// A user who may write to the exchange and do nothing else publishes with Passive,
// although from 4.3 on the broker does not let it look at the rest of the topology.
func TestPublishOnlyUser(t *testing.T) {
	t.Parallel()
	broker := shared.RabbitMQ(t)
	c := light(t, broker.URL())
	open(t, c)
	user := strings.ToLower(c.Name)
	for _, command := range [][]string{
		{"add_user", user, "secret"},
		{"set_permissions", user, "^$", "^" + regexp.QuoteMeta(c.Name) + "$", "^$"},
	} {
		_, err := broker.Ctl(t.Context(), command...)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := broker.Ctl(context.Background(), "delete_user", user)
		require.NoError(t, err)
	})
	location, err := url.Parse(broker.URL())
	require.NoError(t, err)
	location.User = url.UserPassword(user, "secret")
	c.URL, c.Passive = location.String(), true
	transport := open(t, c)
	require.Nil(t, sendWithin(t, transport, time.Minute, message("1")))
	// What it may not do says so.
	var reply *amqp.Error
	errs := transport.DeadLetter(t.Context(), delivery.DeadLetter{ID: "2", At: time.Now(), Envelope: message("2"), Reason: delivery.ReasonPermanent})
	require.ErrorAs(t, errs, &reply)
	require.Equal(t, amqp.AccessRefused, reply.Code)
	_, err = transport.Subscribe(t.Context(), delivery.SubscribeConfig{})
	require.ErrorAs(t, err, &reply)
	require.Equal(t, amqp.AccessRefused, reply.Code)
}
