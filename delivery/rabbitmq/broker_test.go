package rabbitmq

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// subscribe subscribes until the test's end.
func subscribe(t *testing.T, transport *Transport, prefetch int) delivery.Subscription {
	t.Helper()
	subscription, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{Prefetch: prefetch})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, subscription.Close()) })
	return subscription
}

// receive receives n incomings.
func receive(t *testing.T, subscription delivery.Subscription, n int) []delivery.Incoming {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all []delivery.Incoming
	for len(all) < n {
		incomings, err := subscription.Receive(ctx)
		require.NoError(t, err)
		all = append(all, incomings...)
	}
	require.Len(t, all, n)
	return all
}

func TestOpenRefused(t *testing.T) {
	t.Parallel()
	url := shared.AMQP(t)
	for name, test := range map[string]struct{ url, want string }{
		"wrong password": {strings.Replace(url, "guest:guest@", "guest:secret@", 1), "ACCESS_REFUSED"},
		"no such vhost":  {url + "nowhere", "not found"},
		"AMQPLAIN":       {strings.Replace(url, "guest:guest@", "guest:secret@", 1) + "?auth_mechanism=AMQPLAIN", "ACCESS_REFUSED"},
		"EXTERNAL":       {url + "?auth_mechanism=EXTERNAL", "mechanism"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(context.Background(), Config{URL: test.url, Name: "orders", Logger: testLogger(t)})
			var fault *ConnectError
			require.ErrorAs(t, err, &fault)
			assert.True(t, fault.Permanent)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "127.0.0.1:")
			assert.NotContains(t, err.Error(), "secret")
			require.NoError(t, fault.Context, "it was not tried until there was no more time")
		})
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	authority := httptest.NewTLSServer(nil) // has a certificate for 127.0.0.1
	defer authority.Close()
	network := newSecureNetwork(t, shared.AMQP(t), &tls.Config{Certificates: authority.TLS.Certificates, MinVersion: tls.VersionTLS12})
	c := config(t, network.url)
	_, err := Open(context.Background(), c)
	var fault *ConnectError
	require.ErrorAs(t, err, &fault)
	assert.True(t, fault.Permanent, "nobody vouches for the certificate")
	c.TLS = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	c.TLS.RootCAs.AddCert(authority.Certificate())
	transport := open(t, c)
	assert.Empty(t, c.TLS.ServerName, "the host's value is left alone")
	traffic := startTraffic(t, transport)
	traffic.flows(200)
	network.cut()
	traffic.flows(200)
	traffic.settle(1)
}

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
	require.Nil(t, send(t, transport, time.Minute, message("1")))

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
	require.ErrorIs(t, send(t, transport, time.Minute, message("2"))[0], delivery.ErrUnroutable)
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
	require.Eventually(t, func() bool { return send(t, transport, time.Minute, message("3")) == nil }, 2*time.Minute, 50*time.Millisecond)
}

func TestMissingExchangeIsDeclaredAgain(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	require.Nil(t, send(t, transport, time.Minute, message("1")))
	raw(t, c.URL, func(channel *amqp.Channel) { require.NoError(t, channel.ExchangeDelete(c.Name, false, false)) })
	require.Nil(t, send(t, transport, time.Minute, message("2")))
}

func TestUnroutable(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	raw(t, c.URL, func(channel *amqp.Channel) {
		require.NoError(t, channel.QueueUnbind(c.Name+".high", "high", c.Name, nil))
	})
	batch := make([]delivery.Envelope, 200)
	for i := range batch {
		batch[i] = message("m") // the same ID: the route tells them apart
		batch[i].Priority = delivery.Priority(i % 2)
	}
	errs := send(t, transport, time.Minute, batch...)
	require.Len(t, errs, len(batch))
	for i, err := range errs {
		if i%2 == 1 {
			require.ErrorIs(t, err, delivery.ErrUnroutable)
			require.ErrorContains(t, err, "high")
		} else {
			require.NoError(t, err)
		}
	}
}

func TestQueueDeletedUnderTheConsumer(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	subscription := subscribe(t, transport, 10)
	require.Nil(t, send(t, transport, time.Minute, message("1")))
	first := receive(t, subscription, 1)[0]
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(c.Name+".normal", false, false, false)
		require.NoError(t, err)
	})
	require.Eventually(t, func() bool {
		return errors.Is(first.Nack(), delivery.ErrStale) || errors.Is(first.Ack(), delivery.ErrSettled)
	},
		time.Minute, 10*time.Millisecond)
	require.Eventually(t, func() bool { return send(t, transport, time.Minute, message("2")) == nil }, 2*time.Minute, 50*time.Millisecond)
	e, err := receive(t, subscription, 1)[0].Envelope()
	require.NoError(t, err)
	assert.Equal(t, "2", e.ID)
	// The other levels did not notice, and a new subscription declares, too.
	raw(t, c.URL, func(channel *amqp.Channel) {
		_, err := channel.QueueDelete(c.Name+".low", false, false, false)
		require.NoError(t, err)
	})
	subscribe(t, transport, 10)
}

func TestForeignMessages(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	subscription := subscribe(t, transport, 100)
	kinds := 0
	raw(t, c.URL, func(channel *amqp.Channel) {
		require.NoError(t, channel.Confirm(false))
		for kind, value := range hostile() {
			kinds++
			confirm, err := channel.PublishWithDeferredConfirm(c.Name, "normal", true, false, amqp.Publishing{
				MessageId: kind, Body: []byte(kind), Headers: amqp.Table{headerRecipient: "you", "host": value},
			})
			require.NoError(t, err)
			require.True(t, confirm.Wait())
		}
	})
	for _, in := range receive(t, subscription, kinds) {
		_, err := in.Envelope()
		var fault *delivery.MalformedError
		require.ErrorAs(t, err, &fault)
		assert.Equal(t, fault.Envelope.ID, string(fault.Raw))
		_, again := in.Envelope()
		assert.Equal(t, err, again)
		assert.NoError(t, transport.DeadLetter(context.Background(), delivery.DeadLetter{
			ID: "letter of " + fault.Envelope.ID, Envelope: fault.Envelope, Raw: fault.Raw, Reason: delivery.ReasonMalformed,
			Error: fault.Error(), Source: "test", At: time.Unix(1, 2),
		}))
		assert.NoError(t, in.Ack())
	}
	require.Nil(t, send(t, transport, time.Minute, message("good")))
	good := receive(t, subscription, 1)[0]
	_, err := good.Envelope()
	require.NoError(t, err)
	require.NoError(t, good.Ack())
	raw(t, c.URL, func(channel *amqp.Channel) {
		for range kinds {
			d, ok, err := channel.Get(c.Name+".dlq", true)
			require.NoError(t, err)
			require.True(t, ok)
			assert.Equal(t, d.MessageId, string(d.Body))
			assert.Equal(t, "letter of "+d.MessageId, d.Headers[headerDeadID])
			assert.Equal(t, "malformed", d.Headers[headerDeadReason])
			assert.Contains(t, d.Headers[headerDeadError], "malformed")
			assert.Equal(t, "test", d.Headers[headerDeadSource])
			assert.Equal(t, int64(1_000_000_002), d.Headers[headerDeadAt])
			assert.Equal(t, amqp.Persistent, d.DeliveryMode)
		}
	})
}

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

func TestFullQueueRefuses(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	c.Topology = func(name string, server Version) Topology {
		topology := Quorum(name, server)
		for _, q := range topology.Queues {
			if q.Name == name+".normal" {
				q.Arguments["x-max-length"], q.Arguments["x-overflow"] = int64(5), "reject-publish"
			}
		}
		return topology
	}
	transport := open(t, c)
	refused := 0
	for i := range 50 {
		if errs := send(t, transport, time.Minute, message(fmt.Sprint(i))); errs != nil {
			require.ErrorIs(t, errs[0], delivery.ErrRefused)
			refused++
		}
	}
	assert.Positive(t, refused)
	depth, err := transport.Depth(context.Background())
	require.NoError(t, err)
	assert.Equal(t, int64(50-refused), depth[delivery.Normal].Messages, "nothing was dropped silently")
}

// A window smaller than a batch, and than the number of callers, blocks nobody.
func TestSmallWindow(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	c.Window, c.Lanes = 2, 1
	transport := open(t, c)
	var all sync.WaitGroup
	for caller := range 8 {
		all.Go(func() {
			batch := make([]delivery.Envelope, 50)
			for i := range batch {
				batch[i] = message(fmt.Sprint(caller, "-", i))
			}
			assert.Nil(t, send(t, transport, time.Minute, batch...))
		})
	}
	all.Wait()
	depth, err := transport.Depth(context.Background())
	require.NoError(t, err)
	assert.Equal(t, int64(400), depth[delivery.Normal].Messages)
}

func TestSendWithoutABroker(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, shared.AMQP(t))
	transport := open(t, config(t, network.url))
	subscription := subscribe(t, transport, 10)
	require.NoError(t, transport.Ping(context.Background()))
	network.close()
	require.Eventually(t, func() bool {
		errs := send(t, transport, 200*time.Millisecond, message("1"))
		return errors.Is(errs[0], context.DeadlineExceeded)
	}, time.Minute, time.Millisecond, "what never went out has the context's own error")
	var fault *ConnectError
	require.ErrorAs(t, transport.Ping(context.Background()), &fault)
	// Pausing takes effect when there is a connection.
	require.NoError(t, subscription.(delivery.Pauser).Pause(context.Background()))
	waiting := make(chan []error)
	go func() { waiting <- transport.Send(context.Background(), []delivery.Envelope{message("2")}) }()
	require.Eventually(t, func() bool { return transport.shipments.Load() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, transport.Close())
	require.ErrorIs(t, (<-waiting)[0], delivery.ErrClosed)
}

func TestPauseOutlivesAReconnect(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, shared.AMQP(t))
	transport := open(t, config(t, network.url))
	subscription := subscribe(t, transport, 10)
	pauser := subscription.(delivery.Pauser)
	ctx := context.Background()
	require.NoError(t, pauser.Pause(ctx))
	require.NoError(t, pauser.Pause(ctx))
	network.cut()
	require.Nil(t, send(t, transport, time.Minute, message("1")))
	require.Eventually(t, func() bool { return transport.Ping(ctx) == nil }, time.Minute, 10*time.Millisecond)
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err := subscription.Receive(short)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, pauser.Resume(ctx))
	receive(t, subscription, 1)
}

func TestSubscribeFaults(t *testing.T) {
	t.Parallel()
	transport := open(t, config(t, shared.AMQP(t)))
	for _, prefetch := range []int{-1, 65536} {
		_, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{Prefetch: prefetch})
		require.ErrorIs(t, err, ErrConfig)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, transport.Ping(ctx), context.Canceled)
	require.ErrorIs(t, transport.Send(ctx, []delivery.Envelope{message("1")})[0], context.Canceled)
}

// A Subscribe that waits for a broker ends with the transport.
func TestSubscribeEndsWithClose(t *testing.T) {
	t.Parallel()
	network := newNetwork(t, shared.AMQP(t))
	c := config(t, network.url)
	failed := make(chan struct{}, 1)
	c.Logger = slog.New(slog.NewTextHandler(signalWriter{text: "purpose=consume", seen: failed}, nil))
	transport := open(t, c)
	network.close()
	subscribed := make(chan error, 1)
	go func() {
		_, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{})
		subscribed <- err
	}()
	<-failed
	require.NoError(t, transport.Close())
	select {
	case err := <-subscribed:
		require.ErrorIs(t, err, delivery.ErrClosed)
	case <-time.After(time.Minute):
		require.Fail(t, "Subscribe goes on")
	}
}
