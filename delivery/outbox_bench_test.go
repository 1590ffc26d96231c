package delivery_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

// BenchmarkOutbox publishes messages that are saved in memory, one a call, until
// all are sent and recorded.
func BenchmarkOutbox(b *testing.B) {
	store := memory.NewStore(memory.StoreConfig{MaxRecords: b.N})
	publisher, err := delivery.NewPublisher(&sendOnly{}, delivery.PublisherConfig{Store: store, MaxOutgoing: b.N})
	require.NoError(b, err)
	ids := make([]string, b.N)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	body := make([]byte, 100)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := publisher.Publish(context.Background(), delivery.Message{ID: ids[i], Recipient: "r", Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, publisher.Close(context.Background()))
}
