package delivery_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/breaker"
	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// BenchmarkPipeline takes messages through everything, in process: published,
// claimed, admitted, handled, marked, acked.
func BenchmarkPipeline(b *testing.B) {
	collector := metrics.NewCollector(metrics.CollectorConfig{})
	transport := memory.New(memory.Config{})
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{Metrics: collector})
	require.NoError(b, err)
	handled := make(chan struct{}, 1024)
	consumer, err := delivery.NewConsumer(transport, func(context.Context, delivery.Message) error {
		handled <- struct{}{}
		return nil
	}, delivery.ConsumerConfig{
		Retry:       retry.Exponential{},
		Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{MaxKeys: 20_000_000}),
		Breaker:     breaker.New(breaker.Config{}),
		Metrics:     collector,
	})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- consumer.Run(ctx) }()

	const step = 64
	ids := make([]string, b.N)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	batch := make([]delivery.Message, step)
	body := make([]byte, 1024)
	b.ReportAllocs()
	b.ResetTimer()
	begin := time.Now()
	go func() {
		for i := 0; i < b.N; i += step {
			batch := batch[:min(step, b.N-i)]
			for k := range batch {
				batch[k] = delivery.Message{ID: ids[i+k], Recipient: "r", Body: body}
			}
			if publisher.Publish(ctx, batch...) != nil {
				return
			}
		}
	}()
	for range b.N {
		<-handled
	}
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "messages/s")
	b.StopTimer()
	cancel()
	require.NoError(b, <-ended)
	require.NoError(b, transport.Close())
}
