package memory_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/esh3artech/barid/delivery"
	"github.com/esh3artech/barid/delivery/memory"
)

// One message after the other goes in and out: what the transport itself costs.
func BenchmarkRoundTrip(b *testing.B) {
	ctx := b.Context()
	transport := memory.New(memory.Config{})
	subscription, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.NoError(b, err)
	batch := []delivery.Envelope{envelope("1", delivery.Normal)}
	b.ReportAllocs()
	for b.Loop() {
		transport.Send(ctx, batch)
		incomings, _ := subscription.Receive(ctx)
		incomings[0].Ack() //nolint:errcheck // measured, not tested
	}
	require.NoError(b, transport.Close())
}

// The same, a hundred at a time. One op is a hundred messages.
func BenchmarkRoundTrip100(b *testing.B) {
	ctx := b.Context()
	transport := memory.New(memory.Config{})
	subscription, err := transport.Subscribe(ctx, delivery.SubscribeConfig{})
	require.NoError(b, err)
	batch := make([]delivery.Envelope, 100)
	for i := range batch {
		batch[i] = envelope("1", delivery.Normal)
	}
	b.ReportAllocs()
	for b.Loop() {
		transport.Send(ctx, batch)
		incomings, _ := subscription.Receive(ctx)
		for _, incoming := range incomings {
			incoming.Ack() //nolint:errcheck // measured, not tested
		}
	}
	require.NoError(b, transport.Close())
}
