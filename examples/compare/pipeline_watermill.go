package main

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// pipelineWatermill is the same over Watermill's channels within the process.
// They have no bound of their own: each message that waits has two goroutines.
// A few hundred in hand are what it is fastest with; a buffer for its channels
// and more of them only make it slower, and a second handler would get copies.
func pipelineWatermill(ctx context.Context, _ addresses, n int) (time.Duration, error) {
	channel := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	books := newLedger(n)
	ids, body := messageIDs(n), make([]byte, bodyBytes)
	inHand := make(chan struct{}, prefetch)
	router, err := newRouter(channel, "poison")
	if err != nil {
		return 0, err
	}
	router.AddConsumerHandler("handler", "topic", channel, func(m *message.Message) error {
		books.note(m.UUID)
		<-inHand
		return nil
	})
	publishing := make(chan error, 1)
	go func() {
		<-router.Running()
		var err error
		batch := make([]*message.Message, 0, pipelineBatch)
		for i := 0; i < n && err == nil; i += len(batch) {
			batch = batch[:0]
			for _, id := range ids[i:min(i+pipelineBatch, n)] {
				inHand <- struct{}{}
				m := message.NewMessage(id, body)
				m.Metadata["recipient"] = "recipient"
				batch = append(batch, m)
			}
			err = channel.Publish("topic", batch...)
		}
		publishing <- err
	}()
	if err := routeAll(ctx, router, books); err != nil {
		return 0, err
	}
	return books.elapsed(), errors.Join(<-publishing, books.check())
}
