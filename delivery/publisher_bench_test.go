package delivery_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
)

// BenchmarkPublish publishes from many goroutines by a transport that takes
// everything, and so shows what the Publisher itself costs.
func BenchmarkPublish(b *testing.B) {
	publisher, err := delivery.NewPublisher(discarding{}, delivery.PublisherConfig{})
	require.NoError(b, err)
	message := delivery.Message{ID: "m", Recipient: "r", Body: make([]byte, 100)}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := publisher.Publish(context.Background(), message); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
