package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
	"github.com/esh3artech/barid/idempotency"
)

// pipelineBatch is how many messages one call publishes, on both sides.
const pipelineBatch = 64

// pipelineBarid takes messages through everything in one process: published,
// claimed, admitted, handled, marked, acked.
func pipelineBarid(ctx context.Context, _ addresses, n int) (time.Duration, error) {
	transport := memory.New(memory.Config{})
	publisher, err := delivery.NewPublisher(transport, delivery.PublisherConfig{})
	if err != nil {
		return 0, err
	}
	books := newLedger(n)
	consumer, collector, err := newConsumer(transport, books, idempotency.NewMemory(idempotency.MemoryConfig{}))
	if err != nil {
		return 0, err
	}
	ids, body := messageIDs(n), make([]byte, bodyBytes)
	publishing := make(chan error, 1)
	go func() {
		var err error
		batch := make([]delivery.Message, 0, pipelineBatch)
		for i := 0; i < n && err == nil; i += len(batch) {
			batch = batch[:0]
			for _, id := range ids[i:min(i+pipelineBatch, n)] {
				batch = append(batch, delivery.Message{ID: id, Recipient: "recipient", Body: body})
			}
			err = publisher.Publish(ctx, batch...)
		}
		publishing <- err
	}()
	err = consumeAll(ctx, consumer, books)
	if err = errors.Join(err, <-publishing); err != nil {
		return 0, err
	}
	// What was not acked would be back by now.
	depths, err := transport.Depth(ctx)
	if left := depths[delivery.Normal].Messages; left > 0 {
		err = fmt.Errorf("%d messages were not acked", left)
	}
	return books.elapsed(), errors.Join(err, checkDelivered(collector, n), transport.Close())
}
