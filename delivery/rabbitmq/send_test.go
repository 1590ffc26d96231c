package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// Where the topology is managed elsewhere, nothing is mended.
func TestUnroutable(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	open(t, c)
	c.Passive = true
	transport := open(t, c)
	raw(t, c.URL, func(channel *amqp.Channel) {
		require.NoError(t, channel.QueueUnbind(c.Name+".high", "high", c.Name, nil))
	})
	batch := make([]delivery.Envelope, 200)
	for i := range batch {
		batch[i] = message("m") // the same ID: the route tells them apart
		batch[i].Priority = delivery.Priority(i % 2)
	}
	errs := sendWithin(t, transport, time.Minute, batch...)
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

// A message that finds its queue or its binding deleted has the topology declared
// again, and gets through.
func TestReturnedMessagesMendTheTopology(t *testing.T) {
	t.Parallel()
	c := config(t, shared.AMQP(t))
	transport := open(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	batch := make([]delivery.Envelope, 100)
	for i := range batch {
		batch[i] = message(fmt.Sprint(i))
	}
	for name, test := range map[string]struct {
		remove func(*amqp.Channel) error
		send   func() error
	}{
		"work queue": {
			func(channel *amqp.Channel) error {
				_, err := channel.QueueDelete(c.Name+".normal", false, false, false)
				return err
			},
			func() error { return errors.Join(transport.Send(ctx, batch)...) },
		},
		"binding": {
			func(channel *amqp.Channel) error { return channel.QueueUnbind(c.Name+".normal", "normal", c.Name, nil) },
			func() error { return errors.Join(transport.Send(ctx, batch)...) },
		},
		"exchange": {
			func(channel *amqp.Channel) error { return channel.ExchangeDelete(c.Name, false, false) },
			func() error { return errors.Join(transport.Send(ctx, batch)...) },
		},
		"dead-letter queue": {
			func(channel *amqp.Channel) error {
				_, err := channel.QueueDelete(c.Name+".dlq", false, false, false)
				return err
			},
			func() error {
				return transport.DeadLetter(ctx, delivery.DeadLetter{ID: "1", Envelope: message("letter")})
			},
		},
		"delay queue": {
			func(channel *amqp.Channel) error {
				_, err := channel.QueueDelete(c.Name+".delay.0", false, false, false)
				return err
			},
			func() error { return errors.Join(transport.SendAfter(ctx, time.Second, batch[:1])...) },
		},
	} {
		raw(t, c.URL, func(channel *amqp.Channel) { require.NoError(t, test.remove(channel), name) })
		require.NoError(t, test.send(), name)
	}
}

// Where declaring does not help, a message that is returned fails, and others don't
// have the topology declared again and again.
func TestReturnedForGood(t *testing.T) {
	t.Parallel()
	c := light(t, shared.AMQP(t))
	c.Topology = func(name string, server Version) Topology {
		topology := withoutLadder(Quorum)(name, server)
		topology.Bindings = slices.DeleteFunc(topology.Bindings, func(b Binding) bool { return b.Destination == name+".normal" })
		return topology
	}
	transport := open(t, c)
	awaitConns(t, transport)
	begin := time.Now()
	for i := range 50 {
		require.ErrorIs(t, sendWithin(t, transport, time.Minute, message(fmt.Sprint(i)))[0], delivery.ErrUnroutable)
	}
	assert.LessOrEqual(t, transport.mender.rounds.Load(), 1+int64(time.Since(begin)/futileFor))
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
		if errs := sendWithin(t, transport, time.Minute, message(fmt.Sprint(i))); errs != nil {
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
	c.Window, c.PublishConnections = 2, 1
	transport := open(t, c)
	var all sync.WaitGroup
	for caller := range 8 {
		all.Go(func() {
			batch := make([]delivery.Envelope, 50)
			for i := range batch {
				batch[i] = message(fmt.Sprint(caller, "-", i))
			}
			assert.Nil(t, sendWithin(t, transport, time.Minute, batch...))
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
		errs := sendWithin(t, transport, 200*time.Millisecond, message("1"))
		return errors.Is(errs[0], context.DeadlineExceeded)
	}, time.Minute, time.Millisecond, "what never went out has the context's own error")
	var fault *ConnectError
	require.Eventually(t, func() bool {
		return errors.As(sendWithin(t, transport, 200*time.Millisecond, message("1"))[0], &fault)
	}, time.Minute, time.Millisecond, "and the cause, as soon as it is known")
	require.ErrorAs(t, transport.Ping(context.Background()), &fault)
	// Pausing takes effect when there is a connection.
	require.NoError(t, subscription.(delivery.Pauser).Pause(context.Background()))
	waiting := make(chan []error)
	go func() { waiting <- transport.Send(context.Background(), []delivery.Envelope{message("2")}) }()
	require.Eventually(t, func() bool { return transport.sends.Load() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, transport.Close())
	require.ErrorIs(t, (<-waiting)[0], delivery.ErrClosed)
}

// The largest body that Config takes by default is within the default limit of every
// broker, which is 16 MiB from 4.0 on.
func TestLargestBody(t *testing.T) {
	t.Parallel()
	transport := open(t, light(t, shared.AMQP(t)))
	subscription := subscribe(t, transport, 1)
	largest := message("largest")
	largest.Body = make([]byte, delivery.DefaultMaxBody)
	require.Nil(t, sendWithin(t, transport, time.Minute, largest))
	in := receive(t, subscription, 1)[0]
	e, err := in.Envelope()
	require.NoError(t, err)
	require.Len(t, e.Body, len(largest.Body))
	require.NoError(t, in.Ack())
}
