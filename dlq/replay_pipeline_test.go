package dlq_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/dlq"
	"github.com/esh3artech/barid/idempotency"
	"github.com/esh3artech/barid/retry"
)

// TestReplayThroughThePipeline takes a message from its failure to the dead
// letters and back: suppression of duplicates must not swallow the replay, and
// must suppress a second one.
func TestReplayThroughThePipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := memory.New(memory.Config{})
		publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
		require.NoError(t, err)
		letters := dlq.NewManager(dlq.NewMemory(dlq.MemoryConfig{}), publisher, dlq.Config{})

		var mu sync.Mutex
		var generations []int
		consumer, err := delivery.NewConsumer(transport, func(ctx context.Context, _ delivery.Message) error {
			attempt, _ := delivery.AttemptFrom(ctx)
			mu.Lock()
			defer mu.Unlock()
			generations = append(generations, attempt.Generation)
			if attempt.Generation < 2 {
				return retry.Permanent(context.DeadlineExceeded)
			}
			return nil
		}, delivery.ConsumerConfig{
			Idempotency: idempotency.NewMemory(idempotency.MemoryConfig{}),
			DeadLetters: letters,
		})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- consumer.Run(ctx) }()

		require.NoError(t, publisher.Publish(ctx, delivery.Message{ID: "m-1", Recipient: "r"}))
		for generation := range 2 {
			<-time.After(time.Minute)
			page, err := letters.List(ctx, dlq.Query{})
			require.NoError(t, err)
			require.Len(t, page.Entries, 1)
			assert.Equal(t, generation, page.Entries[0].Envelope.Generation)
			assert.Len(t, page.Entries[0].Envelope.History, generation+1, "the history goes along")
			id := page.Entries[0].ID
			var group sync.WaitGroup
			for range 10 {
				group.Go(func() { _, _ = letters.Requeue(ctx, id) })
			}
			group.Wait()
		}
		<-time.After(time.Minute)
		stats, err := letters.Stats(ctx)
		require.NoError(t, err)
		assert.Zero(t, stats.Total)

		cancel()
		require.NoError(t, <-ended)
		assert.Equal(t, []int{0, 1, 2}, generations, "each replay ran once")
		require.NoError(t, transport.Close())
	})
}
