package delivery_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/metrics"
	"github.com/esh3artech/barid/retry"
)

// discarding is a transport that takes everything and keeps nothing.
type discarding struct{ delivery.Transport }

func (discarding) Send(context.Context, []delivery.Envelope) []error { return nil }

// BenchmarkRetryWorker sees to batches of the default size in a store in memory:
// claimed, sent or counted, and recorded.
func BenchmarkRetryWorker(b *testing.B) {
	for name, status := range map[string]delivery.Status{
		"retries":  delivery.StatusRetrying,
		"timeouts": delivery.StatusSent,
	} {
		b.Run(name, func(b *testing.B) {
			const batch = 500 // the default of RetryWorkerConfig.BatchSize
			ctx := context.Background()
			store := memory.NewStore(memory.StoreConfig{MaxRecords: 100_000_000})
			worker, err := delivery.NewRetryWorker(store, discarding{}, delivery.RetryWorkerConfig{
				Queue:       "bench",
				Retry:       retry.Exponential{Base: time.Hour, Max: time.Hour},
				DeadLetters: memory.New(memory.Config{}),
				Metrics:     metrics.NewCollector(metrics.CollectorConfig{}),
				Logger:      slog.New(slog.DiscardHandler),
			})
			require.NoError(b, err)
			records := make([]delivery.Record, batch)
			body := make([]byte, 1024)
			next, begin := 0, time.Now()
			var busy time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for i := range records {
					next++
					records[i] = delivery.Record{Message: delivery.Message{ID: strconv.Itoa(next), Recipient: "r", Body: body, CreatedAt: begin}}
					records[i].Queue, records[i].Status, records[i].DueAt = "bench", status, begin
				}
				require.Nil(b, store.Save(ctx, records...))
				b.StartTimer()
				started := time.Now()
				require.NoError(b, worker.RunOnce(ctx))
				busy += time.Since(started)
			}
			b.ReportMetric(float64(next)/busy.Seconds(), "messages/s")
		})
	}
}

// BenchmarkAcknowledger acknowledges a hundred messages at a time.
func BenchmarkAcknowledger(b *testing.B) {
	const batch = 100
	ctx := context.Background()
	store := memory.NewStore(memory.StoreConfig{MaxRecords: 100_000_000})
	acknowledger, err := delivery.NewAcknowledger(store, delivery.AcknowledgerConfig{Metrics: metrics.NewCollector(metrics.CollectorConfig{})})
	require.NoError(b, err)
	records, ids := make([]delivery.Record, batch), make([]string, batch)
	next := 0
	var busy time.Duration
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for i := range records {
			next++
			ids[i] = strconv.Itoa(next)
			records[i] = delivery.Record{Message: delivery.Message{ID: ids[i], Recipient: "r"}}
			records[i].Queue, records[i].Status, records[i].SentAt = "bench", delivery.StatusSent, time.Now()
		}
		require.Nil(b, store.Save(ctx, records...))
		b.StartTimer()
		started := time.Now()
		require.NoError(b, acknowledger.Delivered(ctx, ids...))
		busy += time.Since(started)
	}
	b.ReportMetric(float64(next)/busy.Seconds(), "messages/s")
}
