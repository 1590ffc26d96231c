package deliverytest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// BenchmarkTransport measures a transport with bodies of 1 KiB: publishing one
// by one, by many goroutines, and in batches, and consuming with an ack for
// each message. One op is one message.
func BenchmarkTransport(b *testing.B, open func(tb testing.TB) Harness) {
	b.Run("Publish", func(b *testing.B) { benchmarkPublish(b, open, 1, 1) })
	b.Run("PublishBatch100", func(b *testing.B) { benchmarkPublish(b, open, 1, 100) })
	b.Run("Publish64Callers", func(b *testing.B) { benchmarkPublish(b, open, 64, 1) })
	b.Run("Consume", func(b *testing.B) { benchmarkConsume(b, open, 100) })
	b.Run("PublishAndConsume", func(b *testing.B) { benchmarkBoth(b, open, 64, 100) })
}

// benchmarkWaiting is how many messages wait at most. Publishing is measured
// with the queue emptied in between, or it would soon measure a full queue.
const benchmarkWaiting = 10_000

func benchmarkEnvelope() delivery.Envelope {
	return delivery.Envelope{Message: delivery.Message{
		ID: delivery.NewID(), Recipient: "recipient", Type: "benchmark", Body: make([]byte, 1024), CreatedAt: time.Now(),
	}}
}

func benchmarkOpen(b *testing.B, open func(tb testing.TB) Harness) delivery.Transport {
	b.Helper()
	transport := open(b).withDefaults().Open(b)
	b.Cleanup(func() {
		if err := transport.Close(); err != nil {
			b.Errorf("Close: %v", err)
		}
	})
	return transport
}

// publish sends n messages in batches of size, from several callers.
func publish(b *testing.B, transport delivery.Transport, n, callers, size int) {
	var all sync.WaitGroup
	for caller := range callers {
		share := n / callers
		if caller < n%callers {
			share++
		}
		all.Go(func() {
			batch := make([]delivery.Envelope, min(size, max(1, share)))
			for i := range batch {
				batch[i] = benchmarkEnvelope()
			}
			for share > 0 {
				part := batch[:min(len(batch), share)]
				if errs := transport.Send(b.Context(), part); errs != nil {
					b.Errorf("Send: %v", errors.Join(errs...))
					return
				}
				share -= len(part)
			}
		})
	}
	all.Wait()
}

// consume receives and acks n messages.
func consume(ctx context.Context, b *testing.B, subscription delivery.Subscription, n int) {
	for n > 0 {
		incomings, err := receiveNext(ctx, subscription)
		if err != nil {
			if ctx.Err() == nil {
				b.Errorf("Receive: %v", err)
			}
			return
		}
		for _, incoming := range incomings {
			if err := incoming.Ack(); err != nil {
				b.Errorf("Ack: %v", err)
			}
		}
		n -= len(incomings)
	}
}

func benchmarkSubscribe(b *testing.B, transport delivery.Transport, prefetch int) delivery.Subscription {
	b.Helper()
	subscription, err := transport.Subscribe(b.Context(), delivery.SubscribeConfig{Prefetch: prefetch})
	if err != nil {
		b.Fatalf("Subscribe: %v", err)
	}
	return subscription
}

func benchmarkPublish(b *testing.B, open func(tb testing.TB) Harness, callers, size int) {
	transport := benchmarkOpen(b, open)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		n := min(left, benchmarkWaiting)
		publish(b, transport, n, callers, size)
		left -= n
		b.StopTimer()
		subscription := benchmarkSubscribe(b, transport, 1000)
		consume(b.Context(), b, subscription, n)
		if err := subscription.Close(); err != nil {
			b.Errorf("Close: %v", err)
		}
		b.StartTimer()
	}
}

func benchmarkConsume(b *testing.B, open func(tb testing.TB) Harness, prefetch int) {
	transport := benchmarkOpen(b, open)
	subscription := benchmarkSubscribe(b, transport, prefetch)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		n := min(left, benchmarkWaiting)
		b.StopTimer()
		publish(b, transport, n, 4, 100)
		b.StartTimer()
		consume(b.Context(), b, subscription, n)
		left -= n
	}
}

func benchmarkBoth(b *testing.B, open func(tb testing.TB) Harness, callers, prefetch int) {
	transport := benchmarkOpen(b, open)
	subscription := benchmarkSubscribe(b, transport, prefetch)
	b.ReportAllocs()
	b.ResetTimer()
	var consuming sync.WaitGroup
	consuming.Go(func() { consume(b.Context(), b, subscription, b.N) })
	publish(b, transport, b.N, callers, 1)
	consuming.Wait()
}
