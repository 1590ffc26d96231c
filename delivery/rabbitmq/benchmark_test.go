package rabbitmq

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/deliverytest"
	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

func BenchmarkTransport(b *testing.B) { deliverytest.BenchmarkTransport(b, harnessNear) }

// harnessNear has no network between.
func harnessNear(tb testing.TB) deliverytest.Harness {
	url, name := shared.AMQP(tb), servers.Unique(tb)
	return deliverytest.Harness{Open: func(tb testing.TB) delivery.Transport {
		return open(tb, Config{URL: url, Name: name})
	}}
}

const benchmarkCallers = 64

// BenchmarkPublish compares 64 callers that publish one by one through a
// Transport with 64 callers of a bare channel with the same window, confirms
// awaited, to a quorum queue. The two take turns; ratio is ours to theirs.
func BenchmarkPublish(b *testing.B) {
	for _, connections := range []int{1, 2, 4} {
		b.Run("connections="+strconv.Itoa(connections), func(b *testing.B) {
			url, name := shared.AMQP(b), servers.Unique(b)
			transport := open(b, Config{URL: url, Name: name, PublishConnections: connections})
			body := make([]byte, 1024)
			ours := func(n int) {
				callers(n, func(share int) {
					batch := []delivery.Envelope{{Message: delivery.Message{
						Recipient: "recipient", Type: "benchmark", Body: body, CreatedAt: time.Now(),
					}}}
					for range share {
						batch[0].ID = delivery.NewID()
						if errs := transport.Send(context.Background(), batch); errs != nil {
							b.Error(errors.Join(errs...))
							return
						}
					}
				})
			}
			raw(b, url, func(channel *amqp.Channel) {
				require.NoError(b, channel.Confirm(false))
				window := make(chan struct{}, 512)
				theirs := func(n int) {
					callers(n, func(share int) {
						for range share {
							window <- struct{}{}
							confirm, err := channel.PublishWithDeferredConfirm(name, "low", true, false, amqp.Publishing{
								DeliveryMode: amqp.Persistent, MessageId: delivery.NewID(), Type: "benchmark", Timestamp: time.Now(), Body: body,
								Headers: amqp.Table{"recipient": "recipient"},
							})
							if err != nil || !confirm.Wait() {
								b.Error("not confirmed", err)
								return
							}
							<-window
						}
					})
				}
				compare(b, ours, theirs, func() {
					for _, level := range transport.Topology().Levels {
						_, err := channel.QueuePurge(level.Queue, false)
						require.NoError(b, err)
					}
				})
			})
		})
	}
}

// BenchmarkConsume compares receiving and acking through a Subscription with a
// bare consumer that acks each message, with the same prefetch.
func BenchmarkConsume(b *testing.B) {
	const prefetch = 256
	url, name := shared.AMQP(b), servers.Unique(b)
	transport := open(b, Config{URL: url, Name: name})
	fill := func(n int) {
		batch := make([]delivery.Envelope, n)
		for i := range batch {
			batch[i].Message = delivery.Message{ID: delivery.NewID(), Recipient: "recipient", Body: make([]byte, 1024)}
		}
		require.Nil(b, transport.Send(context.Background(), batch))
	}
	ours := func(n int) {
		subscription, err := transport.Subscribe(context.Background(), delivery.SubscribeConfig{Prefetch: prefetch})
		require.NoError(b, err)
		for n > 0 {
			incomings, err := subscription.Receive(context.Background())
			require.NoError(b, err)
			for _, in := range incomings {
				_, err := in.Envelope()
				require.NoError(b, err)
				require.NoError(b, in.Ack())
			}
			n -= len(incomings)
		}
		require.NoError(b, subscription.Close())
	}
	theirs := func(n int) {
		raw(b, url, func(channel *amqp.Channel) {
			require.NoError(b, channel.Qos(prefetch, 0, false))
			deliveries, err := channel.Consume(name+".normal", "", false, false, false, false, nil)
			require.NoError(b, err)
			for range n {
				d := <-deliveries
				require.NoError(b, d.Ack(false))
			}
		})
	}
	compare(b, func(n int) { b.StopTimer(); fill(n); b.StartTimer(); ours(n) },
		func(n int) { b.StopTimer(); fill(n); b.StartTimer(); theirs(n) }, func() {})
}

// callers shares n calls among 64 goroutines.
func callers(n int, call func(share int)) {
	var all sync.WaitGroup
	for i := range benchmarkCallers {
		share := n / benchmarkCallers
		if i < n%benchmarkCallers {
			share++
		}
		all.Go(func() { call(share) })
	}
	all.Wait()
}

// compare runs both by turns, in portions, and reports messages per second.
func compare(b *testing.B, ours, theirs func(n int), between func()) {
	const portion = 10_000
	var mine, other time.Duration
	ours(benchmarkCallers)
	theirs(benchmarkCallers)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += portion {
		n := min(portion, b.N-done)
		start := b.Elapsed()
		ours(n)
		middle := b.Elapsed()
		between()
		again := b.Elapsed()
		theirs(n)
		mine += middle - start
		other += b.Elapsed() - again
		between()
	}
	b.ReportMetric(float64(b.N)/mine.Seconds(), "ours/s")
	b.ReportMetric(float64(b.N)/other.Seconds(), "bare/s")
	b.ReportMetric(other.Seconds()/mine.Seconds(), "ratio")
}

// BenchmarkOpen opens one new name after another, over connections that they share.
func BenchmarkOpen(b *testing.B) {
	connections, err := NewConnections(ConnectionsConfig{URL: shared.AMQP(b)})
	require.NoError(b, err)
	prefix, number := servers.Unique(b), 0
	open(b, Config{Connections: connections, Name: prefix})
	for b.Loop() {
		number++
		open(b, Config{Connections: connections, Name: prefix + strconv.Itoa(number)})
	}
}
